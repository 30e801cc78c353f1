//! What this crate reads from strangers, each as a function of bytes, for whoever throws garbage at it. None may panic.

use bytes::{Bytes, BytesMut};

use crate::streams::spdy::{Decoder, Encoder, Frame};

/// Frames that make sense, to begin with.
pub fn spdy_seeds() -> Vec<Vec<u8>> {
    let headers = || vec![("streamtype".to_owned(), "data".to_owned()), ("port".to_owned(), "80".to_owned())];
    let frames = [
        Frame::SynStream { stream: 1, headers: headers(), fin: false },
        Frame::SynReply { stream: 1, headers: headers() },
        Frame::Data { stream: 1, data: Bytes::from_static(b"hello"), fin: true },
        Frame::Ping(2),
        Frame::Reset { stream: 1, status: 5 },
        Frame::GoAway { last: 1 },
    ];
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    frames.iter().for_each(|frame| encoder.write(frame, &mut out));
    vec![out.to_vec()]
}

/// Reads SPDY frames, in one piece and in two: it makes no difference how they come.
pub fn spdy(bytes: &[u8]) {
    let (head, tail) = bytes.split_at(bytes.len() / 2);
    assert_eq!(frames(&[bytes]), frames(&[head, tail]));
}

fn frames(pieces: &[&[u8]]) -> Vec<Option<Frame>> {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => all.push(Some(frame)),
                Ok(None) => break,
                Err(_) => {
                    all.push(None);
                    return all;
                }
            }
        }
    }
    all
}
