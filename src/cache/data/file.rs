//! One version of one file in the cache: its pages on disk, each with its checksums. What is read is checked; what is
//! wrong is forgotten, and read from the backend again.
//!
//! Lock order: `state` is held across entries in the list and the removal of pages, not across the reading and writing of
//! bytes: nobody who reads waits for those. What the caller has to count is counted under it, by the closures that he
//! gives, which may take the lock of an order: so a page is counted exactly while it is here. A page is written before the
//! list says that it is there, and leaves the list before its bytes go: whatever happens in between, the list names no page
//! that was not written whole.
//!
//! Invariant: what the kernel may still read or have mapped is never punched, as that would show zeros. Its bytes stay until
//! the files go as a whole, and then with whoever has them. So a file that is lent and not pinned has all its pages.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use bytes::BytesMut;
use nix::errno::Errno;
use nix::fcntl::FallocateFlags;
use nix::fcntl::fallocate;
use nix::sys::statfs::OVERLAYFS_SUPER_MAGIC;
use nix::sys::statfs::fstatfs;
use parking_lot::Mutex;

use super::directory::Access;
use super::directory::Directory;
use super::record;
use super::record::BLOCK;
use super::record::Page;
use super::record::Record;
use super::record::Version;

/// The smallest piece that a file system gives out.
const ALLOCATION: u64 = 4096;

/// A list is written anew when it has more entries than this and most of them are of no use.
const RECORDS_MAX: usize = 64;

/// Bytes that are waited for at a time, so that the end of the mount is not.
const SYNC_STEP: usize = 64 << 20;

/// Of `asm-generic/fcntl.h`: the signal for who breaks a lease.
const F_SETSIG: libc::c_int = 10;

/// A version of a file.
pub(super) struct CachedFile {
    /// Tells it from others of this process.
    pub(super) number: u64,
    /// Which of the directories it is in.
    pub(super) place: usize,
    pub(super) version: Version,
    page_size: u64,
    directory: Arc<Directory>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<u32, Page>,
    /// Pages whose bytes are on their way to the disk, into whichever files were there when that began.
    writing: BTreeSet<u32>,
    /// Entries in the list on disk.
    records: usize,
    /// The open files, as long as somebody reads.
    files: Weak<Files>,
    /// Readers by the kernel: the bytes must stay.
    pins: usize,
    /// The data file was given to the kernel's readers. Who has mapped it can read it for as long as he likes, also after
    /// the last of them has gone.
    lent: bool,
    /// Every page was found right since it came into this process.
    verified: bool,
    /// Pages that were ever put here, those of an earlier process as one.
    puts: u64,
    /// How many of these the disk has taken.
    synced: u64,
    /// Somebody is to look whether they are.
    awaits_check: bool,
    /// It left the cache: nothing is put into it any more.
    closed: bool,
}

/// The two files, open.
pub(super) struct Files {
    data: Arc<File>,
    list: File,
    /// They were removed: whoever holds them can let go.
    gone: AtomicBool,
}

impl Files {
    /// Whether they are of no more use.
    pub(super) fn are_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

/// What a kernel's reader can have.
pub(super) enum Pin {
    /// The data file, as it is until [`CachedFile::unpin`].
    Pinned(Arc<File>, Arc<Files>),
    /// All pages are there, but nobody knows whether they are right, or whether the disk has taken them: after
    /// [`CachedFile::sync`], [`CachedFile::checked`] has to be called when they have been read once.
    Unchecked,
    /// Not all pages are there.
    Pieces,
}

/// What a look for bytes found.
pub(super) enum Found {
    /// They are here.
    Bytes(Bytes),
    /// The page is not, or cannot be had at this time.
    Absent,
    /// It was, but with other bytes than were put there, or could not be read, and is forgotten.
    Damaged(String),
}

impl CachedFile {
    /// A version without pages.
    pub(super) fn new(
        number: u64,
        place: usize,
        version: Version,
        page_size: u64,
        directory: Arc<Directory>,
    ) -> Self {
        let state = Mutex::new(State { verified: true, ..State::default() });
        Self { number, place, version, page_size, directory, state }
    }

