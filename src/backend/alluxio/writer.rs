//! A file that is being written: the front that the caller appends to. The job (`write_job.rs`) carries the data to
//! workers and talks to the master.
//!
//! The job runs on its own, so an interrupted caller never leaves half a call behind: what was taken is
//! written, or the whole file is given up. A front that is dropped without a commit, for whatever reason,
//! makes the job abort its streams and remove the file.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::Shared;
use super::budget::Permit;
use super::budget::Use;
use super::chunk::Chunk;
use super::error::Rpc;
use super::incomplete::IncompleteFile;
use super::leftovers::Unwanted;
use super::options::PathOptions;
use super::options::WriteType;
use super::path_use::PathUse;
use super::proto::grpc::file::FileInfo;
use super::write_job::Command;
use super::write_job::Job;
use super::write_job::Notes;
use super::write_job::job_died;
use crate::fs::Attr;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::FileWriter;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Naming;
use crate::fs::Result;
use crate::fs::Timestamp;
use crate::waiting;

/// How long a caller's interrupt is not heeded. A signal that does not end a process (a timer, a runtime that
/// preempts its threads) must not fail a write that is about to succeed; one that does may wait this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Chunks between the front and the job.
const QUEUE_MAX: usize = 4;

/// A worker takes messages of up to 4 MiB, of which ten bytes are not data.
const CHUNK_MAX: u64 = (4 << 20) - 64;

/// Makes the file `place`, a path in Alluxio.
pub(super) fn create(
    shared: &Arc<Shared>,
    ctx: &Ctx,
    place: &FsPath,
    options: &CreateOptions,
) -> Result<(Attr, Box<dyn FileWriter>)> {
    let (sender, made) = oneshot::channel();
    let (maker, path, options) = (Arc::clone(shared), place.clone(), *options);
    // The same for the whole file, whatever is changed meanwhile.
    let at = shared.master.at(place);
    let rules = Arc::clone(&at);
    shared.bridge.spawn_job(async move {
        let result = maker.master.create_file(&path, &rules, options.mode, options.replace).await;
        if let Err(Ok((file, _))) = sender.send(result) {
            // Whoever asked was interrupted.
            Unwanted::Incomplete(file).remove(&maker).await;
        }
    });
    let (file, info) = {
        let _wait = waiting::wait(&Arc::default(), Rpc::CreateFile.name());
        shared.bridge.run(ctx, None, async { made.await.unwrap_or_else(|_| Err(job_died())) })?
    };
    let mut writer = Writer::new(Arc::clone(shared), at, shared.attr(&info), file, &info, options.beside);
    // After the writer, which removes the file if this is interrupted.
    let info = shared.bridge.run(ctx, None, async { Ok(shared.adopt(ctx, place, info).await) })?;
    writer.attr = shared.attr(&info);
    Ok((writer.attr.clone(), Box::new(writer)))
}

/// The caller's side.
struct Writer {
    shared: Arc<Shared>,
    at: Arc<PathOptions>,
    attr: Attr,
    written: u64,
    chunk: usize,
    /// The chunk that is being filled.
    pending: BytesMut,
    /// Its memory.
    pending_memory: Option<Permit>,
    /// Full chunks that there was no room for in the queue: never more than one append makes.
    overflow: VecDeque<Chunk>,
    /// Its end, without a commit before it, gives the file up.
    commands: mpsc::Sender<Command>,
    notes: Arc<Notes>,
}

impl Writer {
    fn new(
        shared: Arc<Shared>,
        at: Arc<PathOptions>,
        attr: Attr,
        file: IncompleteFile,
        info: &FileInfo,
        beside: bool,
    ) -> Self {
        let options = &shared.options;
        let chunk = options.writer_chunk.clamp(1, CHUNK_MAX) as usize;
        let queue = options.writer_buffer_messages.clamp(1, QUEUE_MAX);
        let (commands, receiver) = mpsc::channel(queue);
        let notes = Arc::new(Notes::default());
        let job = Job::new(Arc::clone(&shared), Arc::clone(&at), Arc::clone(&notes), file, info, beside);
        shared.bridge.spawn_job(job.run(receiver));
        Self {
            shared,
            at,
            attr,
            written: 0,
            chunk,
            pending: BytesMut::new(),
            pending_memory: None,
            overflow: VecDeque::new(),
            commands,
            notes,
        }
    }

    fn check(&self) -> Result<()> {
        self.notes.failure.lock().clone().map_or(Ok(()), Err)
    }

    /// Why nobody listens to commands any more.
    fn verdict(notes: &Notes) -> FsError {
        notes.failure.lock().clone().unwrap_or_else(job_died)
    }

