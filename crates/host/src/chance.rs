//! Chance: identifiers, suffixes, jitter. One seed, one run.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

/// The alphabet of generated name suffixes: no vowels, nothing that looks alike (as upstream's `rand.String`).
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A source of chance that all clones share.
///
/// The lock guards the generator's state for a few instructions.
#[derive(Clone)]
pub struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    /// Chance from the machine's entropy.
    pub fn from_entropy() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// The same chance for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A separate source that follows from this one, for a component of its own.
    pub fn fork(&self) -> Self {
        Self::from_seed(self.u64())
    }

    /// Any number.
    pub fn u64(&self) -> u64 {
        self.with(|rng| rng.next_u64())
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.with(|rng| rng.random_range(0..bound)) }
    }

    /// A number in `[0, 1)`.
    pub fn unit(&self) -> f64 {
        self.with(|rng| rng.random())
    }

    /// Random bytes, fit for keys and tokens when the source is the machine's.
    pub fn fill(&self, buffer: &mut [u8]) {
        self.with(|rng| rng.fill_bytes(buffer));
    }

    /// A version 4 UUID (RFC 9562), in the usual form.
    pub fn uuid(&self) -> String {
        let mut b = [0u8; 16];
        self.fill(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let n = u128::from_be_bytes(b);
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            n >> 96,
            (n >> 80) & 0xffff,
            (n >> 64) & 0xffff,
            (n >> 48) & 0xffff,
            n & 0xffff_ffff_ffff
        )
    }

    /// A suffix of `len` characters as `generateName` appends it.
    pub fn suffix(&self, len: usize) -> String {
        (0..len).map(|_| SUFFIX_ALPHABET[self.below(SUFFIX_ALPHABET.len() as u64) as usize] as char).collect()
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        let (a, b) = (Chance::from_seed(7), Chance::from_seed(7));
        assert_eq!((a.uuid(), a.suffix(5), a.below(100)), (b.uuid(), b.suffix(5), b.below(100)));
    }

    #[test]
    fn a_uuid_says_its_version_and_variant() {
        let id = Chance::from_seed(1).uuid();
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
    }
}