    /// The version as an earlier process left it; nothing if there is no page of it.
    pub(super) fn load(self) -> io::Result<Option<Self>> {
        let (data, list) = match self.directory.open(&self.version, false) {
            Ok(files) => files,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        };
        let mut bytes = vec![0; list.metadata()?.len() as usize];
        list.read_exact_at(&mut bytes, 0)?;
        let Some((records, good)) = record::parse(&bytes, &self.version, self.page_size) else {
            return Ok(None);
        };
        list.set_len(good as u64)?;
        let mut pages = BTreeMap::new();
        let count = records.len();
        for record in records {
            match record {
                Record::Here(index, page) => drop(pages.insert(index, page)),
                Record::Gone(index) => drop(pages.remove(&index)),
            }
        }
        if pages.is_empty() {
            return Ok(None);
        }
        let mut state = State { pages, records: count, puts: 1, ..State::default() };
        let whole = self.has_all(&state);
        // Programs go on reading what an earlier process has lent to the kernel, which was whole then.
        state.lent = is_open_elsewhere(&data).unwrap_or(whole);
        if !state.lent {
            self.reclaim(&data, &state)?;
        } else if !whole {
            self.directory.remove(&self.version);
            return Ok(None);
        }
        *self.state.lock() = state;
        Ok(Some(self))
    }

    /// Gives back what pages have left that were being written or removed when a process was killed, or were removed while
    /// the kernel read them.
    fn reclaim(&self, data: &File, state: &State) -> io::Result<()> {
        let known: u64 = state.pages.keys().map(|index| self.data_weight(*index)).sum();
        if data.metadata()?.blocks() * 512 <= known {
            return Ok(());
        }
        let is_unused = |index: &u32| !state.pages.contains_key(index) && !state.writing.contains(index);
        for index in (0..self.version.pages(self.page_size)).filter(is_unused) {
            self.punch(data, index)?;
        }
        Ok(())
    }

    /// What page `index` takes on disk, with its share of the list when all pages are there. So of a file of one page the list
    /// counts as much as it takes.
    pub(super) fn weight(&self, index: u32) -> u64 {
        let pages = u64::from(self.version.pages(self.page_size));
        let list = (record::HEADER as u64 + pages * record::record_len(self.page_size) as u64)
            .next_multiple_of(ALLOCATION);
        self.data_weight(index) + list.div_ceil(pages)
    }

    fn data_weight(&self, index: u32) -> u64 {
        self.version.page_len(self.page_size, index).next_multiple_of(ALLOCATION)
    }

    /// The pages that are there, with the time when each came.
    pub(super) fn pages(&self) -> Vec<(u32, u64)> {
        self.state.lock().pages.iter().map(|(index, page)| (*index, page.time)).collect()
    }

    /// Whether page `index` is there.
    pub(super) fn has(&self, index: u32) -> bool {
        self.state.lock().pages.contains_key(&index)
    }

    fn has_all(&self, state: &State) -> bool {
        state.pages.len() as u64 == u64::from(self.version.pages(self.page_size))
    }

    /// Opens the files, for as long as what is returned lives. Those that are missing are made, if `make` says so, and there
    /// is no page: else somebody has removed them, and new ones would have holes in place of the pages.
    fn files(&self, state: &mut State, make: bool) -> io::Result<Arc<Files>> {
        if let Some(files) = state.files.upgrade() {
            return Ok(files);
        }
        let (data, list) = self.directory.open(&self.version, make && state.pages.is_empty())?;
        let files = Arc::new(Files { data: Arc::new(data), list, gone: AtomicBool::new(false) });
        state.files = Arc::downgrade(&files);
        Ok(files)
    }

    /// The open files, to be held by whoever reads often; nothing if there are none.
    pub(super) fn hold(&self) -> Option<Arc<Files>> {
        let mut state = self.state.lock();
        if state.pages.is_empty() { None } else { self.files(&mut state, false).ok() }
    }

