//! What a monitor keeps: until when its pod may run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Until when a fenced pod may run, and under which epoch; no `until` means: until it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The epoch of the lease under which the pod was bound.
    pub epoch: u64,
    /// On the boot-time clock.
    pub until: Option<Duration>,
}

impl Deadline {
    /// Takes what the agent says. Another epoch's word counts for nothing, and a bounded one only moves on.
    pub fn take(&mut self, told: Deadline) {
        if told.epoch != self.epoch {
            return;
        }
        self.until = match (self.until, told.until) {
            (Some(had), Some(until)) => Some(had.max(until)),
            (_, until) => until,
        };
    }

    /// Ends it at once: the node's own word.
    pub fn end(&mut self, epoch: u64) {
        if epoch == self.epoch {
            self.until = Some(Duration::ZERO);
        }
    }

    /// Whether the pod must not run any more.
    pub fn has_passed(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moves_on_within_its_epoch_only() {
        let told = |epoch, seconds: Option<u64>| Deadline { epoch, until: seconds.map(Duration::from_secs) };
        let mut deadline = told(7, Some(10));
        deadline.take(told(8, Some(99)));
        deadline.take(told(7, Some(9)));
        assert_eq!(deadline, told(7, Some(10)));
        deadline.take(told(7, None));
        assert!(!deadline.has_passed(Duration::MAX));
        deadline.take(told(7, Some(12)));
        assert!(
            !deadline.has_passed(Duration::from_secs(11)) && deadline.has_passed(Duration::from_secs(12))
        );
        deadline.end(7);
        assert!(deadline.has_passed(Duration::ZERO));
    }
}
