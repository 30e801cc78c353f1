//! Storage of others: drivers that speak CSI, as upstream's kubelet speaks it.
//!
//! A driver says that it is there by a socket in the registry ([`register`]), and is told of the node in CSINode and the
//! Node ([`node`]). A pod's volume is attached by others, staged once on the node, and published for the pod
//! ([`mount`]); what that asks of the driver is decided in [`wish`]. What the fence shut down is made anew ([`renew`]).
//!
//! Promises: what a driver was asked to mount is on disk before it is asked, so it is undone whatever becomes of the
//! agent; a volume is named in the node's status before it is mounted and until it is staged no more, so it is not
//! detached meanwhile; a driver that says nothing holds up nobody but the pods that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use host::watch;
use tokio::sync::Notify;

mod driver;
mod messages;
mod mount;
pub mod node;
mod records;
pub mod register;
mod renew;
mod stats;
mod wish;

pub use driver::Driver;
pub use mount::{Behind, keep, set_up, tear_down};
pub use renew::{exclusive, is_shut, take_down};
pub use stats::usage;
pub use wish::Wish;

/// A volume: its driver and its handle.
type VolumeId = (String, String);

/// What an agent knows of drivers and their volumes.
#[derive(Default)]
pub struct Csi {
    /// The drivers that are registered, by name.
    pub drivers: watch::Sender<BTreeMap<String, Driver>>,
    /// The attached volumes that are in use, as a node's status names them; `None` until that is known.
    pub in_use: watch::Sender<Option<BTreeSet<String>>>,
    /// What the node's status last said of that.
    pub told: watch::Sender<BTreeSet<String>>,
    /// Told when a pod's volume was taken down: what was staged for it may go.
    unused: Notify,
    /// The volumes something is being done with. Guards them for one look or change.
    busy: Mutex<BTreeSet<VolumeId>>,
    /// How often a use was written down.
    marks: AtomicU64,
    /// Told when one of them is free again.
    freed: Notify,
    /// What was done since the agent began. Guards it for one look or change.
    done: Mutex<Done>,
}

/// What was done since the agent began; all of it may be done again.
#[derive(Default)]
struct Done {
    staged: BTreeSet<VolumeId>,
    /// By the pod's uid and the volume's name.
    published: BTreeSet<(String, String)>,
    /// What was found to be grown already, in bytes.
    sizes: BTreeMap<VolumeId, i64>,
}

/// The right to do something with a volume; it ends when this goes.
struct Turn<'a> {
    csi: &'a Csi,
    volume: VolumeId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.csi.busy().remove(&self.volume);
        self.csi.freed.notify_waiters();
    }
}

impl Csi {
    /// The driver of this name.
    pub fn driver(&self, name: &str) -> Option<Driver> {
        self.drivers.borrow().get(name).cloned()
    }

    /// Waits until nothing is being done with a volume.
    async fn turn(&self, volume: &VolumeId) -> Turn<'_> {
        loop {
            // Made before the look, so that an end between the look and the wait is not missed.
            let freed = self.freed.notified();
            if self.busy().insert(volume.clone()) {
                return Turn { csi: self, volume: volume.clone() };
            }
            freed.await;
        }
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<VolumeId>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
