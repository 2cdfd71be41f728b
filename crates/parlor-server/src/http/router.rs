//! Every route on one screen. The router, the OpenAPI document and the access table come from it.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    panic::AssertUnwindSafe,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    handler::Handler,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, header};
use parlor_proto::{
    ErrorCode, accounts as a, chats as c, devices as d, frame as f,
    limits::{BATCH_BODY_BYTES, BODY_BYTES},
    members as m, messages as g, presence as p, receipts as r, server as s,
};
use schemars::JsonSchema;
use tracing::Instrument as _;

use super::{
    accounts, assets, chats, devices, members, messages, receipts,
    remote::Remote,
    schemas::{Named, Schemas},
    system,
};
use crate::{App, error::Refusal, metrics::RequestLabels};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Anybody.
    None,
    /// Who is signed in; what they may do is decided by the core.
    Session,
    /// Administrators.
    Admin,
}

impl Auth {
    /// Tells whether a session is needed.
    pub fn is_needed(self) -> bool {
        self != Self::None
    }
}

type Schema = fn(&mut Schemas) -> Named;

/// One route.
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; a part in braces is an id.
    pub path: &'static str,
    /// Who may call.
    pub auth: Auth,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// The body.
    pub body: Option<Schema>,
    /// The query.
    pub query: Option<Schema>,
    /// The answer.
    pub answer: Option<Schema>,
    /// Statuses of success.
    pub statuses: &'static [u16],
    handler: MethodRouter<Arc<App>>,
}

fn takes<T: JsonSchema>(schemas: &mut Schemas) -> Named {
    schemas.incoming::<T>()
}

fn gives<T: JsonSchema>(schemas: &mut Schemas) -> Named {
    schemas.outgoing::<T>()
}

