//! What can go wrong with a request: one variant for each thing a caller can do next.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::TransportError;

/// How long to wait when the server says "later" and does not say when.
///
/// The API's own default for `Retry-After`; half would press a server that asked for quiet.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Someone wrote first, or the object is not the one that was seen: read again, decide again.
    #[error("conflict: {message}")]
    Conflict {
        /// What the server said.
        message: String,
    },
    /// There is no such object (or resource).
    #[error("not found: {message}")]
    NotFound {
        /// What the server said.
        message: String,
    },
    /// The name is taken.
    #[error("already exists: {message}")]
    AlreadyExists {
        /// What the server said.
        message: String,
    },
    /// The revision asked for is no longer known: list anew.
    #[error("expired: {message}")]
    Expired {
        /// What the server said.
        message: String,
    },
    /// The server will not do this, now or later, unless something else changes.
    #[error("refused with {code} {reason}: {message}")]
    Refused {
        /// The HTTP status code.
        code: u16,
        /// The API's reason, such as `Invalid` or `Forbidden`; may be empty.
        reason: String,
        /// What the server said.
        message: String,
    },
    /// The server (or a budget, for an eviction) asks to come back later.
    #[error("to be tried again after {after:?}: {message}")]
    TooManyRequests {
        /// When to try again.
        after: Duration,
        /// What the server said.
        message: String,
    },
    /// Nobody answered: the request may or may not have been carried out; try again with a backoff.
    #[error("no answer from the API server")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer (or the request) makes no sense: a bug on one side.
    #[error("cannot make sense of {what}")]
    Malformed {
        /// What was looked at.
        what: String,
        /// Why it makes no sense.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The parts of a `Status` that a caller acts on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub code: u16,
    pub reason: String,
    pub message: String,
    pub details: Details,
}

/// The parts of a status' details that a caller acts on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Details {
    pub retry_after_seconds: u64,
}

impl ClientError {
    /// Whether the same request may succeed later although nothing that the caller controls has changed.
    pub fn is_passing(&self) -> bool {
        match self {
            ClientError::Unreachable(_) | ClientError::TooManyRequests { .. } => true,
            ClientError::Refused { code, .. } => *code >= 500,
            _ => false,
        }
    }

    /// What the server said, in its own words; where it said nothing, what happened.
    pub fn said(&self) -> String {
        match self {
            Self::Conflict { message }
            | Self::NotFound { message }
            | Self::AlreadyExists { message }
            | Self::Expired { message }
            | Self::Refused { message, .. }
            | Self::TooManyRequests { message, .. }
                if !message.is_empty() =>
            {
                message.clone()
            }
            other => other.to_string(),
        }
    }

    /// The error that an answer with an error status means.
    pub(crate) fn of_answer(code: StatusCode, headers: &http::HeaderMap, body: &[u8]) -> Self {
        let status: Status = serde_json::from_slice(body).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(&body[..body.len().min(MESSAGE_LEN_MAX)]).into_owned(),
            ..Status::default()
        });
        let header =
            headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Self::of_status(code.as_u16(), status, header)
    }

    /// The error that a `Status` means.
    pub(crate) fn of_status(code: u16, status: Status, retry_after: Option<u64>) -> Self {
        let Status { reason, message, details, .. } = status;
        match (code, reason.as_str()) {
            (409, "AlreadyExists") => ClientError::AlreadyExists { message },
            (409, _) => ClientError::Conflict { message },
            (404, _) => ClientError::NotFound { message },
            (410, _) => ClientError::Expired { message },
            (429 | 503 | 504, _) => {
                let seconds = retry_after.filter(|&s| s > 0).unwrap_or(details.retry_after_seconds);
                let after = if seconds > 0 { Duration::from_secs(seconds) } else { DEFAULT_RETRY_AFTER };
                ClientError::TooManyRequests { after, message }
            }
            _ => ClientError::Refused { code, reason, message },
        }
    }

    /// An answer that is not what it should be.
    pub fn malformed(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        ClientError::Malformed { what: what.into(), source: source.into() }
    }
}

/// How much of an answer that is no `Status` goes into the message: enough for a line of text, not a page of HTML.
const MESSAGE_LEN_MAX: usize = 512;

impl From<TransportError> for ClientError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Unreachable(source) => ClientError::Unreachable(source),
            TransportError::Refused { status, body } => {
                ClientError::of_answer(status, &http::HeaderMap::new(), &body)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: u16, body: &str, said: &str) {
        let code = StatusCode::from_u16(code).expect("a status code");
        let error = ClientError::of_answer(code, &http::HeaderMap::new(), body.as_bytes());
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn each_answer_becomes_the_thing_to_do() {
        check(409, r#"{"reason":"AlreadyExists","message":"a is there"}"#, "already exists: a is there");
        check(409, r#"{"reason":"Conflict","message":"a moved"}"#, "conflict: a moved");
        check(404, r#"{"message":"no a"}"#, "not found: no a");
        check(410, r#"{"reason":"Expired","message":"too old"}"#, "expired: too old");
        check(
            429,
            r#"{"message":"budget","details":{"retryAfterSeconds":10}}"#,
            "to be tried again after 10s: budget",
        );
        check(503, "busy", "to be tried again after 1s: busy");
        check(422, r#"{"reason":"Invalid","message":"bad"}"#, "refused with 422 Invalid: bad");
    }
}
