//! Messages: send, batch, page, edit, delete, react, and the raw log.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use parlor_proto::{
    Invalid,
    messages::{
        BatchResult, BatchResults, EditMessage, EventPage, EventsQuery, History, HistoryQuery,
        Message, SendBatch, SendMessage,
    },
};

use super::{
    chats::fresh_status,
    extract::{Body, Path, Query, Signed, id, key},
};
use crate::{App, error::Refusal};

pub async fn send(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    headers: HeaderMap,
    Body(mut request): Body<SendMessage>,
) -> Result<Response, Refusal> {
    request.client_id = key(&headers, request.client_id)?;
    let (message, fresh) = app.core.messages().send(&caller, request).await?;
    Ok((fresh_status(fresh), Json(message)).into_response())
}

pub async fn send_batch(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Body(batch): Body<SendBatch>,
) -> Result<Json<BatchResults>, Refusal> {
    let most = app.core.settings().limits.batch as usize;
    if batch.messages.is_empty() || batch.messages.len() > most {
        let detail = format!("a batch holds 1 to {most} messages");
        return Err(Invalid::new("messages", detail).into());
    }
    let results = app.core.messages().send_batch(&caller, batch.messages).await;
    let result = |result| match result {
        Ok((message, fresh)) => {
            BatchResult::Stored { status: fresh_status(fresh).as_u16(), message: Box::new(message) }
        }
        Err(error) => {
            let refusal = Refusal::from(error);
            let status = refusal.status().as_u16();
            BatchResult::Refused { status, problem: refusal.problem() }
        }
    };
    Ok(Json(BatchResults { results: results.into_iter().map(result).collect() }))
}

pub async fn history(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(chat_id): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<History>, Refusal> {
    Ok(Json(app.core.messages().history(&caller, id(&chat_id)?, query).await?))
}

pub async fn events(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(chat_id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<EventPage>, Refusal> {
    Ok(Json(app.core.messages().events(&caller, id(&chat_id)?, query).await?))
}

pub async fn load(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(message_id): Path<String>,
) -> Result<Json<Message>, Refusal> {
    Ok(Json(app.core.messages().load(&caller, id(&message_id)?).await?))
}

pub async fn edit(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(message_id): Path<String>,
    Body(request): Body<EditMessage>,
) -> Result<Json<Message>, Refusal> {
    Ok(Json(app.core.messages().edit(&caller, id(&message_id)?, request).await?))
}

pub async fn remove(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(message_id): Path<String>,
) -> Result<StatusCode, Refusal> {
    app.core.messages().remove(&caller, id(&message_id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn react(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path((message_id, emoji)): Path<(String, String)>,
) -> Result<Json<Message>, Refusal> {
    Ok(Json(app.core.messages().react(&caller, id(&message_id)?, &emoji, true).await?))
}

pub async fn unreact(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path((message_id, emoji)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    app.core.messages().react(&caller, id(&message_id)?, &emoji, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
