//! What handlers take out of a request: the caller, the peer, JSON bodies, queries, ids, keys.

use std::{net::IpAddr, str::FromStr, sync::Arc};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
};
use http::{HeaderMap, Method, header, request::Parts};
use parlor_core::{Caller, Peer};
use parlor_proto::{ClientId, ErrorCode, Invalid, json};
use serde::de::DeserializeOwned;

use crate::{App, config::Config, error::Refusal};

/// Name of the session cookie where the connection is encrypted.
const SECURE_COOKIE: &str = "__Host-parlor";
/// Name of the session cookie on plain HTTP.
const PLAIN_COOKIE: &str = "parlor";
/// The header without which the cookie changes nothing (CSRF).
const CLIENT_HEADER: &str = "x-parlor-client";

/// The address at the other end of the TCP connection; put there by the accept loop.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub IpAddr);

/// Who calls, by bearer token or cookie.
pub struct Signed(pub Caller);

impl FromRequestParts<Arc<App>> for Signed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let token = match (bearer(&parts.headers)?, cookie(&parts.headers)) {
            (Some(token), _) => token,
            (None, Some(token)) => {
                check_same_site(parts)?;
                token
            }
            (None, None) => return Err(parlor_core::Error::Unauthenticated.into()),
        };
        Ok(Self(app.core.devices().authenticate(&token).await?))
    }
}

/// Where a call comes from.
pub struct From(pub Peer);

impl FromRequestParts<Arc<App>> for From {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let peer = parts.extensions.get::<PeerAddress>();
        let peer = peer.ok_or(Refusal::new(ErrorCode::Internal, "the peer is not known"))?.0;
        Ok(Self(Peer { address: client_address(peer, &parts.headers, &app.config) }))
    }
}

/// How the session travels back: in the body, or in a cookie for the web app.
pub struct Carrier {
    is_web: bool,
    is_secure: bool,
}

impl FromRequestParts<Arc<App>> for Carrier {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let peer = parts.extensions.get::<PeerAddress>().map(|peer| peer.0);
        Ok(Self {
            is_web: is_web_client(&parts.headers),
            is_secure: is_secure(peer, &parts.headers, &app.config),
        })
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
        let (name, secure) =
            if self.is_secure { (SECURE_COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
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

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
        if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
            return Err(Refusal::new(
                ErrorCode::UnsupportedMediaType,
                "the body is sent as Content-Type: application/json",
            ));
        }
        let bytes = Bytes::from_request(request, app).await.map_err(|rejection| {
            if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
                Refusal::new(ErrorCode::TooLarge, "the body is larger than this route takes")
            } else {
                Refusal::new(ErrorCode::BadRequest, "the body could not be read")
            }
        })?;
        Ok(Self(json::parse_object(&bytes)?))
    }
}

/// The query of a request.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let text = parts.uri.query().unwrap_or_default();
        let reader = serde_urlencoded::Deserializer::new(form_urlencoded::parse(text.as_bytes()));
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

/// Tells whether a browser of this origin may open a socket: its own, or an allowed one.
pub fn check_origin(headers: &HeaderMap, config: &Config) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("null");
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = !host.is_empty()
        && (origin == format!("http://{host}") || origin == format!("https://{host}"));
    let is_public =
        config.public_url.as_deref().is_some_and(|url| origin == url.trim_end_matches('/'));
    if is_own || is_public || config.allowed_origins.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::OriginRefused, "this origin may not open a socket here"))
}

/// Tells whether the client's own connection is encrypted, as far as that can be believed.
pub fn is_secure(peer: Option<IpAddr>, headers: &HeaderMap, config: &Config) -> bool {
    let is_proxy = peer.is_some_and(|peer| config.trusted_proxies.contains(&peer));
    let forwarded = headers.get("x-forwarded-proto").and_then(|proto| proto.to_str().ok());
    match forwarded.filter(|_| is_proxy) {
        Some(proto) => proto == "https",
        None => config.public_url.as_deref().is_some_and(|url| url.starts_with("https://")),
    }
}

fn client_address(peer: IpAddr, headers: &HeaderMap, config: &Config) -> IpAddr {
    let is_trusted = |address: &IpAddr| config.trusted_proxies.contains(address);
    if !is_trusted(&peer) {
        return peer;
    }
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let hops: Vec<IpAddr> =
        lines.flat_map(|line| line.split(',')).filter_map(|hop| hop.trim().parse().ok()).collect();
    hops.into_iter().rev().find(|hop| !is_trusted(hop)).unwrap_or(peer)
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

fn cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        matches!(name, SECURE_COOKIE | PLAIN_COOKIE).then(|| value.to_owned())
    });
    pairs.find(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let proxy: IpAddr = "10.0.0.1".parse().unwrap();
        let config = Config { trusted_proxies: vec![proxy], ..Config::default() };
        let stranger: IpAddr = "192.0.2.7".parse().unwrap();
        let forged = headers(&[("x-forwarded-for", "198.51.100.1, 203.0.113.9, 10.0.0.1")]);
        assert_eq!(client_address(stranger, &forged, &config), stranger);
        let right_most: IpAddr = "203.0.113.9".parse().unwrap();
        assert_eq!(client_address(proxy, &forged, &config), right_most);
        assert_eq!(client_address(proxy, &headers(&[]), &config), proxy);
    }

    #[test]
    fn sockets_open_for_the_own_and_allowed_origins_only() {
        let config =
            Config { allowed_origins: vec!["https://app.example".to_owned()], ..Config::default() };
        for (origin, allowed) in [
            ("http://chat.example", true),
            ("https://app.example", true),
            ("https://app.example.evil.example", false),
            ("https://evil-app.example", false),
            ("http://chat.example:81", false),
            ("http://chat.example.", false),
            ("null", false),
            ("", false),
        ] {
            let mut map = headers(&[("host", "chat.example")]);
            map.insert(header::ORIGIN, origin.parse().unwrap());
            assert_eq!(check_origin(&map, &config).is_ok(), allowed, "{origin}");
        }
        assert!(check_origin(&headers(&[("host", "chat.example")]), &config).is_ok());
    }
}
