//! One file that is being written through this mount: puts the kernel's writes into offset order, lends the
//! backend's writer to one thread at a time, and completes the file when it is closed.
//!
//! Lock order: the state's lock is held for memory only. While a thread works with the writer, the slot is
//! [`Slot::Lent`] and others wait for their turn, which an interrupt ends.
//! Invariant: once `failed` is set, the writer is gone and the file can no longer become complete.

use std::sync::Arc;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;
use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::commits::Commits;
use super::process::Process;
use crate::fs::Attr;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileReader;
use crate::fs::FileSystem;
use crate::fs::FileWriter;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Naming;
use crate::fs::Payload;
use crate::fs::Result;
use crate::fs::SetAttr;
use crate::fs::Timestamp;

/// How long a write waits for the bytes before it while none come. The kernel hands the pieces of one large write to several
/// threads in order, so what is missing is already with another worker; a real hole is filled with zeros.
const REORDER_WAIT: Duration = Duration::from_millis(500);

/// The same for a file that has a real hole already: its writer leaves out zeros on purpose.
const SPARSE_WAIT: Duration = Duration::from_millis(10);

/// How long the kernel may take to say that a descriptor is gone, after a close by a process that did not open the file.
const LET_GO: Duration = Duration::from_millis(100);

/// Zeros are written in pieces of this size.
const ZEROS: usize = 1 << 20;

/// Bytes are copied in pieces of this size.
const COPY: usize = 1 << 20;

const WRITTEN_ONCE: &str = "as files are written once, from start to end: write a new file and rename it";

enum Slot {
    /// Nobody is using the writer.
    Idle(Box<dyn FileWriter>),
    /// A thread is.
    Lent,
    /// The file is complete. An empty one can be started again.
    Complete,
    /// Removed, or failed: nothing is kept any more.
    Gone,
}

struct State {
    path: FsPath,
    /// Where the writer writes, if not at `path` itself: bytes that go on after the file was complete once.
    staged: Option<FsPath>,
    slot: Slot,
    /// What was known when the file was made or completed.
    attr: Attr,
    /// Bytes taken so far, in order: the only offset at which a write can go on.
    written: u64,
    /// Length that ftruncate(2) asked for; zeros are added up to it when the file is completed.
    length: u64,
    /// A hole was filled with zeros before.
    sparse: bool,
    /// All bytes came through this stream, so that more may follow after a close.
    own: bool,
    /// A complete file is at `path` that must not be lost: new bytes are written beside it, and take its place when
    /// they are complete. Not so for the empty one that this stream has made itself.
    standing: bool,
    /// Whether the writer follows when the file is renamed.
    moves: bool,
    /// Of the last writer. Is good also while the writer is lent.
    naming: Option<Arc<dyn Naming>>,
    /// The processes that opened it.
    openers: SmallVec<[Process; 2]>,
    changed: Timestamp,
    /// Times that were asked for while the file was open: they are set when it is complete, as completing it
    /// changes them.
    times: SetAttr,
    failed: Option<FsError>,
    /// It has failed while it was completed, and nobody has been told.
    untold: bool,
    /// It is being completed: the slot is lent for that, unless the file is removed meanwhile.
    completing: bool,
    /// A new version is taking its place in this moment.
    placing: bool,
    /// How many calls are changing the name or taking it away: until they are over no new version takes its place.
    renames: usize,
    /// How often it was completed, or failed.
    ends: u64,
    /// When a process that did not open it has closed it, with nothing written since.
    let_go: Option<Instant>,
}

impl State {
    fn new(path: FsPath, attr: Attr, slot: Slot) -> Self {
        let complete = matches!(slot, Slot::Complete);
        let writer = if let Slot::Idle(writer) = &slot { Some(writer) } else { None };
        let moves = writer.is_some_and(|writer| writer.can_move());
        let naming = writer.and_then(|writer| writer.naming());
        Self {
            path,
            staged: None,
            slot,
            written: if complete { attr.size } else { 0 },
            length: 0,
            sparse: false,
            own: !complete,
            standing: complete,
            moves,
            naming,
            openers: SmallVec::new(),
            changed: attr.mtime,
            times: SetAttr::default(),
            attr,
            failed: None,
            untold: false,
            completing: false,
            placing: false,
            renames: 0,
            ends: 0,
            let_go: None,
        }
    }

    /// Where the writer writes.
    fn target(&self) -> &FsPath {
        self.staged.as_ref().unwrap_or(&self.path)
    }

