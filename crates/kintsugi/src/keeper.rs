//! Keeps the keys of a running server: those of the store, and those that sign tokens.

use std::path::PathBuf;
use std::sync::Arc;

use api::Upkeep;
use api::auth::tokens::Tokens;
use async_trait::async_trait;
use host::Host;
use store::Store;

use crate::keys;
use crate::rotation::Rotation;
use crate::vault::Vault;

/// Keeps the keys of a running server.
pub struct Keeper {
    /// The keys of the store.
    pub vault: Arc<Vault>,
    /// The keys that sign tokens, as they are used.
    pub tokens: Arc<Tokens>,
    /// Where keys are kept.
    pub dir: PathBuf,
    /// Its part in rotations of the store's key, where other servers have the same keys.
    pub rotation: Option<Arc<Rotation>>,
}

#[async_trait]
impl Upkeep for Keeper {
    async fn rotate(&self, host: &Host, store: &Store) -> Result<(), String> {
        let rotated = match &self.rotation {
            Some(rotation) => rotation.rotate().await,
            None => self.vault.rotate(host, store).await,
        };
        rotated.map_err(|error| format!("{error:#}"))
    }

    async fn rotate_token_key(&self, host: &Host, drop_old: bool) -> Result<(), String> {
        if self.rotation.is_some() {
            return Err(
                "several servers may share this store, and a new key would reach only this one".into()
            );
        }
        let dir = self.dir.clone();
        // In the file before it signs anything: a server that starts again knows it.
        let kept = host.blocking(move || keys::rotate_token_key(&dir, drop_old)).await;
        let kept = kept.map_err(|error| format!("{error:#}"))?;
        self.tokens.replace(&kept).map_err(|error| error.to_string())
    }
}
