//! Ranges of a file's blocks, brought from workers: from one that holds the block, else through one from the
//! under file system. Knows neither windows nor who reads.
//!
//! A stream is opened for one bounded range and ends with it: an open one locks its block at the worker. The
//! end of a stream says nothing, as a worker ends one that it breaks off, or that runs into a shortened
//! file, with OK: the bytes are counted.
//!
//! Who reads gets the bytes of the file that was opened, or an error, whatever happens to its name. A block's
//! number stands for its bytes for ever. A path in the under file system does not: what comes from there, and where
//! the master says that a worker has a copy of it, counts only if the file is still at its place afterwards.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::Shared;
use super::connection::Server;
use super::error::Class;
use super::error::Failure;
use super::error::Rpc;
use super::error::failure;
use super::fetch::Fetch;
use super::fetch::Sink;
use super::layout::Layout;
use super::options::HostPort;
use super::options::PathOptions;
use super::options::ReadType;
use super::proto::dataserver::OpenUfsBlockOptions;
use super::proto::grpc::BlockInfo;
use super::proto::grpc::block::CacheRequest;
use super::proto::grpc::block::ReadRequest;
use super::proto::grpc::block::block_worker_client::BlockWorkerClient;
use super::proto::grpc::file::FileInfo;
use super::read_stream;
use super::retry::Backoff;
use super::window::Order;
use super::worker::Worker;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Result;
use crate::fs::Slices;
use crate::metrics::Source;

/// Rounds over all workers when every one of them was reached and none had the bytes. More would not find
/// what is gone, and this is enough for a worker that has just come back and reports its blocks.
const ROUNDS_ANSWERED: u32 = 4;

/// How long it is believed that no worker has a block, after it came from the under file system: whoever brought it
/// mostly keeps it.
const ABSENT_FOR: Duration = Duration::from_secs(1);

/// How long old locations do when the master does not answer, and how long it may take to, where there are old ones.
const OLD_LOCATIONS_FOR: Duration = Duration::from_secs(30);
const REFRESH_PATIENCE: Duration = Duration::from_secs(5);

/// The same for old locations in the place of none: a master that has just taken over knows of no blocks until the workers
/// have told it, and one that is asked for a block that it has not is quick to say so.
const KEPT_LOCATIONS_FOR: Duration = Duration::from_secs(10);

/// How long the master's word that the file is at its place is good for before something is read from there, when it was
/// opened or looked for anyway. A look only for that would be as old by the time the worker opens the file.
const CONFIRMED_FOR: Duration = Duration::from_millis(20);

/// How often a file may move while the same bytes of it are being read.
const MOVES_MAX: u32 = 4;

/// As the master says that the under file system has all of a file.
const PERSISTED: &str = "PERSISTED";

/// The blocks of one complete file.
pub(super) struct Blocks {
    shared: Arc<Shared>,
    at: Arc<PathOptions>,
    /// Where it was opened.
    path: FsPath,
    file_id: i64,
    layout: Layout,
    ufs: Mutex<Ufs>,
    replication_max: i32,
    /// The file was removed or replaced: only workers can have bytes of it.
    gone: AtomicBool,
    /// When the master last said that the file is at its place, and the moves through this mount until then.
    confirmed: Mutex<(Instant, u64)>,
    /// By index in the file.
    known: Mutex<Vec<Known>>,
}

/// What the under file system has of a file, as far as it is known.
enum Ufs {
    /// Nothing.
    Absent,
    /// Perhaps the blocks that workers have put there on their way to it.
    OnItsWay,
    /// All of it.
    Present(Arc<UfsCopy>),
}

/// Where in the under file system a file is.
struct UfsCopy {
    /// The place in Alluxio that goes with it.
    place: FsPath,
    path: String,
    mount_id: i64,
}

impl UfsCopy {
    fn new(place: FsPath, info: &FileInfo) -> Self {
        Self { place, path: info.ufs_path().to_owned(), mount_id: info.mount_id() }
    }
}

/// A block as the master described it.
struct Known {
    info: Arc<BlockInfo>,
    /// When the master is asked again.
    expires: Instant,
    /// Workers are asked to cache a block once for each open file.
    cache_asked: bool,
}

/// What is to be brought, of block `block` that `info` describes.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    block: usize,
    info: &'a BlockInfo,
    /// Whether it is part of a sequential read.
    sequential: bool,
    sink: &'a Sink,
}

