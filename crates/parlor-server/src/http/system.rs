//! The server about itself: health, metrics, descriptions, and the real-time doors.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use parlor_proto::{
    ErrorCode,
    frame::{SyncAnswer, SyncQuery},
    server::{Health, Registration, ServerInfo},
};

use super::extract::{Query, Signed, check_origin};
use crate::{App, config::RegistrationRule, error::Refusal, ws};

pub async fn healthz() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

pub async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Health>, Refusal> {
    if app.hub.is_draining() {
        return Err(parlor_core::Error::unavailable().into());
    }
    app.core.probe().await?;
    Ok(Json(Health { status: "ok".to_owned() }))
}

pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text(&app)).into_response()
}

pub async fn server(State(app): State<Arc<App>>) -> Result<Json<ServerInfo>, Refusal> {
    let is_fresh = app.core.accounts().is_fresh().await?;
    let registration = match (is_fresh, app.config.registration) {
        (true, _) if app.core.settings().setup_code.is_some() => Registration::Setup,
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

pub async fn openapi() -> Json<serde_json::Value> {
    Json(super::openapi::document())
}

pub async fn asyncapi() -> Json<serde_json::Value> {
    Json(super::asyncapi::document())
}

/// Takes what browsers report about the content policy; needs neither session nor JSON.
pub async fn csp_report(body: axum::body::Bytes) -> StatusCode {
    // The report names addresses of the user's pages: only its size is noted.
    tracing::warn!(bytes = body.len(), "a browser reports a breach of the content policy");
    StatusCode::NO_CONTENT
}

pub async fn socket(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    check_origin(&headers, &app.config)?;
    let upgrade = upgrade
        .map_err(|_| Refusal::new(ErrorCode::BadRequest, "this address speaks WebSocket only"))?;
    if app.hub.is_draining() {
        return Err(parlor_core::Error::unavailable().into());
    }
    Ok(ws::socket::accept(app, upgrade))
}

pub async fn sync(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Query(query): Query<SyncQuery>,
) -> Result<Json<SyncAnswer>, Refusal> {
    Ok(Json(ws::poll::sync(&app, caller, query).await?))
}
