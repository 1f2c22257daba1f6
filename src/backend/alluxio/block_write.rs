//! One block, or one file of the under file system, on its way to a worker: through the worker's stream, or
//! into the worker's own file when it is on this host.
//!
//! What was sent is kept up to a bound. As long as all of it is kept, a failure only costs another attempt at
//! another worker. Dropped without a commit, the worker forgets what it got.
//!
//! A file of the under file system is not sent again once a worker was lost that may have begun it: that worker removes it by
//! its name when it notices, however late, and would remove what another has written there.
//!
//! Nor does anybody go by that name at once when such a file has failed or is given up: the worker of 2.9.4 creates it with the
//! first data, sets its mode, and creates it once more, empty, at the end of a stream that has failed. Were it removed in between,
//! the empty file would stay, and be taken for a complete one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Shared;
use super::chunk::Chunk;
use super::connection::UNAUTHENTICATED_MAX;
use super::error::Class;
use super::error::Failure;
use super::error::Rpc;
use super::options::HostPort;
use super::options::PathOptions;
use super::outbox::Outgoing;
use super::proto::dataserver::CreateUfsFileOptions;
use super::proto::grpc::block::CreateLocalBlockRequest;
use super::proto::grpc::block::CreateLocalBlockResponse;
use super::proto::grpc::block::RequestType;
use super::proto::grpc::block::WriteRequest;
use super::proto::grpc::block::WriteRequestCommand;
use super::proto::grpc::block::WriteResponse;
use super::proto::grpc::block::write_request;
use super::retry::Backoff;
use super::ufs_names::Taken;
use super::upload::Subject;
use super::upload::Upload;
use super::worker::Worker;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::metrics;

/// Bytes kept to be sent again. All of a small file, the beginning of a large one.
const KEPT_MAX: u64 = 4 << 20;

/// Chunks that wait for the network, besides what its own buffers hold.
const QUEUE: usize = 4;

/// The largest step in which space in a worker's store is asked for.
const RESERVE_STEP: u64 = 16 << 20;

/// In which a worker removes a block, or a file of the under file system, whose stream was reset or has failed.
pub(super) const ABORT_SETTLES: Duration = Duration::from_millis(200);

/// The same where the worker has to notice first that the connection is gone.
pub(super) const LOSS_SETTLES: Duration = Duration::from_secs(1);

/// How often the same worker is tried when there is no other and it gives an answer each time.
const ATTEMPTS_MAX: u32 = 3;

/// What is written.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// A block of Alluxio.
    Block {
        /// Its id.
        id: i64,
        /// Its full size.
        size: u64,
        /// Whether it must not be evicted before it is persisted.
        pin: bool,
    },
    /// A file of the under file system.
    UfsFile {
        /// Where it is in Alluxio.
        place: FsPath,
        /// Where, and how, it is made.
        file: Box<CreateUfsFileOptions>,
        /// Whether nobody writes it any more.
        given_up: Arc<AtomicBool>,
    },
}

/// The file or block while it is written.
pub(super) struct Writing {
    shared: Arc<Shared>,
    at: Arc<PathOptions>,
    target: Target,
    /// Opened with the first data, or by the commit of nothing.
    stream: Option<Stream>,
    written: u64,
    /// How much of it is known to have arrived.
    flushed: u64,
    /// All that was sent, or nothing once it is more than [`KEPT_MAX`].
    kept: Option<Vec<Chunk>>,
    /// A worker was asked to begin, and has not said that it could not.
    begun: bool,
    /// Of a file of the under file system, from when the first worker is asked until none does anything by it.
    name: Option<Taken>,
    /// Who has the stream, or had it last.
    worker: Option<HostPort>,
    /// Workers that failed with this target.
    excluded: Vec<HostPort>,
    /// Workers that have another copy of it.
    apart_from: Vec<HostPort>,
    /// Attempts that ended with an answer, when there was no other worker to ask.
    attempts: u32,
    /// How often a worker did not know our channel id.
    unauthenticated: u32,
    /// Begins with the first failure.
    backoff: Option<Backoff>,
}

enum Stream {
    Remote(Upload<WriteResponse>),
    Local(Local),
}

