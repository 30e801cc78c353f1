//! The door in the same process: the same trip as over https, without encoding and sockets.

use api::Service;
use api::auth::Identity;
use async_trait::async_trait;
use bytes::Bytes;
use client::{Transport, TransportError, WatchEvent, WatchKind, WatchStream};
use futures_util::StreamExt;

/// A [`Transport`] to the API in this process, as one user.
pub struct Local {
    service: Service,
    identity: Identity,
}

impl Local {
    /// Requests of `identity` to `service`.
    pub fn new(service: Service, identity: Identity) -> Self {
        Self { service, identity }
    }
}

#[async_trait]
impl Transport for Local {
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        Ok(self.service.call(&self.identity, request).await)
    }

    async fn watch(&self, request: http::Request<()>) -> Result<WatchStream, TransportError> {
        match self.service.watch(&self.identity, request).await {
            Ok(events) => {
                Ok(events.map(|(kind, object)| Ok(WatchEvent { kind: heard(kind), object })).boxed())
            }
            Err(refusal) => {
                let (parts, body) = refusal.into_parts();
                Err(TransportError::Refused { status: parts.status, body })
            }
        }
    }
}

fn heard(kind: api::EventKind) -> WatchKind {
    match kind {
        api::EventKind::Added => WatchKind::Added,
        api::EventKind::Modified => WatchKind::Modified,
        api::EventKind::Deleted => WatchKind::Deleted,
        api::EventKind::Bookmark => WatchKind::Bookmark,
        api::EventKind::Error => WatchKind::Error,
    }
}
