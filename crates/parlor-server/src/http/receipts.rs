//! Receipts and presence: the status of messages and of people.

use std::sync::Arc;

use axum::{Json, extract::State};
use parlor_proto::{
    presence::UserStatus,
    receipts::{MessageStatus, OwnStatus, PutStatus},
};

use super::extract::{Body, Path, Signed, id};
use crate::{App, error::Refusal};

pub async fn put(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(message_id): Path<String>,
    Body(request): Body<PutStatus>,
) -> Result<Json<OwnStatus>, Refusal> {
    Ok(Json(app.core.receipts().put(&caller, id(&message_id)?, request).await?))
}

pub async fn status(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(message_id): Path<String>,
) -> Result<Json<MessageStatus>, Refusal> {
    Ok(Json(app.core.receipts().status(&caller, id(&message_id)?).await?))
}

pub async fn user_status(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(user_id): Path<String>,
) -> Result<Json<UserStatus>, Refusal> {
    Ok(Json(app.core.presence().status(&caller, id(&user_id)?).await?))
}
