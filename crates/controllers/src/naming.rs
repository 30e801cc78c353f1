//! Names and hashes that are derived, so that deciding twice makes one object.

use model::{Gvr, Key, Tree, World};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Letters without vowels and look-alikes: a derived name spells nothing.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How long the random-looking end of a pod's name is: 27^5 names for one owner, as the API's own generated names have.
const SUFFIX_LEN: usize = 5;

/// How long the hash of a template is: the usual length of the API's own.
const HASH_LEN: usize = 10;

/// The longest name that may end in a suffix and be a label's value as well (63 bytes in all).
const STEM_LEN_MAX: usize = 63 - SUFFIX_LEN;

/// `len` letters that stand for the parts.
pub fn word(parts: &[&str], len: usize) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part.as_bytes());
    }
    let letter = |byte: u8| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]);
    digest.finalize().iter().take(len).copied().map(letter).collect()
}

/// The hash of a pod template; `collisions` tells apart those whose names were taken.
pub fn template_hash(template: &Tree, collisions: i64) -> String {
    word(&[&plain(template.clone()).to_string(), &collisions.to_string()], HASH_LEN)
}

/// `count` names that begin with `stem` and are free, the same for the same seed.
///
/// The seed should change when the world has moved on (the owner's revision), so that a name is not given again.
pub fn fresh(
    world: &dyn World,
    gvr: &Gvr,
    namespace: &str,
    stem: &str,
    seed: &[&str],
    count: usize,
) -> Vec<String> {
    let stem: String = stem.chars().take(STEM_LEN_MAX).collect();
    let nth = |nth: usize| {
        let nth = nth.to_string();
        let mut parts = seed.to_vec();
        parts.push(&nth);
        format!("{stem}{}", word(&parts, SUFFIX_LEN))
    };
    let mut names: Vec<String> = Vec::with_capacity(count);
    for name in (0..).map(nth) {
        if names.len() == count {
            break;
        }
        if !names.contains(&name) && world.get(&Key::new(gvr, namespace, name.as_str())).is_none() {
            names.push(name);
        }
    }
    names
}

/// The tree without nulls, which mean the same as nothing.
pub fn plain(mut tree: Tree) -> Tree {
    strip(&mut tree);
    tree
}

fn strip(tree: &mut Tree) {
    match tree {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
