//! How records lie in etcd: keys, values, and revisions. Pure.
//!
//! A record lies under the prefix and its path. Its value is the object's JSON without its revision, which nobody knows before
//! etcd has given it, and a last line that says where the revision goes. Names that begin with a dot are ours: no collection
//! has one.
//!
//! All changes of one transaction get one revision of etcd, but each needs one of its own here, so that a watcher that
//! was cut off between two of them misses nothing. So a revision of ours is etcd's, followed by seven bits that
//! say which change of it. A store that was made from a backup is ahead of etcd by a number of its own, so that revisions
//! only grow.

use bytes::Bytes;
use store::{Body, Form, Revision};

/// How many bits say which change of a transaction: etcd takes 128 of them.
const CHANGE_BITS: u32 = 7;

/// How many operations etcd takes in a transaction, unless it is told otherwise.
pub const OPS_MAX: usize = 1 << CHANGE_BITS;

/// An etcd revision that nothing was ever written at.
const NEVER: i64 = -1;

/// The keys of a store, and how its revisions are counted.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
    /// By how much revisions are ahead of etcd's.
    ahead: i64,
}

/// What a key is.
#[derive(Debug, PartialEq, Eq)]
pub enum Sort<'a> {
    /// Of the record at this path.
    Record(&'a str),
    /// Where a transaction tells how a record went, by the number of its change.
    Gone(usize),
    /// Another of ours, or none of ours.
    Other,
}

impl Keys {
    /// Those under a prefix, such as `/kintsugi`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.trim_end_matches('/').to_owned(), ahead: 0 }
    }

    /// The same, with revisions that are ahead of etcd's by so many.
    #[must_use]
    pub fn ahead(&self, ahead: i64) -> Self {
        Self { ahead, ..self.clone() }
    }

    /// By how much revisions have to be ahead so that the one after `newest` of etcd comes after `begins`.
    pub fn ahead_for(begins: Revision, newest: i64) -> i64 {
        i64::try_from(begins >> CHANGE_BITS).unwrap_or(i64::MAX).saturating_sub(newest)
    }

    /// The revision of a change.
    pub fn revision(&self, etcd: i64, change: usize) -> Revision {
        let number = Revision::try_from(etcd.saturating_add(self.ahead)).unwrap_or(0);
        (number << CHANGE_BITS) | (change as Revision)
    }

    /// The revision at which all of an etcd revision is there.
    pub fn whole(&self, etcd: i64) -> Revision {
        self.revision(etcd, OPS_MAX - 1)
    }

    /// The etcd revision of a change; one that nothing was written at where etcd has none so early.
    pub fn etcd(&self, revision: Revision) -> i64 {
        let number = i64::try_from(revision >> CHANGE_BITS).unwrap_or(i64::MAX);
        Some(number.saturating_sub(self.ahead)).filter(|etcd| *etcd > 0).unwrap_or(NEVER)
    }

    /// The first key, and the one after the last.
    pub fn all(&self) -> (Bytes, Bytes) {
        // After the slash comes the zero.
        (format!("{}/", self.prefix).into(), format!("{}0", self.prefix).into())
    }

    /// All keys but ours: ranges, each with its first key and the one after its last.
    pub fn records(&self) -> [(Bytes, Bytes); 2] {
        // After the dot comes the slash.
        let at = |end: &str| Bytes::from(format!("{}{end}", self.prefix));
        [(at("/"), at("/.")), (at("//"), at("0"))]
    }

    /// Keys of ours that are no record's, by how their names begin.
    pub fn owns(&self, begin: &str) -> (Bytes, Bytes) {
        beginning(self.own(begin))
    }

    /// The keys of all records whose paths begin so.
    pub fn below(&self, begin: &str) -> (Bytes, Bytes) {
        beginning(self.record(begin))
    }

    /// The key of a record.
    pub fn record(&self, path: &str) -> Bytes {
        format!("{}{path}", self.prefix).into()
    }

    /// The key where a transaction tells how the record went that its change of this number removes.
    pub fn gone(&self, change: usize) -> Bytes {
        self.own(&format!("gone/{change}"))
    }

    /// A key of ours that is no record's.
    pub fn own(&self, name: &str) -> Bytes {
        format!("{}/.{name}", self.prefix).into()
    }

    /// What a key is.
    pub fn sort<'a>(&self, key: &'a [u8]) -> Sort<'a> {
        let path = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&self.prefix));
        let path = path.filter(|path| path.starts_with('/'));
        match path.map(|path| (path, path.strip_prefix("/."))) {
            Some((path, None)) => Sort::Record(path),
            Some((_, Some(own))) => {
                let change = own.strip_prefix("gone/").and_then(|change| change.parse().ok());
                change.map_or(Sort::Other, Sort::Gone)
            }
            None => Sort::Other,
        }
    }
}

