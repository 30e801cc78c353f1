//! Protobuf's wire format: tags, numbers and lengths (Protocol Buffers, "Encoding"). Pure.

/// A body that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not readable as protobuf: {0}")]
pub struct NotProtobuf(pub &'static str);

/// One field's content.
#[derive(Debug, Clone, Copy)]
pub enum Wire<'a> {
    /// A number of variable length.
    Number(u64),
    /// Eight bytes.
    Eight([u8; 8]),
    /// Four bytes.
    Four([u8; 4]),
    /// Bytes of a length: texts and messages.
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    /// The bytes of a text or message.
    pub fn bytes(self) -> Result<&'a [u8], NotProtobuf> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(NotProtobuf("a number where a message should be")),
        }
    }

    /// A text.
    pub fn text(self) -> Result<String, NotProtobuf> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| NotProtobuf("a text that is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// A number; negative ones are written as their two's complement.
    pub fn number(self) -> Result<i64, NotProtobuf> {
        match self {
            Wire::Number(number) => Ok(number as i64),
            _ => Err(NotProtobuf("no number where one should be")),
        }
    }

    /// A floating-point number.
    pub fn double(self) -> Result<f64, NotProtobuf> {
        match self {
            Wire::Eight(bytes) => Ok(f64::from_le_bytes(bytes)),
            Wire::Four(bytes) => Ok(f64::from(f32::from_le_bytes(bytes))),
            _ => Err(NotProtobuf("no number where one should be")),
        }
    }
}

/// Reads the fields of a message, one after the other.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A message's bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next field's number and content; `None` at the end.
    pub fn next_field(&mut self) -> Result<Option<(u32, Wire<'a>)>, NotProtobuf> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| NotProtobuf("a field number that is none"))?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Eight(self.fixed()?),
            2 => {
                let len =
                    usize::try_from(self.varint()?).map_err(|_| NotProtobuf("a length that is none"))?;
                Wire::Bytes(self.split(len)?)
            }
            5 => Wire::Four(self.fixed()?),
            _ => return Err(NotProtobuf("an unknown form of field")),
        };
        Ok(Some((number, wire)))
    }

    fn varint(&mut self) -> Result<u64, NotProtobuf> {
        let mut number = 0u64;
        for at in 0..10 {
            let [byte] = self.fixed::<1>()?;
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(NotProtobuf("a number that is too long"))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], NotProtobuf> {
        let bytes = self.split(N)?;
        bytes.try_into().map_err(|_| NotProtobuf("cut off"))
    }

    fn split(&mut self, len: usize) -> Result<&'a [u8], NotProtobuf> {
        if len > self.0.len() {
            return Err(NotProtobuf("cut off"));
        }
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(bytes)
    }
}
