//! What the service answers, before it is put on a wire.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use model::Tree;

use crate::dial::Duplex;
use crate::http::status;
use crate::refusal::Refusal;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

/// How many warnings one answer carries: headers have to fit what clients read.
const WARNINGS_MAX: usize = 64;
/// The longest warning, in bytes: longer ones are cut, as upstream does.
const WARNING_LEN_MAX: usize = 256;

/// What a user is told beside the answer, gathered while the request is under way.
#[derive(Debug, Default)]
pub struct Told(Mutex<Vec<String>>);

impl Told {
    /// Adds a warning that is not there yet.
    pub fn warn(&self, warning: &str) {
        let end = (0..=WARNING_LEN_MAX.min(warning.len())).rev().find(|end| warning.is_char_boundary(*end));
        let warning = &warning[..end.unwrap_or(0)];
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < WARNINGS_MAX && !all.iter().any(|known| known == warning) {
            all.push(warning.to_owned());
        }
    }

    /// What was gathered.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What an answer carries.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// Pieces as they come.
    Stream(BoxStream<'static, io::Result<Bytes>>),
    /// The connection becomes this backend's, byte for byte.
    Upgrade(Box<dyn Duplex>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "{}", String::from_utf8_lossy(bytes)),
            Self::Stream(_) => f.write_str("a stream"),
            Self::Upgrade(_) => f.write_str("an upgrade"),
        }
    }
}

impl Answer {
    /// Bytes of a media type.
    pub fn bytes(status: StatusCode, media: &'static str, bytes: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        Self { status, headers, body: Body::Whole(bytes) }
    }

    /// JSON bytes.
    pub fn json(status: StatusCode, bytes: Bytes) -> Self {
        Self::bytes(status, "application/json", bytes)
    }

    /// A tree as JSON.
    pub fn tree(status: StatusCode, tree: &Tree) -> Self {
        Self::json(status, model::schema::to_bytes(tree))
    }

    /// Text.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::bytes(status, "text/plain; charset=utf-8", Bytes::from(text.into()))
    }

    /// The same, with warnings for the user (RFC 7234, code 299).
    pub fn warned(mut self, warnings: &[String]) -> Self {
        for warning in warnings {
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\n'], " ");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                self.headers.append(http::header::WARNING, value);
            }
        }
        self
    }

    /// The answer as an HTTP response of one piece; streams and upgrades are refused in this form.
    pub fn into_whole(self) -> Response<Bytes> {
        let bytes = match self.body {
            Body::Whole(bytes) => bytes,
            Body::Stream(_) | Body::Upgrade(_) => {
                return Self::from(Refusal::bad_request("this answer comes in pieces")).into_whole();
            }
        };
        let mut response = Response::new(bytes);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut answer = Self::tree(status::of(&refusal), &status::failure(&refusal));
        if let Some(seconds) = refusal.retry_after {
            answer.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}
