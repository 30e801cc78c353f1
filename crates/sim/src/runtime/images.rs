//! The registry of the simulated world: which images there are to pull, and how long that takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::watch;
use runtime::Image;

/// How long a pull usually takes.
const PULL: Duration = Duration::from_millis(400);

/// How big an image is, in bytes: enough to look like one.
const IMAGE_SIZE: u64 = 50_000_000;

/// A registry that all nodes pull from; clones share it.
#[derive(Clone, Default)]
pub struct Registry {
    /// Guards what is said of each image, for the length of one look.
    known: Arc<Mutex<BTreeMap<String, Offer>>>,
    changed: Arc<watch::Sender<()>>,
}

/// What the registry does when an image is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It sends it within this time.
    Sends(Duration),
    /// It says that there is no such image.
    Missing,
    /// It never answers.
    Hangs,
}

impl std::fmt::Display for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Offer::Sends(within) => write!(f, "{within:?}"),
            Offer::Missing => f.write_str("missing"),
            Offer::Hangs => f.write_str("hangs"),
        }
    }
}

impl Registry {
    /// Says what happens when `reference` is pulled from now on.
    pub fn set(&self, reference: &str, offer: Offer) {
        self.known().insert(reference.to_owned(), offer);
        self.changed.send_replace(());
    }

    /// What happens when `reference` is pulled; every image is there unless it was said that it is not.
    pub fn offer(&self, reference: &str) -> Offer {
        self.known().get(reference).copied().unwrap_or(Offer::Sends(PULL))
    }

    /// Returns when something else is offered.
    pub async fn changed(&self) {
        // The sender is in this very registry: it cannot be gone.
        let _ = self.changed.subscribe().changed().await;
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Offer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The image that a reference names. Two references name two images.
pub fn image(reference: &str) -> Image {
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for byte in reference.bytes() {
        digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let name = reference.rsplit_once(':').map_or(reference, |(name, _)| name);
    Image {
        id: format!("sha256:{digest:064x}"),
        tags: vec![reference.to_owned()],
        digests: vec![format!("{name}@sha256:{digest:064x}")],
        size: IMAGE_SIZE,
        entrypoint: vec!["run".to_owned()],
        ..Image::default()
    }
}
