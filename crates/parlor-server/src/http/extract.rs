//! What handlers take out of a request: the caller, the peer, JSON bodies, queries, ids, keys.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
};
use http::{HeaderMap, Method, header, request::Parts};
use parlor_core::{Caller, Peer};
use parlor_proto::{ClientId, ErrorCode, Invalid, json};
use serde::de::DeserializeOwned;

use super::remote::Remote;
use crate::{App, error::Refusal};

/// Name of the session cookie where the connection is encrypted.
const SECURE_COOKIE: &str = "__Host-parlor";
/// Name of the session cookie on plain HTTP.
const PLAIN_COOKIE: &str = "parlor";
/// The header without which the cookie changes nothing (CSRF).
const CLIENT_HEADER: &str = "x-parlor-client";
/// Time for the body of a request.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Who calls, by bearer token or cookie.
pub struct Signed(pub Caller);

impl FromRequestParts<Arc<App>> for Signed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let token = match bearer(&parts.headers)? {
            Some(token) => token,
            None => {
                let remote = Remote::of(parts)?;
                // Another origin is answered with bearer tokens only, never with the cookie.
                let token = cookie(&parts.headers, cookie_name(&remote))
                    .filter(|_| !remote.is_from_another_origin())
                    .ok_or(parlor_core::Error::Unauthenticated)?;
                check_same_site(parts)?;
                token
            }
        };
        Ok(Self(app.core.devices().authenticate(&token).await?))
    }
}

/// Where a call comes from.
pub struct From(pub Peer);

impl FromRequestParts<Arc<App>> for From {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Refusal> {
        Ok(Self(Peer { address: Remote::of(parts)?.address }))
    }
}

impl FromRequestParts<Arc<App>> for Remote {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Refusal> {
        Self::of(parts)
    }
}

/// How the session travels back: in the body, or in a cookie for the web app.
pub struct Carrier {
    is_web: bool,
    remote: Remote,
}

impl FromRequestParts<Arc<App>> for Carrier {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Refusal> {
        let is_web = is_web_client(&parts.headers);
        if is_web {
            // A page of another site must not sign its visitor in as somebody else.
            check_same_site(parts)?;
        }
        Ok(Self { is_web, remote: Remote::of(parts)? })
    }
}

impl Carrier {
    /// Moves the token of a session into a cookie if the caller is the web app.
    pub fn carry(&self, session: &mut parlor_proto::devices::Session, days: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.is_web
            && let Some(token) = session.token.take()
        {
            self.set(&mut headers, &token, days * 86_400);
        }
        headers
    }

    /// Takes the cookie away.
    pub fn clear(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.set(&mut headers, "", 0);
        headers
    }

    fn set(&self, headers: &mut HeaderMap, token: &str, seconds: u64) {
        let name = cookie_name(&self.remote);
        let secure = if self.remote.is_secure { "; Secure" } else { "" };
        let text =
            format!("{name}={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}{secure}");
        match text.parse() {
            Ok(value) => {
                headers.insert(header::SET_COOKIE, value);
            }
            Err(_) => tracing::error!("a session cookie has bad characters"),
        }
    }
}

/// The parameters of a path, as texts; what is not UTF-8 does not exist.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(texts)) => Ok(Self(texts)),
            Err(_) => Err(Refusal::not_found()),
        }
    }
}

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        check_media_type(request.headers(), &["application/json"])?;
        Ok(Self(json::parse_object(&read_body(request, app).await?)?))
    }
}

/// What a browser reports about the content policy; browsers send it by themselves.
pub struct Report(pub Bytes);

impl FromRequest<Arc<App>> for Report {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        check_media_type(
            request.headers(),
            &["application/csp-report", "application/reports+json", "application/json"],
        )?;
        read_body(request, app).await.map(Self)
    }
}

fn check_media_type(headers: &HeaderMap, taken: &'static [&'static str]) -> Result<(), Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim).unwrap_or_default();
    if taken.iter().any(|taken| kind.eq_ignore_ascii_case(taken)) {
        return Ok(());
    }
    let mut refusal = Refusal::new(ErrorCode::UnsupportedMediaType, "");
    refusal.detail = format!("the body is sent as Content-Type: {}", taken.join(" or ")).into();
    Err(refusal)
}

