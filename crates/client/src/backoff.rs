//! Waits between tries that grow, with jitter, so that many clients do not come back at once.

use std::time::Duration;

use host::Chance;

/// How long to wait after the nth failure in a row.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Begins with `first` and doubles up to `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// Counts a failure and says how long to wait: between half and all of the doubled time.
    pub fn next(&mut self, chance: &Chance) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.max).mul_f64(0.5 + chance.unit() / 2.0)
    }

    /// How many failures in a row there have been.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_begin_anew_after_a_success() {
        let chance = Chance::from_seed(3);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for most in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next(&chance).as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
        }
        (0..100).for_each(|_| assert!(backoff.next(&chance).as_millis() <= 1000));
        backoff.reset();
        assert!(backoff.next(&chance).as_millis() <= 100);
    }
}
