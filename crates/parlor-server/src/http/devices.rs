//! Devices: sign-in, the list of sessions, sign-out, tickets, and where to connect.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use parlor_proto::devices::{DeviceList, Gateway, SignIn, Ticket, TicketRequest};

use super::{
    extract::{Body, Carrier, From, Path, Signed, id},
    remote::Remote,
};
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
    carrier: Carrier,
    Path(device_id): Path<String>,
) -> Result<Response, Refusal> {
    let device_id = id(&device_id)?;
    app.core.devices().revoke(&caller, device_id).await?;
    if device_id == caller.device_id {
        return Ok((StatusCode::NO_CONTENT, carrier.clear()).into_response());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
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
    remote: Remote,
) -> Json<Gateway> {
    let origin = remote.socket_origin().unwrap_or_else(|| format!("ws://{}", app.config.listen));
    let url = format!("{origin}/api/v1/ws");
    Json(Gateway { url, node: app.core.settings().node.clone(), features: Vec::new() })
}
