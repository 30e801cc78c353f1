//! How requests travel. Two real ones: https, and the same process.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::Deserialize;

/// Carries requests to an API server and answers back.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// One request, one answer. The URI is a path with a query, such as `/api/v1/namespaces?limit=5`.
    ///
    /// An answer with an error status is an answer, not a [`TransportError`].
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError>;

    /// A watch: the request is a GET with `watch=true`. Refusals come as [`TransportError::Refused`].
    async fn watch(&self, request: http::Request<()>) -> Result<WatchStream, TransportError>;
}

/// The events of a watch, in order; the stream's end means: watch again from the last revision seen.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, TransportError>>;

/// One event of a watch.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchKind,
    /// The object's JSON bytes (shared with the store when in the same process); a `Status` for [`WatchKind::Error`].
    pub object: Bytes,
}

/// What a watch event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WatchKind {
    /// The object is new, or newly selected.
    Added,
    /// The object changed.
    Modified,
    /// The object is gone, or no longer selected.
    Deleted,
    /// Nothing happened up to this revision.
    Bookmark,
    /// The watch ends, for this reason.
    Error,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Nobody answered: try again later. The request may or may not have been carried out.
    #[error("no answer from the API server")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server refused a watch: look at the status.
    #[error("refused with {status}")]
    Refused {
        /// The HTTP status code.
        status: http::StatusCode,
        /// The body, usually a `Status`.
        body: Bytes,
    },
}