/// Why a round over all workers failed.
struct Lost {
    error: FsError,
    /// Whether some worker could not be reached or was too busy, or is not known to the master yet, so that waiting may help.
    unreachable: bool,
    /// Whether another round is of no use.
    hopeless: bool,
}

impl Blocks {
    /// The blocks of the complete file `info` at `path`.
    pub(super) fn new(shared: Arc<Shared>, path: FsPath, info: &FileInfo) -> Result<Self> {
        let len = u64::try_from(info.length()).unwrap_or(0);
        let block_size = u64::try_from(info.block_size_bytes()).unwrap_or(0);
        if len > 0 && block_size == 0 {
            return Err(FsError::because(Fault::Io, format!("{path} has bytes but no block size")));
        }
        let layout = Layout::new(len, block_size.max(1));
        let expires = Instant::now() + shared.options.locations_expire;
        let known: Vec<Known> = info
            .file_block_infos
            .iter()
            .filter_map(|block| block.block_info.as_ref())
            .map(|info| Known { info: Arc::new(info.clone()), expires, cache_asked: false })
            .collect();
        if known.len() < layout.blocks() {
            let detail = format!("{path} has {len} bytes but only {} of its blocks are known", known.len());
            return Err(FsError::because(Fault::Io, detail));
        }
        let ufs = match info.persistence_state() {
            PERSISTED => Ufs::Present(Arc::new(UfsCopy::new(path.clone(), info))),
            "TO_BE_PERSISTED" => Ufs::OnItsWay,
            _ => Ufs::Absent,
        };
        let (file_id, replication_max) = (info.file_id(), info.replication_max.unwrap_or(-1));
        let at = shared.master.at(&path);
        let (gone, known, ufs) = (AtomicBool::new(false), Mutex::new(known), Mutex::new(ufs));
        let confirmed = Mutex::new((Instant::now(), shared.data.moves.value()));
        Ok(Self { shared, at, path, file_id, layout, ufs, replication_max, gone, confirmed, known })
    }

    /// How the file is cut.
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Where the options of the file's path are.
    pub(super) fn options_place(&self) -> usize {
        Arc::as_ptr(&self.at) as usize
    }

    /// Takes over what `fresh`, of the same version of the file, was told by the master just now.
    pub(super) fn take_over(&self, fresh: &Self) {
        let confirmed = *fresh.confirmed.lock();
        *self.confirmed.lock() = confirmed;
        // What was confirmed is this place.
        if let Some(fresh) = fresh.ufs_copy()
            && self.ufs_copy().is_none_or(|copy| copy.place != fresh.place)
        {
            *self.ufs.lock() = Ufs::Present(fresh);
        }
        let fresh = fresh.known.lock();
        for (known, fresh) in self.known.lock().iter_mut().zip(fresh.iter()) {
            known.info = Arc::clone(&fresh.info);
            known.expires = fresh.expires;
        }
    }

    /// What is known of block `block`: its id and where it is. Asks the master when that is too old.
    pub(super) async fn info(&self, block: usize) -> Result<Arc<BlockInfo>> {
        let (info, expires) = {
            let known = self.known.lock();
            (Arc::clone(&known[block].info), known[block].expires)
        };
        if Instant::now() < expires {
            return Ok(info);
        }
        let patience = if info.locations.is_empty() { Duration::MAX } else { REFRESH_PATIENCE };
        let refreshed = timeout(patience, self.refresh(block)).await;
        match refreshed.unwrap_or_else(|_| Err(Fault::TimedOut.into())) {
            Ok(info) => Ok(info),
            // Old locations are better than none while the master is away, or when the file is gone: perhaps a worker
            // still has the block.
            Err(err) => {
                log::debug!("block {} of {}: {err}", info.block_id(), self.path);
                if err.fault() != Fault::Stale {
                    self.believe_for(OLD_LOCATIONS_FOR);
                }
                Ok(info)
            }
        }
    }

    /// No location is asked for anew within `time`.
    fn believe_for(&self, time: Duration) {
        let until = Instant::now() + time;
        self.known.lock().iter_mut().for_each(|known| known.expires = known.expires.max(until));
    }

