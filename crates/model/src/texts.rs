//! Texts by name, such as labels and annotations, in one piece of memory: there are as many as objects.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Texts by name, in the order of their names. Cheap to hold, not meant to be changed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts(
    /// Each text with its length before it, a name before its value; empty and without memory when there is none.
    Box<[u8]>,
);

/// The bytes of a length.
const LEN: usize = size_of::<u32>();

impl Texts {
    /// The texts of these names; of a name that comes twice, the last.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<(N, V)> = pairs.into_iter().collect();
        // Objects of ours have them in order already. The sort is stable, so that the last of a name stays the last.
        pairs.sort_by(|(one, _), (other, _)| one.as_ref().cmp(other.as_ref()));
        let mut all = Vec::new();
        let mut left = pairs.iter().peekable();
        while let Some((name, value)) = left.next() {
            if left.peek().is_none_or(|(next, _)| next.as_ref() != name.as_ref()) {
                put(&mut all, name.as_ref());
                put(&mut all, value.as_ref());
            }
        }
        Self(all.into())
    }

    /// The text of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// Whether there is one of a name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All names with their texts.
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    /// All names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a map, to be changed.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

fn put(into: &mut Vec<u8>, text: &str) {
    // An object has at most some megabytes, and its texts are parts of it.
    into.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    into.extend_from_slice(text.as_bytes());
}

/// The names with their texts, in order.
#[derive(Debug, Clone)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = take(self.0)?;
        let (value, rest) = take(rest)?;
        self.0 = rest;
        Some((name, value))
    }
}

/// The first text of some that lie one after the other, and the rest.
fn take(from: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = from.split_first_chunk::<LEN>()?;
    let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    // Only whole texts were put in.
    Some((std::str::from_utf8(text).ok()?, rest))
}

impl<'a> IntoIterator for &'a Texts {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Pairs)
    }
}

struct Pairs;

/// A text that is copied only when it has to be.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Visitor<'de> for Pairs {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("texts by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
        let mut pairs: Vec<(Text<'de>, Text<'de>)> = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Texts::new(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_by_name_and_come_in_order() {
        let texts = Texts::new([("b", "2"), ("a", "1"), ("", "nameless"), ("\u{0}", "ü"), ("c", "")]);
        let all: Vec<_> = texts.iter().collect();
        assert_eq!(all, [("", "nameless"), ("\u{0}", "ü"), ("a", "1"), ("b", "2"), ("c", "")]);
        assert_eq!((texts.get("a"), texts.get("c"), texts.get("d")), (Some("1"), Some(""), None));
        assert!(texts.contains_key("") && !texts.is_empty());
        assert!(Texts::default().is_empty() && Texts::new::<&str, &str>([]) == Texts::default());
    }

    #[test]
    fn they_are_read_and_written_as_a_map_is() {
        let check = |json: &str| {
            let map: BTreeMap<String, String> = serde_json::from_str(json).expect("a map");
            let texts: Texts = serde_json::from_str(json).expect("texts");
            assert_eq!(texts.to_map(), map);
            assert_eq!(
                serde_json::to_string(&texts).expect("JSON"),
                serde_json::to_string(&map).expect("JSON")
            );
        };
        check("{}");
        check(r#"{"b":"x\ny","a":"\u00fc"}"#);
        check(r#"{"twice":"first","other":"","twice":"last"}"#);
    }
}
