//! Single steps of the way to a worker's bytes, for benchmarks that count what each costs. Nothing else uses it.

use bytes::Bytes;
use tonic::Status;

use super::grpc::framed;
use super::proto::grpc::block::Chunk;
use super::proto::grpc::block::ReadResponse;
use super::read_responses::Event;
use super::read_responses::ReadResponses;

/// What a worker sends for one chunk of a block: a message with its gRPC prefix.
pub fn read_response(data: Bytes) -> Bytes {
    framed(&ReadResponse { chunk: Some(Chunk { data: Some(data) }) })
}

/// Takes a message apart that comes in frames of up to `frame` bytes, at least 1, as a reader does. Returns how many bytes of
/// a block are in it. Fails if it is none.
pub fn decode_read_response(mut message: Bytes, frame: usize) -> Result<usize, Status> {
    let (mut responses, mut length) = (ReadResponses::new(message.len() as u64), 0);
    while !message.is_empty() {
        let mut part = message.split_to(frame.min(message.len()));
        while let Some(event) = responses.next(&mut part)? {
            if let Event::Data(data) = event {
                length += data.len();
            }
        }
    }
    responses.finish()?;
    Ok(length)
}