    /// Asks the master where block `block` is. Fails with [`Fault::Stale`] if the file is gone.
    async fn refresh(&self, block: usize) -> Result<Arc<BlockInfo>> {
        let id = self.known.lock()[block].info.block_id();
        let info = Arc::new(self.shared.master.block_info(id).await.map_err(gone)?);
        // A worker that has loaded the block may have done so after the path in the under file system became that of
        // another file.
        if self.ufs_copy().is_some() {
            self.still_there().await?;
        }
        let mut known = self.known.lock();
        let known = &mut known[block];
        if info.locations.is_empty() && !known.info.locations.is_empty() {
            known.expires = Instant::now() + KEPT_LOCATIONS_FOR;
            return Ok(Arc::clone(&known.info));
        }
        known.info = Arc::clone(&info);
        known.expires = Instant::now() + self.shared.options.locations_expire;
        Ok(info)
    }

    /// Where the under file system has the file, if it is known to.
    fn ufs_copy(&self) -> Option<Arc<UfsCopy>> {
        match &*self.ufs.lock() {
            Ufs::Present(copy) => Some(Arc::clone(copy)),
            Ufs::Absent | Ufs::OnItsWay => None,
        }
    }

    /// Asks the master whether the file was persisted since it was opened.
    async fn was_persisted_since(&self) -> bool {
        let Ok(place) = self.still_there().await else { return false };
        let Ok(info) = self.shared.master.known_status(&place).await else { return false };
        let is_persisted = info.file_id() == self.file_id && info.persistence_state() == PERSISTED;
        if is_persisted {
            *self.ufs.lock() = Ufs::Present(Arc::new(UfsCopy::new(place, &info)));
        }
        is_persisted
    }

    /// Block `block` had to be brought from the under file system: no worker had it.
    fn note_absent(&self, block: usize) {
        let mut known = self.known.lock();
        let known = &mut known[block];
        if !known.info.locations.is_empty() {
            known.info = Arc::new(BlockInfo { locations: Vec::new(), ..(*known.info).clone() });
        }
        known.expires = known.expires.min(Instant::now() + ABSENT_FOR);
    }

    /// Starts the task that brings what `fetch` is for.
    pub(super) fn start(self: &Arc<Self>, fetch: &Fetch) {
        let blocks = Arc::clone(self);
        let (range, sequential, sink) = (fetch.range(), fetch.is_sequential(), fetch.sink());
        let task = self.shared.bridge.spawn(async move {
            let block = blocks.layout.block_at(range.start);
            if let Err(err) = blocks.bring(block, sequential, &sink).await {
                sink.fail(err.context(format_args!("block {block} of {}", blocks.path)));
            }
        });
        fetch.started(task.abort_handle());
    }

    /// Brings what `sink` misses, from whatever worker and in however many attempts it takes.
    async fn bring(&self, block: usize, sequential: bool, sink: &Sink) -> Result<()> {
        let mut backoff = Backoff::new(self.shared.options.block_read_retry);
        let mut info = self.info(block).await?;
        let mut rounds_answered = 0;
        for round in 1_u32.. {
            let wanted = Wanted { block, info: &info, sequential, sink };
            let lost = match self.try_workers(wanted).await {
                Ok(()) => return Ok(()),
                Err(lost) => lost,
            };
            log::debug!("block {} of {}, attempt {round}: {}", info.block_id(), self.path, lost.error);
            rounds_answered += u32::from(!lost.unreachable);
            // Stale locations are an everyday matter: look again before waiting for the first time.
            let over = lost.hopeless || rounds_answered >= ROUNDS_ANSWERED;
            if over || round > 1 && !backoff.wait().await {
                return Err(lost.error);
            }
            match self.refresh(block).await {
                Ok(fresh) => info = fresh,
                Err(err) if err.fault() == Fault::Stale => return Err(err),
                Err(err) => log::debug!("block {} of {}: {err}", info.block_id(), self.path),
            }
        }
        unreachable!("the loop has no end but those inside")
    }

