//! How long things take in the simulated world: the same each time, or drawn around that.

use std::time::Duration;

use host::Chance;

/// How often a drawn time is one of the rare long ones: machines do stall now and then.
const STALL_ONE_IN: u64 = 200;

/// How much longer a stall is than usual.
const STALL_FACTOR: u32 = 25;

/// Says how long something takes that usually takes so long.
#[derive(Clone)]
pub enum Pace {
    /// Always as long as usual: for scenarios, whose timelines people read.
    Steady,
    /// Between half and twice as long, and much longer now and then: for random seeds.
    Drawn(Chance),
}

impl Pace {
    /// How long something takes this time that is quick in one of two cases, and takes up to so long in the other.
    pub fn up_to(&self, most: Duration) -> Duration {
        match self {
            Pace::Drawn(chance) if chance.below(2) == 0 => most.mul_f64(chance.unit()),
            Pace::Drawn(_) | Pace::Steady => Duration::ZERO,
        }
    }

    /// How long it takes this time.
    pub fn of(&self, usual: Duration) -> Duration {
        match self {
            Pace::Steady => usual,
            Pace::Drawn(chance) if chance.below(STALL_ONE_IN) == 0 => usual * STALL_FACTOR,
            Pace::Drawn(chance) => usual.mul_f64(0.5 + 1.5 * chance.unit()),
        }
    }
}
