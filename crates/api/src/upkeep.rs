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

/// Where a POST has tokens of service accounts signed with a new key; those of older keys stay good.
pub const ROTATE_TOKEN_KEY: &str = "/kintsugi/tokens/rotate-key";
/// Where a POST lets go of all older keys of tokens: what they signed is good no more.
pub const DROP_TOKEN_KEYS: &str = "/kintsugi/tokens/drop-keys";

/// Keeps the keys by which what is secret is sealed, and tokens are signed.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Takes a new key, has all written anew, and lets go of the old one.
    ///
    /// # Errors
    /// Why it is not done; what was begun is ended by the next try, or the next start.
    async fn rotate(&self, host: &Host, store: &Store) -> Result<(), String>;

    /// Signs tokens with a new key and goes on taking those of older ones; or lets go of all but the newest.
    ///
    /// # Errors
    /// Why it is not done.
    async fn rotate_token_key(&self, host: &Host, drop_old: bool) -> Result<(), String>;
}

/// Nothing is sealed: for the simulator and for tests.
pub struct NoKeys;

#[async_trait]
impl Upkeep for NoKeys {
    async fn rotate(&self, _host: &Host, _store: &Store) -> Result<(), String> {
        Err("this store seals nothing".into())
    }

    async fn rotate_token_key(&self, _host: &Host, _drop_old: bool) -> Result<(), String> {
        Err("this server signs nothing".into())
    }
}

/// Whether a POST to this path is such an act.
pub(crate) fn is_meant(path: &str) -> bool {
    matches!(path, COMPACT | ROTATE_KEY | ROTATE_TOKEN_KEY | DROP_TOKEN_KEYS)
}

/// Does what a POST to a path asks for. The user may, as was seen before.
pub(crate) async fn act(inner: &Inner, path: &str) -> Result<Answer, Refusal> {
    let store = &inner.store;
    let (upkeep, host) = (&inner.settings.upkeep, &inner.host);
    let done = match path {
        COMPACT => {
            store.compact().await?;
            Ok(())
        }
        ROTATE_KEY => upkeep.rotate(host, store).await,
        _ => upkeep.rotate_token_key(host, path == DROP_TOKEN_KEYS).await,
    };
    done.map_err(|why| Refusal::new(Reason::Internal, why))?;
    Ok(Answer::tree(StatusCode::OK, &json!({"revision": store.revision()})))
}

/// Whether what lies at a path of the store is to be sealed on the disk.
pub fn is_secret(path: &str) -> bool {
    path.starts_with("/secrets/")
}