/// A block file of a local worker, open for writing.
struct Local {
    upload: Upload<CreateLocalBlockResponse>,
    file: Arc<File>,
    block_id: i64,
    block_size: u64,
    reserved: u64,
}

impl Writing {
    /// Begins with `target`, by the options `at`. Nothing is sent before there is data.
    pub(super) fn new(shared: Arc<Shared>, at: Arc<PathOptions>, target: Target) -> Self {
        Self {
            shared,
            at,
            target,
            stream: None,
            written: 0,
            flushed: 0,
            kept: Some(Vec::new()),
            begun: false,
            name: None,
            worker: None,
            excluded: Vec::new(),
            apart_from: Vec::new(),
            attempts: 0,
            unauthenticated: 0,
            backoff: None,
        }
    }

    /// Who has the stream, or had it last.
    pub(super) fn worker(&self) -> Option<HostPort> {
        self.worker.clone()
    }

    /// It is not to go to one of `workers`, which have other copies.
    pub(super) fn keep_from(&mut self, workers: Vec<HostPort>) {
        self.apart_from = workers;
    }

    /// Bytes written.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Adds `data`. It is on its way when this returns, not there.
    pub(super) async fn write(&mut self, data: Chunk) -> Result<()> {
        let length = data.len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.push(data.clone());
        }
        loop {
            match self.try_write(data.clone()).await {
                Ok(()) => break,
                Err(failure) => self.start_again(failure).await?,
            }
        }
        self.written += length;
        if self.written > KEPT_MAX || self.shared.data.memory.is_tight() {
            self.forget_kept();
        }
        Ok(())
    }

    /// Waits until the worker has everything, and, for the under file system, has flushed it there.
    pub(super) async fn flush(&mut self) -> Result<()> {
        while self.flushed < self.written {
            match self.try_flush().await {
                Ok(()) => self.flushed = self.written,
                Err(failure) => self.start_again(failure).await?,
            }
        }
        Ok(())
    }

    /// Waits until the worker has room for everything and has got it, if only in memory.
    pub(super) async fn arrive(&mut self) -> Result<()> {
        match self.stream {
            // Each write has waited for that.
            Some(Stream::Local(_)) => Ok(()),
            _ => self.flush().await,
        }
    }

    /// Lets go of what was kept: of a block that is full and waits for its commit, or when memory is short. What nobody
    /// has got yet is still needed.
    pub(super) fn forget_kept(&mut self) {
        if self.stream.is_some() {
            self.kept = None;
        }
    }

    /// Commits. Returns the content hash that the under file system gave.
    pub(super) async fn commit(&mut self) -> Result<Option<String>> {
        loop {
            match self.try_commit().await {
                Ok(hash) => return Ok(hash),
                Err(failure) => self.start_again(failure).await?,
            }
        }
    }

    /// Hands `data` to the stream. A stream that is opened here gets what was kept, which has `data` in it.
    async fn try_write(&mut self, data: Chunk) -> Result<(), Failure> {
        match &mut self.stream {
            Some(stream) => {
                let (offset, length) = (self.written, data.len() as u64);
                stream.write(&self.shared, offset, data).await?;
                self.count(length);
                Ok(())
            }
            None => self.open().await,
        }
    }

    /// Counts `bytes` that the stream has taken.
    fn count(&self, bytes: u64) {
        match (&self.stream, &self.target) {
            (Some(Stream::Local(_)), _) => metrics::BYTES_WRITTEN_LOCAL.add(bytes),
            (Some(Stream::Remote(_)), Target::UfsFile { .. }) => metrics::BYTES_WRITTEN_UFS.add(bytes),
            (Some(Stream::Remote(_)) | None, _) => {}
        }
    }

    async fn try_flush(&mut self) -> Result<(), Failure> {
        if self.stream.is_none() {
            self.open().await?;
        }
        let command = self.command(0);
        let stream = self.stream.as_mut().expect("it was opened above");
        stream.flush(&self.shared, command, self.written).await
    }

    async fn try_commit(&mut self) -> Result<Option<String>, Failure> {
        if self.stream.is_none() {
            self.open().await?;
        }
        if matches!(self.target, Target::Block { .. }) {
            self.make_ready().await?;
        }
        let limit = self.shared.options.writer_close_timeout;
        let stream = self.stream.take().expect("it was opened above");
        let hash = match stream {
            Stream::Remote(upload) => upload.commit(limit).await?.and_then(|answer| answer.content_hash),
            Stream::Local(local) => {
                local.upload.commit(limit).await?;
                None
            }
        };
        self.begun = false;
        self.name = None;
        if let Some(worker) = &self.worker {
            self.shared.workers.worked(worker);
        }
        Ok(hash)
    }

    /// Makes sure of all that can be before a block is committed: a master that is lost from then on fails it.
    async fn make_ready(&mut self) -> Result<(), Failure> {
        // Which cannot be sent again, and may take the worker a while.
        if self.kept.is_none()
            && self.flushed < self.written
            && matches!(self.stream, Some(Stream::Remote(_)))
        {
            self.try_flush().await?;
            self.flushed = self.written;
        }
        match &self.worker {
            Some(worker) => Ok(self.shared.workers.wait_until_known(worker).await?),
            None => Ok(()),
        }
    }

    /// Gives up what was not committed. When this returns, the worker has most likely removed what it has of a file of the under
    /// file system.
    pub(super) async fn give_up(mut self) {
        self.stream = None;
        self.settle(ABORT_SETTLES).await;
    }

    /// The stream has ended: leaves the worker the time `pause` for what it does then by the name of the file.
    async fn settle(&mut self, pause: Duration) {
        if std::mem::take(&mut self.begun) && matches!(self.target, Target::UfsFile { .. }) {
            sleep(pause).await;
        }
    }

    /// After `failure`: makes ready to send everything again, to another worker if there is one. Fails with
    /// `failure` if that cannot be.
    async fn start_again(&mut self, failure: Failure) -> Result<()> {
        self.stream = None;
        self.flushed = 0;
        if failure.class == Class::Unauthenticated {
            // The same worker gets a fresh one.
            self.unauthenticated += 1;
            if self.unauthenticated > UNAUTHENTICATED_MAX {
                return Err(failure.error);
            }
        } else if let Some(worker) = self.worker.take() {
            match failure.class {
                Class::Connection => self.shared.workers.failed(&worker, &failure),
                Class::Unregistered => self.shared.workers.distrust_list(),
                Class::Unauthenticated | Class::Raced | Class::Final => {}
            }
            self.excluded.push(worker);
        }
        self.begun &= !failure.unsent;
        let lost = self.begun && failure.class == Class::Connection;
        self.settle(if lost { LOSS_SETTLES } else { ABORT_SETTLES }).await;
        if self.kept.is_none() || lost && matches!(self.target, Target::UfsFile { .. }) {
            return Err(failure.error);
        }
        if self.choose().await.is_ok() {
            log::debug!("{}, trying another worker", failure.error);
            return Ok(());
        }
        // Nobody else. Perhaps this one has only been restarted, or has not yet cleared up what was aborted.
        self.attempts += u32::from(!matches!(failure.class, Class::Connection | Class::Unregistered));
        let hopeless = failure.error.fault() == Fault::NoSpace || self.attempts >= ATTEMPTS_MAX;
        let times = self.shared.options.write_init_retry;
        if hopeless || !self.backoff.get_or_insert_with(|| Backoff::new(times)).wait().await {
            return Err(failure.error);
        }
        log::debug!("{}, trying again", failure.error);
        self.excluded.clear();
        Ok(())
    }

    /// A worker for it.
    async fn choose(&self) -> Result<Worker, Failure> {
        let unwanted = [&self.excluded[..], &self.apart_from].concat();
        self.shared.workers.for_write(self.space_wanted(), &unwanted).await
    }

    fn space_wanted(&self) -> u64 {
        match &self.target {
            Target::Block { size, .. } => *size,
            Target::UfsFile { .. } => self.at.block_size,
        }
    }

    /// Opens a stream and sends what was kept.
    async fn open(&mut self) -> Result<(), Failure> {
        let kept = self.kept.clone().expect("a stream is opened again only while everything is kept");
        if let Target::UfsFile { place, given_up, .. } = &self.target
            && self.name.is_none()
        {
            self.name = Some(self.shared.data.ufs_names.take(place, given_up).await);
        }
        let reserve: u64 = kept.iter().map(|part| part.len() as u64).sum();
        let worker = self.choose().await?;
        self.worker = Some(worker.address.clone());
        let mut stream = self.connect(&worker, reserve).await?;
        self.begun = true;
        let mut offset = 0;
        for part in kept {
            let length = part.len() as u64;
            stream.write(&self.shared, offset, part).await?;
            offset += length;
        }
        self.stream = Some(stream);
        self.count(offset);
        Ok(())
    }

    async fn connect(&mut self, worker: &Worker, reserve: u64) -> Result<Stream, Failure> {
        if let Target::Block { id, size, pin } = self.target
            && worker.short_circuit(&self.shared.options)
            && self.shared.data.writes_locally()
        {
            match Local::open(&self.shared, worker, id, size, self.at.write_tier, pin, reserve).await? {
                Ok(local) => return Ok(Stream::Local(local)),
                Err(err) => {
                    metrics::FALLBACK_WRITE.count();
                    log::info!("no short circuit for writes: {err}");
                    self.shared.data.write_remotely();
                    // The worker needs a moment to clear up the block that was given up.
                    sleep(ABORT_SETTLES).await;
                }
            }
        }
        let server = self.shared.connections.worker(worker)?;
        let subject = Subject { rpc: Rpc::WriteBlock, block_id: self.block_id() };
        let first = command_request(self.command(reserve));
        server.sends(subject.rpc, &first);
        let upload = Upload::open(&self.shared, &server, subject, Outgoing::message(&first), QUEUE).await?;
        Ok(Stream::Remote(upload))
    }

    fn block_id(&self) -> i64 {
        match &self.target {
            Target::Block { id, .. } => *id,
            Target::UfsFile { .. } => -1,
        }
    }

    fn command(&self, reserve: u64) -> WriteRequestCommand {
        let (kind, pin, ufs) = match &self.target {
            Target::Block { pin, .. } => (RequestType::AlluxioBlock, *pin, None),
            Target::UfsFile { file, .. } => (RequestType::UfsFile, false, Some(file.as_ref().clone())),
        };
        WriteRequestCommand {
            r#type: Some(kind.into()),
            id: Some(self.block_id()),
            tier: Some(self.at.write_tier),
            medium_type: Some(String::new()),
            pin_on_create: Some(pin),
            space_to_reserve: Some(reserve as i64),
            create_ufs_file_options: ufs,
            ..WriteRequestCommand::default()
        }
    }
}

