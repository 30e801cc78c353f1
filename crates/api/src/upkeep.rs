//! What a running server does with its store when an administrator asks: shrink the log, take a new key.

use async_trait::async_trait;
use host::Host;
use http::StatusCode;
use serde_json::json;
use store::Store;

use crate::answer::Answer;
use crate::refusal::{Reason, Refusal};
use crate::service::Inner;

/// Where a POST shrinks the store's log. It is no resource: only who may do everything may do this.
pub const COMPACT: &str = "/kintsugi/store/compact";
/// Where a POST has the store sealed with a new key.
pub const ROTATE_KEY: &str = "/kintsugi/store/rotate-key";

/// Keeps the keys by which what is secret is sealed.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Takes a new key, has all written anew, and lets go of the old one.
    ///
    /// # Errors
    /// Why it is not done; what was begun is ended by the next try, or the next start.
    async fn rotate(&self, host: &Host, store: &Store) -> Result<(), String>;
}

/// Nothing is sealed: for the simulator and for tests.
pub struct NoKeys;

#[async_trait]
impl Upkeep for NoKeys {
    async fn rotate(&self, _host: &Host, _store: &Store) -> Result<(), String> {
        Err("this store seals nothing".into())
    }
}

/// Whether a POST to this path is such an act.
pub(crate) fn is_meant(path: &str) -> bool {
    matches!(path, COMPACT | ROTATE_KEY)
}

/// Does what a POST to a path asks for. The user may, as was seen before.
pub(crate) async fn act(inner: &Inner, path: &str) -> Result<Answer, Refusal> {
    let store = &inner.store;
    match path {
        COMPACT => drop(store.compact().await?),
        _ => {
            let rotated = inner.settings.upkeep.rotate(&inner.host, store).await;
            rotated.map_err(|why| Refusal::new(Reason::Internal, why))?;
        }
    }
    Ok(Answer::tree(StatusCode::OK, &json!({"revision": store.revision()})))
}

/// Whether what lies at a path of the store is to be sealed on the disk.
pub fn is_secret(path: &str) -> bool {
    path.starts_with("/secrets/")
}
