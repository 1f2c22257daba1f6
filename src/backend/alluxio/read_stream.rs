//! One stream of a worker for one range of a block, from its request to its end. Knows neither files nor windows.
//!
//! The bytes are handed on as they come, as slices of the buffers that the connection has read them into: see
//! `FRAME_MAX` in `connection.rs` for how large these are.

use std::time::Instant;

use tokio::time::timeout;

use super::Shared;
use super::connection::Server;
use super::error::Class;
use super::error::Failure;
use super::error::Rpc;
use super::error::failure;
use super::fetch::Sink;
use super::grpc;
use super::proto::grpc::block::ReadRequest;
use super::read_responses::Event;
use super::read_responses::ReadResponses;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::metrics;
use crate::metrics::Source;

const PATH: &str = "/alluxio.grpc.block.BlockWorker/ReadBlock";

/// Brings what `request` asks `server` for, which is what `sink` misses, and counts the call.
pub(super) async fn read(
    shared: &Shared,
    server: &Server,
    request: ReadRequest,
    sink: &Sink,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let result = stream(shared, server, &request, sink).await;
    server.took(Rpc::ReadBlock, begun, result.is_err());
    result
}

async fn stream(shared: &Shared, server: &Server, request: &ReadRequest, sink: &Sink) -> Result<(), Failure> {
    let limit = shared.options.data_read_timeout;
    let (block, length) = (request.block_id(), request.length());
    sink.comes_from(server.shared_name());
    let id = server.ready().await?;
    let failed = |status: &tonic::Status| failure(Rpc::ReadBlock, &block, server.name(), status);
    let ended = || {
        let missing = sink.missing();
        let detail = format!(
            "{} ended block {block} {missing} bytes before the end of the {length} that were asked for",
            server.name(),
        );
        Failure::from(FsError::because(Fault::Io, detail))
    };
    server.sends(Rpc::ReadBlock, request);
    // The server takes the end of the requests for a cancellation, so the sender outlives the last byte.
    let (_open, body) = grpc::held(grpc::framed(request));
    let _call = server.calls(Rpc::ReadBlock);
    shared.data.traffic.streams.add(1);
    shared.data.traffic.worker_calls.add(1);
    let call = grpc::call(server.channel(), PATH, id.sign(body));
    let late =
        |_| Failure::connection(Fault::TimedOut, format!("{} sent nothing for {limit:?}", server.name()));
    let mut answer = match timeout(limit, call).await.map_err(late)? {
        Ok(answer) => answer,
        Err(status) => {
            let failure = failed(&status);
            if failure.class == Class::Unauthenticated {
                server.refresh(&id);
            }
            return Err(failure);
        }
    };
    let mut responses = ReadResponses::new(shared.options.streaming_message_max);
    let mut begun = Instant::now();
    while sink.missing() > 0 {
        let frame = timeout(limit, answer.frame()).await.map_err(late)?.map_err(|status| failed(&status))?;
        let Some(mut frame) = frame else {
            responses.finish().map_err(|status| failed(&status))?;
            return Err(ended());
        };
        while let Some(event) = responses.next(&mut frame).map_err(|status| failed(&status))? {
            match event {
                Event::Data(data) => {
                    shared.data.traffic.received.add(data.len() as u64);
                    sink.push(data, Source::Remote);
                }
                Event::End { empty: true } if sink.missing() > 0 => return Err(ended()),
                Event::End { .. } => {
                    if shared.options.block_read_metrics {
                        metrics::BLOCK_READ_CHUNK_REMOTE.record(begun.elapsed());
                        begun = Instant::now();
                    }
                }
            }
        }
    }
    // A worker that caches as it reads does so at the regular end of the stream. Readers have their bytes.
    let _ = timeout(shared.options.reader_close_timeout, answer.frame()).await;
    Ok(())
}
