//! The job of a file that is being written: it carries the data to workers, talks to the master, and removes the file if
//! its front (`writer.rs`) goes away without a commit. Lock order: the notes, which are held for a moment, and nothing else.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Shared;
use super::block_write::Target;
use super::block_write::Writing;
use super::chunk::Chunk;
use super::chunk::Own;
use super::copies::Copies;
use super::error::Failure;
use super::incomplete::IncompleteFile;
use super::leftovers::Unwanted;
use super::master::Change;
use super::master::UfsEnd;
use super::options::PathOptions;
use super::options::WriteType;
use super::path_use::InUse;
use super::path_use::PathUse;
use super::proto::dataserver::CreateUfsFileOptions;
use super::proto::grpc::file::FileInfo;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::metrics;

/// Blocks that are being committed at a time.
const COMMITS_MAX: usize = 8;

/// What the front tells the job.
pub(super) enum Command {
    Data(Chunk),
    /// Memory is short: what is only held to be sent again goes.
    Squeeze,
    Sync(oneshot::Sender<Result<()>>),
    Commit(oneshot::Sender<Result<()>>),
}

/// What the two tell each other out of order.
#[derive(Default)]
pub(super) struct Notes {
    /// Why the job has ended. Every later call fails with it.
    pub(super) failure: Mutex<Option<FsError>>,
    /// The path, if it changed since the job looked.
    pub(super) renamed: Mutex<Option<FsPath>>,
    /// Keeps the path from being changed while the job goes by it.
    pub(super) path: Arc<PathUse>,
    /// What the file has in memory: what the front has cut, and what has not arrived.
    pub(super) own: Arc<Own>,
    /// Nobody writes the file any more.
    pub(super) given_up: Arc<AtomicBool>,
}

pub(super) fn job_died() -> FsError {
    FsError::because(Fault::Io, "the task of this file has ended")
}