    /// Until when a write waits, from now on, for some of the bytes before it.
    fn reorder_deadline(&self) -> Instant {
        Instant::now() + if self.sparse { SPARSE_WAIT } else { REORDER_WAIT }
    }

    /// Whether bytes can follow the ones that there are.
    fn can_go_on(&self) -> bool {
        !matches!(self.slot, Slot::Complete) || self.own || self.written == 0
    }

    /// Whether there are bytes or an end that no reader can see yet.
    fn is_open(&self) -> bool {
        matches!(self.slot, Slot::Idle(_) | Slot::Lent)
    }

    /// Whether more bytes can still be added.
    fn can_grow(&self) -> bool {
        match self.slot {
            Slot::Idle(_) | Slot::Lent => true,
            Slot::Complete => self.can_go_on(),
            Slot::Gone => false,
        }
    }

    /// The content has changed: a time of change that was asked for before is void.
    fn touch(&mut self) {
        self.changed = Timestamp::now();
        self.times.mtime = None;
    }

    /// Keeps the times of `change` for when the file is complete. Those of now need no keeping, as that is yet to
    /// come.
    fn keep_times(&mut self, change: &SetAttr) {
        let now = |time: Option<Timestamp>| time.filter(|_| !change.now);
        if change.mtime.is_some() {
            self.touch();
        }
        self.times.atime = if change.atime.is_some() { now(change.atime) } else { self.times.atime };
        self.times.mtime = now(change.mtime).or(self.times.mtime);
    }
}

/// How a writer came to be.
enum Start {
    /// It was there before.
    Before,
    /// For a file from nothing, with these attributes.
    Fresh(Attr),
    /// At this path, to take the place of the file.
    Staged(FsPath),
}

/// A file in the course of being written. Shared by all handles that have it open for writing.
pub(super) struct WriteStream {
    fs: Arc<dyn FileSystem>,
    commits: Arc<Commits>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Wake for WriteStream {
    /// An interrupt of a waiting thread: it looks again, under the lock, so that the wake-up is not lost.
    fn wake(self: Arc<Self>) {
        drop(self.state.lock());
        self.changed.notify_all();
    }
}

impl WriteStream {
    /// A file that was just made and has no bytes yet.
    pub(super) fn started(
        fs: Arc<dyn FileSystem>,
        commits: Arc<Commits>,
        path: FsPath,
        attr: Attr,
        writer: Box<dyn FileWriter>,
    ) -> Arc<Self> {
        Self::new(fs, commits, path, attr, Slot::Idle(writer))
    }

    /// A complete file that was opened for writing and not been touched yet.
    pub(super) fn resting(
        fs: Arc<dyn FileSystem>,
        commits: Arc<Commits>,
        path: FsPath,
        attr: Attr,
    ) -> Arc<Self> {
        Self::new(fs, commits, path, attr, Slot::Complete)
    }

