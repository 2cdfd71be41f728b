//! Devices: sign-in, the list of sessions, sign-out, tickets, and where to connect.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use parlor_proto::devices::{DeviceList, Gateway, SignIn, Ticket, TicketRequest};

use super::extract::{Body, Carrier, From, PeerAddress, Signed, id, is_secure};
use crate::{App, error::Refusal};

pub async fn sign_in(
    State(app): State<Arc<App>>,
    From(peer): From,
    carrier: Carrier,
    Body(request): Body<SignIn>,
) -> Result<Response, Refusal> {
    let mut signed = app.core.devices().sign_in(request, &peer).await?;
    let headers = carrier.carry(&mut signed.session, app.config.session_days);
    Ok((StatusCode::CREATED, headers, Json(signed)).into_response())
}

pub async fn list(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
) -> Result<Json<DeviceList>, Refusal> {
    Ok(Json(DeviceList { items: app.core.devices().list(&caller).await?, next: None }))
}

pub async fn sign_out(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    carrier: Carrier,
) -> Result<Response, Refusal> {
    app.core.devices().revoke(&caller, caller.device_id).await?;
    Ok((StatusCode::NO_CONTENT, carrier.clear()).into_response())
}

pub async fn revoke(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(device_id): Path<String>,
) -> Result<StatusCode, Refusal> {
    app.core.devices().revoke(&caller, id(&device_id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn ticket(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Body(request): Body<TicketRequest>,
) -> Result<Json<Ticket>, Refusal> {
    Ok(Json(app.core.devices().ticket(&caller, &request)))
}

pub async fn gateway(
    State(app): State<Arc<App>>,
    Signed(_): Signed,
    peer: Option<axum::Extension<PeerAddress>>,
    headers: HeaderMap,
) -> Json<Gateway> {
    let secure = is_secure(peer.map(|peer| peer.0.0), &headers, &app.config);
    let scheme = if secure { "wss" } else { "ws" };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.map_or_else(|| app.config.listen.to_string(), str::to_owned);
    let url = match app.config.public_url.as_deref().map(|url| url.trim_end_matches('/')) {
        Some(url) => format!("{}/api/v1/ws", url.replacen("http", "ws", 1)),
        None => format!("{scheme}://{host}/api/v1/ws"),
    };
    Json(Gateway { url, node: app.core.settings().node.clone(), features: Vec::new() })
}
