//! A long list as it goes out: joined of stored bytes a piece at a time, so that there is never a second copy of it all.

use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use store::Record;

use crate::http::TLS_LEN;

/// How many bytes a piece has, about: what TLS takes at once, less the frame around it and the last item's rest, so that
/// each goes to the kernel in one call.
const PIECE_LEN: usize = TLS_LEN - 8 * 1024;
/// What ends a list.
const TAIL: &[u8] = b"]}\n";

/// An item of a list.
pub enum Item {
    /// As it is stored.
    Stored(Record),
    /// As it was made for this list.
    Made(Bytes),
}

impl Deref for Item {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Stored(record) => &record.value,
            Self::Made(bytes) => bytes,
        }
    }
}

/// A list that is yet to be joined.
pub struct Pieces {
    /// What precedes the items, while it is not taken.
    head: Vec<u8>,
    /// What each item leaves out at its begin, where it has it: the list says it once.
    prefix: String,
    items: IntoIter<Item>,
    is_first: bool,
    is_done: bool,
    /// As many bytes as it can be at most.
    len_max: usize,
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} items", self.items.len())
    }
}

impl Pieces {
    /// A list: what precedes its items, the items, and the bytes that those leave out which begin with them. Each item is
    /// a JSON object, and the prefix opens one or is empty.
    pub fn new(head: String, prefix: String, items: Vec<Item>) -> Self {
        let inner: usize = items.iter().map(|item| item.len() + 1).sum();
        let len_max = head.len() + inner + TAIL.len();
        let items = items.into_iter();
        Self { head: head.into_bytes(), prefix, items, is_first: true, is_done: false, len_max }
    }

    /// As many bytes as it can be at most. What the items leave out is counted: to know it, each would have to be looked at,
    /// and that takes longer than copying it where there are many.
    pub fn len_max(&self) -> usize {
        self.len_max
    }

    /// How many bytes it is, before anything is taken.
    pub fn len(&self) -> usize {
        let inner = self.items.as_slice().iter();
        let inner: usize =
            inner.map(|item| rest(item, &self.prefix).map_or(item.len(), |rest| rest.len() + 1)).sum();
        self.head.len() + inner + self.items.len().saturating_sub(1) + TAIL.len()
    }

    /// All of it at once.
    pub fn whole(mut self) -> Bytes {
        let len = self.len_max;
        self.take(len)
    }

    /// The next piece, of about so many bytes; empty at the end.
    fn take(&mut self, len: usize) -> Bytes {
        if self.is_done {
            return Bytes::new();
        }
        let (items, inner) = filling(self.items.as_slice(), len);
        warm(items);
        let mut out = BytesMut::with_capacity(self.head.len() + inner + items.len() + TAIL.len());
        out.put_slice(&std::mem::take(&mut self.head));
        for item in items {
            if !std::mem::take(&mut self.is_first) {
                out.put_u8(b',');
            }
            match rest(item, &self.prefix) {
                Some(rest) => {
                    out.put_u8(b'{');
                    out.put_slice(rest);
                }
                None => out.put_slice(item),
            }
        }
        // Let go together: each counts down at its record, and while one is copied, the processor would wait for that.
        let count = items.len();
        self.items.by_ref().take(count).for_each(drop);
        if self.items.len() == 0 {
            out.put_slice(TAIL);
            self.is_done = true;
        }
        out.freeze()
    }
}

/// The first items that have `len` bytes together, or all, and how many bytes they have.
fn filling(items: &[Item], len: usize) -> (&[Item], usize) {
    let (mut count, mut inner) = (0, 0);
    while let Some(item) = items.get(count).filter(|_| inner < len) {
        inner += item.len();
        count += 1;
    }
    (&items[..count], inner)
}

/// Has the processor fetch the begins of items, many at once: each lies somewhere else, and whoever looks at one after the
/// other waits for memory each time.
fn warm(items: &[Item]) {
    let begins: u64 = items.iter().filter_map(|item| item.first()).map(|&byte| u64::from(byte)).sum();
    std::hint::black_box(begins);
}

/// What follows the prefix, where there is one and the item has it.
fn rest<'a>(item: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    item.strip_prefix(prefix.as_bytes()).filter(|_| !prefix.is_empty())
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.take(PIECE_LEN);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    const PREFIX: &str = r#"{"kind":"A","#;

    fn list(items: &[String]) -> Pieces {
        let items = items.iter().map(|item| Item::Made(Bytes::from(item.clone()))).collect();
        Pieces::new(r#"{"items":["#.to_owned(), PREFIX.to_owned(), items)
    }

    #[tokio::test]
    async fn a_list_in_pieces_is_the_list_in_one() {
        let long = "x".repeat(PIECE_LEN / 3);
        let item = |number: usize| match number % 3 {
            0 => format!(r#"{PREFIX}"n":{number}}}"#),
            1 => format!(r#"{PREFIX}"n":{number},"text":"{long}"}}"#),
            _ => format!(r#"{{"kind":"B","n":{number}}}"#),
        };
        for count in [0, 1, 2, 3, 8, 100] {
            let items: Vec<String> = (0..count).map(item).collect();
            let wanted: Vec<String> = items.iter().map(|item| item.replace(PREFIX, "{")).collect();
            let wanted = format!("{{\"items\":[{}]}}\n", wanted.join(","));
            assert_eq!(list(&items).len(), wanted.len());
            assert_eq!(list(&items).whole(), wanted);
            let mut body = list(&items);
            assert!(body.len_max() >= wanted.len());
            let mut joined = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                let piece = frame.into_data().expect("data");
                assert!(!piece.is_empty() && piece.len() < 2 * PIECE_LEN);
                joined.extend_from_slice(&piece);
            }
            assert_eq!(joined, wanted.as_bytes());
            assert!(body.is_end_stream());
        }
    }
}
