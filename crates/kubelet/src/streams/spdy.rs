//! SPDY/3.1 frames to and from bytes: as much of it as Kubernetes' clients speak. Pure.
//!
//! Facts from the SPDY Protocol Draft 3.1: frame layouts, and the dictionary with which header blocks are compressed.
//! Flow control windows are neither kept nor enforced, as the clients' own library does not.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The dictionary of header compression (draft 3.1, section 2.6.10.1).
static DICTIONARY: &[u8] = include_bytes!("spdy.dictionary");

/// The longest frame that is read: clients send data in pieces of 32 KiB.
const FRAME_LEN_MAX: usize = 1024 * 1024;
/// The longest header block, decompressed: Kubernetes' headers are below 1 KiB; more would be a bomb.
const HEADERS_LEN_MAX: usize = 16 * 1024;
/// The longest piece of data in one frame that is written.
pub const DATA_LEN_MAX: usize = 32 * 1024;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;

/// Name and value pairs.
pub type Headers = Vec<(String, String)>;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// Its number.
        stream: u32,
        /// Its headers.
        headers: Headers,
        /// Whether the opener sends no data.
        fin: bool,
    },
    /// Accepts a stream.
    SynReply {
        /// Its number.
        stream: u32,
        /// The answer's headers.
        headers: Headers,
    },
    /// Ends a stream at once.
    Reset {
        /// Its number.
        stream: u32,
        /// Why: 1 protocol error, 3 refused, 5 cancelled.
        status: u32,
    },
    /// To be sent back as it is.
    Ping(u32),
    /// The sender opens no further streams.
    GoAway {
        /// The last stream it took.
        last: u32,
    },
    /// Data of a stream.
    Data {
        /// Its number.
        stream: u32,
        /// The data.
        data: Bytes,
        /// Whether none follows.
        fin: bool,
    },
    /// Settings, windows and headers, which change nothing here.
    Other,
}

/// Bytes that are not SPDY.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not SPDY/3.1: {0}")]
pub struct NotSpdy(&'static str);

/// Reads frames out of bytes as they come.
pub struct Decoder {
    buffer: BytesMut,
    inflate: Decompress,
}

/// Writes frames.
pub struct Encoder {
    deflate: Compress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), inflate: Decompress::new(true) }
    }
}

impl Decoder {
    /// Takes bytes in.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, NotSpdy> {
        if self.buffer.len() < 8 {
            return Ok(None);
        }
        let len = (usize::from(self.buffer[5]) << 16)
            | (usize::from(self.buffer[6]) << 8)
            | usize::from(self.buffer[7]);
        if len > FRAME_LEN_MAX {
            return Err(NotSpdy("a frame is too long"));
        }
        if self.buffer.len() < 8 + len {
            return Ok(None);
        }
        let mut head = self.buffer.split_to(8);
        let body = self.buffer.split_to(len).freeze();
        let (word, flags) = (head.get_u32(), head.get_u8());
        if word & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { stream: word, data: body, fin: flags & FLAG_FIN != 0 }));
        }
        if (word >> 16) as u16 & 0x7fff != VERSION {
            return Err(NotSpdy("another version"));
        }
        self.control(word as u16, flags, body).map(Some)
    }

    fn control(&mut self, sort: u16, flags: u8, mut body: Bytes) -> Result<Frame, NotSpdy> {
        let wanted = match sort {
            1 => 10,
            2 | 6 => 4,
            3 | 7 => 8,
            _ => 0,
        };
        if body.len() < wanted {
            return Err(NotSpdy("a frame is too short"));
        }
        Ok(match sort {
            1 => {
                let stream = body.get_u32() & 0x7fff_ffff;
                body.advance(6);
                Frame::SynStream { stream, headers: self.headers(&body)?, fin: flags & FLAG_FIN != 0 }
            }
            2 => Frame::SynReply { stream: body.get_u32() & 0x7fff_ffff, headers: self.headers(&body)? },
            3 => Frame::Reset { stream: body.get_u32() & 0x7fff_ffff, status: body.get_u32() },
            6 => Frame::Ping(body.get_u32()),
            7 => Frame::GoAway { last: body.get_u32() & 0x7fff_ffff },
            8 => {
                // The block has to be read even so: the compression carries on from it.
                if body.len() < 4 {
                    return Err(NotSpdy("a frame is too short"));
                }
                body.advance(4);
                self.headers(&body)?;
                Frame::Other
            }
            _ => Frame::Other,
        })
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers, NotSpdy> {
        let plain = self.inflate(block)?;
        let mut plain = plain.as_slice();
        let text = |plain: &mut &[u8]| -> Result<String, NotSpdy> {
            let len = number(plain)?;
            if plain.len() < len {
                return Err(NotSpdy("a header is cut off"));
            }
            let (text, rest) = plain.split_at(len);
            *plain = rest;
            String::from_utf8(text.to_vec()).map_err(|_| NotSpdy("a header is not text"))
        };
        let count = number(&mut plain)?;
        if count > HEADERS_LEN_MAX / 8 {
            return Err(NotSpdy("too many headers"));
        }
        (0..count).map(|_| Ok((text(&mut plain)?.to_ascii_lowercase(), text(&mut plain)?))).collect()
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, NotSpdy> {
        let mut plain = Vec::with_capacity(HEADERS_LEN_MAX);
        let begin = self.inflate.total_in();
        loop {
            let used = usize::try_from(self.inflate.total_in() - begin)
                .map_err(|_| NotSpdy("a header block is too long"))?;
            let rest = &block[used.min(block.len())..];
            match self.inflate.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(Status::Ok | Status::BufError | Status::StreamEnd) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(DICTIONARY).map_err(|_| NotSpdy("another dictionary"))?;
                    continue;
                }
                Err(_) => return Err(NotSpdy("a header block cannot be read")),
            }
            let used = self.inflate.total_in() - begin;
            if plain.len() == plain.capacity() {
                return Err(NotSpdy("a header block is too long"));
            }
            if used as usize >= block.len() {
                return Ok(plain);
            }
            if rest.len() == block.len() - used as usize {
                return Err(NotSpdy("a header block cannot be read"));
            }
        }
    }
}

