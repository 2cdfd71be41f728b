//! Members: list, add, roles, remove, leave.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use parlor_proto::{
    chats::ListQuery,
    members::{AddParticipants, Participant, ParticipantList, ParticipantPatch},
};

use super::{
    chats::fresh_status,
    extract::{Body, Path, Query, Signed, id, key},
};
use crate::{App, error::Refusal};

pub async fn list(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(chat_id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ParticipantList>, Refusal> {
    Ok(Json(app.core.members().list(&caller, id(&chat_id)?, query).await?))
}

pub async fn add(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(chat_id): Path<String>,
    headers: HeaderMap,
    Body(mut request): Body<AddParticipants>,
) -> Result<Response, Refusal> {
    request.client_id = key(&headers, request.client_id)?;
    let (list, fresh) = app.core.members().add(&caller, id(&chat_id)?, request).await?;
    Ok((fresh_status(fresh), Json(list)).into_response())
}

pub async fn set_role(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path((chat_id, user_id)): Path<(String, String)>,
    Body(patch): Body<ParticipantPatch>,
) -> Result<Json<Participant>, Refusal> {
    let members = app.core.members();
    Ok(Json(members.set_role(&caller, id(&chat_id)?, id(&user_id)?, patch).await?))
}

pub async fn remove(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path((chat_id, user_id)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    app.core.members().remove(&caller, id(&chat_id)?, id(&user_id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
