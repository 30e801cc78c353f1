//! Netlink messages, written and read.
//!
//! One small encoder serves the three families this crate speaks: routes and links, nftables, connection tracking.
//! It promises well-formed, aligned messages; it knows no family's meaning and never touches a socket
//! ([`Socket`] does).

mod socket;

pub(crate) use socket::Socket;

/// The length of a netlink message's header.
const HEADER_LEN: usize = 16;
/// Attributes and messages start at multiples of this.
const ALIGN: usize = 4;

/// The request itself, as every message to the kernel says.
pub(crate) const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// Answer even when all went well.
pub(crate) const ACK: u16 = libc::NLM_F_ACK as u16;
/// List everything.
pub(crate) const DUMP: u16 = libc::NLM_F_DUMP as u16;
/// Make it when it is missing.
pub(crate) const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// Refuse when it is there.
pub(crate) const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
/// Replace what is there.
pub(crate) const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
/// Add after what is there.
pub(crate) const APPEND: u16 = libc::NLM_F_APPEND as u16;

/// Messages to be sent together, numbered from 1.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    count: u32,
    /// Where the last message starts.
    last: usize,
}

impl Batch {
    /// Appends a message of `kind` with the family's own `header` and the attributes that `fill` writes.
    pub fn message(&mut self, kind: u16, flags: u16, header: &[u8], fill: impl FnOnce(&mut Attributes<'_>)) {
        self.count += 1;
        let start = self.bytes.len();
        self.last = start;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        pad(&mut self.bytes);
        fill(&mut Attributes(&mut self.bytes));
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Asks for an acknowledgement of the last message.
    pub fn acknowledge_last(&mut self) {
        let flags = self.last + 6;
        if let Some(low) = self.bytes.get_mut(flags..flags + 2) {
            let with = u16::from_ne_bytes([low[0], low[1]]) | ACK;
            low.copy_from_slice(&with.to_ne_bytes());
        }
    }

    /// How many messages it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where attributes are written.
pub(crate) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Appends an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = (value.len() + ALIGN) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(self.0);
        self
    }

    /// Appends a number in the machine's order, as routes want them.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a number in the network's order, as netfilter wants them.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends a long number in the network's order.
    pub fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends a text, with the zero byte that ends it.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Appends an attribute made of attributes.
    ///
    /// Its length is 16 bits: callers keep lists short enough.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.headed(kind | libc::NLA_F_NESTED as u16, &[], fill)
    }

    /// Appends an attribute that holds a header and then attributes, as a veth's peer does.
    pub fn headed(&mut self, kind: u16, header: &[u8], fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(header);
        pad(self.0);
        fill(&mut Attributes(self.0));
        let len = self.0.len() - start;
        assert!(
            len <= usize::from(u16::MAX),
            "a nested attribute holds {len} bytes, more than its length can say"
        );
        self.0[start..start + 2].copy_from_slice(&(len as u16).to_ne_bytes());
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    while !bytes.len().is_multiple_of(ALIGN) {
        bytes.push(0);
    }
}

/// The attributes in `bytes`, by kind; ends at the first that is malformed.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]);
        let value = bytes.get(ALIGN..len)?;
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some((kind & !(libc::NLA_F_NESTED as u16), value))
    })
}

/// The first attribute of `kind` in `bytes`.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number in the machine's order.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// A text up to its zero byte.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut batch = Batch::default();
        batch.message(16, ACK, &[1, 2, 3], |a| {
            a.text(3, "eth0").nested(18, |a| {
                a.u32(1, 7).be32(2, 7);
            });
        });
        let bytes = batch.bytes();
        assert_eq!((batch.count(), bytes.len()), (1, number(bytes).expect("a header is there") as usize));
        let body = &bytes[HEADER_LEN + 4..];
        assert_eq!(attribute(body, 3).map(text), Some("eth0".to_owned()));
        let inner = attribute(body, 18).expect("the nested attribute is there");
        assert_eq!(attribute(inner, 1).and_then(number), Some(7));
        assert_eq!(attribute(inner, 2), Some(&[0, 0, 0, 7][..]));
    }

    #[test]
    fn malformed_attributes_end_the_reading() {
        for bytes in [&[][..], &[9][..], &[2, 0, 1, 0][..], &[200, 0, 1, 0, 5][..]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
