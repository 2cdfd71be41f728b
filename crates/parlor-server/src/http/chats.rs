//! Chats: make, list, read, change, close.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use parlor_core::Fresh;
use parlor_proto::chats::{Chat, ChatList, ChatPatch, CreateChat, ListQuery};

use super::extract::{Body, Path, Query, Signed, id, key};
use crate::{App, error::Refusal};

/// The status of a repeatable call: 201 the first time, 200 for a repeat.
pub fn fresh_status(fresh: Fresh) -> StatusCode {
    match fresh {
        Fresh::New => StatusCode::CREATED,
        Fresh::Repeated => StatusCode::OK,
    }
}

pub async fn create(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    headers: HeaderMap,
    Body(mut request): Body<CreateChat>,
) -> Result<Response, Refusal> {
    request.client_id = key(&headers, request.client_id)?;
    let (chat, fresh) = app.core.chats().create(&caller, request).await?;
    Ok((fresh_status(fresh), Json(chat)).into_response())
}

pub async fn list(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Query(query): Query<ListQuery>,
) -> Result<Json<ChatList>, Refusal> {
    Ok(Json(app.core.chats().list(&caller, query).await?))
}

pub async fn get(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(chat_id): Path<String>,
) -> Result<Json<Chat>, Refusal> {
    Ok(Json(app.core.chats().get(&caller, id(&chat_id)?).await?))
}

pub async fn update(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(chat_id): Path<String>,
    Body(patch): Body<ChatPatch>,
) -> Result<Json<Chat>, Refusal> {
    Ok(Json(app.core.chats().update(&caller, id(&chat_id)?, patch).await?))
}

pub async fn remove(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(chat_id): Path<String>,
) -> Result<StatusCode, Refusal> {
    app.core.chats().remove(&caller, id(&chat_id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
