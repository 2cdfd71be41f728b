//! The web app, served from the binary; every other path of the API is a 404 problem.
//!
//! A file is digested and packed once, at its first request, and kept in both forms.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{LazyLock, OnceLock},
};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use crate::error::Refusal;
use parlor_proto::ErrorCode;

/// The built app; empty but for a note when it was not built.
static APP: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../web/dist");

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><title>Parlor</title>\
    <p>The web app is not built into this server. Build it with <code>make web</code>.</p></html>";

/// Shorter files fit one packet as they are.
const LEAST_PACKED: usize = 1_024;

static FILES: LazyLock<HashMap<&'static str, File>> = LazyLock::new(|| {
    let mut files = HashMap::from([("index.html", File::new("index.html", NOT_BUILT.as_bytes()))]);
    put_all(&APP, &mut files);
    files
});

fn put_all(folder: &'static Dir<'static>, files: &mut HashMap<&'static str, File>) {
    for file in folder.files() {
        if let Some(name) = file.path().to_str() {
            files.insert(name, File::new(name, file.contents()));
        }
    }
    folder.dirs().for_each(|folder| put_all(folder, files));
}

/// A file of the app.
struct File {
    kind: &'static str,
    cache: &'static str,
    bytes: &'static [u8],
    packed: OnceLock<Packed>,
}

/// What is made of a file once.
struct Packed {
    /// Digest of the file; the packed form has a tag of its own, since its bytes are others.
    tag: String,
    gzip_tag: String,
    /// None where it would not be shorter.
    gzip: Option<Bytes>,
}

impl File {
    fn new(name: &str, bytes: &'static [u8]) -> Self {
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
        let is_hashed = name.starts_with("assets/");
        let cache = if is_hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
        Self { kind, cache, bytes, packed: OnceLock::new() }
    }

    fn packed(&self) -> &Packed {
        self.packed.get_or_init(|| {
            let digest = Sha256::digest(self.bytes);
            let tag: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            let (tag, gzip_tag) = (format!("\"{tag}\""), format!("\"{tag}-gzip\""));
            let is_text = !matches!(self.kind, "image/png" | "font/woff2");
            let gzip = Some(self.bytes).filter(|bytes| is_text && bytes.len() >= LEAST_PACKED);
            let gzip = gzip.and_then(pack).filter(|packed| packed.len() < self.bytes.len());
            Packed { tag, gzip_tag, gzip }
        })
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let packed = self.packed();
        let gzip = packed.gzip.as_ref().filter(|_| takes_gzip(asked));
        let tag = if gzip.is_some() { &packed.gzip_tag } else { &packed.tag };
        let mut response = if has_tag(asked, tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let kind = [(header::CONTENT_TYPE, self.kind)];
            match gzip {
                Some(gzip) => {
                    (kind, [(header::CONTENT_ENCODING, "gzip")], gzip.clone()).into_response()
                }
                None => (kind, self.bytes).into_response(),
            }
        };
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        };
        put(header::ETAG, tag);
        put(header::CACHE_CONTROL, self.cache);
        if packed.gzip.is_some() {
            put(header::VARY, "accept-encoding");
        }
        response
    }
}

fn pack(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    Some(encoder.finish().ok()?.into())
}

/// Tells whether the client unpacks gzip; whoever only hints at it gets the plain form.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let words = words(asked, &header::ACCEPT_ENCODING);
    words.into_iter().any(|word| {
        let (name, weight) = word.split_once(';').unwrap_or((word, "q=1"));
        let weight = weight.trim().trim_start_matches("q=").parse::<f32>();
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

/// Tells whether the client has a form of the file; proxies may have weakened its tag.
fn has_tag(asked: &HeaderMap, tag: &str) -> bool {
    let mut known = words(asked, &header::IF_NONE_MATCH).into_iter();
    known.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

fn words<'a>(asked: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = asked.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).collect()
}

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
    let file = match FILES.get(name) {
        None if !name.contains('.') => FILES.get("index.html"),
        // It has one address, and that is not its name.
        Some(_) if name == "index.html" => None,
        file => file,
    };
    file.map_or_else(|| Refusal::not_found().into_response(), |file| file.answer(request.headers()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(file: &File, lines: &[(HeaderName, &str)]) -> (Response, String) {
        let lines = lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let response = file.answer(&lines.collect());
        let tag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
        (response, tag)
    }

    fn app() -> File {
        File::new("assets/app-1.js", "let much = 1;\n".repeat(1_000).leak().as_bytes())
    }

    #[tokio::test]
    async fn who_takes_gzip_gets_it_and_it_unpacks_to_the_file() {
        let file = app();
        let (response, _) = ask(&file, &[(header::ACCEPT_ENCODING, "br, gzip;q=0.8")]);
        assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(response.headers()[header::VARY], "accept-encoding");
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert!(body.len() < file.bytes.len() / 10);
        let mut plain = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&*body);
        std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
        assert_eq!(plain, file.bytes);
    }

    #[test]
    fn who_does_not_take_gzip_gets_the_file_as_it_is() {
        for accepts in ["identity", "br", "gzip;q=0", "gzip; q=0.000", ""] {
            let (response, _) = ask(&app(), &[(header::ACCEPT_ENCODING, accepts)]);
            assert!(!response.headers().contains_key(header::CONTENT_ENCODING), "{accepts}");
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
        }
    }

    #[test]
    fn each_form_has_its_tag_and_is_not_sent_again() {
        let (file, gzip) = (app(), (header::ACCEPT_ENCODING, "gzip"));
        let (_, plain_tag) = ask(&file, &[]);
        let (_, gzip_tag) = ask(&file, std::slice::from_ref(&gzip));
        assert_ne!(plain_tag, gzip_tag);
        let status =
            |known: &str| ask(&file, &[gzip.clone(), (header::IF_NONE_MATCH, known)]).0.status();
        assert_eq!(status(&gzip_tag), StatusCode::NOT_MODIFIED);
        assert_eq!(status(&format!("\"x\", W/{gzip_tag}")), StatusCode::NOT_MODIFIED);
        assert_eq!(status(&plain_tag), StatusCode::OK);
    }

    #[test]
    fn what_does_not_shrink_is_not_packed() {
        let bytes = "let much = 1;\n".repeat(1_000).leak().as_bytes();
        let (gzip, picture) = ((header::ACCEPT_ENCODING, "gzip"), File::new("logo.png", bytes));
        let (response, _) = ask(&picture, std::slice::from_ref(&gzip));
        assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
        assert!(!response.headers().contains_key(header::VARY));
        assert!(File::new("a.js", b"let a;").packed().gzip.is_none());
    }
}
