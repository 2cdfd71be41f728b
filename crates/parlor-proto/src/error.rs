//! Error codes, close codes and the problem document: what a client may do about each.
//!
//! Which HTTP status a code gets is decided in `parlor-server/src/error.rs` and nowhere else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, retry: $retry:literal;)*) => {
        /// Stable codes of refusals, the same in problem documents and in `error` frames.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl ErrorCode {
            /// All codes, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the code as it travels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Tells whether the same request may succeed when it is sent again unchanged.
            pub const fn may_retry(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }
        }
    };
}

error_codes! {
    /// The body or frame is not JSON, or nests too deep.
    BadJson = "bad_json", retry: false;
    /// The request has a form that the server does not read.
    BadRequest = "bad_request", retry: false;
    /// No valid session.
    Unauthenticated = "unauthenticated", retry: false;
    /// Name and password do not match.
    BadCredentials = "bad_credentials", retry: false;
    /// A call with the cookie lacks the header `X-Parlor-Client`.
    Csrf = "csrf", retry: false;
    /// The origin of a browser is not allowed.
    OriginRefused = "origin_refused", retry: false;
    /// Known, but not allowed to the caller.
    Forbidden = "forbidden", retry: false;
    /// New accounts are not open.
    RegistrationClosed = "registration_closed", retry: false;
    /// The first account beyond loopback needs the code printed at start.
    SetupCodeRequired = "setup_code_required", retry: false;
    /// Absent, or not for the caller to know.
    NotFound = "not_found", retry: false;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", retry: false;
    /// The state of the thing forbids this.
    Conflict = "conflict", retry: false;
    /// The key was used with another body.
    IdempotencyConflict = "idempotency_conflict", retry: false;
    /// The last owner cannot leave while others remain.
    LastOwner = "last_owner", retry: false;
    /// The username, or one that looks like it, is taken.
    UsernameTaken = "username_taken", retry: false;
    /// The email address is taken.
    EmailTaken = "email_taken", retry: false;
    /// The client knows a log that the server does not have: start again.
    Reset = "reset", retry: false;
    /// Larger than its limit.
    TooLarge = "too_large", retry: false;
    /// The body is not `application/json`.
    UnsupportedMediaType = "unsupported_media_type", retry: false;
    /// A value is not acceptable; `field` names it.
    Invalid = "invalid", retry: false;
    /// A field that the request does not have.
    UnknownField = "unknown_field", retry: false;
    /// A number outside its range.
    OutOfRange = "out_of_range", retry: false;
    /// The password is too easy to guess.
    WeakPassword = "weak_password", retry: false;
    /// Too many calls; wait `retry_after`.
    RateLimited = "rate_limited", retry: true;
    /// The server cannot do it now; what was sent may or may not be stored.
    Unavailable = "unavailable", retry: true;
    /// A defect of the server.
    Internal = "internal", retry: true;
    /// A frame of unknown kind.
    UnknownFrame = "unknown_frame", retry: false;
    /// A second `hello`.
    AlreadyGreeted = "already_greeted", retry: false;
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request is not acceptable, and which field is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The code that travels.
    pub code: ErrorCode,
    /// Path of the field, as `messages[3].chat_id`; empty for the body as a whole.
    pub field: String,
    /// One sentence for a developer.
    pub detail: String,
}

impl Invalid {
    /// Makes an `invalid` for one field.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::with_code(ErrorCode::Invalid, field, detail)
    }

    /// Makes a refusal with a code of its own.
    pub fn with_code(code: ErrorCode, field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code, field: field.into(), detail: detail.into() }
    }

    /// Makes a `too_large` for one field.
    pub fn too_large(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::with_code(ErrorCode::TooLarge, field, detail)
    }
}

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A URI reference that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence in words.
    pub detail: String,
    /// The stable code.
    pub code: ErrorCode,
    /// The field to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Seconds to wait before trying again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// What a client does after a socket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reconnect {
    /// Come back with backoff.
    Yes,
    /// Come back after the delay of the `reconnect` frame.
    AfterDelay,
    /// Do not come back by itself.
    No,
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $reconnect:ident;)*) => {
        /// The closed list of WebSocket close codes that the server uses by itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode { $($(#[$doc])* $name = $code,)* }

        impl CloseCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the number in the close frame.
            pub const fn code(self) -> u16 {
                self as u16
            }

            /// Returns the name, which is also the reason in the close frame.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Returns whether a client should come back.
            pub const fn reconnect(self) -> Reconnect {
                match self { $(Self::$name => Reconnect::$reconnect,)* }
            }

            /// Finds a code by its number.
            pub fn from_code(code: u16) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.code() == code)
            }
        }
    };
}

close_codes! {
    /// Binary frames are not read.
    BinaryFrame = 1003, "binary_frame", No;
    /// The text was not UTF-8.
    BadUtf8 = 1007, "bad_utf8", No;
    /// The frame was above `frame_bytes`.
    FrameTooLarge = 1009, "frame_too_large", No;
    /// The server could not read what it had to send; the client may resume.
    ServerFailed = 1011, "server_failed", Yes;
    /// The first frame was not `hello`.
    HelloRequired = 4001, "hello_required", No;
    /// The protocol version is not spoken here.
    UnsupportedVersion = 4002, "unsupported_version", No;
    /// The token or ticket is not valid.
    BadToken = 4003, "bad_token", No;
    /// No `hello` within 10 s.
    HelloTimeout = 4004, "hello_timeout", Yes;
    /// The session was revoked.
    SessionRevoked = 4005, "session_revoked", No;
    /// A newer connection took the place of this one.
    TooManyConnections = 4006, "too_many_connections", No;
    /// The client read too slowly; it may resume.
    SlowReader = 4007, "slow_reader", Yes;
    /// The server drains.
    Draining = 4008, "draining", AfterDelay;
    /// Nothing was heard for three heartbeats.
    Silent = 4009, "silent", Yes;
}