/// The range of all keys that begin so.
fn beginning(first: Bytes) -> (Bytes, Bytes) {
    let mut end = first.to_vec();
    // Keys are text, and no text has the last byte that there is.
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    (first, end.into())
}

/// The longest last line of a value, in bytes.
const SEAL_LEN_MAX: usize = 32;

/// The word in it of what is sealed for who reads the disk.
const SEALED: &str = "sealed";

/// A value as it lies in etcd.
pub fn write(form: &Form, path: &str, body: &Body, change: usize) -> Bytes {
    let after = body.after.as_deref().unwrap_or_default();
    let plain = || [&*body.before, after].concat();
    let sealed = form.sealer.as_ref().filter(|sealer| sealer.seals(path)).map(|_| plain());
    let sealed = sealed.and_then(|plain| form.sealed(path, &plain));
    let split = body.after.as_ref().map_or("-".to_owned(), |_| body.before.len().to_string());
    let line = match &sealed {
        Some(_) => format!("\n{change} {split} {SEALED}"),
        None => format!("\n{change} {split}"),
    };
    let mut value = sealed.unwrap_or_else(plain);
    value.extend_from_slice(line.as_bytes());
    value.into()
}

/// Why a value is not read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// Nobody of ours has written it.
    Strange,
    /// It cannot be opened, for this reason.
    Sealed(String),
}

/// What lies in etcd, without its last line; and which change of its transaction wrote it.
///
/// # Errors
/// Why it is not read.
pub fn read(form: &Form, path: &str, value: &[u8]) -> Result<(Body, usize), Unread> {
    let line = Line::read(value).ok_or(Unread::Strange)?;
    let plain = match line.is_sealed {
        true => form.opened(path, line.value).map_err(Unread::Sealed)?,
        false => Bytes::copy_from_slice(line.value),
    };
    let body = match line.split {
        None => Body { before: plain, after: None },
        Some(at) if at <= plain.len() => Body { before: plain.slice(..at), after: Some(plain.slice(at..)) },
        Some(_) => return Err(Unread::Strange),
    };
    Ok((body, line.change))
}

/// A value, and what its last line says of it.
struct Line<'a> {
    value: &'a [u8],
    change: usize,
    split: Option<usize>,
    is_sealed: bool,
}