/// Returns all routes.
#[rustfmt::skip]
pub fn routes() -> Vec<Route> {
    use Auth::{Admin, None as Open, Session};
    vec![
        post("/api/v1/users", Open, "Sign up", accounts::sign_up).body(takes::<a::SignUp>).answer(201, gives::<a::SignedIn>),
        get("/api/v1/users", Session, "Find a person by exact name", accounts::find).query(takes::<a::UserQuery>).answer(200, gives::<a::UserList>),
        get("/api/v1/users/me", Session, "Own account", accounts::me).answer(200, gives::<a::User>),
        patch("/api/v1/users/me", Session, "Change the own account", accounts::update).body(takes::<a::UserPatch>).answer(200, gives::<a::User>),
        delete("/api/v1/users/me", Session, "Delete the own account", accounts::remove).body(takes::<a::AccountDeletion>).says(202),
        get("/api/v1/users/{user_id}", Session, "Profile", accounts::profile).answer(200, gives::<a::User>),
        get("/api/v1/users/{user_id}/status", Session, "Presence", receipts::user_status).answer(200, gives::<p::UserStatus>),
        post("/api/v1/admin/users", Admin, "Make an account without a password", accounts::create_managed).body(takes::<a::ManagedUser>).answer(201, gives::<a::User>),
        post("/api/v1/admin/users/{user_id}/sessions", Admin, "Open a session for such an account", accounts::open_managed_session).answer(201, gives::<a::SignedIn>),

        post("/api/v1/sessions", Open, "Sign in", devices::sign_in).body(takes::<d::SignIn>).answer(201, gives::<a::SignedIn>),
        get("/api/v1/sessions", Session, "Own devices", devices::list).answer(200, gives::<d::DeviceList>),
        delete("/api/v1/sessions/current", Session, "Sign out", devices::sign_out).says(204),
        delete("/api/v1/sessions/{device_id}", Session, "Sign a device out", devices::revoke).says(204),

        post("/api/v1/chats", Session, "Make a chat", chats::create).body(takes::<c::CreateChat>).answer(201, gives::<c::Chat>).repeats(),
        get("/api/v1/chats", Session, "Own chats, the most recent first", chats::list).query(takes::<c::ListQuery>).answer(200, gives::<c::ChatList>),
        get("/api/v1/chats/{chat_id}", Session, "One chat", chats::get).answer(200, gives::<c::Chat>),
        patch("/api/v1/chats/{chat_id}", Session, "Change title, topic or settings", chats::update).body(takes::<c::ChatPatch>).answer(200, gives::<c::Chat>),
        delete("/api/v1/chats/{chat_id}", Session, "Clear a one-to-one for oneself, close a group for all", chats::remove).says(204),
        get("/api/v1/chats/{chat_id}/participants", Session, "Members", members::list).query(takes::<c::ListQuery>).answer(200, gives::<m::ParticipantList>),
        post("/api/v1/chats/{chat_id}/participants", Session, "Add people", members::add).body(takes::<m::AddParticipants>).answer(201, gives::<m::ParticipantList>).repeats(),
        patch("/api/v1/chats/{chat_id}/participants/{user_id}", Session, "Change a role", members::set_role).body(takes::<m::ParticipantPatch>).answer(200, gives::<m::Participant>),
        delete("/api/v1/chats/{chat_id}/participants/{user_id}", Session, "Remove a member, or leave", members::remove).says(204),

        post("/api/v1/messages", Session, "Send a message", messages::send).body(takes::<g::SendMessage>).answer(201, gives::<g::Message>).repeats(),
        post("/api/v1/messages/batch", Session, "Send several messages", messages::send_batch).body(takes::<g::SendBatch>).answer(200, gives::<g::BatchResults>),
        get("/api/v1/chats/{chat_id}/messages", Session, "A page of messages", messages::history).query(takes::<g::HistoryQuery>).answer(200, gives::<g::History>),
        get("/api/v1/chats/{chat_id}/events", Session, "A page of the raw log", messages::events).query(takes::<g::EventsQuery>).answer(200, gives::<g::EventPage>),
        get("/api/v1/messages/{message_id}", Session, "One message", messages::load).answer(200, gives::<g::Message>),
        patch("/api/v1/messages/{message_id}", Session, "Replace the text", messages::edit).body(takes::<g::EditMessage>).answer(200, gives::<g::Message>),
        delete("/api/v1/messages/{message_id}", Session, "Delete for everyone", messages::remove).says(204),
        put("/api/v1/messages/{message_id}/status", Session, "Report delivered or read", receipts::put).body(takes::<r::PutStatus>).answer(200, gives::<r::OwnStatus>),
        get("/api/v1/messages/{message_id}/status", Session, "Status for each recipient", receipts::status).answer(200, gives::<r::MessageStatus>),
        put("/api/v1/messages/{message_id}/reactions/{emoji}", Session, "React", messages::react).answer(200, gives::<g::Message>),
        delete("/api/v1/messages/{message_id}/reactions/{emoji}", Session, "Take a reaction away", messages::unreact).says(204),

        get("/api/v1/gateway", Session, "Where to connect", devices::gateway).answer(200, gives::<d::Gateway>),
        post("/api/v1/ws/tickets", Session, "A ticket for one hello", devices::ticket).body(takes::<d::TicketRequest>).answer(200, gives::<d::Ticket>),
        get("/api/v1/ws", Open, "Upgrade to WebSocket; hello signs in", system::socket).says(101),
        get("/api/v1/sync", Session, "What the socket would have sent", system::sync).query(takes::<f::SyncQuery>).answer(200, gives::<f::SyncAnswer>),

        get("/api/v1/server", Open, "The server about itself", system::server).answer(200, gives::<s::ServerInfo>),
        get("/api/v1/openapi.json", Open, "This description", system::openapi).says(200),
        get("/api/v1/asyncapi.json", Open, "The description of the socket", system::asyncapi).says(200),
        post("/api/v1/csp-reports", Open, "Breaches of the content policy", system::csp_report).says(204),
        get("/healthz", Open, "The process is alive", system::healthz).answer(200, gives::<s::Health>),
        get("/readyz", Open, "The server can serve", system::readyz).answer(200, gives::<s::Health>),
        get("/metrics", Open, "Metrics for Prometheus", system::metrics).says(200),
    ]
}

macro_rules! methods {
    ($($name:ident $method:ident;)*) => {$(
        fn $name<H, T>(path: &'static str, auth: Auth, summary: &'static str, handler: H) -> Route
        where
            H: Handler<T, Arc<App>>,
            T: 'static,
        {
            Route {
                method: Method::$method,
                path,
                auth,
                summary,
                body: None,
                query: None,
                answer: None,
                statuses: &[],
                handler: on(MethodFilter::$method, handler),
            }
        }
    )*};
}

methods! { get GET; post POST; put PUT; patch PATCH; delete DELETE; }

impl Route {
    fn body(mut self, schema: Schema) -> Self {
        self.body = Some(schema);
        self
    }

    fn query(mut self, schema: Schema) -> Self {
        self.query = Some(schema);
        self
    }

    fn answer(mut self, status: u16, schema: Schema) -> Self {
        self.answer = Some(schema);
        self.says(status)
    }

    fn says(mut self, status: u16) -> Self {
        self.statuses = match status {
            101 => &[101],
            201 => &[201],
            202 => &[202],
            204 => &[204],
            _ => &[200],
        };
        self
    }

    /// A repeat with the same key answers 200.
    fn repeats(mut self) -> Self {
        self.statuses = &[201, 200];
        self
    }
}

/// A path with its handlers and the names of their methods.
type PathEntry = (&'static str, MethodRouter<Arc<App>>, Vec<&'static str>);