    /// The one copy of the data: from the request's buffer, which its owner uses again, into the chunk that goes
    /// to the worker.
    fn take(&mut self, mut data: &[u8]) {
        self.written += data.len() as u64;
        while !data.is_empty() {
            let (part, rest) = data.split_at(data.len().min(self.chunk - self.pending.len()));
            if self.pending.is_empty() && self.written > self.chunk as u64 {
                // More will come, as it has so far: no growing by and by, which copies.
                self.pending.reserve(self.chunk);
            }
            self.pending.extend_from_slice(part);
            match &mut self.pending_memory {
                Some(memory) => memory.grow(part.len() as u64),
                None => {
                    let memory = self.shared.data.memory.charge(Use::Write, part.len() as u64);
                    self.pending_memory = Some(memory);
                }
            }
            data = rest;
            if self.pending.len() == self.chunk {
                self.cut();
            }
        }
    }

    /// The same without that copy.
    fn take_given(&mut self, mut data: Bytes) {
        self.cut();
        self.written += data.len() as u64;
        while !data.is_empty() {
            let part = data.split_to(data.len().min(self.chunk));
            let memory = self.shared.data.memory.charge(Use::Write, part.len() as u64);
            self.overflow.push_back(Chunk::new(part, Some(memory), &self.notes.own));
        }
    }

    fn cut(&mut self) {
        if !self.pending.is_empty() {
            let bytes = self.pending.split().freeze();
            self.overflow.push_back(Chunk::new(bytes, self.pending_memory.take(), &self.notes.own));
        }
    }

    /// There is no memory for `bytes` more: waits until there is, or until nothing of this file is left in memory, so that
    /// its next piece is all that it has.
    fn wait_for_room(&mut self, ctx: &Ctx, bytes: u64) -> Result<()> {
        let memory = Arc::clone(&self.shared.data.memory);
        self.shared.data.versions.make_room();
        if memory.has_room(bytes) {
            return Ok(());
        }
        self.cut();
        let (overflow, commands, notes) = (&mut self.overflow, &self.commands, &self.notes);
        wait(&self.shared, ctx, async move {
            Self::drain(overflow, commands, notes).await?;
            commands.send(Command::Squeeze).await.map_err(|_| Self::verdict(notes))?;
            tokio::select! {
                () = memory.room(bytes) => Ok(()),
                () = notes.own.gone() => Ok(()),
                () = commands.closed() => Err(Self::verdict(notes)),
            }
        })
    }

    /// Waits until what was taken before is on its way, and there is memory for `bytes` more.
    fn get_ready(&mut self, ctx: &Ctx, bytes: u64) -> Result<()> {
        self.check()?;
        if !self.overflow.is_empty() {
            wait(&self.shared, ctx, Self::drain(&mut self.overflow, &self.commands, &self.notes))?;
        }
        if !self.shared.data.memory.has_room(bytes) {
            self.wait_for_room(ctx, bytes)?;
        }
        Ok(())
    }

    /// Hands over what there is room for.
    fn offer(&mut self) {
        while !self.overflow.is_empty() {
            let Ok(room) = self.commands.try_reserve() else { return };
            room.send(Command::Data(self.overflow.pop_front().expect("it is not empty")));
        }
    }

    /// Waits until all full chunks are handed over. May be dropped at any point.
    async fn drain(
        overflow: &mut VecDeque<Chunk>,
        commands: &mpsc::Sender<Command>,
        notes: &Notes,
    ) -> Result<()> {
        while !overflow.is_empty() {
            let room = commands.reserve().await.map_err(|_| Self::verdict(notes))?;
            room.send(Command::Data(overflow.pop_front().expect("it is not empty")));
        }
        Ok(())
    }