    /// One round: every worker that holds the block, and one that can read it from the under file system. Who has failed
    /// lately comes last: everybody who tries it loses time.
    async fn try_workers(&self, wanted: Wanted<'_>) -> Result<(), Lost> {
        let Wanted { block, info, .. } = wanted;
        let mut lost = Lost { error: self.nowhere(info), unreachable: false, hopeless: false };
        let mut broken: Vec<HostPort> = Vec::new();
        let holders = self.shared.workers.holders(info).await;
        let is_persisted = self.ufs_copy().is_some();
        let trusted = if is_persisted { self.shared.workers.trusted(&holders) } else { holders.len() };
        let (first, last) = holders.split_at(trusted);
        if self.try_holders(first, wanted, &mut lost, &mut broken).await {
            return Ok(());
        }
        if !is_persisted && !self.was_persisted_since().await {
            // Of a worker that has not told a new master yet, perhaps.
            let untold = holders.is_empty() && self.shared.master.primary().new_since().is_some();
            return Err(Lost { unreachable: lost.unreachable || untold, ..lost });
        }
        // From here on a worker may get the block from the under file system, and nobody can tell when.
        self.note_absent(block);
        let length = self.layout.block_len(block);
        let by_ufs = match self.shared.workers.for_ufs_read(info.block_id(), length, &broken).await {
            Ok(worker) => self.try_ufs(&worker, wanted).await,
            // All there are were tried just now, or there are none.
            Err(error) => {
                lost.unreachable = true;
                if holders.is_empty() {
                    lost.error = error;
                }
                Err(lost)
            }
        };
        let Err(mut lost) = by_ufs else { return Ok(()) };
        if self.try_holders(last, wanted, &mut lost, &mut broken).await {
            return Ok(());
        }
        Err(lost)
    }

    /// Brings what `sink` misses from one of `holders`, if one can. Notes why others cannot, and which could not be reached.
    async fn try_holders(
        &self,
        holders: &[Worker],
        wanted: Wanted<'_>,
        lost: &mut Lost,
        broken: &mut Vec<HostPort>,
    ) -> bool {
        for worker in holders {
            match self.try_worker(worker, wanted, self.held(wanted.block)).await {
                Ok(range) => {
                    self.ask_to_cache(wanted, worker, None, &range).await;
                    return true;
                }
                Err(failure) => {
                    if failure.class == Class::Connection {
                        broken.push(worker.address.clone());
                    }
                    lost.note(failure);
                }
            }
        }
        false
    }

    /// Brings what `sink` misses from the under file system through `worker`. It gets the bytes only when they are
    /// sure to be of this file.
    async fn try_ufs(&self, worker: &Worker, wanted: Wanted<'_>) -> Result<(), Lost> {
        let Wanted { block, sequential, sink, .. } = wanted;
        for _ in 0..MOVES_MAX {
            // Also before, so that workers do not keep another file's bytes as this block.
            let known = match self.ufs_copy().filter(|_| self.is_confirmed()) {
                Some(known) => known,
                None => self.whereabouts().await.map_err(Lost::for_good)?,
            };
            let range = sink.offset()..sink.offset() + sink.missing();
            let held = Fetch::new(Order { range: range.clone(), memory: [None, None], sequential });
            let options = Some(self.ufs_options(block, &known));
            let held_sink = held.sink();
            let result = self.try_worker(worker, Wanted { sink: &held_sink, ..wanted }, options).await;
            if let Err(failure) = &result
                && failure.class == Class::Connection
            {
                return Err(Lost::to(failure.clone()));
            }
            if result.is_err() {
                self.compare_with_ufs(&known.place).await;
            }
            if !Arc::ptr_eq(&known, &self.whereabouts().await.map_err(Lost::for_good)?) {
                continue;
            }
            let read = result.map_err(Lost::to)?;
            for part in held.ready(&range).map_err(Lost::for_good)?.iter().flat_map(Slices::parts) {
                sink.push(part.clone(), Source::Ufs);
            }
            // Readers have the bytes now, and these are not counted.
            drop(held);
            self.ask_to_cache(wanted, worker, Some(worker), &read).await;
            return Ok(());
        }
        let detail = format!("{} moves while it is being read", self.path);
        Err(Lost::for_good(FsError::because(Fault::Io, detail)))
    }

    /// The under file system may have lost what the master has at `place`: lets it see that, so that the file is gone
    /// rather than there and unreadable for ever. A worker that gives up a write makes such files: it completes the copy
    /// in the under file system and then removes it, and whoever looks in between has the master take it for a file.
    async fn compare_with_ufs(&self, place: &FsPath) {
        if let Err(error) = self.shared.master.synced_status(place).await {
            log::debug!("{place}: {error}");
        }
    }

    fn is_confirmed(&self) -> bool {
        let (when, moves) = *self.confirmed.lock();
        when.elapsed() < CONFIRMED_FOR && moves == self.shared.data.moves.value()
    }

