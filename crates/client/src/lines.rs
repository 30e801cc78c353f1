//! Splits the body of a watch into events, one JSON object a line.

use std::error::Error;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{WatchEvent, WatchKind};

/// How long one event may be: the largest object is 3 MiB, with room for escapes.
pub(crate) const EVENT_LEN_MAX: usize = 8 << 20;

/// The events of a body.
pub(crate) struct Lines<S> {
    body: S,
    read: BytesMut,
    /// How much of `read` is known to hold no end of a line.
    searched: usize,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    kind: WatchKind,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl<S, E> Lines<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Error + Send + Sync + 'static,
{
    pub fn new(body: S) -> Self {
        Self { body, read: BytesMut::new(), searched: 0 }
    }

    /// The next event; `None` at the end of the body. A last line that was cut short is left out.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, Box<dyn Error + Send + Sync>> {
        loop {
            match self.line() {
                Some(line) if line.trim_ascii().is_empty() => continue,
                Some(line) => return Ok(Some(event(&line)?)),
                None if self.read.len() > EVENT_LEN_MAX => {
                    return Err("an event of the watch is too long".into());
                }
                None => {}
            }
            match self.body.next().await {
                Some(more) => self.read.extend_from_slice(&more?),
                None => return Ok(None),
            }
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        let Some(at) = self.read[self.searched..].iter().position(|&byte| byte == b'\n') else {
            self.searched = self.read.len();
            return None;
        };
        let line = self.read.split_to(self.searched + at);
        self.read.advance(1);
        self.searched = 0;
        Some(line)
    }
}

/// The object is copied, so that keeping it does not keep what was read with it.
fn event(line: &[u8]) -> Result<WatchEvent, serde_json::Error> {
    let raw: RawEvent<'_> = serde_json::from_slice(line)?;
    Ok(WatchEvent { kind: raw.kind, object: Bytes::copy_from_slice(raw.object.get().as_bytes()) })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    async fn read(parts: &[&'static str]) -> Vec<String> {
        let parts: Vec<_> =
            parts.iter().map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes()))).collect();
        let mut lines = Lines::new(stream::iter(parts));
        let mut told = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(event)) => {
                    told.push(format!("{:?} {}", event.kind, String::from_utf8_lossy(&event.object)))
                }
                Ok(None) => return told,
                Err(error) => {
                    told.push(format!("error: {error}"));
                    return told;
                }
            }
        }
    }

    #[tokio::test]
    async fn events_are_found_however_the_body_is_cut() {
        let told = ["Added {\"a\": 1}", "Bookmark {}", "Deleted {}"];
        let whole = "{\"type\":\"ADDED\",\"object\":{\"a\": 1}}\n\n{\"object\":{},\"type\":\"BOOKMARK\"}\n{\"type\":\"DELETED\",\"object\":{}}\n";
        for cut in 0..whole.len() {
            assert_eq!(read(&[&whole[..cut], &whole[cut..]]).await, told, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_line_cut_short_by_the_end_is_left_out() {
        assert_eq!(read(&["{\"type\":\"ADDED\",\"object\":{}}\n{\"type\":\"MOD"]).await, ["Added {}"]);
    }

    #[tokio::test]
    async fn what_is_no_event_is_an_error() {
        let told = read(&["<html>\n"]).await;
        assert!(told.len() == 1 && told[0].starts_with("error: "), "{told:?}");
    }
}