    fn new(
        fs: Arc<dyn FileSystem>,
        commits: Arc<Commits>,
        path: FsPath,
        attr: Attr,
        slot: Slot,
    ) -> Arc<Self> {
        let state = State::new(path, attr, slot);
        Arc::new(Self { fs, commits, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The attributes as of now; the size is what was written or asked for.
    pub(super) fn attr(&self) -> Attr {
        let state = self.state.lock();
        Attr {
            size: state.written.max(state.length),
            atime: state.times.atime.unwrap_or(state.attr.atime),
            mtime: state.times.mtime.unwrap_or(state.changed),
            ctime: state.changed.max(state.attr.ctime),
            complete: matches!(state.slot, Slot::Complete),
            ..state.attr.clone()
        }
    }

    /// Whether there are bytes or an end that no reader can see yet.
    pub(super) fn is_open(&self) -> bool {
        self.state.lock().is_open()
    }

    /// Whether the file is complete and has bytes.
    pub(super) fn is_finished(&self) -> bool {
        let state = self.state.lock();
        matches!(state.slot, Slot::Complete) && state.written > 0
    }

    /// Whether new bytes are to take the place of a complete file.
    pub(super) fn replaces(&self) -> bool {
        self.is_open() && self.state.lock().standing
    }

    /// Whether the file was removed, or has failed.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state.lock().slot, Slot::Gone)
    }

    /// Whether the file has failed and nothing of it is left.
    pub(super) fn is_lost(&self) -> bool {
        let state = self.state.lock();
        state.failed.is_some() && state.staged.is_none() && !state.standing
    }

    /// What a write at `offset` gets that cannot be done.
    pub(super) fn rewrite_error(&self, offset: u64) -> FsError {
        rewrite_error(&self.state.lock(), offset)
    }

    /// Whether no more can be written, for a reason that every write gets.
    pub(super) fn has_failed(&self) -> bool {
        self.state.lock().failed.is_some()
    }

    /// Takes `data` at `offset`. Bytes before the end of what was written cannot be changed any more: that
    /// fails with [`Fault::NotSupported`], and so does the file's completion then.
    pub(super) fn write(self: &Arc<Self>, ctx: &Ctx, offset: u64, data: Payload<'_>) -> Result<()> {
        self.drop_privileges(ctx)?;
        let len = data.len() as u64;
        let mut state = self.wait_for_offset(ctx, offset)?;
        if matches!(state.slot, Slot::Gone) {
            state.written = state.written.max(offset + len);
            return Ok(());
        }
        if offset < state.written || !state.can_go_on() {
            let error = rewrite_error(&state, offset);
            // What is complete stays so; what is not never becomes it.
            if !matches!(state.slot, Slot::Complete) {
                self.fail(state, error.clone());
            }
            return Err(error);
        }
        let gap = offset - state.written;
        state.sparse |= gap > 0;
        self.with_writer(ctx, state, |writer, added| {
            append_zeros(writer, ctx, gap, added)?;
            match data {
                Payload::Lent(bytes) => writer.append(ctx, bytes)?,
                Payload::Given(bytes) => writer.append_given(ctx, bytes)?,
            }
            *added += len;
            Ok(())
        })
    }

    /// A file that somebody writes to loses what makes it run as another user or group. The superuser may keep it.
    fn drop_privileges(&self, ctx: &Ctx) -> Result<()> {
        let present = self.state.lock().attr.mode;
        let mode = unprivileged(present);
        if ctx.uid == 0 || mode == present {
            return Ok(());
        }
        self.set_attr(ctx, &SetAttr { mode: Some(mode), ..SetAttr::default() }).map(drop)
    }

    /// Waits until nobody uses the writer and the bytes before `offset` have come, or do not come.
    fn wait_for_offset(self: &Arc<Self>, ctx: &Ctx, offset: u64) -> Result<MutexGuard<'_, State>> {
        let mut state = self.wait_idle(ctx)?;
        let mut seen = state.written;
        let mut deadline = state.reorder_deadline();
        while state.written < offset && state.can_grow() && Instant::now() < deadline {
            ctx.check()?;
            self.changed.wait_until(&mut state, deadline);
            let lent = matches!(state.slot, Slot::Lent);
            if lent {
                drop(state);
                state = self.wait_idle(ctx)?;
            }
            // As long as bytes come, those that are missing may be among the next, however slow they are.
            if lent || state.written > seen {
                seen = state.written;
                deadline = state.reorder_deadline();
            }
        }
        // The bytes before may have failed.
        unless_failed(state)
    }

    /// Waits until nobody uses the writer. Fails with what made the file fail, or when `ctx` is interrupted.
    fn wait_idle(self: &Arc<Self>, ctx: &Ctx) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if matches!(state.slot, Slot::Lent) {
            ctx.cancel().register(&Waker::from(Arc::clone(self)));
        }
        while matches!(state.slot, Slot::Lent) {
            ctx.check()?;
            self.changed.wait(&mut state);
        }
        unless_failed(state)
    }