/// Owns the streams and the incomplete file.
pub(super) struct Job {
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
    pub(super) fn new(
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
            let (place, file) = (file.path().clone(), Box::new(made.clone()));
            let target = Target::UfsFile { place, file, given_up: Arc::clone(&notes.given_up) };
            Writing::new(Arc::clone(&shared), Arc::clone(&at), target)
        });
        let blocks = (write_type != WriteType::Through).then(Blocks::default);
        let block_size = u64::try_from(info.block_size_bytes()).unwrap_or(0);
        let block_size = if block_size == 0 { at.block_size } else { block_size };
        Self { shared, at, notes, file, beside, block_size, length: 0, made, blocks, ufs }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
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
        if let Some(ufs) = self.ufs.take() {
            ufs.give_up().await;
        }
        Unwanted::Incomplete(self.file).remove(&self.shared).await;
    }

    /// Carries out commands to the commit (true), or to the end of the front (false).
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<bool> {
        let mut squeezed = false;
        while let Some(command) = self.next(commands, squeezed).await? {
            // Given up: what still waits here nobody wants.
            if commands.is_closed() {
                return Ok(false);
            }
            squeezed = matches!(command, Command::Squeeze);
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

    /// The next command. The front of a file that was squeezed waits for data to leave; that a worker takes none, though it lives,
    /// nobody else would notice.
    async fn next(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        squeezed: bool,
    ) -> Result<Option<Command>> {
        let limit = self.shared.options.data_write_timeout;
        let mut left = self.notes.own.count();
        while squeezed && left > 0 {
            if let Ok(command) = timeout(limit, commands.recv()).await {
                return Ok(command);
            }
            let before = std::mem::replace(&mut left, self.notes.own.count());
            if left >= before && !self.is_committing()? {
                return Err(self.stalled(limit));
            }
        }
        Ok(commands.recv().await)
    }

    /// Whether blocks are being committed, for which there is a limit of its own.
    fn is_committing(&mut self) -> Result<bool> {
        let Some(blocks) = &mut self.blocks else { return Ok(false) };
        match blocks.note_commits() {
            Ok(()) => Ok(!blocks.commits.is_empty()),
            Err(err) => self.give_up_caching(err).map(|()| false),
        }
    }

    /// Nothing of the file has left for `limit`.
    fn stalled(&self, limit: Duration) -> FsError {
        let blocks = self.blocks.iter().flat_map(|blocks| blocks.held.iter().chain(&blocks.current));
        let mut workers: Vec<_> =
            blocks.flat_map(Copies::workers).chain(self.ufs.iter().filter_map(Writing::worker)).collect();
        workers.sort();
        workers.dedup();
        let names = workers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let failure = Failure::connection(Fault::TimedOut, format!("{names} took no data for {limit:?}"));
        // Of several it may be another one.
        if let [worker] = &workers[..] {
            self.shared.workers.failed(worker, &failure);
        }
        failure.error
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

    async fn write(&mut self, data: Chunk) -> Result<()> {
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

    async fn write_blocks(&mut self, mut data: Chunk) -> Result<()> {
        while data.len() > 0 {
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
        let id = {
            let _in_use = self.use_path().await;
            match self.shared.master.new_block(&mut self.file).await {
                Err(err) if self.was_renamed(&err).await => {
                    self.shared.master.new_block(&mut self.file).await?
                }
                result => result?,
            }
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
        let ufs = match &mut self.ufs {
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
        let _in_use = self.use_path().await;
        let through = ufs.is_some();
        match self.complete(ufs.clone()).await {
            Err(err) if self.was_renamed(&err).await => self.complete(ufs).await?,
            result => result?,
        }
        if through && let Err(err) = self.tell_ufs().await {
            log::warn!("{} has another owner or mode in the under file system: {err}", self.file.path());
        }
        metrics::CLOSE_ALLUXIO_OUT_STREAM.record(begun.elapsed());
        Ok(())
    }

    /// The master's call goes by path, and completes whatever is being written there: after some time that may be another file.
    async fn complete(&mut self, ufs: Option<UfsEnd>) -> Result<()> {
        match self.shared.master.look_again(&mut self.file).await {
            // Who may write a file need not be one who may look at it.
            Err(err) if err.fault() == Fault::PermissionDenied => {}
            result => drop(result?),
        }
        self.shared.master.complete_file(&self.file, &self.at, ufs).await
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

    /// Begins to go by the path. Until what is returned is dropped, nothing that this mount does changes what it stands for.
    async fn use_path(&mut self) -> InUse {
        let in_use = self.notes.path.begin().await;
        if in_use.doubtful {
            self.file.doubt();
        }
        if let Some(path) = self.notes.renamed.lock().take() {
            self.file.renamed(path);
        }
        in_use
    }

    /// Whether `err` means that the path is an old one: it was renamed by another client, or while nobody could be told.
    async fn was_renamed(&mut self, err: &FsError) -> bool {
        if !matches!(err.fault(), Fault::NotFound | Fault::Stale) {
            return false;
        }
        match self.shared.master.path_of(self.file.file_id()).await {
            Ok(path) if path != *self.file.path() => {
                self.file.renamed(path);
                true
            }
            Ok(_) | Err(_) => false,
        }
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

    /// Takes note of the commits that have ended.
    fn note_commits(&mut self) -> Result<()> {
        while let Some(ended) = self.commits.try_join_next() {
            ended.unwrap_or_else(|_| Err(job_died()))?;
        }
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
        // A worker that waits for room would take that of the first of these blocks that is committed: all must have
        // theirs before.
        let mut arriving = JoinSet::new();
        for mut block in self.held.drain(..) {
            arriving.spawn(async move { block.arrive().await.map(|()| block) });
        }
        let mut rest = Vec::with_capacity(arriving.len() + 1);
        if let Some(mut last) = self.current.take() {
            if !arriving.is_empty() {
                last.arrive().await?;
            }
            rest.push(last);
        }
        while let Some(arrived) = arriving.join_next().await {
            rest.push(arrived.unwrap_or_else(|_| Err(job_died()))?);
        }
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
