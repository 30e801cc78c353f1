//! What is read out of a value for selectors, in one piece of memory: there are as many as records.

use std::fmt;
use std::sync::Arc;

/// What is read out of a value once, so that lists and watches can select without decoding. Plain pairs, in order; cheap
/// to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tags(
    /// The length of all labels, the labels, the fields: each text with its length before it, a name before its value.
    Arc<[u8]>,
);

/// The bytes of a length.
const LEN: usize = size_of::<u32>();

impl Tags {
    /// Labels, and the values of selectable fields.
    pub fn new<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut all = vec![0; LEN];
        labels.into_iter().for_each(|pair| put(&mut all, pair));
        let end = all.len();
        all[..LEN].copy_from_slice(&length(end - LEN));
        fields.into_iter().for_each(|pair| put(&mut all, pair));
        if all.len() == LEN { Self::default() } else { Self(all.into()) }
    }

    /// The labels, in order.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        Pairs(self.parts().0)
    }

    /// The values of selectable fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        Pairs(self.parts().1)
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// The value of a selectable field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        take(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.labels()).entries(self.fields()).finish()
    }
}

/// Pairs of texts that lie one after the other.
struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = take(self.0)?;
        let (value, rest) = take(rest)?;
        self.0 = rest;
        // Only whole texts were put in.
        Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
    }
}

/// The first piece of some that lie one after the other, and the rest.
fn take(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = from.split_first_chunk::<LEN>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)
}

fn put(into: &mut Vec<u8>, (name, value): (&str, &str)) {
    for text in [name, value] {
        into.extend_from_slice(&length(text.len()));
        into.extend_from_slice(text.as_bytes());
    }
}

fn length(len: usize) -> [u8; LEN] {
    // A value has at most some megabytes, and its tags are parts of it.
    u32::try_from(len).unwrap_or(0).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_by_name_and_in_order() {
        let labels = [("app", "web"), ("empty", ""), ("", "nameless"), ("\u{0}", "ü")];
        let fields = [("status.phase", "Running"), ("app", "a field")];
        let tags = Tags::new(labels, fields);
        assert_eq!(tags.labels().collect::<Vec<_>>(), labels);
        assert_eq!(tags.fields().collect::<Vec<_>>(), fields);
        assert_eq!((tags.label("app"), tags.field("app")), (Some("web"), Some("a field")));
        assert_eq!(
            (tags.label("empty"), tags.label(""), tags.label("none")),
            (Some(""), Some("nameless"), None)
        );
        assert_eq!(tags.label("\u{0}"), Some("ü"));
    }

    #[test]
    fn labels_are_told_from_fields() {
        let pair = [("a", "b")];
        assert_ne!(Tags::new(pair, []), Tags::new([], pair));
        assert_eq!(Tags::new([], pair).label("a"), None);
        assert_eq!(Tags::new([], []), Tags::default());
        assert_eq!(Tags::default().field("a"), None);
    }
}
