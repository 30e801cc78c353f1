//! How bytes lie in a file of the store: a header, then frames, each with a checksum. Pure.
//!
//! A frame begins with a marker that each file draws by chance, so that old or foreign bytes are not taken for one.

/// The bytes of a file's header.
pub(crate) const HEADER_LEN: usize = 28;

/// The bytes before a frame's payload: marker, length, checksum.
pub(crate) const FRAME_HEAD: usize = 12;

const MAGIC: &[u8; 8] = b"KINTSUGI";

/// Changes when the format does, so that an older program refuses what it cannot read. Since 2 values may be sealed.
const VERSION: u16 = 2;

/// The oldest format that is read.
const VERSION_MIN: u16 = 1;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    Log = 1,
    Snapshot = 2,
    Backup = 3,
}

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    /// Begins each frame of this file.
    pub marker: u32,
    /// Of a log: its first revision. Of a snapshot: the revision whose state it holds.
    pub revision: u64,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.marker.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.revision.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a header of the given kind, or says what is wrong with it.
    pub fn decode(bytes: &[u8], kind: Kind) -> Result<Self, &'static str> {
        let bytes = bytes.get(..HEADER_LEN).ok_or("the header is cut short")?;
        if &bytes[..8] != MAGIC {
            return Err("this is no file of ours");
        }
        if u32_at(bytes, 24) != Some(crc32fast::hash(&bytes[..24])) {
            return Err("the header's checksum is wrong");
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err("another version wrote this file");
        }
        if bytes[10..12] != (kind as u16).to_le_bytes() {
            return Err("the file is of another kind than its name says");
        }
        let marker = u32_at(bytes, 12).ok_or("the header is cut short")?;
        let revision = u64_at(bytes, 16).ok_or("the header is cut short")?;
        Ok(Self { kind, marker, revision })
    }
}

/// An empty frame, for a payload to be appended to and then to be sealed.
pub(crate) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME_HEAD, 0);
}

/// Fills in the head of a frame whose payload is complete.
///
/// # Panics
/// When the payload is longer than 4 GiB, which the limit of a batch rules out.
pub(crate) fn seal(frame: &mut [u8], marker: u32) {
    let len = u32::try_from(frame.len() - FRAME_HEAD).expect("the limit of a batch is far below 4 GiB");
    frame[..4].copy_from_slice(&marker.to_le_bytes());
    frame[4..8].copy_from_slice(&len.to_le_bytes());
    let sum = checksum(&frame[..8], &frame[FRAME_HEAD..]);
    frame[8..FRAME_HEAD].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(head);
    sum.update(payload);
    sum.finalize()
}

/// The payload of the frame that `bytes` begin with; `None` when there is no whole and sound one.
pub(crate) fn open(bytes: &[u8], marker: u32) -> Option<&[u8]> {
    let len = payload_len(bytes, marker)?;
    let payload = bytes.get(FRAME_HEAD..FRAME_HEAD.checked_add(len)?)?;
    (u32_at(bytes, 8)? == checksum(&bytes[..8], payload)).then_some(payload)
}

/// Whether `bytes` are room that was set aside and not written yet. No frame begins with a zero marker.
pub(crate) fn is_unwritten(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The length of the payload that a frame's head tells.
pub(crate) fn payload_len(head: &[u8], marker: u32) -> Option<usize> {
    if u32_at(head, 0)? != marker {
        return None;
    }
    usize::try_from(u32_at(head, 4)?).ok()
}

/// Where in `bytes` a sound frame begins, if anywhere.
pub(crate) fn find(bytes: &[u8], marker: u32) -> Option<usize> {
    let marker_bytes = marker.to_le_bytes();
    let places = bytes.windows(4).enumerate().filter(|(_, window)| *window == marker_bytes);
    places.map(|(at, _)| at).find(|at| open(&bytes[*at..], marker).is_some())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Takes values off the front of a payload; `None` when it is too short.
pub(crate) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        self.take(usize::try_from(len).ok()?)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Appends bytes with their length before them.
///
/// # Panics
/// When they are longer than 4 GiB, which the limit of a transaction rules out.
pub(crate) fn put_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("the limit of a transaction is far below 4 GiB");
    buffer.extend_from_slice(&len.to_le_bytes());
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(payload: &[u8], marker: u32) -> Vec<u8> {
        let mut frame = Vec::new();
        begin(&mut frame);
        frame.extend_from_slice(payload);
        seal(&mut frame, marker);
        frame
    }

    #[test]
    fn a_frame_with_any_bit_flipped_or_any_byte_missing_is_not_opened() {
        let frame = sealed(b"payload", 7);
        assert_eq!(open(&frame, 7), Some(&b"payload"[..]));
        for at in 0..frame.len() {
            assert_eq!(open(&frame[..at], 7), None, "cut at {at}");
            for bit in 0..8 {
                let mut bad = frame.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(open(&bad, 7), None, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn zeros_are_no_frame_and_no_header() {
        assert_eq!(open(&[0; 64], 7), None);
        assert_eq!(find(&[0; 64], 7), None);
        assert!(Header::decode(&[0; 64], Kind::Log).is_err());
    }

    #[test]
    fn a_sound_frame_is_found_behind_garbage() {
        let mut bytes = b"garbage".to_vec();
        bytes.extend(7u32.to_le_bytes());
        bytes.extend(sealed(b"x", 7));
        assert_eq!((find(&bytes, 7), find(&bytes, 8)), (Some(11), None));
    }

    #[test]
    fn a_header_says_what_it_is_and_refuses_any_flipped_byte() {
        let header = Header { kind: Kind::Log, marker: 9, revision: 12 };
        assert_eq!(Header::decode(&header.encode(), Kind::Log), Ok(header));
        assert!(Header::decode(&header.encode(), Kind::Snapshot).is_err());
        for at in 0..HEADER_LEN {
            let mut bad = header.encode();
            bad[at] ^= 0x20;
            assert!(Header::decode(&bad, Kind::Log).is_err(), "byte {at}");
        }
    }
}
