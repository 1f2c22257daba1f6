//! A file that is being written: the front that the caller appends to, and the job that carries the data to
//! workers and talks to the master.
//!
//! The job runs on its own, so an interrupted caller never leaves half a call behind: what was taken is
//! written, or the whole file is given up. A front that is dropped without a commit, for whatever reason,
//! makes the job abort its streams and remove the file.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Shared;
use super::block_write::Target;
use super::block_write::Writing;
use super::budget::Permit;
use super::budget::Use;
use super::chunk::Own;
use super::chunk::chunk;
use super::copies::Copies;
use super::incomplete::IncompleteFile;
use super::leftovers::remove_incomplete;
use super::master::Change;
use super::master::UfsEnd;
use super::options::PathOptions;
use super::options::WriteType;
use super::proto::dataserver::CreateUfsFileOptions;
use super::proto::grpc::file::FileInfo;
use crate::fs::Attr;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileWriter;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::fs::Timestamp;
use crate::metrics;
use crate::waiting;

/// How long a caller's interrupt is not heeded. A signal that does not end a process (a timer, a runtime that
/// preempts its threads) must not fail a write that is about to succeed; one that does may wait this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Chunks between the front and the job.
const QUEUE_MAX: usize = 4;

/// A worker takes messages of up to 4 MiB, of which ten bytes are not data.
const CHUNK_MAX: u64 = (4 << 20) - 64;

/// Blocks that are being committed at a time.
const COMMITS_MAX: usize = 8;

/// How long a path may be missing: between a rename at the master and the word of it.
const RENAME_TIME: Duration = Duration::from_secs(2);

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
            remove(&maker, &file).await;
        }
    });
    let (file, info) =
        shared.bridge.run(ctx, None, async { made.await.unwrap_or_else(|_| Err(job_died())) })?;
    let mut writer = Writer::new(Arc::clone(shared), at, shared.attr(&info), file, &info, options.beside);
    // After the writer, which removes the file if this is interrupted.
    let info = shared.bridge.run(ctx, None, async { Ok(shared.adopt(ctx, place, info).await) })?;
    writer.attr = shared.attr(&info);
    Ok((writer.attr.clone(), Box::new(writer)))
}

fn job_died() -> FsError {
    FsError::because(Fault::Io, "the task of this file has ended")
}

/// What the front tells the job.
enum Command {
    Data(Bytes),
    /// Memory is short: what is only held to be sent again goes.
    Squeeze,
    Sync(oneshot::Sender<Result<()>>),
    Commit(oneshot::Sender<Result<()>>),
}

/// What the two tell each other out of order.
#[derive(Default)]
struct Notes {
    /// Why the job has ended. Every later call fails with it.
    failure: Mutex<Option<FsError>>,
    /// The path, if it changed since the job looked.
    renamed: Mutex<Option<FsPath>>,
    /// Told of every rename.
    moved: Notify,
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
    /// What this file has in memory, this and all that was cut.
    own: Arc<Own>,
    /// Full chunks that there was no room for in the queue: never more than one append makes.
    overflow: VecDeque<Bytes>,
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
            own: Arc::default(),
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

