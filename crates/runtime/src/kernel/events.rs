//! What happened, on its way to the one who listens.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::kernel::status;
use crate::wire::ContainerRecord;
use crate::{ContainerRef, RuntimeEvent};

/// Events that wait for a listener at most: every container of a full node may end at once. One that lags further
/// behind is cut off; it takes a new receiver and looks at what there is.
const EVENTS_MAX: usize = 4096;

/// Passes events to the newest receiver.
#[derive(Default)]
pub(crate) struct Hub {
    /// The newest receiver's other end; held for one attempt to send.
    sender: Mutex<Option<mpsc::Sender<RuntimeEvent>>>,
}

impl Hub {
    /// A new receiver; the one before ends.
    pub(crate) fn receiver(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Tells that something happened.
    pub(crate) fn publish(&self, event: RuntimeEvent) {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.as_ref().is_some_and(|sender| sender.try_send(event).is_err()) {
            *sender = None;
        }
    }

    /// Tells that a container ended.
    pub(crate) fn exited(&self, pod_uid: &str, record: &ContainerRecord) {
        let Some(exit) = status::exit(record) else { return };
        let container = ContainerRef { pod_uid: pod_uid.to_owned(), id: record.id.clone() };
        self.publish(RuntimeEvent::Exited { container, name: record.spec.name.clone(), exit });
    }
}
