//! Messages in the frames of an answer's body, and the status that ends it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;

use super::status::{Code, Status};

/// A flag and a length stand before each message.
const PREFIX_LEN: usize = 5;

/// A message with its prefix.
pub fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_LEN + len);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    // A buffer that grows takes every message.
    let _ = message.encode(&mut frame);
    frame.freeze()
}

/// The messages of one answer.
pub struct Frames {
    status: StatusCode,
    head: HeaderMap,
    body: Incoming,
    read: BytesMut,
    len_max: usize,
}

impl Frames {
    /// Those of this answer.
    pub fn new(answer: Response<Incoming>, len_max: usize) -> Frames {
        let (head, body) = answer.into_parts();
        Frames { status: head.status, head: head.headers, body, read: BytesMut::new(), len_max }
    }

    /// The next message; `None` at a good end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(status) = told(&self.head) {
            // An answer that is over before it began.
            return status.map(|()| None);
        }
        if self.status != StatusCode::OK {
            return Err(Status::of_http(self.status));
        }
        loop {
            if let Some(message) = self.split()? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return Err(Status::unavailable("the answer was cut off"));
            };
            match frame.map_err(|error| Status::of_transport(&error))?.into_data() {
                Ok(bytes) => self.read.extend_from_slice(&bytes),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let status = told(&trailers);
                    return status
                        .unwrap_or(Err(Status::internal("the answer has no status")))
                        .map(|()| None);
                }
            }
        }
    }

    fn split(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(prefix) = self.read.get(..PREFIX_LEN) else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(Status::internal("the answer is compressed, which was not asked for"));
        }
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if len > self.len_max {
            let why = format!("received message larger than max ({len} vs. {})", self.len_max);
            return Err(Status::new(Code::ResourceExhausted, why));
        }
        if self.read.len() < PREFIX_LEN + len {
            return Ok(None);
        }
        self.read.advance(PREFIX_LEN);
        Ok(Some(self.read.split_to(len).freeze()))
    }
}

/// The status in headers or trailers, when there is one.
fn told(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let code = headers.get("grpc-status")?.to_str().ok().and_then(|text| text.parse().ok());
    let code = code.map_or(Code::Unknown, Code::of_number);
    if code == Code::Ok {
        return Some(Ok(()));
    }
    let message = headers.get("grpc-message").map(|text| text.as_bytes()).unwrap_or_default();
    let message = percent_encoding::percent_decode(message).decode_utf8_lossy().into_owned();
    Some(Err(Status::new(code, message)))
}