fn number(plain: &mut &[u8]) -> Result<usize, NotSpdy> {
    if plain.len() < 4 {
        return Err(NotSpdy("a header is cut off"));
    }
    usize::try_from(plain.get_u32()).map_err(|_| NotSpdy("a header is too long"))
}

impl Default for Encoder {
    fn default() -> Self {
        let mut deflate = Compress::new(Compression::fast(), true);
        // A new stream takes a dictionary; were it refused, the blocks would be longer and as valid.
        let _ = deflate.set_dictionary(DICTIONARY);
        Self { deflate }
    }
}

impl Encoder {
    /// Appends a frame's bytes. Data longer than [`DATA_LEN_MAX`] becomes several frames.
    pub fn write(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { stream, headers, fin } => {
                let block = self.block(headers);
                control(out, 1, u8::from(*fin), 10 + block.len());
                out.put_u32(*stream);
                out.put_slice(&[0; 6]);
                out.put_slice(&block);
            }
            Frame::SynReply { stream, headers } => {
                let block = self.block(headers);
                control(out, 2, 0, 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(&block);
            }
            Frame::Reset { stream, status } => {
                control(out, 3, 0, 8);
                out.put_u32(*stream);
                out.put_u32(*status);
            }
            Frame::Ping(id) => {
                control(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last } => {
                control(out, 7, 0, 8);
                out.put_u32(*last);
                out.put_u32(0);
            }
            Frame::Data { stream, data, fin } => write_data(*stream, data, *fin, out),
            Frame::Other => {}
        }
    }

    fn block(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(text.len() as u32);
                plain.put_slice(text.as_bytes());
            }
        }
        // Deflate grows what it cannot shrink by less than a thousandth and a few bytes.
        let mut block = Vec::with_capacity(plain.len() + plain.len() / 1000 + 64);
        let begin = self.deflate.total_in();
        loop {
            let used = (self.deflate.total_in() - begin) as usize;
            let done = self.deflate.compress_vec(&plain[used..], &mut block, FlushCompress::Sync);
            let used = (self.deflate.total_in() - begin) as usize;
            if done.is_err() || (used == plain.len() && block.len() < block.capacity()) {
                return block;
            }
            block.reserve(256);
        }
    }
}

fn control(out: &mut BytesMut, sort: u16, flags: u8, len: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(sort);
    out.put_u8(flags);
    out.put_uint(len as u64, 3);
}

fn write_data(stream: u32, data: &Bytes, fin: bool, out: &mut BytesMut) {
    let pieces = data.len().div_ceil(DATA_LEN_MAX).max(1);
    for piece in 0..pieces {
        let part = &data[piece * DATA_LEN_MAX..data.len().min((piece + 1) * DATA_LEN_MAX)];
        out.put_u32(stream);
        out.put_u8(u8::from(fin && piece + 1 == pieces));
        out.put_uint(part.len() as u64, 3);
        out.put_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let headers = |text: &str| {
            vec![("streamtype".to_owned(), text.to_owned()), ("port".to_owned(), "80".to_owned())]
        };
        vec![
            Frame::SynStream { stream: 1, headers: headers("error"), fin: true },
            Frame::SynStream { stream: 3, headers: headers("data"), fin: false },
            Frame::SynReply { stream: 1, headers: Vec::new() },
            Frame::Data { stream: 3, data: Bytes::from_static(b"hello"), fin: false },
            Frame::Ping(7),
            Frame::Data { stream: 3, data: Bytes::new(), fin: true },
            Frame::Reset { stream: 3, status: 5 },
            Frame::GoAway { last: 3 },
        ]
    }

    #[test]
    fn frames_are_read_as_they_were_written_however_the_bytes_come() {
        let mut encoder = Encoder::default();
        let mut bytes = BytesMut::new();
        frames().iter().for_each(|frame| encoder.write(frame, &mut bytes));
        for step in [1, 7, bytes.len()] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(step) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().expect("own bytes") {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames());
        }
    }

    #[test]
    fn long_data_becomes_several_frames() {
        let mut bytes = BytesMut::new();
        let data = Bytes::from(vec![7; 2 * DATA_LEN_MAX + 1]);
        Encoder::default().write(&Frame::Data { stream: 1, data, fin: true }, &mut bytes);
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        let fins: Vec<bool> = std::iter::from_fn(|| decoder.next_frame().expect("own bytes"))
            .map(|frame| matches!(frame, Frame::Data { fin: true, .. }))
            .collect();
        assert_eq!(fins, [false, false, true]);
    }

    #[test]
    fn garbage_is_refused_and_never_more_than_that() {
        let mut state = 1u64;
        for _ in 0..2000 {
            let mut decoder = Decoder::default();
            let bytes: Vec<u8> = (0..64)
                .map(|at| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // The first bytes are likely ones, so that deeper code is reached.
                    if at < 4 && state & 3 != 0 {
                        [0x80, 3, 0, (state >> 60) as u8][at]
                    } else {
                        (state >> 33) as u8
                    }
                })
                .collect();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