impl<'a> Line<'a> {
    fn read(value: &'a [u8]) -> Option<Self> {
        let tail = value.len().saturating_sub(SEAL_LEN_MAX);
        let at = tail + value[tail..].iter().rposition(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(&value[at + 1..]).ok()?.split(' ');
        let change = words.next()?.parse().ok().filter(|change| *change < OPS_MAX)?;
        let split = match words.next()? {
            "-" => None,
            split => Some(split.parse().ok()?),
        };
        let is_sealed = match words.next() {
            None => false,
            Some(word) if word == SEALED => true,
            Some(_) => return None,
        };
        Some(Self { value: &value[..at], change, split, is_sealed })
    }
}

/// How a record went, with its path.
pub fn write_gone(form: &Form, path: &str, body: &Body, change: usize) -> Bytes {
    let value = write(form, path, body, change);
    [path.as_bytes(), b"\n", &value].concat().into()
}

/// The path of what went, and its last value.
pub fn read_gone<'a>(form: &Form, value: &'a [u8]) -> Option<(&'a str, Body)> {
    let at = value.iter().position(|byte| *byte == b'\n')?;
    let path = std::str::from_utf8(&value[..at]).ok()?;
    Some((path, read(form, path, &value[at + 1..]).ok()?.0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Seals Secrets, by turning their bytes round.
    struct Turned;

    impl store::Sealer for Turned {
        fn seals(&self, path: &str) -> bool {
            path.starts_with("/secrets/")
        }

        fn seal(&self, _path: &str, value: &[u8]) -> Vec<u8> {
            value.iter().rev().copied().collect()
        }

        fn open(&self, path: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
            Ok(self.seal(path, sealed))
        }
    }

    fn form() -> Form {
        Form { tagger: Arc::new(|_, _| store::Tags::default()), sealer: Some(Arc::new(Turned)) }
    }

    fn check(path: &str, before: &'static str, after: Option<&'static str>, change: usize, lies: &str) {
        let body = Body { before: Bytes::from_static(before.as_bytes()), after: after.map(Bytes::from) };
        let value = write(&form(), path, &body, change);
        assert_eq!(String::from_utf8_lossy(&value), lies);
        let (again, of) = read(&form(), path, &value).expect("it was written so");
        assert_eq!((&again.before, &again.after, of), (&body.before, &body.after, change));
        let gone = write_gone(&form(), path, &body, change);
        let (at, again) = read_gone(&form(), &gone).expect("it was written so");
        assert_eq!((at, &again.before, &again.after), (path, &body.before, &body.after));
    }

    #[test]
    fn a_value_is_read_as_it_was_written() {
        check("/pods/a/x", "{\"v\":\"", Some("\"}"), 0, "{\"v\":\"\"}\n0 6");
        check("/pods/a/x", "{}\n", None, 127, "{}\n\n127 -");
        check("/pods/a/x", "", Some(""), 1, "\n1 0");
        check("/pods/a/x", "a\n1 9", Some("\n"), 2, "a\n1 9\n\n2 5");
        check("/secrets/a/x", "ab", Some("c"), 0, "cba\n0 2 sealed");
        check("/secrets/a/x", "abc", None, 3, "cba\n3 - sealed");
    }

    #[test]
    fn what_others_wrote_is_not_taken_for_ours() {
        for strange in
            ["", "{}", "\n", "{}\n", "{}\n1", "{}\n1 x", "{}\n128 -", "{}\n0 9", "{}\n-1 0", "{}\n0 1 x"]
        {
            assert_eq!(
                read(&form(), "/a/x", strange.as_bytes()).map(|_| ()),
                Err(Unread::Strange),
                "{strange:?}"
            );
        }
    }

    #[test]
    fn keys_tell_what_they_are() {
        let keys = Keys::new("/kintsugi/");
        assert_eq!(keys.record("/pods/a/x"), "/kintsugi/pods/a/x");
        assert_eq!(keys.sort(b"/kintsugi/pods/a/x"), Sort::Record("/pods/a/x"));
        assert_eq!(keys.sort(&keys.gone(3)), Sort::Gone(3));
        assert_eq!(keys.sort(&keys.own("mark")), Sort::Other);
        assert_eq!(keys.sort(b"/registry/pods/a/x"), Sort::Other);
        let (first, end) = keys.all();
        assert!(first <= keys.record("/a") && keys.own("mark") < end && keys.record("/zz") < end);
    }

    #[test]
    fn revisions_of_one_transaction_follow_each_other_and_come_before_the_next() {
        for ahead in [0, 1_000_000_000] {
            let keys = Keys::new("/k").ahead(ahead);
            let revision = |etcd, change| keys.revision(etcd, change);
            assert!(revision(7, 0) < revision(7, 1) && revision(7, 127) < revision(8, 0));
            let again = [revision(7, 0), keys.whole(7), revision(8, 0)].map(|revision| keys.etcd(revision));
            assert_eq!(again, [7, 7, 8]);
            // What no etcd wrote is not taken for nothing, whose revision is 0.
            assert_eq!([0, 5, revision(0, 3)].map(|revision| keys.etcd(revision)), [NEVER; 3]);
        }
    }

    #[test]
    fn revisions_can_begin_after_any_that_was_seen() {
        let check = |begins: Revision, newest: i64| {
            let keys = Keys::new("/k").ahead(Keys::ahead_for(begins, newest));
            assert!(keys.revision(newest + 1, 0) > begins, "{begins} {newest}");
            assert_eq!(keys.etcd(keys.revision(newest + 1, 5)), newest + 1);
        };
        check(67, 1);
        check(67 + (1 << 40), 12);
        check(127, 0);
        check(128, 9_000_000);
    }

    #[test]
    fn ranges_hold_what_they_say() {
        let keys = Keys::new("/k");
        let holds = |(first, end): &(Bytes, Bytes), key: &Bytes| first <= key && key < end;
        let in_records = |key: Bytes| keys.records().iter().any(|range| holds(range, &key));
        assert!(in_records(keys.record("/pods/a/x")) && in_records(keys.record("/a")));
        assert!(!in_records(keys.own("mark")) && !in_records("/kx/a".into()) && !in_records("/k".into()));
        assert!(holds(&keys.owns("agreed/"), &keys.own("agreed/keys")));
        assert!(!holds(&keys.owns("agreed/"), &keys.own("ahead")));
        assert!(holds(&keys.below("/secrets/"), &keys.record("/secrets/a/x")));
        assert!(!holds(&keys.below("/secrets/"), &keys.record("/secretsx/a")));
    }
}