    /// Hands over everything, then a command, and waits for its answer.
    fn ask(&mut self, ctx: &Ctx, command: impl FnOnce(oneshot::Sender<Result<()>>) -> Command) -> Result<()> {
        self.check()?;
        self.cut();
        let (sender, answer) = oneshot::channel();
        let (overflow, commands, notes) = (&mut self.overflow, &self.commands, &self.notes);
        wait(&self.shared, ctx, async move {
            Self::drain(overflow, commands, notes).await?;
            commands.send(command(sender)).await.map_err(|_| Self::verdict(notes))?;
            answer.await.unwrap_or_else(|_| Err(Self::verdict(notes)))
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Before whoever dropped it goes on, and the job hears of it.
        self.notes.given_up.store(true, Ordering::Relaxed);
    }
}

/// Waits like the bridge, but hears an interrupt only after a while. The job bounds its own steps, and may be going to
/// another worker meanwhile.
fn wait<T>(shared: &Shared, ctx: &Ctx, future: impl Future<Output = Result<T>>) -> Result<T> {
    let _wait = waiting::wait(&Arc::default(), "data of the file on its way to a worker");
    let mut future = pin!(future);
    let patience = Instant::now() + PATIENCE;
    match shared.bridge.run(&Ctx::daemon(), Some(patience), async { Ok(future.as_mut().await) }) {
        Ok(result) => result,
        Err(_) => shared.bridge.run(ctx, None, future),
    }
}

/// What the job's calls to the master go by.
struct Name {
    shared: Arc<Shared>,
    path: Arc<PathUse>,
}

impl Naming for Name {
    fn hold(&self, ctx: &Ctx) -> Result<Box<dyn Send>> {
        let _wait = waiting::wait(&Arc::default(), "what is done by the name of the file");
        let held = self.shared.bridge.run(ctx, None, async { Ok(self.path.hold().await) })?;
        Ok(Box::new(held))
    }
}

impl FileWriter for Writer {
    fn append(&mut self, ctx: &Ctx, data: &[u8]) -> Result<()> {
        self.get_ready(ctx, data.len() as u64)?;
        // From here on nothing waits, so that data is taken as a whole or not at all.
        self.take(data);
        self.offer();
        Ok(())
    }

    fn append_given(&mut self, ctx: &Ctx, data: Bytes) -> Result<()> {
        self.get_ready(ctx, data.len() as u64)?;
        self.take_given(data);
        self.offer();
        Ok(())
    }

    fn sync(&mut self, ctx: &Ctx) -> Result<()> {
        self.ask(ctx, Command::Sync)
    }

    fn commit(&mut self, ctx: &Ctx) -> Result<Attr> {
        self.ask(ctx, Command::Commit)?;
        self.attr.size = self.written;
        self.attr.mtime = Timestamp::now();
        self.attr.ctime = self.attr.mtime;
        self.attr.complete = true;
        Ok(self.attr.clone())
    }

    fn naming(&self) -> Option<Arc<dyn Naming>> {
        Some(Arc::new(Name { shared: Arc::clone(&self.shared), path: Arc::clone(&self.notes.path) }))
    }

    /// A stream into the under file system keeps the name that it began with.
    fn can_move(&self) -> bool {
        match self.at.write_type {
            WriteType::MustCache | WriteType::AsyncThrough => true,
            WriteType::Through | WriteType::CacheThrough => false,
        }
    }

    fn renamed(&mut self, to: &FsPath) {
        match self.shared.place(to) {
            Ok(path) => *self.notes.renamed.lock() = Some(path),
            Err(err) => log::warn!("a file that is being written was moved to {to}: {err}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;
    use std::thread;

    use parking_lot::Mutex;
    use prost::Message;

    use super::super::block_write::ABORT_SETTLES;
    use super::super::block_write::LOSS_SETTLES;
    use super::super::fake_server::FakeServer;
    use super::super::fake_server::Reply;
    use super::super::options::AlluxioOptions;
    use super::super::proto::grpc::file::CompleteFilePRequest;
    use super::super::proto::grpc::file::CompleteFilePResponse;
    use super::super::proto::grpc::file::CreateFilePResponse;
    use super::super::proto::grpc::file::DeletePResponse;
    use super::super::proto::grpc::file::GetFilePathPResponse;
    use super::super::proto::grpc::file::GetNewBlockIdForFilePResponse;
    use super::super::proto::grpc::file::GetStatusPRequest;
    use super::super::proto::grpc::file::GetStatusPResponse;
    use super::*;
    use crate::fs::Fault;

    const OPTIONS: CreateOptions = CreateOptions { mode: 0o600, replace: false, beside: false };

    /// The incomplete file with this number.
    fn file(file_id: i64) -> Option<FileInfo> {
        Some(FileInfo { file_id: Some(file_id), ..FileInfo::default() })
    }

    #[test]
    fn a_file_is_completed_where_this_mount_has_moved_it_and_not_where_it_was() {
        let (moved, completed) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (has_moved, noted) = (Arc::clone(&moved), Arc::clone(&completed));
        let server = FakeServer::start(move |call, message| {
            let moved = has_moved.load(Ordering::SeqCst);
            match call {
                "CreateFile" => Reply::message(&CreateFilePResponse { file_info: file(7) }),
                "GetStatus" => {
                    // Somebody else's is where it was.
                    let is_old = GetStatusPRequest::decode(message).unwrap().path() == "/f";
                    let file_info = file(if moved && is_old { 8 } else { 7 });
                    Reply::message(&GetStatusPResponse { file_info })
                }
                "GetFilePath" => {
                    let path = if moved { "/f.1" } else { "/f" };
                    Reply::message(&GetFilePathPResponse { path: Some(path.to_owned()) })
                }
                "CompleteFile" => {
                    noted.lock().push(CompleteFilePRequest::decode(message).unwrap().path().to_owned());
                    Reply::message(&CompleteFilePResponse {})
                }
                other => panic!("{other}"),
            }
        });
        let shared = Arc::new(Shared::new(server.options()).unwrap());
        let (ctx, place) = (Ctx::daemon(), FsPath::parse("/f").unwrap());
        let (_, mut writer) = create(&shared, &ctx, &place, &OPTIONS).unwrap();
        let held = writer.naming().unwrap().hold(&ctx).unwrap();
        moved.store(true, Ordering::SeqCst);
        drop(held);
        // It is not told, as if a thread had it.
        writer.commit(&ctx).unwrap();
        assert_eq!(*completed.lock(), ["/f.1"]);
    }

    #[test]
    fn a_writer_at_the_limit_of_memory_does_not_wait_for_ever_for_a_worker_that_takes_nothing() {
        const FILE: i64 = 7 << 24 | 0xff_ffff;
        let server = FakeServer::start(|call, _| match call {
            "CreateFile" => Reply::message(&CreateFilePResponse { file_info: file(FILE) }),
            "GetNewBlockIdForFile" => Reply::message(&GetNewBlockIdForFilePResponse { id: Some(7 << 24) }),
            "WriteBlock" => Reply::Hang,
            // What was given up is to be removed.
            _ => Reply::Failure(tonic::Code::NotFound),
        });
        let data_write_timeout = Duration::from_millis(50);
        let options = AlluxioOptions { memory_limit: 1 << 20, data_write_timeout, ..server.options() };
        let shared = Arc::new(Shared::new(options).unwrap());
        let place = FsPath::parse("/f").unwrap();
        let (_, mut writer) = create(&shared, &Ctx::daemon(), &place, &OPTIONS).unwrap();
        let (sender, failed) = mpsc::channel();
        // If it waits for ever, the test does not.
        thread::spawn(move || {
            let piece = vec![0; 300_000];
            let failure = (0..100).find_map(|_| writer.append(&Ctx::daemon(), &piece).err());
            sender.send(failure.expect("more was taken than there is memory"))
        });
        assert_eq!(failed.recv_timeout(Duration::from_secs(20)).unwrap().fault(), Fault::TimedOut);
    }

    /// When the worker was last asked to write, and when the master was asked to remove what came of it, if the worker answers so.
    fn removed_after(answer: &Reply) -> (Instant, Instant) {
        let (answer, (asked, calls)) = (answer.clone(), mpsc::channel());
        let server = FakeServer::start(move |call, _| {
            asked.send((call.to_owned(), Instant::now())).unwrap();
            match call {
                "CreateFile" => Reply::message(&CreateFilePResponse { file_info: file(7) }),
                "GetStatus" => Reply::message(&GetStatusPResponse { file_info: file(7) }),
                "GetFilePath" => Reply::message(&GetFilePathPResponse { path: Some("/f".to_owned()) }),
                "WriteBlock" => answer.clone(),
                "Remove" => Reply::message(&DeletePResponse {}),
                other => panic!("{other}"),
            }
        });
        let through = PathOptions { write_type: WriteType::Through, ..PathOptions::default() };
        let options = AlluxioOptions { paths: through.into(), ..server.options() };
        let shared = Arc::new(Shared::new(options).unwrap());
        let place = FsPath::parse("/f").unwrap();
        let (_, mut writer) = create(&shared, &Ctx::daemon(), &place, &OPTIONS).unwrap();
        writer.append(&Ctx::daemon(), b"data").unwrap();
        drop(writer.commit(&Ctx::daemon()).unwrap_err());
        drop(writer);
        let mut written = None;
        loop {
            let (call, when) = calls.recv_timeout(Duration::from_secs(20)).unwrap();
            match call.as_str() {
                "WriteBlock" => written = Some(when),
                "Remove" => return (written.unwrap(), when),
                _ => {}
            }
        }
    }

    #[test]
    fn what_a_worker_may_still_be_creating_in_the_under_file_system_is_not_removed_at_once() {
        let (lost, removed) = removed_after(&Reply::Lost);
        assert!(removed - lost >= LOSS_SETTLES);
        let (refused, removed) = removed_after(&Reply::Failure(tonic::Code::Internal));
        assert!(removed - refused >= ABORT_SETTLES);
    }
}