    fn cut(&mut self) {
        if !self.pending.is_empty() {
            let bytes = self.pending.split().freeze();
            self.overflow.push_back(chunk(bytes, self.pending_memory.take(), &self.own));
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
        let (overflow, commands, notes, own) = (&mut self.overflow, &self.commands, &self.notes, &self.own);
        wait(&self.shared, ctx, async move {
            Self::drain(overflow, commands, notes).await?;
            commands.send(Command::Squeeze).await.map_err(|_| Self::verdict(notes))?;
            tokio::select! {
                () = memory.room(bytes) => Ok(()),
                () = own.gone() => Ok(()),
                () = commands.closed() => Err(Self::verdict(notes)),
            }
        })
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
        overflow: &mut VecDeque<Bytes>,
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

impl FileWriter for Writer {
    fn append(&mut self, ctx: &Ctx, data: &[u8]) -> Result<()> {
        self.check()?;
        if !self.overflow.is_empty() {
            wait(&self.shared, ctx, Self::drain(&mut self.overflow, &self.commands, &self.notes))?;
        }
        let bytes = data.len() as u64;
        if !self.shared.data.memory.has_room(bytes) {
            self.wait_for_room(ctx, bytes)?;
        }
        // From here on nothing waits, so that data is taken as a whole or not at all.
        self.take(data);
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

    /// A stream into the under file system keeps the name that it began with.
    fn can_move(&self) -> bool {
        match self.at.write_type {
            WriteType::MustCache | WriteType::AsyncThrough => true,
            WriteType::Through | WriteType::CacheThrough => false,
        }
    }

    fn renamed(&mut self, to: &FsPath) {
        match self.shared.place(to) {
            Ok(path) => {
                *self.notes.renamed.lock() = Some(path);
                self.notes.moved.notify_waiters();
            }
            Err(err) => log::warn!("a file that is being written was moved to {to}: {err}"),
        }
    }
}

/// The other side: owns the streams and the incomplete file.
struct Job {
    shared: Arc<Shared>,
    at: Arc<PathOptions>,
    notes: Arc<Notes>,
    file: IncompleteFile,
    /// It is to take the place of another file.
    beside: bool,
    block_size: u64,
    length: u64,
    /// As whose, and with which mode, the under file system has made it.
    made: CreateUfsFileOptions,
    /// The way into Alluxio; none for a file that only the under file system gets, or no longer.
    blocks: Option<Blocks>,
    /// The way into the under file system.
    ufs: Option<Writing>,
}

/// The blocks of the file that are not committed.
#[derive(Default)]
struct Blocks {
    current: Option<Copies>,
    /// Full blocks of a file whose only copy they are. A committed block may be evicted, and a file that is larger
    /// than the store would silently evict its own beginning; blocks that are not committed cannot be, and the
    /// store says that it is full.
    held: Vec<Copies>,
    commits: JoinSet<Result<()>>,
}

impl Job {
    fn new(
        shared: Arc<Shared>,
        at: Arc<PathOptions>,
        notes: Arc<Notes>,
        file: IncompleteFile,
        info: &FileInfo,
        beside: bool,
    ) -> Self {
        let write_type = at.write_type;
        let made = ufs_file(info);
        let ufs = matches!(write_type, WriteType::Through | WriteType::CacheThrough).then(|| {
            Writing::new(Arc::clone(&shared), Arc::clone(&at), Target::UfsFile(Box::new(made.clone())))
        });
        let blocks = (write_type != WriteType::Through).then(Blocks::default);
        let block_size = u64::try_from(info.block_size_bytes()).unwrap_or(0);
        let block_size = if block_size == 0 { at.block_size } else { block_size };
        Self { shared, at, notes, file, beside, block_size, length: 0, made, blocks, ufs }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        match self.serve(&mut commands).await {
            Ok(true) => return,
            Ok(false) => log::debug!("{} is given up by its writer", self.file.path()),
            Err(err) => {
                log::debug!("{} is given up: {err}", self.file.path());
                // Before the receiver goes, which is how the front notices.
                *self.notes.failure.lock() = Some(err);
            }
        }
        drop(commands);
        self.blocks = None;
        self.ufs = None;
        remove(&self.shared, &self.file).await;
    }

    /// Carries out commands to the commit (true), or to the end of the front (false).
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<bool> {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Data(data) => self.write(data).await?,
                Command::Squeeze => self.forget_kept(),
                Command::Sync(reply) => {
                    let result = self.flush().await;
                    // Nobody listens if the caller was interrupted; the data is there all the same.
                    let _ = reply.send(result.clone());
                    result?;
                }
                Command::Commit(mut reply) => {
                    let result = tokio::select! {
                        result = self.commit() => result,
                        () = reply.closed() => return Ok(false),
                    };
                    if result.is_ok() {
                        self.completed();
                    }
                    let _ = reply.send(result.clone());
                    return result.map(|()| true);
                }
            }
        }
        Ok(false)
    }

    /// The file is complete. One that is to take the place of another is not at its place yet.
    fn completed(&mut self) {
        if self.beside
            && let Some(entry) = self.file.hand_over()
        {
            self.shared.beside.lock().insert(self.file.file_id(), entry);
        }
        self.file.ended();
    }

    fn forget_kept(&mut self) {
        let blocks = self.blocks.as_mut().into_iter();
        let blocks = blocks.flat_map(|blocks| blocks.held.iter_mut().chain(&mut blocks.current));
        blocks.for_each(Copies::forget_kept);
        self.ufs.iter_mut().for_each(Writing::forget_kept);
    }

    async fn write(&mut self, data: Bytes) -> Result<()> {
        self.length += data.len() as u64;
        if self.blocks.is_some()
            && let Err(err) = self.write_blocks(data.clone()).await
        {
            self.give_up_caching(err)?;
        }
        match &mut self.ufs {
            Some(ufs) => ufs.write(data).await,
            None => Ok(()),
        }
    }

    /// Alluxio cannot take the data. The file goes on if the under file system gets it anyway.
    fn give_up_caching(&mut self, err: FsError) -> Result<()> {
        if self.ufs.is_none() {
            return Err(err);
        }
        log::warn!("{} goes to the under file system only: {err}", self.file.path());
        self.blocks = None;
        Ok(())
    }

    async fn write_blocks(&mut self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let mut block = match self.blocks.as_mut().and_then(|blocks| blocks.current.take()) {
                Some(block) => block,
                None => self.next_block().await?,
            };
            let room = usize::try_from(self.block_size - block.written()).unwrap_or(usize::MAX);
            block.write(data.split_to(room.min(data.len()))).await?;
            let Some(blocks) = &mut self.blocks else { return Ok(()) };
            if block.written() < self.block_size {
                blocks.current = Some(block);
            } else if self.at.write_type == WriteType::MustCache {
                block.forget_kept();
                blocks.held.push(block);
            } else {
                blocks.commit(block).await?;
            }
        }
        Ok(())
    }

    async fn next_block(&mut self) -> Result<Copies> {
        self.follow_rename();
        let id = match self.shared.master.new_block(&mut self.file).await {
            Err(err) if self.was_renamed(&err).await => self.shared.master.new_block(&mut self.file).await?,
            result => result?,
        };
        let pin = self.at.write_type == WriteType::AsyncThrough;
        Ok(Copies::new(&self.shared, &self.at, &Target::Block { id, size: self.block_size, pin }))
    }

    async fn flush(&mut self) -> Result<()> {
        if let Some(blocks) = &mut self.blocks
            && let Err(err) = blocks.flush().await
        {
            self.give_up_caching(err)?;
        }
        match &mut self.ufs {
            Some(ufs) => ufs.flush().await,
            None => Ok(()),
        }
    }

    async fn commit(&mut self) -> Result<()> {
        let begun = Instant::now();
        let ufs = match self.ufs.take() {
            Some(ufs) => {
                let content_hash = ufs.commit().await?;
                metrics::CLOSE_UFS_OUT_STREAM.record(begun.elapsed());
                Some(UfsEnd { length: self.length, content_hash })
            }
            None => None,
        };
        if let Some(blocks) = self.blocks.take()
            && let Err(err) = blocks.finish().await
        {
            if ufs.is_none() {
                return Err(err);
            }
            log::warn!("{} is in the under file system only: {err}", self.file.path());
        }
        self.follow_rename();
        let through = ufs.is_some();
        match self.shared.master.complete_file(&self.file, &self.at, ufs.clone()).await {
            Err(err) if self.was_renamed(&err).await => {
                self.shared.master.complete_file(&self.file, &self.at, ufs).await?;
            }
            result => result?,
        }
        if through && let Err(err) = self.tell_ufs().await {
            log::warn!("{} has another owner or mode in the under file system: {err}", self.file.path());
        }
        metrics::CLOSE_ALLUXIO_OUT_STREAM.record(begun.elapsed());
        Ok(())
    }

    /// What was changed while the file was being written, the master has not passed on: it does so for complete
    /// files, when it is told once more.
    async fn tell_ufs(&self) -> Result<()> {
        let (master, path) = (&self.shared.master, self.file.path());
        let info = master.known_status(path).await?;
        if info.group() != self.made.group() {
            master.set_attribute(path, Change::Group(info.group().to_owned())).await?;
        }
        if info.owner() != self.made.owner() {
            master.set_attribute(path, Change::Owner(info.owner().to_owned())).await?;
        }
        if info.mode() != self.made.mode() {
            master.set_attribute(path, Change::Mode(info.mode().cast_unsigned())).await?;
        }
        Ok(())
    }

    fn follow_rename(&mut self) -> bool {
        let renamed = self.notes.renamed.lock().take();
        let moved = renamed.is_some();
        if let Some(path) = renamed {
            self.file.renamed(path);
        }
        moved
    }

    /// Whether `err` means that the path is an old one. The word of a rename through this mount comes a little after the
    /// rename; of those of other clients only the master knows.
    async fn was_renamed(&mut self, err: &FsError) -> bool {
        if !matches!(err.fault(), Fault::NotFound | Fault::Stale) {
            return false;
        }
        if let Ok(path) = self.shared.master.path_of(self.file.file_id()).await
            && path != *self.file.path()
        {
            self.file.renamed(path);
            return true;
        }
        let notes = Arc::clone(&self.notes);
        let mut moved = pin!(notes.moved.notified());
        moved.as_mut().enable();
        if self.follow_rename() {
            return true;
        }
        timeout(RENAME_TIME, moved).await.is_ok() && self.follow_rename()
    }
}

impl Blocks {
    /// Lets `block` be committed while others are written.
    async fn commit(&mut self, block: Copies) -> Result<()> {
        while self.commits.len() >= COMMITS_MAX {
            self.next_commit().await?;
        }
        self.commits.spawn(async move { block.commit().await });
        Ok(())
    }

