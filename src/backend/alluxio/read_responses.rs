//! The messages `ReadResponse { Chunk chunk = 1 { bytes data = 1 } }` of a gRPC stream, taken apart as they come: the data
//! are slices of the frames that they came in, before their message is complete. Knows neither connections nor blocks.
//!
//! Frames may be cut anywhere, also within a number. What a message has besides is skipped. A message may have its data
//! once only: given out already, it could not be replaced by what comes later, as protobuf has it.

use bytes::Buf;
use bytes::Bytes;
use tonic::Status;

use super::grpc::PREFIX;

/// The number of `chunk` in a response, and of `data` in a chunk.
const FIELD: u64 = 1;

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// These bytes of a block, never empty.
    Data(Bytes),
    /// The end of a message, which had some or none.
    End { empty: bool },
}

/// Where in a stream of such messages the next byte is.
pub(super) struct ReadResponses {
    message_max: u64,
    at: At,
    /// The bytes that belong to the message, and if it is in its chunk, to that, as far as they have not come.
    message: u64,
    chunk: Option<u64>,
    /// What the message has given: nothing yet if it had no data.
    data: Option<u64>,
    /// A number, or a prefix, as far as it has come, and how many bits or bytes that is.
    number: u64,
    come: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Prefix,
    /// The number and the type of a field, or the end of the message or of its chunk.
    Key,
    Length(Field),
    /// A number that is skipped.
    Number,
    Skipped(u64),
    Data(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Chunk,
    Data,
    Other,
}

impl ReadResponses {
    /// The beginning of a stream of messages of up to `message_max` bytes.
    pub(super) fn new(message_max: u64) -> Self {
        Self { message_max, at: At::Prefix, message: 0, chunk: None, data: None, number: 0, come: 0 }
    }

    /// The next event in `frame`, which is cut off in front; none if the rest has to come first.
    pub(super) fn next(&mut self, frame: &mut Bytes) -> Result<Option<Event>, Status> {
        loop {
            match self.at {
                At::Prefix => {
                    if !self.prefix(frame)? {
                        return Ok(None);
                    }
                }
                At::Key => {
                    if self.come == 0 && self.chunk == Some(0) {
                        self.chunk = None;
                    }
                    if self.come == 0 && self.message == 0 {
                        self.at = At::Prefix;
                        return Ok(Some(Event::End { empty: self.data.unwrap_or(0) == 0 }));
                    }
                    let Some(key) = self.number(frame)? else { return Ok(None) };
                    self.field(key)?;
                }
                At::Length(field) => {
                    let Some(length) = self.number(frame)? else { return Ok(None) };
                    self.begin(field, length)?;
                }
                At::Number => {
                    if self.number(frame)?.is_none() {
                        return Ok(None);
                    }
                    self.at = At::Key;
                }
                At::Skipped(0) | At::Data(0) => self.at = At::Key,
                At::Skipped(_) | At::Data(_) if frame.is_empty() => return Ok(None),
                At::Skipped(left) => {
                    let part = left.min(frame.len() as u64);
                    frame.advance(part as usize);
                    self.take(part);
                    self.at = At::Skipped(left - part);
                }
                At::Data(left) => {
                    let part = frame.split_to(left.min(frame.len() as u64) as usize);
                    let length = part.len() as u64;
                    self.take(length);
                    self.data = self.data.map(|data| data + length);
                    self.at = At::Data(left - length);
                    return Ok(Some(Event::Data(part)));
                }
            }
        }
    }

    /// The stream has ended: whether it may do so here.
    pub(super) fn finish(&self) -> Result<(), Status> {
        if self.at == At::Prefix && self.come == 0 {
            Ok(())
        } else {
            Err(malformed("the stream ends within it"))
        }
    }

    /// Takes what has come of a prefix; tells whether that was all of it.
    fn prefix(&mut self, frame: &mut Bytes) -> Result<bool, Status> {
        while self.come < PREFIX as u32 {
            if frame.is_empty() {
                return Ok(false);
            }
            self.number = self.number << 8 | u64::from(frame.get_u8());
            self.come += 1;
        }
        let prefix = std::mem::take(&mut self.number);
        self.come = 0;
        // The first byte is 1 for a compressed message, and nobody has asked for compression.
        let (flag, length) = (prefix >> 32, prefix & u64::from(u32::MAX));
        if flag != 0 {
            return Err(malformed(&format!("it is marked as compressed ({flag})")));
        }
        if length > self.message_max {
            let max = self.message_max;
            return Err(Status::out_of_range(format!("a message of {length} bytes, the limit is {max}")));
        }
        (self.message, self.chunk, self.data) = (length, None, None);
        self.at = At::Key;
        Ok(true)
    }

    /// A number of seven bits to a byte, once all of it has come.
    fn number(&mut self, frame: &mut Bytes) -> Result<Option<u64>, Status> {
        loop {
            if self.room() == 0 {
                return Err(malformed("a number has no end"));
            }
            if frame.is_empty() {
                return Ok(None);
            }
            let byte = frame.get_u8();
            self.take(1);
            let bits = u64::from(byte & 0x7f);
            if self.come == 63 && bits > 1 || self.come > 63 {
                return Err(malformed("a number is too large"));
            }
            self.number |= bits << self.come;
            self.come += 7;
            if byte < 0x80 {
                self.come = 0;
                return Ok(Some(std::mem::take(&mut self.number)));
            }
        }
    }

    /// The field with `key` begins.
    fn field(&mut self, key: u64) -> Result<(), Status> {
        let (field, kind) = (key >> 3, key & 7);
        if field == 0 || key > u64::from(u32::MAX) {
            return Err(malformed("it has a field that cannot be"));
        }
        self.at = match (field, kind) {
            (FIELD, 2) if self.chunk.is_some() => At::Length(Field::Data),
            (FIELD, 2) => At::Length(Field::Chunk),
            (FIELD, _) => return Err(malformed("the data is of another type")),
            (_, 0) => At::Number,
            (_, 1) => return self.begin(Field::Other, 8),
            (_, 2) => At::Length(Field::Other),
            (_, 5) => return self.begin(Field::Other, 4),
            _ => return Err(malformed(&format!("field {field} is of type {kind}"))),
        };
        Ok(())
    }

    /// The `length` bytes of `field` follow.
    fn begin(&mut self, field: Field, length: u64) -> Result<(), Status> {
        if length > self.room() {
            return Err(malformed("a field is longer than what it is in"));
        }
        self.at = match field {
            Field::Chunk => {
                self.chunk = Some(length);
                At::Key
            }
            Field::Data if self.data.is_some() => return Err(malformed("it has its data twice")),
            Field::Data => {
                self.data = Some(0);
                At::Data(length)
            }
            Field::Other => At::Skipped(length),
        };
        Ok(())
    }

    /// How many bytes may follow in what the next byte is in.
    fn room(&self) -> u64 {
        self.chunk.unwrap_or(self.message)
    }

    /// That many bytes of it have come.
    fn take(&mut self, bytes: u64) {
        self.message -= bytes;
        if let Some(chunk) = &mut self.chunk {
            *chunk -= bytes;
        }
    }
}

fn malformed(why: &str) -> Status {
    Status::internal(format!("a message cannot be understood: {why}"))
}

#[cfg(test)]
mod tests;