fn command_request(command: WriteRequestCommand) -> WriteRequest {
    WriteRequest { value: Some(write_request::Value::Command(command)) }
}

impl Stream {
    async fn write(&mut self, shared: &Shared, offset: u64, data: Chunk) -> Result<(), Failure> {
        match self {
            Self::Remote(upload) => {
                shared.data.traffic.sent.add(data.len() as u64);
                upload.send(Outgoing::chunk(data), shared.options.data_write_timeout).await
            }
            Self::Local(local) => local.write(shared, offset, data).await,
        }
    }

    async fn flush(
        &mut self,
        shared: &Shared,
        command: WriteRequestCommand,
        written: u64,
    ) -> Result<(), Failure> {
        let limit = shared.options.writer_flush_timeout;
        match self {
            Self::Remote(upload) => {
                let offset = Some(written as i64);
                let command = WriteRequestCommand { flush: Some(true), offset, ..command };
                upload.send(Outgoing::message(&command_request(command)), limit).await?;
                while upload.answer(limit).await?.offset() < written as i64 {}
                Ok(())
            }
            Self::Local(local) => {
                let file = Arc::clone(&local.file);
                blocking(move || file.sync_data()).await
            }
        }
    }
}

impl Local {
    /// Asks `worker` for a new block file and opens it. The inner error says that the file is not to be had from
    /// here, though the worker made it.
    async fn open(
        shared: &Shared,
        worker: &Worker,
        block_id: i64,
        block_size: u64,
        tier: i32,
        pin: bool,
        reserve: u64,
    ) -> Result<Result<Self>, Failure> {
        let server = shared.connections.worker(worker)?;
        let subject = Subject { rpc: Rpc::CreateLocalBlock, block_id };
        let reserved = reserve.min(block_size).max(1);
        let request = CreateLocalBlockRequest {
            block_id: Some(block_id),
            tier: Some(tier),
            space_to_reserve: Some(reserved as i64),
            medium_type: Some(String::new()),
            pin_on_create: Some(pin),
            cleanup_on_failure: Some(true),
            ..CreateLocalBlockRequest::default()
        };
        server.sends(subject.rpc, &request);
        let mut upload: Upload<CreateLocalBlockResponse> =
            Upload::open(shared, &server, subject, Outgoing::message(&request), 1).await?;
        let path = upload.answer(shared.options.data_write_timeout).await?.path.unwrap_or_default();
        match File::options().write(true).open(Path::new(&path)) {
            Ok(file) => Ok(Ok(Self { upload, file: Arc::new(file), block_id, block_size, reserved })),
            Err(err) => Ok(Err(FsError::because(Fault::Io, format!("block file {path:?}: {err}")))),
        }
    }