    async fn next_commit(&mut self) -> Result<()> {
        match self.commits.join_next().await {
            Some(result) => result.unwrap_or_else(|_| Err(job_died())),
            None => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<()> {
        for block in self.held.iter_mut().chain(&mut self.current) {
            block.flush().await?;
        }
        while !self.commits.is_empty() {
            self.next_commit().await?;
        }
        Ok(())
    }

    /// Commits what is not committed yet.
    async fn finish(mut self) -> Result<()> {
        let rest: Vec<Copies> = self.current.take().into_iter().chain(self.held.drain(..)).collect();
        for block in rest {
            self.commit(block).await?;
        }
        while !self.commits.is_empty() {
            self.next_commit().await?;
        }
        Ok(())
    }
}

fn ufs_file(info: &FileInfo) -> CreateUfsFileOptions {
    CreateUfsFileOptions {
        ufs_path: Some(info.ufs_path().to_owned()),
        owner: Some(info.owner().to_owned()),
        group: Some(info.group().to_owned()),
        mode: Some(info.mode()),
        mount_id: Some(info.mount_id()),
        acl: None,
    }
}

/// Removes the file, wherever it was moved to, if nobody has completed it.
async fn remove(shared: &Shared, file: &IncompleteFile) {
    match remove_incomplete(&shared.master, file.file_id()).await {
        Ok(_) => file.ended(),
        Err(err) => log::warn!("{} is left behind incomplete: {err}", file.path()),
    }
}
