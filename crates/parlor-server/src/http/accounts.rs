//! Accounts: sign-up, profiles, deletion, and accounts made by an administrator.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use parlor_proto::accounts::{
    AccountDeletion, ManagedUser, SignUp, User, UserList, UserPatch, UserQuery,
};

use super::extract::{Body, Carrier, From, Path, Query, Signed, id};
use crate::{App, error::Refusal};

pub async fn sign_up(
    State(app): State<Arc<App>>,
    From(peer): From,
    carrier: Carrier,
    Body(request): Body<SignUp>,
) -> Result<Response, Refusal> {
    let mut signed = app.core.accounts().sign_up(request, &peer).await?;
    let headers = carrier.carry(&mut signed.session, app.config.session_days);
    Ok((StatusCode::CREATED, headers, Json(signed)).into_response())
}

pub async fn me(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
) -> Result<Json<User>, Refusal> {
    Ok(Json(app.core.accounts().me(&caller).await?))
}

pub async fn update(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Body(patch): Body<UserPatch>,
) -> Result<Json<User>, Refusal> {
    Ok(Json(app.core.accounts().update(&caller, patch).await?))
}

pub async fn remove(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    carrier: Carrier,
    Body(request): Body<AccountDeletion>,
) -> Result<Response, Refusal> {
    app.core.accounts().remove(&caller, request).await?;
    Ok((StatusCode::ACCEPTED, carrier.clear()).into_response())
}

pub async fn profile(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(user_id): Path<String>,
) -> Result<Json<User>, Refusal> {
    Ok(Json(app.core.accounts().profile(&caller, id(&user_id)?).await?))
}

pub async fn find(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Query(query): Query<UserQuery>,
) -> Result<Json<UserList>, Refusal> {
    let items = app.core.accounts().find(&caller, &query.username).await?;
    Ok(Json(UserList { items, next: None }))
}

pub async fn create_managed(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Body(request): Body<ManagedUser>,
) -> Result<Response, Refusal> {
    let user = app.core.accounts().create_managed(&caller, request).await?;
    Ok((StatusCode::CREATED, Json(user)).into_response())
}

pub async fn open_managed_session(
    State(app): State<Arc<App>>,
    Signed(caller): Signed,
    Path(user_id): Path<String>,
) -> Result<Response, Refusal> {
    let signed = app.core.accounts().open_managed_session(&caller, id(&user_id)?).await?;
    Ok((StatusCode::CREATED, Json(signed)).into_response())
}