    /// The bytes `from..to` of page `index`.
    pub(super) fn read(&self, index: u32, from: usize, to: usize) -> Found {
        let (page, files) = {
            let mut state = self.state.lock();
            let Some(page) = state.pages.get(&index).cloned() else { return Found::Absent };
            match self.files(&mut state, false) {
                Ok(files) => (page, files),
                Err(err) if err.kind() == io::ErrorKind::NotFound => return Found::Damaged(err.to_string()),
                // As when there are no more descriptors to be had, which says nothing of the page.
                Err(err) => {
                    log::debug!("page {index} of {}: {err}", self.version.name());
                    return Found::Absent;
                }
            }
        };
        let len = self.version.page_len(self.page_size, index) as usize;
        let first = from / BLOCK;
        let (start, end) = (first * BLOCK, to.next_multiple_of(BLOCK).min(len));
        let mut bytes = BytesMut::zeroed(end - start);
        let offset = u64::from(index) * self.page_size + start as u64;
        let read =
            self.directory.may(Access::Read).and_then(|()| files.data.read_exact_at(&mut bytes, offset));
        let problem = match read {
            Ok(()) if page.has(first, &bytes) => {
                return Found::Bytes(bytes.freeze().slice(from - start..to - start));
            }
            Ok(()) => "its bytes are not those that were put there".to_owned(),
            Err(err) => err.to_string(),
        };
        // It may have been removed meanwhile, as pages are, and then is not there rather than wrong.
        if self.state.lock().pages.get(&index) == Some(&page) {
            Found::Damaged(problem)
        } else {
            Found::Absent
        }
    }

    /// Puts page `index` there, at `time`; `count` is told whether a kernel's reader counts on it. Returns false if it is there
    /// already, or the files went while it was written. Fails with NotFound if the files of other pages are gone.
    pub(super) fn put(
        &self,
        index: u32,
        bytes: &[u8],
        time: u64,
        count: impl FnOnce(bool),
    ) -> io::Result<bool> {
        assert_eq!(bytes.len() as u64, self.version.page_len(self.page_size, index), "a whole page");
        let files = {
            let mut state = self.state.lock();
            if state.closed || state.pages.contains_key(&index) || state.writing.contains(&index) {
                return Ok(false);
            }
            let files = self.files(&mut state, true)?;
            state.writing.insert(index);
            files
        };
        let written = self.write(&files, index, bytes, time);
        let mut state = self.state.lock();
        state.writing.remove(&index);
        if files.are_gone() {
            // Who has the data file mapped is to see what was there.
            if !is_open_elsewhere(&files.data).unwrap_or(true) {
                drop(files.data.set_len(0));
            }
            return Ok(false);
        }
        let noted = written.and_then(|page| {
            self.note(&mut state, &files, &Record::Here(index, page.clone()))?;
            state.pages.insert(index, page);
            state.puts += 1;
            Ok(())
        });
        if noted.is_err() {
            // Half a page must not take space that nobody counts. In a file that is lent the place of a page has its bytes
            // all the same, as it was there when the kernel was given the file, and who reads them is not to see a hole.
            if state.pages.is_empty() && state.writing.is_empty() {
                self.unlink(&mut state);
            } else if !state.lent {
                drop(self.punch(&files.data, index));
            }
        }
        noted.map(|()| {
            count(state.pins > 0);
            true
        })
    }

    fn write(&self, files: &Files, index: u32, bytes: &[u8], time: u64) -> io::Result<Page> {
        self.directory.may(Access::WriteData)?;
        files.data.write_all_at(bytes, u64::from(index) * self.page_size)?;
        Ok(Page::new(time, bytes))
    }

    /// Adds an entry to the list.
    fn note(&self, state: &mut State, files: &Files, record: &Record) -> io::Result<()> {
        self.directory.may(Access::WriteList)?;
        let mut list = &files.list;
        if state.records == 0 {
            list.set_len(0)?;
            list.write_all(&record::header(self.page_size))?;
        } else if state.records > RECORDS_MAX.max(4 * state.pages.len()) {
            // In one piece, so that a kill leaves the old list, or loses pages and nothing else.
            let mut bytes = record::header(self.page_size).to_vec();
            for (index, page) in &state.pages {
                bytes.extend(Record::Here(*index, page.clone()).bytes(self.page_size));
            }
            list.set_len(0)?;
            list.write_all(&bytes)?;
            state.records = state.pages.len();
        }
        let before = list.metadata()?.len();
        let noted = list.write_all(&record.bytes(self.page_size));
        if noted.is_err() {
            // What follows must not be behind half an entry.
            list.set_len(before)?;
        } else {
            state.records += 1;
        }
        noted
    }

