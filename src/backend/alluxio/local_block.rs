//! Blocks of a worker on this host, read from the worker's own files without going through it.
//!
//! A worker neither removes nor moves a block while the stream is open on which it was asked for the block's
//! file. The stream is therefore owned by the mapping, and the mapping by every slice of it.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use memmap2::Mmap;
use nix::sys::statfs::TMPFS_MAGIC;
use nix::sys::statfs::fstatfs;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Shared;
use super::connection::Server;
use super::error::Class;
use super::error::Failure;
use super::error::Rpc;
use super::error::failure;
use super::proto::grpc::block::OpenLocalBlockRequest;
use super::proto::grpc::block::OpenLocalBlockResponse;
use super::proto::grpc::block::block_worker_client::BlockWorkerClient;
use super::worker::Worker;
use crate::fs::Fault;
use crate::fs::FsError;

/// Longest wait for the name of a block's file, which no bytes go with.
const LEASE_TIME: Duration = Duration::from_secs(30);

/// The worker's promise that a block's file stays as it is, kept as long as this.
pub(super) struct Lease {
    /// Both halves of the stream, present until drop.
    stream: Option<(mpsc::Sender<OpenLocalBlockRequest>, Streaming<OpenLocalBlockResponse>)>,
    runtime: Handle,
    /// How long the worker may take to end the stream.
    limit: Duration,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((requests, mut answers)) = self.stream.take() else { return };
        drop(requests);
        let limit = self.limit;
        // The end of our half gives the lease back. Dropping the other half at once would reset the stream, which
        // works too, but fills the worker's log with warnings.
        self.runtime.spawn(async move { timeout(limit, answers.message()).await.map(drop) });
    }
}

/// A mapped block with its lease.
struct Mapped {
    // Fields are dropped in this order: the mapping goes before the promise that it is good.
    map: Mmap,
    _lease: Box<Lease>,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

/// What came of a try to map a block.
pub(super) enum Found {
    /// All of its bytes.
    Mapped { bytes: Bytes, on_disk: bool },
    /// The worker names a file that cannot be opened here, for this reason.
    Elsewhere(FsError),
}

/// What came of a try to open a block's file.
pub(super) enum Opened {
    /// The file, good as long as the lease is held.
    Here(File, Box<Lease>),
    /// The worker names a file that cannot be opened here, for this reason.
    Elsewhere(FsError),
}

/// Asks `worker` for the file of block `block_id`, which it is to move to its top tier if `promote` says so, and maps
/// it. The file must have exactly `len` bytes.
pub(super) async fn map(
    shared: &Shared,
    worker: &Worker,
    block_id: i64,
    len: u64,
    promote: bool,
) -> Result<Found, Failure> {
    match open(shared, worker, block_id, len, promote).await? {
        Opened::Here(file, lease) => {
            let map = map_file(&file)
                .map_err(|err| FsError::because(Fault::Io, format!("cannot map block {block_id}: {err}")))?;
            shared.data.traffic.mapped.add(1);
            let on_disk = !fstatfs(&file).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
            Ok(Found::Mapped { bytes: Bytes::from_owner(Mapped { map, _lease: lease }), on_disk })
        }
        Opened::Elsewhere(why) => Ok(Found::Elsewhere(why)),
    }
}

/// The same without the mapping.
pub(super) async fn open(
    shared: &Shared,
    worker: &Worker,
    block_id: i64,
    len: u64,
    promote: bool,
) -> Result<Opened, Failure> {
    let server = shared.connections.worker(worker)?;
    let mut leased = lease(shared, &server, block_id, promote).await;
    if matches!(&leased, Err(failure) if failure.class == Class::Unauthenticated) {
        leased = lease(shared, &server, block_id, promote).await;
    }
    let (path, lease) = leased?;
    let named =
        |err: &dyn Display| FsError::because(Fault::Io, format!("block file {}: {err}", path.display()));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(err) => return Ok(Opened::Elsewhere(named(&err))),
    };
    check_len(&file, len).map_err(|err| named(&err))?;
    Ok(Opened::Here(file, Box::new(lease)))
}

async fn lease(
    shared: &Shared,
    server: &Server,
    block_id: i64,
    promote: bool,
) -> Result<(PathBuf, Lease), Failure> {
    let limit = shared.options.data_read_timeout.min(LEASE_TIME);
    let id = server.ready().await?;
    shared.data.traffic.worker_calls.add(1);
    let (requests, receiver) = mpsc::channel(1);
    let request = OpenLocalBlockRequest { block_id: Some(block_id), promote: Some(promote) };
    server.sends(Rpc::OpenLocalBlock, &request);
    let _call = server.calls(Rpc::OpenLocalBlock);
    requests.try_send(request).expect("the queue is empty and its receiver is here");
    let mut client = BlockWorkerClient::new(server.channel());
    let call = async {
        let mut answers = client.open_local_block(id.sign(ReceiverStream::new(receiver))).await?.into_inner();
        let answer = answers.message().await?;
        Ok((answer, answers))
    };
    let late =
        |_| Failure::connection(Fault::TimedOut, format!("{} sent nothing for {limit:?}", server.name()));
    let begun = Instant::now();
    let outcome = timeout(limit, call).await;
    server.took(Rpc::OpenLocalBlock, begun, !matches!(outcome, Ok(Ok(_))));
    let (answer, answers) = outcome.map_err(late)?.map_err(|status: tonic::Status| {
        let failure = failure(Rpc::OpenLocalBlock, &block_id, server.name(), &status);
        if failure.class == Class::Unauthenticated {
            server.refresh(&id);
        }
        failure
    })?;
    match answer.and_then(|answer| answer.path) {
        Some(path) => {
            let (stream, runtime) = (Some((requests, answers)), shared.bridge.handle().clone());
            Ok((path.into(), Lease { stream, runtime, limit: shared.options.reader_close_timeout }))
        }
        None => Err(FsError::because(Fault::Io, format!("{} names no file", server.name())).into()),
    }
}

fn check_len(file: &File, len: u64) -> io::Result<()> {
    match file.metadata()?.len() {
        found if found == len => Ok(()),
        found => Err(io::Error::other(format!("has {found} bytes instead of {len}"))),
    }
}

fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: a mapping must not change or shrink under the slices of it. A worker writes a block's file under
    // another name and never again once the block is committed, and it removes the file only after the lease is
    // over, which outlives the map. Whoever else could write here has the worker's rights. The bytes are only
    // passed on to the kernel, which answers EFAULT where a page cannot be read; that read fails with EIO.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_of_another_length_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"12345").unwrap();
        assert!(check_len(file.as_file(), 5).is_ok());
        assert!(check_len(file.as_file(), 6).unwrap_err().to_string().contains("has 5 bytes instead of 6"));
        assert_eq!(&map_file(file.as_file()).unwrap()[..], b"12345");
    }
}
