//! A gate that holds up a paused component: whoever passes through it waits while it is shut.

use host::watch;

/// Open or shut; clones share it.
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Gate {
    /// Holds up whoever comes.
    pub fn shut(&self) {
        self.0.send_replace(false);
    }

    /// Lets everyone through.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is shut.
    pub fn is_shut(&self) -> bool {
        !*self.0.borrow()
    }

    /// Returns when it is open.
    pub async fn pass(&self) {
        let mut seen = self.0.subscribe();
        // The sender is in this very gate: it cannot be gone.
        let _ = seen.wait_for(|is_open| *is_open).await;
    }
}