/// Reads a body within the limits of its route and of time.
async fn read_body(request: Request, app: &Arc<App>) -> Result<Bytes, Refusal> {
    let read = Bytes::from_request(request, app);
    let read = tokio::select! {
        biased;
        read = read => read,
        () = app.clock.sleep(BODY_TIME) => {
            return Err(Refusal::new(ErrorCode::BadRequest, "the body came too slowly"));
        }
    };
    read.map_err(|rejection| {
        if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
            Invalid::too_large("body", "the body is larger than this route takes").into()
        } else {
            Refusal::new(ErrorCode::BadRequest, "the body could not be read")
        }
    })
}

/// The query of a request.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let text = parts.uri.query().unwrap_or_default();
        let pairs = || form_urlencoded::parse(text.as_bytes());
        // Bytes that are not UTF-8 come out as this sign, and nobody means it.
        if let Some((name, _)) = pairs().find(|(_, value)| value.contains('\u{fffd}')) {
            return Err(Invalid::new(name, "a query is UTF-8").into());
        }
        let reader = serde_urlencoded::Deserializer::new(pairs());
        serde_path_to_error::deserialize(reader).map(Self).map_err(|error| {
            let path = error.path().to_string();
            let detail = error.inner().to_string();
            let named = detail.split('`').nth(1).map(str::to_owned);
            let is_unknown = detail.starts_with("unknown field");
            let field = if path == "." || path.is_empty() { named } else { Some(path) };
            let code = if is_unknown { ErrorCode::UnknownField } else { ErrorCode::Invalid };
            Invalid::with_code(code, field.unwrap_or_default(), detail).into()
        })
    }
}

/// Reads an id of the path; what is not one does not exist.
pub fn id<T: FromStr>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| Refusal::not_found())
}

/// Joins the header `Idempotency-Key` and the `client_id` of the body: one namespace.
pub fn key(headers: &HeaderMap, client_id: Option<ClientId>) -> Result<Option<ClientId>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(client_id) };
    let text = value.to_str().unwrap_or_default();
    let key = ClientId::new(text).map_err(|detail| Invalid::new("Idempotency-Key", detail))?;
    match client_id {
        Some(client_id) if client_id != key => Err(Invalid::new(
            "client_id",
            "client_id and Idempotency-Key are equal where both are given",
        )
        .into()),
        _ => Ok(Some(key)),
    }
}

/// The cookie of an encrypted connection is not read from a plain one, nor the other way round:
/// what another service of the host sets on plain HTTP must not become a session.
const fn cookie_name(remote: &Remote) -> &'static str {
    if remote.is_secure { SECURE_COOKIE } else { PLAIN_COOKIE }
}

fn is_web_client(headers: &HeaderMap) -> bool {
    headers.get(CLIENT_HEADER).is_some_and(|client| client == "web")
}

fn check_same_site(parts: &Parts) -> Result<(), Refusal> {
    if matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let site = parts.headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    let is_foreign = site.is_some_and(|site| !matches!(site, "same-origin" | "none"));
    if !is_web_client(&parts.headers) || is_foreign {
        return Err(Refusal::new(
            ErrorCode::Csrf,
            "a call with the cookie that changes something needs X-Parlor-Client: web",
        ));
    }
    Ok(())
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    token.map(Some).ok_or_else(|| parlor_core::Error::Unauthenticated.into())
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find(|(known, value)| *known == name && !value.is_empty());
    value.map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "xparlor=a; parlor=b; parlor2=c".parse().unwrap());
        headers.append(header::COOKIE, "__Host-parlor=".parse().unwrap());
        assert_eq!(cookie(&headers, PLAIN_COOKIE).as_deref(), Some("b"));
        assert_eq!(cookie(&headers, SECURE_COOKIE), None);
    }

    #[test]
    fn only_a_bearer_token_is_read_from_the_header() {
        for (value, token) in [
            ("Bearer ps_x", Some("ps_x")),
            ("bearer  ps_x", Some("ps_x")),
            ("ps_x", None),
            ("Basic ps_x", None),
            ("Bearer", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers).ok().flatten().as_deref(), token, "{value}");
        }
    }
}
