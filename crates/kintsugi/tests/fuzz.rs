//! Garbage for everything that reads bytes of strangers: seeds that make sense, changed here and there, again and again.
//!
//! A run of the tests tries a fixed number of cases of each, always the same ones. `cargo xtask fuzz` tries others, as long as
//! one likes; the seed of a case that fails is told, and `KINTSUGI_FUZZ_SEED` tries it again.
#![allow(clippy::print_stderr, reason = "it tells how far it got")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Cases of each target in a run of the tests: together some seconds.
const CASES: u64 = 2_000;
/// The longest input, in bytes: longer ones only repeat themselves.
const LEN_MAX: usize = 8192;
/// The most changes to one seed.
const CHANGES_MAX: u64 = 8;

/// Numbers drawn from one: the same in every run.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Words that have made parsers stumble.
const WORDS: &[&[u8]] = &[
    b"null",
    b"{}",
    b"[]",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"-1",
    b"1e999",
    b"9223372036854775808",
    b"0x",
    b"\xff\xfe",
    b"\xf0\x9f\x98\x80",
    b"true",
    b"%00",
    b"..",
    b"/",
    b"*",
    b"&a",
    b"*a",
    b"<<: ",
    b"\n",
    b"\t",
    b"\0",
    b"{{{{{{{{",
    b"[[[[[[[[",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80",
    b"a: ",
    b"- ",
    b"1Ki",
    b"-0",
    b"1e-9",
];

/// A seed with some changes.
fn changed(seeds: &[Vec<u8>], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = seeds[draw.below(seeds.len())].clone();
    for _ in 0..=draw.next() % CHANGES_MAX {
        let at = draw.below(bytes.len() + 1);
        let end = (at + 1 + draw.below(16)).min(bytes.len());
        match draw.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << draw.below(8),
            1 if at < bytes.len() => bytes[at] = draw.next() as u8,
            2 => drop(bytes.splice(at..at, [draw.next() as u8])),
            3 => drop(bytes.splice(at..end.max(at), [])),
            4 => {
                let word = WORDS[draw.below(WORDS.len())];
                drop(bytes.splice(at..at, word.iter().copied()));
            }
            5 => {
                let word = WORDS[draw.below(WORDS.len())];
                drop(bytes.splice(at..end.max(at), word.iter().copied()));
            }
            6 => {
                let piece = bytes[at..end.max(at)].to_vec();
                let to = draw.below(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
            7 => {
                let other = &seeds[draw.below(seeds.len())];
                let from = draw.below(other.len() + 1);
                let to = (from + draw.below(64)).min(other.len());
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
            8 if draw.below(4) == 0 => bytes.truncate(at),
            _ => {}
        }
    }
    bytes.truncate(LEN_MAX);
    bytes
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Tries cases of one target; a run for time begins at a seed of its own.
fn throw(name: &str, seeds: &[Vec<u8>], read: fn(&[u8])) {
    seeds.iter().for_each(|seed| read(seed));
    let one = number("KINTSUGI_FUZZ_SEED");
    let limit = number("KINTSUGI_FUZZ_SECONDS").map(Duration::from_secs).filter(|_| one.is_none());
    let first = one.or_else(|| number("KINTSUGI_FUZZ_FIRST")).unwrap_or(0);
    let began = Instant::now();
    for case in 0.. {
        let done = match (one, limit) {
            (Some(_), _) => case == 1,
            (None, Some(limit)) => began.elapsed() >= limit,
            (None, None) => case == CASES,
        };
        if done {
            eprintln!("{name}: {case} cases");
            return;
        }
        let seed = first + case;
        let bytes = changed(seeds, &mut Draw(seed));
        if catch_unwind(AssertUnwindSafe(|| read(&bytes))).is_err() {
            panic!("{name}: seed {seed} fails: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

fn throw_at(wanted: &str) {
    let targets = api::fuzz::targets();
    let target = targets.iter().find(|target| target.name == wanted).expect("there is such a target");
    throw(target.name, &target.seeds, target.read);
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            throw_at(stringify!($name));
        })*

        #[test]
        fn every_target_is_tried() {
            let names = [$(stringify!($name)),*];
            api::fuzz::targets().iter().for_each(|target| assert!(names.contains(&target.name), "{}", target.name));
        }
    };
}

targets! { json yaml protobuf patch selector request accept x509 token cel }

#[test]
fn spdy() {
    throw("spdy", &kubelet::fuzz::spdy_seeds(), kubelet::fuzz::spdy);
}