    async fn write(&mut self, shared: &Shared, offset: u64, data: Chunk) -> Result<(), Failure> {
        let end = offset + data.len() as u64;
        if end > self.reserved {
            self.reserve(shared, end).await?;
        }
        let file = Arc::clone(&self.file);
        blocking(move || file.write_all_at(data.as_ref(), offset)).await
    }

    /// Reserves at least up to `end`, and more the longer the block is already.
    async fn reserve(&mut self, shared: &Shared, end: u64) -> Result<(), Failure> {
        let target = (end + end.min(RESERVE_STEP)).min(self.block_size).max(end);
        let request = CreateLocalBlockRequest {
            block_id: Some(self.block_id),
            only_reserve_space: Some(true),
            space_to_reserve: Some((target - self.reserved) as i64),
            ..CreateLocalBlockRequest::default()
        };
        let limit = shared.options.data_write_timeout;
        self.upload.send(Outgoing::message(&request), limit).await?;
        self.upload.answer(limit).await?;
        self.reserved = target;
        Ok(())
    }
}

/// Runs a system call that may wait for a disk.
async fn blocking(call: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Failure> {
    let result = spawn_blocking(call).await.expect("a read or write does not panic, and nobody cancels it");
    result.map_err(|err| {
        let fault = match err.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::NoSpace,
            _ => Fault::Io,
        };
        FsError::because(fault, format!("block file: {err}")).into()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use bytes::Bytes;
    use tonic::Code;

    use super::super::fake_server::FakeServer;
    use super::super::fake_server::Reply;
    use super::*;
    use crate::fs::Ctx;

    /// Writes a block to a worker that gives `answer` to every request: what comes of it, and how often it was asked.
    fn written(answer: Reply) -> (FsError, u32) {
        let asked = Arc::new(AtomicU32::new(0));
        let times = Arc::clone(&asked);
        let server = FakeServer::start(move |call, _| {
            assert_eq!(call, "WriteBlock");
            // Else the test would not end.
            if times.fetch_add(1, Ordering::SeqCst) < 100 {
                answer.clone()
            } else {
                Reply::Failure(Code::Internal)
            }
        });
        let shared = Arc::new(Shared::new(server.options()).unwrap());
        let target = Target::Block { id: 7 << 24, size: 1 << 20, pin: false };
        let mut block = Writing::new(Arc::clone(&shared), Arc::default(), target);
        let data = Chunk::new(Bytes::from_static(b"data"), None, &Arc::default());
        let written = shared.bridge.run(&Ctx::daemon(), None, async {
            block.write(data).await?;
            block.flush().await
        });
        (written.unwrap_err(), asked.load(Ordering::SeqCst))
    }

    #[test]
    fn a_worker_that_knows_no_channel_id_of_ours_is_not_asked_for_ever() {
        let (error, asked) = written(Reply::Failure(Code::Unauthenticated));
        assert_eq!((error.fault(), asked), (Fault::PermissionDenied, UNAUTHENTICATED_MAX + 1));
    }

    #[test]
    fn a_worker_that_its_master_does_not_know_yet_is_asked_again_as_long_as_there_is_time() {
        assert_eq!(written(Reply::Failure(Code::Internal)).1, ATTEMPTS_MAX);
        let (error, asked) = written(Reply::Because(Code::NotFound, "No worker with workerId 7 is found"));
        assert_eq!(error.fault(), Fault::Unavailable);
        assert!(asked > ATTEMPTS_MAX, "{asked}");
    }
}
