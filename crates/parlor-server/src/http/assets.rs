//! The web app, served from the binary; every other path of the API is a 404 problem.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, header};
use include_dir::{Dir, include_dir};

use crate::error::Refusal;
use parlor_proto::ErrorCode;
use sha2::{Digest, Sha256};

/// The built app; empty but for a note when it was not built.
static APP: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../web/dist");

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><title>Parlor</title>\
    <p>The web app is not built into this server. Build it with <code>make web</code>.</p></html>";

/// Serves a file of the app, or the app itself for its own addresses.
pub async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    let is_api = path.starts_with("/api/") || path == "/api";
    if is_api || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return if is_api {
            Refusal::not_found().into_response()
        } else {
            let mut refusal =
                Refusal::new(ErrorCode::MethodNotAllowed, "this path has other methods");
            refusal.allow = Some("GET, HEAD");
            refusal.into_response()
        };
    }
    let name = path.trim_start_matches('/');
    let known = request.headers().get(header::IF_NONE_MATCH);
    if let Some(file) = APP.get_file(name).filter(|_| name != "index.html") {
        let is_hashed = name.starts_with("assets/");
        return answer(name, file.contents(), is_hashed, known);
    }
    if name.contains('.') {
        return Refusal::not_found().into_response();
    }
    match APP.get_file("index.html") {
        Some(index) => answer("index.html", index.contents(), false, known),
        None => answer("index.html", NOT_BUILT.as_bytes(), false, known),
    }
}

fn answer(
    name: &str,
    bytes: &'static [u8],
    is_hashed: bool,
    known: Option<&HeaderValue>,
) -> Response {
    let digest = Sha256::digest(bytes);
    let tag: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let cache = if is_hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
    let head = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, cache.to_owned())];
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    let kind = match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    };
    (head, [(header::CONTENT_TYPE, kind)], bytes).into_response()
}