    /// Removes page `index`, and others where it cannot go alone: how many. `uncount` is told each of them, which is then not
    /// to be counted any more. The last one takes the files along.
    pub(super) fn remove(&self, index: u32, uncount: impl FnMut(u32)) -> usize {
        let mut state = self.state.lock();
        if !state.pages.contains_key(&index) {
            return 0;
        }
        let gone = self.take_out(&mut state, index);
        let count = gone.len();
        gone.into_iter().for_each(uncount);
        count
    }

    /// Removes page `index` for others, if it is there and is not one that `is_back`, put here after the other was chosen;
    /// `uncount` is told the pages that go along. Not while a kernel's reader counts on it: then `keep` is called, and false
    /// returned.
    pub(super) fn give_up(
        &self,
        index: u32,
        is_back: impl FnOnce() -> bool,
        keep: impl FnOnce(),
        uncount: impl FnMut(u32),
    ) -> bool {
        let mut state = self.state.lock();
        if !state.pages.contains_key(&index) || is_back() {
            return true;
        }
        if state.pins > 0 {
            keep();
            return false;
        }
        let gone = self.take_out(&mut state, index);
        gone.into_iter().filter(|other| *other != index).for_each(uncount);
        true
    }

    /// Takes page `index` out, and all others with it where its bytes cannot be given back alone: those that went.
    fn take_out(&self, state: &mut State, index: u32) -> Vec<u32> {
        if state.pages.len() == 1 {
            return self.unlink(state);
        }
        let files = match self.files(state, false) {
            Ok(files) if !self.is_lent(state, &files) || state.pins > 0 => files,
            Ok(_) => return self.unlink(state),
            Err(err) => {
                // To remove them takes no descriptor.
                log::debug!("{} goes with page {index}: {err}", self.version.name());
                return self.unlink(state);
            }
        };
        state.pages.remove(&index);
        let noted = self.note(state, &files, &Record::Gone(index));
        // Whom the kernel lets read must not see a hole. Where the list takes nothing more, as on a full disk, the room is
        // wanted all the same; an entry that stays behind has another checksum than a hole.
        let punched = if state.lent { Ok(()) } else { self.punch(&files.data, index) };
        if let Err(err) = noted.and(punched) {
            log::debug!("page {index} of {}: {err}", self.version.name());
        }
        vec![index]
    }

    /// Removes all pages with their files: those that went. The kernel's readers, and who has the data file mapped, keep its
    /// bytes, and the next page makes another one.
    fn unlink(&self, state: &mut State) -> Vec<u32> {
        self.directory.remove(&self.version);
        if let Some(files) = std::mem::take(&mut state.files).upgrade() {
            files.gone.store(true, Ordering::Relaxed);
            // Those who read by this process may hold it for long, and its room is given to others.
            if !self.is_lent(state, &files)
                && let Err(err) = files.data.set_len(0)
            {
                log::debug!("{} keeps its room: {err}", self.version.name());
            }
        }
        state.records = 0;
        state.verified = true;
        state.lent = false;
        std::mem::take(&mut state.pages).into_keys().collect()
    }

    /// Whether the kernel's readers have the data file, or somebody has mapped it by them.
    fn is_lent(&self, state: &mut State, files: &Files) -> bool {
        // Asked only of those that were: it takes some system calls.
        state.lent = state.lent && (state.pins > 0 || is_open_elsewhere(&files.data).unwrap_or(true));
        state.lent
    }

    /// Nothing is put here any more. Fails if there are pages, or some on their way, or a reader by the kernel.
    pub(super) fn close(&self) -> bool {
        let mut state = self.state.lock();
        state.closed = state.pages.is_empty() && state.writing.is_empty() && state.pins == 0;
        state.closed
    }

    fn punch(&self, data: &File, index: u32) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let start = u64::from(index) * self.page_size;
        fallocate(data.as_fd(), flags, start.cast_signed(), self.page_size.cast_signed())?;
        Ok(())
    }

    /// The data file if every page is there and right, which stays so until [`Self::unpin`]. `count` is called for the first
    /// of several.
    pub(super) fn pin(&self, count: impl FnOnce()) -> Pin {
        let mut state = self.state.lock();
        if !self.has_all(&state) {
            return Pin::Pieces;
        }
        let Ok(files) = self.files(&mut state, false) else { return Pin::Pieces };
        // A kernel's reader sees the end of this file, not that of the version.
        if !files.data.metadata().is_ok_and(|found| found.len() == self.version.size) {
            return Pin::Pieces;
        }
        if !state.verified || state.synced < state.puts {
            return Pin::Unchecked;
        }
        state.lent = true;
        state.pins += 1;
        if state.pins == 1 {
            count();
        }
        Pin::Pinned(Arc::clone(&files.data), files)
    }