/// Builds the router; layers once, on the whole.
pub fn router(app: Arc<App>) -> Router {
    let mut paths: Vec<PathEntry> = Vec::new();
    for route in routes() {
        let name = method_name(&route.method);
        match paths.iter_mut().find(|(path, ..)| *path == route.path) {
            Some((_, known, names)) => {
                *known = std::mem::take(known).merge(route.handler);
                names.push(name);
            }
            None => paths.push((route.path, route.handler, vec![name])),
        }
    }
    let mut router = Router::new();
    for (path, handler, names) in paths {
        // Lives as long as the program: one short text per path.
        let allow: &'static str = Box::leak(allowed(&names).into_boxed_str());
        let handler = handler.fallback(move || async move {
            let mut refusal =
                Refusal::new(ErrorCode::MethodNotAllowed, "this path has other methods");
            refusal.allow = Some(allow);
            refusal
        });
        let most = match path {
            "/api/v1/messages/batch" => BATCH_BODY_BYTES,
            "/api/v1/csp-reports" => REPORT_BYTES,
            _ => BODY_BYTES,
        };
        router = router.route(path, handler.layer(DefaultBodyLimit::max(most)));
    }
    router.fallback(assets::serve).layer(from_fn_with_state(app.clone(), around)).with_state(app)
}

/// Whoever answers GET answers HEAD.
fn allowed(methods: &[&str]) -> String {
    let head = methods.contains(&"GET").then_some("HEAD");
    methods.iter().copied().chain(head).collect::<Vec<_>>().join(", ")
}

/// Builds the router of the metrics where they have an address of their own.
pub fn metrics_router(app: Arc<App>) -> Router {
    Router::new().route("/metrics", axum::routing::get(system::own_metrics)).with_state(app)
}

/// Bytes of a report about the content policy.
const REPORT_BYTES: usize = 64 * 1024;

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        _ => "DELETE",
    }
}

/// What every request passes: panics become problems, answers get their headers, all is counted.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = app.clock.monotonic();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "other".to_owned());
    let (mut parts, body) = request.into_parts();
    let remote = Remote::find(&app.config, &parts);
    let secure = remote.is_secure;
    let policy = content_policy(remote.socket_origin().as_deref());
    parts.extensions.insert(remote);
    let request = Request::from_parts(parts, body);
    let cors = cors_headers(&app, &request);
    let is_preflight = request.method() == Method::OPTIONS && !cors.is_empty();
    // Names one request in the log and in its answer; never a body, a token or an address.
    let id = request_id();
    let span = tracing::info_span!("request", %id, method = %request.method(), route);
    let mut response = if is_preflight {
        http::StatusCode::NO_CONTENT.into_response()
    } else {
        let caught = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone());
        caught.await.unwrap_or_else(|_| {
            app.metrics.panics.inc();
            span.in_scope(|| tracing::error!("a request panicked"));
            Refusal::new(ErrorCode::Internal, "the server made a mistake").into_response()
        })
    };
    let (status, seconds) =
        (response.status().as_u16(), (app.clock.monotonic() - began).as_secs_f64());
    span.in_scope(|| tracing::debug!(status, seconds, "answered"));
    app.metrics.requests.get_or_create(&RequestLabels { route, status }).inc();
    if let Some(histogram) = &app.metrics.seconds {
        histogram.observe(seconds);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    }
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if secure {
        let year = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in &cors {
        // An answer may vary by something else too.
        headers.append(name, value.clone());
    }
    response
}

/// Unique in this process, and never the same again after a restart but by chance.
fn request_id() -> String {
    static START: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Multiplying by an odd number loses nothing, so no two are equal.
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ *START)
}

const SECURITY_HEADERS: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(self), geolocation=(), payment=(), usb=(), microphone=(self), clipboard-write=(self)",
    ),
];

fn content_policy(socket: Option<&str>) -> String {
    // On plain HTTP `'self'` does not cover the socket; a strange Host gets no socket source.
    let socket = socket.map(|origin| format!(" {origin}")).unwrap_or_default();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
         media-src 'self' blob:; font-src 'self'; connect-src 'self'{socket}; worker-src 'self'; \
         manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types svelte-trusted-html parlor-url; \
         report-uri /api/v1/csp-reports"
    )
}

/// Cross-origin calls are answered for allowed origins, with bearer tokens, never with the cookie.
fn cors_headers(app: &App, request: &Request) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    let origin = request.headers().get(header::ORIGIN);
    let Some(origin) = origin.filter(|origin| {
        app.config.allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }) else {
        return headers;
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    let readable = HeaderValue::from_static("retry-after, x-request-id");
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, readable);
    if request.method() == Method::OPTIONS {
        let methods = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let names = HeaderValue::from_static("authorization, content-type, idempotency-key");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    headers
}
