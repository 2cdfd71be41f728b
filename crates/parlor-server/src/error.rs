//! The one mapping from a refusal to what travels: a status with a problem document, or a frame.
//!
//! No other file of the doors picks a status for a refusal.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use parlor_core::Error;
use parlor_proto::{ErrorCode, Invalid, Problem, frame::ErrorFrame};

/// A refusal on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code; it decides the status.
    pub code: ErrorCode,
    /// One sentence.
    pub detail: Cow<'static, str>,
    /// The field to blame; none if no field is.
    pub field: Option<String>,
    /// How long to wait.
    pub retry_after: Option<Duration>,
    /// For 405: the methods that the path has.
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// Refuses with a code and a sentence.
    pub const fn new(code: ErrorCode, detail: &'static str) -> Self {
        Self { code, detail: Cow::Borrowed(detail), field: None, retry_after: None, allow: None }
    }

    /// Names the field to blame.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says that the path does not exist, or not for the caller.
    pub const fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such thing, or it is not for you")
    }

    /// Returns the status; every code has exactly one.
    pub const fn status(&self) -> StatusCode {
        status(self.code)
    }

    /// Returns the problem document.
    pub fn problem(&self) -> Problem {
        Problem {
            kind: format!("urn:parlor:problem:{}", self.code),
            title: title(self.code).to_owned(),
            status: self.status().as_u16(),
            detail: self.detail.clone().into_owned(),
            code: self.code,
            field: self.field.clone(),
            retry_after: self.retry_after.map(whole_seconds),
        }
    }

    /// Returns the frame that says the same over a socket.
    pub fn frame(self, id: Option<String>) -> ErrorFrame {
        let retry_after_ms =
            self.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let Self { code, detail, field, .. } = self;
        ErrorFrame { id, code, detail: detail.into_owned(), field, retry_after_ms }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let say = |code| Self {
            code,
            detail: Cow::Owned(error.to_string()),
            field: None,
            retry_after: None,
            allow: None,
        };
        match error {
            Error::Invalid(invalid) => invalid.into(),
            Error::Unauthenticated => say(ErrorCode::Unauthenticated),
            Error::BadCredentials => say(ErrorCode::BadCredentials),
            Error::Forbidden { code, detail } | Error::Conflict { code, detail } => {
                Self::new(code, detail)
            }
            Error::NotFound => say(ErrorCode::NotFound),
            Error::TooMany { retry_after } => {
                Self { retry_after: Some(retry_after), ..say(ErrorCode::RateLimited) }
            }
            Error::Unavailable { retry_after } => {
                Self { retry_after: Some(retry_after), ..say(ErrorCode::Unavailable) }
            }
            Error::Internal => say(ErrorCode::Internal),
        }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self {
            code: invalid.code,
            detail: Cow::Owned(invalid.detail),
            field: Some(invalid.field).filter(|field| !field.is_empty()),
            retry_after: None,
            allow: None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Rounds up, since a client that comes back too early is refused again.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadJson | ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated | ErrorCode::BadCredentials => StatusCode::UNAUTHORIZED,
        ErrorCode::Csrf
        | ErrorCode::OriginRefused
        | ErrorCode::Forbidden
        | ErrorCode::RegistrationClosed
        | ErrorCode::SetupCodeRequired => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::Conflict
        | ErrorCode::IdempotencyConflict
        | ErrorCode::LastOwner
        | ErrorCode::UsernameTaken
        | ErrorCode::EmailTaken
        | ErrorCode::Reset
        | ErrorCode::AlreadyGreeted => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::Invalid
        | ErrorCode::UnknownField
        | ErrorCode::OutOfRange
        | ErrorCode::WeakPassword
        | ErrorCode::UnknownFrame => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

const fn title(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadJson => "Not JSON",
        ErrorCode::BadRequest => "Not readable",
        ErrorCode::Unauthenticated => "Not signed in",
        ErrorCode::BadCredentials => "Sign-in refused",
        ErrorCode::Csrf => "Header missing",
        ErrorCode::OriginRefused => "Origin not allowed",
        ErrorCode::Forbidden => "Not allowed",
        ErrorCode::RegistrationClosed => "Registration is closed",
        ErrorCode::SetupCodeRequired => "Setup code required",
        ErrorCode::NotFound => "Not found",
        ErrorCode::MethodNotAllowed => "Method not allowed",
        ErrorCode::Conflict => "Conflict",
        ErrorCode::IdempotencyConflict => "Key used with another body",
        ErrorCode::LastOwner => "Last owner",
        ErrorCode::UsernameTaken => "Username taken",
        ErrorCode::EmailTaken => "Email address taken",
        ErrorCode::Reset => "Start again",
        ErrorCode::TooLarge => "Too large",
        ErrorCode::UnsupportedMediaType => "Not application/json",
        ErrorCode::Invalid => "Not acceptable",
        ErrorCode::UnknownField => "Unknown field",
        ErrorCode::OutOfRange => "Out of range",
        ErrorCode::WeakPassword => "Password too easy to guess",
        ErrorCode::RateLimited => "Too many calls",
        ErrorCode::Unavailable => "Not possible now",
        ErrorCode::Internal => "Defect of the server",
        ErrorCode::UnknownFrame => "Unknown frame",
        ErrorCode::AlreadyGreeted => "Already greeted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_to_whole_seconds() {
        for (wait_ms, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(wait_ms)), seconds);
        }
    }

    #[test]
    fn every_code_has_a_refusing_status() {
        for code in ErrorCode::ALL {
            assert!(status(*code).as_u16() >= 400, "{code}");
            let retryable = matches!(status(*code).as_u16(), 429 | 500..);
            assert_eq!(retryable, code.may_retry(), "{code}");
        }
    }

    #[test]
    fn a_refusal_of_the_core_keeps_field_and_wait() {
        let refusal: Refusal = Error::Invalid(Invalid::new("title", "too long")).into();
        assert_eq!(refusal.field.as_deref(), Some("title"));
        let refusal: Refusal = Error::TooMany { retry_after: Duration::from_millis(1_500) }.into();
        assert_eq!(refusal.problem().retry_after, Some(2));
        assert_eq!(refusal.frame(None).retry_after_ms, Some(1_500));
    }
}