    /// Waits until the disk has taken all pages, or it `is_over`, as what it fails to take in the background becomes a hole,
    /// which the kernel would read. Fails if that has happened.
    pub(super) fn sync(&self, is_over: impl Fn() -> bool) -> io::Result<()> {
        let (files, puts) = {
            let mut state = self.state.lock();
            // Without a descriptor nothing is known of the pages: they stay unchecked.
            let Ok(files) = self.files(&mut state, false) else { return Ok(()) };
            (files, state.puts)
        };
        self.directory.may(Access::Sync)?;
        for offset in (0..self.version.size).step_by(SYNC_STEP) {
            if is_over() {
                return Ok(());
            }
            write_back(&files.data, offset, SYNC_STEP as u64)?;
        }
        let mut state = self.state.lock();
        state.synced = state.synced.max(puts);
        Ok(())
    }

    /// Whether every page is there.
    pub(super) fn is_whole(&self) -> bool {
        self.has_all(&self.state.lock())
    }

    /// Whether every page that is there was found right.
    pub(super) fn is_verified(&self) -> bool {
        self.state.lock().verified
    }

    /// Somebody is asked to look at all pages; false if that is under way already.
    pub(super) fn ask_for_check(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().awaits_check, true)
    }

    /// Every page that was there has been read, and removed if it was wrong: so those that are here now are right. Or
    /// not, if `all` is false.
    pub(super) fn checked(&self, all: bool) {
        let mut state = self.state.lock();
        state.awaits_check = false;
        state.verified |= all;
    }

    /// Ends one [`Self::pin`]; `uncount` is called at the last, with the pages that are not to be counted any more.
    pub(super) fn unpin(&self, uncount: impl FnOnce(&[u32])) {
        let mut state = self.state.lock();
        state.pins -= 1;
        if state.pins > 0 {
            return;
        }
        let mut gone = Vec::new();
        // What was removed meanwhile has kept its bytes.
        if state.lent && !state.pages.is_empty() && !self.has_all(&state) {
            let reclaimed = self.files(&mut state, false).and_then(|files| {
                if self.is_lent(&mut state, &files) {
                    return Ok(false);
                }
                self.reclaim(&files.data, &state).map(|()| true)
            });
            if !reclaimed.unwrap_or(false) {
                gone = self.unlink(&mut state);
            }
        }
        uncount(&gone);
    }

    /// Whether a kernel's reader counts on its pages.
    pub(super) fn is_pinned(&self) -> bool {
        self.state.lock().pins > 0
    }
}

/// Waits until `len` bytes of `file` from `offset` on are written; fails if any bytes of it could not be, and nobody was told. No
/// more than that: a mount that comes after a crash looks at each page anyway. For 100 KiB just written on ext4 that is 0.1 ms,
/// and 1 us once they are there; fdatasync(2), which waits for the journal as well, took 0.2 ms, and one time in ten 8 ms
/// (November 2026).
fn write_back(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let all =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let (offset, len) = (offset.cast_signed(), len.cast_signed());
    // SAFETY: `file` is open, and the call takes numbers only.
    Errno::result(unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, all) })?;
    Ok(())
}

/// Whether anybody else has `file` open or mapped, or it is open here once more. Fails where the file system cannot tell.
fn is_open_elsewhere(file: &File) -> io::Result<bool> {
    // What is mapped there is open in the file system below only.
    if fstatfs(file)?.filesystem_type() == OVERLAYFS_SUPER_MAGIC {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let fd = file.as_raw_fd();
    // SAFETY: `fd` is open, and these commands take a number. The lease is to be had while the file is open once, and is given
    // back at once; who opens the file in between has a signal sent, by default one that would end this process.
    let leased = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        let leased = Errno::result(libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK));
        if leased.is_ok() {
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
        }
        leased
    };
    match leased {
        Ok(_) => Ok(false),
        Err(Errno::EAGAIN) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}