    /// Where the under file system has the file now: what is known, brought up to date if the file was moved.
    async fn whereabouts(&self) -> Result<Arc<UfsCopy>> {
        let known = self
            .ufs_copy()
            .expect("it is asked for where the under file system has the file, and that stays so");
        let asked = (Instant::now(), self.shared.data.moves.value());
        let place = self.still_there().await?;
        if place == known.place {
            *self.confirmed.lock() = asked;
            return Ok(known);
        }
        let info = self.shared.master.known_status(&place).await?;
        if info.file_id() != self.file_id {
            return Err(FsError::because(Fault::Io, format!("{} moves while it is being read", self.path)));
        }
        let moved = Arc::new(UfsCopy::new(place, &info));
        *self.ufs.lock() = Ufs::Present(Arc::clone(&moved));
        Ok(moved)
    }

    /// Where the file is now. Once it is gone, it stays gone.
    async fn still_there(&self) -> Result<FsPath> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(gone(Fault::Stale.into()));
        }
        self.shared.master.path_of(self.file_id).await.map_err(|error| {
            if error.fault() == Fault::Stale {
                self.gone.store(true, Ordering::Relaxed);
            }
            gone(error)
        })
    }

    fn nowhere(&self, info: &BlockInfo) -> FsError {
        let id = info.block_id();
        FsError::because(
            Fault::Io,
            format!("no worker holds block {id}, and the under file system has no copy"),
        )
    }

    /// Brings what `sink` misses from `worker`; returns what part of the block that was.
    async fn try_worker(
        &self,
        worker: &Worker,
        wanted: Wanted<'_>,
        ufs: Option<OpenUfsBlockOptions>,
    ) -> Result<Range<u64>, Failure> {
        let Wanted { block, info, sequential, sink } = wanted;
        let server = self.shared.connections.worker(worker)?;
        let attempt = async || {
            let start = sink.offset() - self.layout.block_start(block);
            let range = start..start + sink.missing();
            let request = self.request(info, &range, ufs.clone(), sequential);
            read_stream::read(&self.shared, &server, request, sink).await.map(|()| range)
        };
        let mut result = attempt().await;
        if matches!(&result, Err(failure) if failure.class == Class::Unauthenticated) {
            // For what is missing now: some of it may have come.
            result = attempt().await;
        }
        match result {
            Ok(range) => {
                self.shared.workers.worked(&worker.address);
                Ok(range)
            }
            Err(failure) => {
                if failure.class == Class::Connection {
                    self.shared.workers.failed(&worker.address, &failure);
                }
                Err(failure)
            }
        }
    }

    /// Whether workers are to move what is read to their top tier.
    pub(super) fn promotes(&self) -> bool {
        self.at.read_type == ReadType::CachePromote
    }

    fn request(
        &self,
        info: &BlockInfo,
        range: &Range<u64>,
        ufs: Option<OpenUfsBlockOptions>,
        sequential: bool,
    ) -> ReadRequest {
        let options = &self.shared.options;
        let length = range.end - range.start;
        ReadRequest {
            block_id: Some(info.block_id()),
            offset: Some(range.start as i64),
            length: Some(length as i64),
            promote: Some(self.promotes()),
            // A worker never answers a request without a chunk size.
            chunk_size: Some(options.reader_chunk.clamp(1, length) as i64),
            open_ufs_block_options: ufs,
            offset_received: None,
            position_short: Some(!sequential && length < options.pread_threshold),
        }
    }

    /// What a worker that should have block `block` is told of the under file system: nothing where it might find
    /// another file's bytes at this one's path.
    fn held(&self, block: usize) -> Option<OpenUfsBlockOptions> {
        match &*self.ufs.lock() {
            Ufs::Absent | Ufs::Present(_) => None,
            Ufs::OnItsWay => Some(OpenUfsBlockOptions {
                offset_in_file: Some(0),
                block_in_ufs_tier: Some(true),
                ..self.ufs_block(block)
            }),
        }
    }

    /// How a worker finds block `block` in `copy`.
    fn ufs_options(&self, block: usize, copy: &UfsCopy) -> OpenUfsBlockOptions {
        OpenUfsBlockOptions {
            ufs_path: Some(copy.path.clone()),
            offset_in_file: Some(self.layout.block_start(block) as i64),
            mount_id: Some(copy.mount_id),
            ..self.ufs_block(block)
        }
    }

    fn ufs_block(&self, block: usize) -> OpenUfsBlockOptions {
        let options = &self.shared.options;
        OpenUfsBlockOptions {
            block_size: Some(self.layout.block_len(block) as i64),
            max_ufs_read_concurrency: Some(options.ufs_read_concurrency),
            no_cache: Some(self.at.read_type == ReadType::NoCache),
            ..OpenUfsBlockOptions::default()
        }
    }

    /// The worker of this host, if there is one. Mostly without waiting: it is asked for each time that something was fetched.
    async fn local_worker(&self) -> Option<Worker> {
        let workers = &self.shared.workers;
        if workers.is_due() {
            let shared = Arc::clone(&self.shared);
            self.shared.bridge.spawn(async move { shared.workers.refresh().await });
        }
        workers.local().await
    }

    /// After a range came from `source`, and from the under file system if `ufs_reader` is a worker: asks the
    /// worker that should have the block to load all of it.
    async fn ask_to_cache(
        &self,
        wanted: Wanted<'_>,
        source: &Worker,
        ufs_reader: Option<&Worker>,
        range: &Range<u64>,
    ) {
        let Wanted { block, info, .. } = wanted;
        let copies = i32::try_from(info.locations.len()).unwrap_or(i32::MAX);
        if self.at.read_type == ReadType::NoCache
            || self.replication_max >= 0 && copies >= self.replication_max
        {
            return;
        }
        if self.known.lock()[block].cache_asked {
            return;
        }
        let local = if self.at.passive_cache { self.local_worker().await } else { None };
        let length = self.layout.block_len(block);
        let target = match (local, ufs_reader) {
            (Some(local), Some(reader)) if local.address != reader.address => local,
            // A worker keeps what it read from end to end in one stream.
            (_, Some(_)) if *range == (0..length) => return,
            (_, Some(reader)) => reader.clone(),
            (Some(local), None) if local.address != source.address => local,
            (_, None) => return,
        };
        if std::mem::replace(&mut self.known.lock()[block].cache_asked, true) {
            return;
        }
        let ufs = match self.ufs_copy() {
            Some(copy) => self.ufs_options(block, &copy),
            None => self.held(block).unwrap_or_default(),
        };
        let request = CacheRequest {
            block_id: Some(info.block_id()),
            source_host: Some(source.host.clone()),
            source_port: Some(i32::from(source.address.port)),
            open_ufs_block_options: Some(ufs),
            length: Some(length as i64),
            r#async: Some(true),
        };
        let Ok(server) = self.shared.connections.worker(&target) else { return };
        let limit = self.shared.options.data_read_timeout;
        self.shared.data.traffic.worker_calls.add(1);
        self.shared.bridge.spawn(async move {
            if let Ok(Err(failure)) = timeout(limit, cache(&server, request)).await {
                log::debug!("{}", failure.error);
            }
        });
    }
}

