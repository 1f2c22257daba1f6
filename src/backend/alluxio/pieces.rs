//! Single steps of the way to a worker's bytes, for benchmarks that count what each costs. Nothing else uses it.

use bytes::Bytes;
use prost::DecodeError;
use prost::Message;

use super::proto::grpc::block::Chunk;
use super::proto::grpc::block::ReadResponse;

/// What a worker sends for one chunk of a block.
pub fn read_response(data: Bytes) -> Bytes {
    ReadResponse { chunk: Some(Chunk { data: Some(data) }) }.encode_to_vec().into()
}

/// The bytes of the block in such a message, as a reader takes them. Fails if it is none.
pub fn decode_read_response(message: Bytes) -> Result<Bytes, DecodeError> {
    let response = ReadResponse::decode(message)?;
    Ok(response.chunk.and_then(|chunk| chunk.data).unwrap_or_default())
}
