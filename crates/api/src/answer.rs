//! What the service answers, before it is put on a wire.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use model::Tree;

use crate::auth::Identity;
use crate::dial::Duplex;
use crate::http::{negotiate, status};
use crate::pieces::Pieces;
use crate::proto;
use crate::refusal::Refusal;
use crate::service::Turn;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// The turn in which it was made, which lasts until it is as it goes out.
    pub(crate) turn: Option<Turn>,
}

/// How many warnings one answer carries: headers have to fit what clients read.
const WARNINGS_MAX: usize = 64;
/// How many notes the audit log is given of one request: more than all policies and webhooks of a cluster make.
const NOTES_MAX: usize = 128;
/// The longest warning, in bytes: longer ones are cut, as upstream does.
const WARNING_LEN_MAX: usize = 256;

/// What a user and the audit log are told beside the answer, gathered while the request is under way.
#[derive(Debug, Default)]
pub struct Told {
    /// Guards the warnings while one is added.
    warnings: Mutex<Vec<String>>,
    /// Guards what the audit log is to say, while a note is added.
    notes: Mutex<BTreeMap<String, String>>,
    /// Whom the user acts as.
    acts_as: OnceLock<Identity>,
}

impl Told {
    /// Adds a warning that is not there yet.
    pub fn warn(&self, warning: &str) {
        let end = (0..=WARNING_LEN_MAX.min(warning.len())).rev().find(|end| warning.is_char_boundary(*end));
        let warning = &warning[..end.unwrap_or(0)];
        let mut all = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < WARNINGS_MAX && !all.iter().any(|known| known == warning) {
            all.push(warning.to_owned());
        }
    }

    /// What was gathered.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes something for the audit log. What is there already stays.
    pub fn note(&self, key: &str, value: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < NOTES_MAX && !notes.contains_key(key) {
            notes.insert(key.to_owned(), value.to_owned());
        }
    }

    /// What was noted so far.
    pub fn notes(&self) -> BTreeMap<String, String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes whom the user acts as.
    pub fn note_other(&self, other: &Identity) {
        self.acts_as.get_or_init(|| other.clone());
    }

    /// Whom the user acts as.
    pub fn acts_as(&self) -> Option<&Identity> {
        self.acts_as.get()
    }
}

/// What an answer carries.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// A long list, which is joined while it goes out.
    Pieces(Pieces),
    /// Pieces as they come. Whoever does not take them is cut off.
    Stream(BoxStream<'static, io::Result<Bytes>>),
    /// The same, of a kubelet or a server behind: logs, which somebody reads at their leisure.
    Relayed(BoxStream<'static, io::Result<Bytes>>),
    /// The connection becomes this backend's, byte for byte.
    Upgrade(Box<dyn Duplex>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "{}", String::from_utf8_lossy(bytes)),
            Self::Pieces(pieces) => pieces.fmt(f),
            Self::Stream(_) | Self::Relayed(_) => f.write_str("a stream"),
            Self::Upgrade(_) => f.write_str("an upgrade"),
        }
    }
}

impl Answer {
    /// Bytes of a media type.
    pub fn bytes(status: StatusCode, media: &'static str, bytes: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        Self { status, headers, body: Body::Whole(bytes), turn: None }
    }

    /// JSON bytes.
    pub fn json(status: StatusCode, bytes: Bytes) -> Self {
        Self::bytes(status, "application/json", bytes)
    }

    /// JSON of an object, a list or a status in protobuf; as it is where there is no such form.
    pub fn protobuf(status: StatusCode, json: Bytes) -> Self {
        match proto::from_json(&json) {
            Ok(bytes) => Self::bytes(status, proto::MEDIA, bytes),
            Err(_) => Self::json(status, json),
        }
    }

    /// A refusal for who sent these headers.
    pub fn refused(refusal: Refusal, headers: &HeaderMap) -> Self {
        let answer = Self::from(refusal);
        match answer.body {
            Body::Whole(json) if negotiate::wants_protobuf(headers) => {
                let written = Self::protobuf(answer.status, json);
                let mut headers = answer.headers;
                headers.extend(written.headers);
                Self { headers, ..written }
            }
            body => Self { body, ..answer },
        }
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
            Body::Pieces(pieces) => pieces.whole(),
            Body::Stream(_) | Body::Relayed(_) | Body::Upgrade(_) => {
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