async fn cache(server: &Server, request: CacheRequest) -> Result<(), Failure> {
    let id = server.ready().await?;
    let block = request.block_id();
    server.sends(Rpc::Cache, &request);
    let _call = server.calls(Rpc::Cache);
    let begun = Instant::now();
    let result = BlockWorkerClient::new(server.channel()).cache(id.sign(request)).await;
    server.took(Rpc::Cache, begun, result.is_err());
    result.map(drop).map_err(|status| failure(Rpc::Cache, &block, server.name(), &status))
}

/// An error of the master about a file that was open.
fn gone(error: FsError) -> FsError {
    match error.fault() {
        Fault::Stale => {
            FsError::because(Fault::Stale, "the file was removed or replaced since it was opened")
        }
        _ => error,
    }
}

impl Lost {
    /// By `failure` alone.
    fn to(failure: Failure) -> Self {
        let mut lost = Self { error: Fault::Io.into(), unreachable: false, hopeless: false };
        lost.note(failure);
        lost
    }

    /// By what another round does not change.
    fn for_good(error: FsError) -> Self {
        Self { error: gone(error), unreachable: false, hopeless: true }
    }

    fn note(&mut self, failure: Failure) {
        // One that says that it is busy may have time later.
        self.unreachable |= failure.class == Class::Connection || failure.error.fault() == Fault::Unavailable;
        self.error = match failure.error.fault() {
            // The name exists; it is the block that is gone.
            Fault::NotFound => FsError::because(Fault::Io, failure.error.to_string()),
            _ => failure.error,
        };
    }
}