    /// Waits for the end of a close, whatever comes of it. False if there is none under way: `is_left` says that there is
    /// one, as nobody has the file open any more.
    pub(super) fn wait_closed(self: &Arc<Self>, ctx: &Ctx, is_left: bool) -> Result<bool> {
        let mut state = self.state.lock();
        let ends = state.ends;
        ctx.cancel().register(&Waker::from(Arc::clone(self)));
        while state.is_open() && state.ends == ends {
            ctx.check()?;
            if is_left || state.completing {
                self.changed.wait(&mut state);
                continue;
            }
            let Some(deadline) = state.let_go.map(|when| when + LET_GO) else { return Ok(false) };
            if self.changed.wait_until(&mut state, deadline).timed_out() && !state.completing {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A number that changes when the file is completed or fails.
    pub(super) fn ends(&self) -> u64 {
        self.state.lock().ends
    }

    /// What made the file fail, if nobody has been told.
    pub(super) fn take_untold(&self) -> Option<FsError> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.untold) { state.failed.clone() } else { None }
    }

    /// Lends the writer to `work`, which counts the bytes that it adds. For a complete file a new writer is started.
    /// A failure is final, but for an interrupt: the caller can try the same again.
    fn with_writer(
        &self,
        ctx: &Ctx,
        mut state: MutexGuard<'_, State>,
        work: impl FnOnce(&mut dyn FileWriter, &mut u64) -> Result<()>,
    ) -> Result<()> {
        let slot = std::mem::replace(&mut state.slot, Slot::Lent);
        let target = state.target().clone();
        let (standing, attr, kept) = (state.standing, state.attr.clone(), state.written);
        drop(state);
        let lent = Lent { stream: self };
        let mut start = Start::Before;
        let mut writer = match slot {
            Slot::Idle(writer) => Ok(writer),
            _ => {
                let started = if standing {
                    self.start_beside(ctx, &target, &attr, kept)
                } else {
                    self.start_anew(ctx, &target, &attr)
                };
                started.map(|(how, writer)| {
                    start = how;
                    self.state.lock().naming = writer.naming();
                    writer
                })
            }
        };
        let mut added = 0;
        let result = match &mut writer {
            Ok(writer) => work(writer.as_mut(), &mut added),
            Err(error) => Err(error.clone()),
        };
        std::mem::forget(lent);
        let again = result.as_ref().is_err_and(|error| error.fault() == Fault::Interrupted);
        let next = match writer {
            Ok(writer) if result.is_ok() || again => Slot::Idle(writer),
            Err(_) if again => Slot::Complete,
            Ok(writer) => {
                self.give_up_writer(writer);
                Slot::Gone
            }
            Err(_) => Slot::Gone,
        };
        self.give_back(next, target, start, added, result)
    }

    /// Starts to write the file `path`, which this stream has made and which is empty or not complete, once more.
    fn start_anew(&self, ctx: &Ctx, path: &FsPath, before: &Attr) -> Result<(Start, Box<dyn FileWriter>)> {
        let present = self.fs.fresh_stat(ctx, path).map_err(|error| match error.fault() {
            Fault::NotFound => FsError::because(Fault::Stale, "another client has removed the file"),
            _ => error,
        })?;
        if present.id != before.id {
            return Err(replaced());
        }
        let options = CreateOptions { mode: before.mode, replace: true, beside: false };
        // A writer that is given up for this one does not know yet.
        let _held = self.hold_name(ctx)?;
        let (attr, writer) = self.fs.create(ctx, path, &options)?;
        let changed = |before: u32, now: u32| (before != now).then_some(before);
        let owner = SetAttr {
            uid: changed(before.uid, attr.uid),
            gid: changed(before.gid, attr.gid),
            ..SetAttr::default()
        };
        let attr = if owner == SetAttr::default() { attr } else { self.fs.set_attr(ctx, path, &owner)? };
        Ok((Start::Fresh(attr), writer))
    }

    /// Starts to write a file that is to take the place of the complete file `path`, with the first `kept` bytes of
    /// that, which are all that it has, or none.
    fn start_beside(
        &self,
        ctx: &Ctx,
        path: &FsPath,
        before: &Attr,
        kept: u64,
    ) -> Result<(Start, Box<dyn FileWriter>)> {
        let reader = if kept == 0 { None } else { Some(self.fs.open(ctx, path)?) };
        let is_own = |present: &Attr| (present.id, present.size) == (before.id, kept);
        if reader.as_ref().is_some_and(|reader| !is_own(reader.attr())) {
            return Err(replaced());
        }
        let beside = path.beside()?;
        let mode = before.mode;
        let (_, mut writer) =
            self.fs.create(ctx, &beside, &CreateOptions { mode, replace: false, beside: true })?;
        // From here on it is known where it is, also if its directory is renamed.
        self.state.lock().staged = Some(beside.clone());
        match reader.map_or(Ok(()), |reader| copy(ctx, &*reader, kept, writer.as_mut())) {
            Ok(()) => Ok((Start::Staged(beside), writer)),
            Err(error) => {
                self.give_up_writer(writer);
                self.state.lock().staged = None;
                Err(error)
            }
        }
    }

    /// Drops a writer that has failed, before anybody learns of it. It removes what it has written where that is by now.
    fn give_up_writer(&self, mut writer: Box<dyn FileWriter>) {
        let target = {
            let mut state = self.state.lock();
            while state.renames > 0 {
                self.changed.wait(&mut state);
            }
            // Nor is it renamed meanwhile.
            state.placing = true;
            state.target().clone()
        };
        writer.renamed(&target);
        drop(writer);
        self.state.lock().placing = false;
        self.changed.notify_all();
    }

    fn give_back(
        &self,
        mut next: Slot,
        before: FsPath,
        start: Start,
        added: u64,
        result: Result<()>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if added > 0 || !matches!(start, Start::Before) {
            state.touch();
            state.let_go = None;
        }
        if let Slot::Idle(writer) = &next {
            state.moves = writer.can_move();
        }
        let mut before = before;
        match start {
            Start::Before => {}
            Start::Fresh(attr) => {
                state.attr = attr;
                state.written = 0;
                state.own = true;
            }
            Start::Staged(beside) => {
                before = beside;
                state.own = true;
            }
        }
        state.written += added;
        match (&mut next, &result) {
            (Slot::Gone, Err(error)) => {
                self.fail(state, error.clone());
                return result;
            }
            (Slot::Idle(writer), _) if *state.target() != before => writer.renamed(state.target()),
            _ => {}
        }
        self.put(state, next);
        result
    }

    /// Gives the slot back. A file that was removed meanwhile stays removed.
    fn put(&self, mut state: MutexGuard<'_, State>, slot: Slot) {
        let unwanted =
            if matches!(state.slot, Slot::Gone) { slot } else { std::mem::replace(&mut state.slot, slot) };
        self.changed.notify_all();
        drop(state);
        // Outside the lock, as giving up a writer may call the backend.
        drop(unwanted);
    }

    fn fail(&self, mut state: MutexGuard<'_, State>, error: FsError) {
        let unwanted = std::mem::replace(&mut state.slot, Slot::Gone);
        state.failed = Some(error);
        state.completing = false;
        state.placing = false;
        state.ends += 1;
        self.changed.notify_all();
        drop(state);
        drop(unwanted);
    }

    /// Completes the file, if it is not yet, and waits for that. The work goes on in the background when the
    /// caller is interrupted: a close that was asked for is carried out.
    pub(super) fn commit(self: &Arc<Self>, ctx: &Ctx) -> Result<()> {
        let state = self.wait_idle(ctx)?;
        if !matches!(state.slot, Slot::Idle(_)) {
            return Ok(());
        }
        self.begin_commit(state, ());
        drop(self.wait_idle(ctx)?);
        Ok(())
    }

    /// Completes the file in the background, if it is not yet, and drops `end` when that has ended.
    pub(super) fn commit_later(self: &Arc<Self>, end: impl Send + 'static) {
        let state = self.state.lock();
        match state.slot {
            Slot::Idle(_) => self.begin_commit(state, end),
            // Whoever has the writer gives it back first. It may be another close.
            Slot::Lent => {
                drop(state);
                let stream = Arc::clone(self);
                self.commits.run(move || {
                    let _end = end;
                    stream.finish_next();
                });
            }
            Slot::Complete | Slot::Gone => {
                drop(state);
                drop(end);
            }
        }
    }

    fn begin_commit(self: &Arc<Self>, state: MutexGuard<'_, State>, end: impl Send + 'static) {
        let writer = self.take_to_complete(state).expect("the caller saw an idle writer under this lock");
        let stream = Arc::clone(self);
        self.commits.run(move || {
            let _end = end;
            stream.finish(writer);
        });
    }

    /// Waits until nobody uses the writer, and completes the file if that was not done.
    fn finish_next(&self) {
        let mut state = self.state.lock();
        while matches!(state.slot, Slot::Lent) {
            self.changed.wait(&mut state);
        }
        if let Some(writer) = self.take_to_complete(state) {
            self.finish(writer);
        }
    }

    /// The writer, to complete the file with, if nobody uses it.
    fn take_to_complete(&self, mut state: MutexGuard<'_, State>) -> Option<Box<dyn FileWriter>> {
        match std::mem::replace(&mut state.slot, Slot::Lent) {
            Slot::Idle(writer) => {
                state.completing = true;
                self.changed.notify_all();
                Some(writer)
            }
            other => {
                state.slot = other;
                None
            }
        }
    }

    /// Runs on a thread of its own, with the writer.
    fn finish(&self, mut writer: Box<dyn FileWriter>) {
        let lent = Lent { stream: self };
        let ctx = Ctx::daemon();
        let (written, length) = {
            let state = self.state.lock();
            (state.written, state.length)
        };
        let padding = length.saturating_sub(written);
        let result = append_zeros(writer.as_mut(), &ctx, padding, &mut 0)
            .and_then(|()| writer.commit(&ctx))
            .and_then(|attr| self.put_in_place(&ctx, attr));
        match result {
            Ok(attr) => {
                drop(writer);
                self.completed(&ctx, attr);
            }
            Err(error) => {
                self.give_up_writer(writer);
                let mut state = self.state.lock();
                log::debug!("completing {} failed: {error}", state.path);
                // What was removed meanwhile nobody misses.
                state.untold = matches!(state.slot, Slot::Lent);
                self.fail(state, error.context("the file could not be completed"));
            }
        }
        std::mem::forget(lent);
    }

    /// The file is complete: it gets the times that were asked for, and the slot is given back. That they cannot be
    /// set is no reason for close to fail: the bytes are safe.
    fn completed(&self, ctx: &Ctx, attr: Attr) {
        let mut state = self.state.lock();
        state.written = attr.size;
        state.changed = attr.mtime;
        state.standing |= attr.size > 0;
        // What was set meanwhile, the writer need not know.
        let Attr { mode, uid, gid, .. } = state.attr;
        state.attr = Attr { mode, uid, gid, ..attr };
        while state.times.has_times() && !matches!(state.slot, Slot::Gone) {
            let times = std::mem::take(&mut state.times);
            let path = state.path.clone();
            drop(state);
            let result = self.fs.set_attr(ctx, &path, &times);
            state = self.state.lock();
            match result {
                Ok(attr) => {
                    state.changed = attr.mtime;
                    state.attr = attr;
                }
                Err(_) if state.path != path && !state.times.has_times() => state.times = times,
                Err(error) => log::warn!("{path} is complete, but its times were not set: {error}"),
            }
        }
        state.completing = false;
        state.ends += 1;
        self.put(state, Slot::Complete);
    }

    /// Changes attributes, of which the times wait until the file is complete. Returns all of them.
    pub(super) fn set_attr(&self, ctx: &Ctx, change: &SetAttr) -> Result<Attr> {
        let mut state = self.state.lock();
        let rest = match state.slot {
            Slot::Complete => change.clone(),
            Slot::Idle(_) | Slot::Lent => {
                state.keep_times(change);
                SetAttr { atime: None, mtime: None, now: false, ..change.clone() }
            }
            Slot::Gone => {
                // There is nothing left but what its users see of it.
                state.keep_times(change);
                let Attr { mode, uid, gid, .. } = state.attr;
                state.attr.mode = change.mode.unwrap_or(mode);
                state.attr.uid = change.uid.unwrap_or(uid);
                state.attr.gid = change.gid.unwrap_or(gid);
                SetAttr::default()
            }
        };
        let path = state.path.clone();
        drop(state);
        if rest == SetAttr::default() {
            return Ok(self.attr());
        }
        let result = self.fs.set_attr(ctx, &path, &rest);
        // A part of it may be done all the same.
        let present = match &result {
            Ok(attr) => Ok(attr.clone()),
            Err(_) => self.fs.stat(ctx, &path),
        };
        if let Ok(attr) = present {
            self.adopt(attr);
        }
        result.map(|_| self.attr())
    }

    /// Takes `attr`, as the backend shows them, for those of the file: only what writing does not change, if it is
    /// being written.
    fn adopt(&self, attr: Attr) {
        let mut state = self.state.lock();
        if matches!(state.slot, Slot::Complete) && attr.id == state.attr.id {
            state.changed = attr.mtime;
            state.attr = attr;
        } else {
            (state.attr.mode, state.attr.uid, state.attr.gid) = (attr.mode, attr.uid, attr.gid);
        }
    }

    /// What was written beside the file, complete and with `attr`, takes its place. Nothing does if the file was
    /// removed meanwhile.
    fn put_in_place(&self, ctx: &Ctx, attr: Attr) -> Result<Attr> {
        let (staged, path, gone) = {
            let mut state = self.state.lock();
            while state.staged.is_some() && state.renames > 0 {
                self.changed.wait(&mut state);
            }
            let gone = matches!(state.slot, Slot::Gone);
            state.placing = state.staged.is_some() && !gone;
            (state.staged.take(), state.path.clone(), gone)
        };
        let Some(staged) = staged else { return Ok(attr) };
        let placed = if gone { Ok(attr) } else { self.fs.replace(ctx, &staged, &path) };
        self.state.lock().placing = false;
        self.changed.notify_all();
        if (gone || placed.is_err())
            && let Err(error) = self.fs.remove_file(ctx, &staged)
        {
            log::warn!("{staged} is left behind: {error}");
        }
        placed
    }

    /// Makes what was written so far durable.
    pub(super) fn sync(self: &Arc<Self>, ctx: &Ctx) -> Result<()> {
        let state = self.wait_idle(ctx)?;
        if !matches!(state.slot, Slot::Idle(_)) {
            return Ok(());
        }
        let mut refused = None;
        self.with_writer(ctx, state, |writer, _| match writer.sync(ctx) {
            Err(error) if error.fault() == Fault::NotSupported => {
                refused = Some(error);
                Ok(())
            }
            other => other,
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// ftruncate(2): to nothing, to the present length, or to more, which is filled with zeros in the end.
    pub(super) fn truncate(self: &Arc<Self>, ctx: &Ctx, size: u64) -> Result<()> {
        self.drop_privileges(ctx)?;
        let mut state = self.wait_idle(ctx)?;
        let present = state.written.max(state.length);
        if size == present || matches!(state.slot, Slot::Gone) {
            return Ok(());
        }
        if size == 0 {
            // Whatever there is, is given up only after the empty file took its place.
            let before = std::mem::replace(&mut state.slot, Slot::Complete);
            let (staged, written) = (state.staged.take(), std::mem::take(&mut state.written));
            state.length = 0;
            state.times = SetAttr::default();
            let result = self.with_writer(ctx, state, |_, _| Ok(()));
            if result.as_ref().is_err_and(|error| error.fault() == Fault::Interrupted) {
                let mut state = self.state.lock();
                (state.staged, state.written) = (staged, written);
                self.put(state, before);
            }
            return result;
        }
        if size >= state.written && (matches!(state.slot, Slot::Idle(_)) || state.written == 0) {
            state.length = size;
            state.touch();
            return if matches!(state.slot, Slot::Complete) {
                self.with_writer(ctx, state, |_, _| Ok(()))
            } else {
                Ok(())
            };
        }
        Err(FsError::because(
            Fault::NotSupported,
            format!("cannot change the length from {present} to {size} bytes, {WRITTEN_ONCE}"),
        ))
    }

    /// `O_TRUNC`: as truncated to nothing, and changed now also if there was nothing before.
    pub(super) fn empty(self: &Arc<Self>, ctx: &Ctx) -> Result<()> {
        let state = self.wait_idle(ctx)?;
        let is_empty = matches!(state.slot, Slot::Complete) && state.written.max(state.length) == 0;
        drop(state);
        if !is_empty {
            return self.truncate(ctx, 0);
        }
        self.drop_privileges(ctx)?;
        let now = SetAttr { mtime: Some(Timestamp::now()), now: true, ..SetAttr::default() };
        match self.set_attr(ctx, &now) {
            Err(error) if error.fault() == Fault::Interrupted => Err(error),
            // There is nothing else to do, and so no reason to refuse the file.
            Err(error) => {
                log::debug!("the time of change of {} stays: {error}", self.path());
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// The name is gone: what is written from now on is for nobody.
    pub(super) fn removed(&self) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.slot, Slot::Gone);
        self.changed.notify_all();
        drop(state);
        // Given up outside the lock, as that may call the backend.
        drop(before);
    }

    /// Nobody will close the file any more. True if it was being written; one that is being completed goes on.
    pub(super) fn give_up(&self) -> bool {
        let state = self.state.lock();
        let idle = matches!(state.slot, Slot::Idle(_));
        if idle {
            self.fail(state, FsError::because(Fault::Io, "the mount has ended"));
        }
        idle
    }

    /// Something was set on the file that the backend keeps and this stream does not know.
    pub(super) fn keep(&self) {
        let mut state = self.state.lock();
        state.standing |= matches!(state.slot, Slot::Complete);
    }

    /// Before `from` is renamed: completes the file if it is there or below and its writer cannot follow. What is
    /// written later goes on beside it.
    pub(super) fn settle(self: &Arc<Self>, ctx: &Ctx, from: &FsPath) -> Result<()> {
        let concerned = {
            let state = self.state.lock();
            state.is_open() && !state.moves && state.target().starts_with(from)
        };
        if !concerned {
            return Ok(());
        }
        self.commit(ctx)
    }

    /// Whether the file is at or below `path`.
    pub(super) fn is_below(&self, path: &FsPath) -> bool {
        self.state.lock().path.starts_with(path)
    }

    /// Before its name is changed or taken away, until what is returned is dropped: a new version that was complete just
    /// then would be put where the file is not any more, and what the backend does by the name could hit what takes it next.
    /// Waits for one that is taking its place.
    pub(super) fn keep_from_place(self: &Arc<Self>, ctx: &Ctx) -> Result<KeptFromPlace> {
        let name = self.hold_name(ctx)?;
        let mut state = self.state.lock();
        if state.placing {
            ctx.cancel().register(&Waker::from(Arc::clone(self)));
        }
        while state.placing {
            ctx.check()?;
            self.changed.wait(&mut state);
        }
        state.renames += 1;
        Ok(KeptFromPlace { stream: Arc::clone(self), _name: name })
    }

    /// Until what is returned is dropped, the backend does nothing by the name of the file.
    fn hold_name(&self, ctx: &Ctx) -> Result<Option<Box<dyn Send>>> {
        let naming = self.state.lock().naming.clone();
        naming.map(|naming| naming.hold(ctx)).transpose()
    }

    /// Where the file is.
    pub(super) fn path(&self) -> FsPath {
        self.state.lock().path.clone()
    }

    /// What was at or below `from` is at or below `to` now.
    pub(super) fn renamed(&self, from: &FsPath, to: &FsPath) {
        let mut state = self.state.lock();
        let before = state.target().clone();
        if let Some(path) = state.path.rebased(from, to) {
            state.path = path;
        }
        if let Some(staged) = state.staged.as_ref().and_then(|staged| staged.rebased(from, to)) {
            state.staged = Some(staged);
        }
        let target = state.target().clone();
        if let Slot::Idle(writer) = &mut state.slot
            && target != before
        {
            writer.renamed(&target);
        }
    }

    /// `process` has opened the file; none if it is not known.
    pub(super) fn opened_by(&self, process: Option<Process>) {
        let mut state = self.state.lock();
        if let Some(process) = process.filter(|process| !state.openers.contains(process)) {
            state.openers.push(process);
        }
    }

    /// Whether a close by `process` means the file, and not just a copy of the descriptor that was inherited: then
    /// one that has opened it is still there and will close it, too.
    pub(super) fn is_closed_by(&self, process: Option<Process>) -> bool {
        let mut state = self.state.lock();
        let Some(process) = process else { return true };
        if state.openers.contains(&process) {
            return true;
        }
        state.openers.retain(|opener| opener.is_alive());
        let closed = state.openers.is_empty();
        if !closed {
            state.let_go = Some(Instant::now());
        }
        closed
    }
}

/// `state`, or what made the file fail: the caller is told of it.
fn unless_failed(mut state: MutexGuard<'_, State>) -> Result<MutexGuard<'_, State>> {
    match state.failed.clone() {
        Some(error) => {
            state.untold = false;
            Err(error)
        }
        None => Ok(state),
    }
}

fn replaced() -> FsError {
    FsError::because(Fault::Stale, "another client has replaced the file")
}

/// `mode` without the set-user-id bit, and without the set-group-id bit where it is one: beside the group's right to
/// execute.
fn unprivileged(mode: u32) -> u32 {
    let group = if mode & 0o010 == 0 { 0 } else { 0o2000 };
    mode & !(0o4000 | group)
}

fn rewrite_error(state: &State, offset: u64) -> FsError {
    let end = state.written;
    let complete = if matches!(state.slot, Slot::Complete) { "complete " } else { "" };
    FsError::because(
        Fault::NotSupported,
        format!("cannot write at offset {offset} of a {complete}file of {end} bytes, {WRITTEN_ONCE}"),
    )
}

/// Copies the first `count` bytes of `reader`.
fn copy(ctx: &Ctx, reader: &dyn FileReader, count: u64, writer: &mut dyn FileWriter) -> Result<()> {
    let mut offset = 0;
    while offset < count {
        ctx.check()?;
        let piece = reader.read_at(ctx, offset, COPY)?.copied()?;
        if piece.is_empty() {
            return Err(FsError::because(Fault::Stale, "the file was shortened"));
        }
        offset += piece.len() as u64;
        writer.append_given(ctx, piece.into())?;
    }
    Ok(())
}

fn append_zeros(writer: &mut dyn FileWriter, ctx: &Ctx, count: u64, added: &mut u64) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let zeros = vec![0; ZEROS.min(usize::try_from(count).unwrap_or(ZEROS))];
    let mut left = count;
    while left > 0 {
        ctx.check()?;
        let piece = left.min(zeros.len() as u64);
        writer.append(ctx, &zeros[..piece as usize])?;
        *added += piece;
        left -= piece;
    }
    Ok(())
}

/// The name of a file is being changed or taken away.
pub(super) struct KeptFromPlace {
    stream: Arc<WriteStream>,
    _name: Option<Box<dyn Send>>,
}

impl Drop for KeptFromPlace {
    fn drop(&mut self) {
        self.stream.state.lock().renames -= 1;
        self.stream.changed.notify_all();
    }
}

/// A thread has the writer. If it panics, the others must not wait for ever.
struct Lent<'a> {
    stream: &'a WriteStream,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let state = self.stream.state.lock();
        self.stream.fail(state, FsError::because(Fault::Io, "the writer ended in a panic"));
    }
}
