//! The server about itself: health, metrics, descriptions, and the real-time doors.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use parlor_proto::{
    frame::{SyncAnswer, SyncQuery},
    server::{Health, Registration, ServerInfo},
};

use super::{
    accept::Seat,
    extract::{From, Query, Report, Signed},
    remote::Remote,
};
use crate::{
    App,
    config::RegistrationRule,
    error::Refusal,
    ws::{self, wire::Upgrade},
};

/// Anybody may ask whether the server is ready, and a probe writes durably: so not at each call.
const PROBE_HOLDS: Duration = Duration::from_secs(1);

pub async fn healthz() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

pub async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Health>, Refusal> {
    if app.hub.is_draining() {
        return Err(parlor_core::Error::unavailable().into());
    }
    let mut probed = app.probed.lock().await;
    let now = app.clock.monotonic();
    if probed.is_none_or(|until| now >= until) {
        *probed = None;
        app.core.probe().await?;
        *probed = Some(now + PROBE_HOLDS);
    }
    Ok(Json(Health { status: "ok".to_owned() }))
}

pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    if app.config.metrics_listen.is_some() {
        return Refusal::not_found().into_response();
    }
    own_metrics(State(app)).await
}

/// The metrics at an address of their own.
pub async fn own_metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text(&app)).into_response()
}

pub async fn server(
    State(app): State<Arc<App>>,
    From(peer): From,
) -> Result<Json<ServerInfo>, Refusal> {
    let is_fresh = app.core.accounts().is_fresh().await?;
    let registration = match (is_fresh, app.config.registration) {
        // Whoever sits at the machine itself needs no code.
        (true, _) if !peer.address.is_loopback() => Registration::Setup,
        (true, _) | (_, RegistrationRule::Open) => Registration::Open,
        (false, RegistrationRule::Closed) => Registration::Closed,
    };
    Ok(Json(ServerInfo {
        name: app.config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        registration,
        limits: app.core.settings().limits.clone(),
        features: Vec::new(),
    }))
}

// The documents never change while the server runs, and anybody may ask for them.
static OPENAPI: LazyLock<String> = LazyLock::new(|| super::openapi::document().to_string());
static ASYNCAPI: LazyLock<String> = LazyLock::new(|| super::asyncapi::document().to_string());

pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI.as_str()).into_response()
}

pub async fn asyncapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], ASYNCAPI.as_str()).into_response()
}

/// Takes what browsers report about the content policy; needs neither session nor JSON.
pub async fn csp_report(State(app): State<Arc<App>>, Report(report): Report) -> StatusCode {
    // A report names addresses of people's pages, and anybody may send one: it is only counted.
    app.metrics.policy_reports.inc();
    tracing::debug!(bytes = report.len(), "a browser reports a breach of the content policy");
    StatusCode::NO_CONTENT
}

pub async fn socket(
    State(app): State<Arc<App>>,
    remote: Remote,
    seat: Option<Extension<Seat>>,
    upgrade: Result<Upgrade, Refusal>,
) -> Result<Response, Refusal> {
    remote.check_origin(&app.config)?;
    let upgrade = upgrade?;
    if app.hub.is_draining() {
        return Err(parlor_core::Error::unavailable().into());
    }
    Ok(ws::socket::accept(app, upgrade, seat.map(|Extension(seat)| seat)))
}

pub async fn sync(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Query(query): Query<SyncQuery>,
) -> Result<Json<SyncAnswer>, Refusal> {
    Ok(Json(ws::poll::sync(&app, caller, query).await?))
}
