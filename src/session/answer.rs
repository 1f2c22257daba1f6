//! The only place that replies. Every request is run, answered exactly once and, if it failed, logged once,
//! here.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use bytes::Bytes;
use libc::c_int;
use log::Level;
use log::debug;
use log::log;
use log::log_enabled;
use log::warn;
use nix::errno::Errno;

use super::abi::AttrOut;
use super::abi::CreateOut;
use super::abi::EntryOut;
use super::abi::OpenOut;
use super::abi::Plain;
use super::abi::StatfsOut;
use super::abi::WriteOut;
use super::abi::XattrOut;
use super::activity;
use super::activity::Asked;
use super::activity::Event;
use super::arguments::About;
use super::arguments::Caller;
use super::arguments::Subject;
use super::current;
use super::dirents::Dirents;
use super::errno::errno;
use super::errno::level;
use super::ffi::RawRequest;
use super::ffi::Shared;
use super::interrupts::Interrupt;
use super::notify;
use super::wall::wall;
use crate::fs::Attr;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::Slices;
use crate::fs::StatFs;
use crate::fs::cut_off;
use crate::metrics;
use crate::spans;
use crate::spans::RequestSpan;
use crate::vfs::Entry;
use crate::vfs::Fh;
use crate::vfs::Ino;
use crate::vfs::Opened;
use crate::vfs::Vfs;
use crate::waiting::Wait;

/// What the kernel asks for.
pub(super) use crate::metrics::Operation as Op;

/// What goes back when all went well.
#[expect(clippy::large_enum_variant, reason = "in a box, the bytes of each read would cost an allocation")]
pub(super) enum Answer {
    /// Nothing but that it is done.
    Done,
    /// The name is absent, and may be believed to be so for a while.
    Absent(Duration),
    /// An inode, counted once more.
    Entry(Box<Entry>),
    /// Attributes, and how long they hold.
    Attr(Box<Attr>, Duration),
    /// A file's handle.
    Opened(Opened),
    /// A directory's handle.
    OpenedDir(Fh),
    /// A new file, counted and open.
    Created(Box<Entry>, Opened),
    /// Bytes.
    Data(Slices),
    /// How many bytes were taken.
    Written(usize),
    /// Entries of a directory.
    Listing(Dirents),
    /// Capacity and use.
    Statfs(StatFs),
    /// An extended attribute, or the names of all, for a caller who has that much room; 0 asks for the length.
    Xattr { data: Bytes, room: usize },
}

/// writev(2) takes 1024 parts, of which libfuse needs one.
const PARTS_MAX: usize = 1000;

/// Runs `work` for the request, replies with its outcome and logs a failure.
pub(super) fn answer<'a, W>(raw: RawRequest, op: Op, about: impl Into<About<'a>>, work: W)
where
    W: FnOnce(&Vfs, &Ctx<'_>) -> crate::fs::Result<Answer>,
{
    let about = about.into();
    let subject = about.subject;
    // A panic has been logged by the hook, and the request answered by its guard.
    let _ = wall(move || {
        let request = Request::begin(raw, op, &about);
        let span = spans::request(op.name());
        let caller = request.caller;
        if log_enabled!(Level::Debug) {
            debug!("Enter: {}", about.text(op, &request.shared.vfs));
        }
        if !comes_at_any_time(op) && op != Op::Open {
            request.shared.vfs.asked_by(caller.pid);
        }
        let outcome =
            work(&request.shared.vfs, &Ctx::new(caller.uid, caller.gid, caller.pid, &request.interrupt));
        let time = request.begun.elapsed();
        // Before the reply: whoever looks at the figures after it finds himself in them.
        count(op, &outcome, time);
        let waited = request.shared.activity.end();
        describe(span, &request, op, &about, &outcome);
        tell(&request, op, &about, &outcome, time);
        note_time(&request, op, &about, &outcome, time, waited);
        match outcome {
            Ok(answer) => request.succeed(op, subject, answer),
            Err(err) => {
                log_failure(&request, op, subject, &err);
                if let (Op::Chmod | Op::Chown | Op::Truncate | Op::Utimens, Subject::Inode(ino)) =
                    (op, subject)
                {
                    notify::attributes_changed(ino);
                }
                request.fail(errno(err.fault()));
            }
        }
    });
}

/// Whether the kernel may send such a request when the thread for which it does is elsewhere already.
fn comes_at_any_time(op: Op) -> bool {
    matches!(op, Op::Read | Op::Write | Op::Release | Op::Releasedir)
}

/// Ends the span of the request, with what a collector is to show of it.
fn describe(
    span: RequestSpan,
    request: &Request,
    op: Op,
    about: &About<'_>,
    outcome: &crate::fs::Result<Answer>,
) {
    if !span.is_on() {
        return;
    }
    span.note("fuse.call", about.text(op, &request.shared.vfs));
    span.note("fuse.request", request.unique);
    span.note("thread.id", request.caller.pid);
    span.note("user.id", request.caller.uid);
    // What is not there is no failure, as for the log.
    if let Err(err) = outcome
        && err.fault() != Fault::NotFound
    {
        span.fail(err);
    }
}

/// Replies at once to what is never served, whoever asks.
pub(super) fn refuse(raw: RawRequest, errno: c_int) {
    // If the kernel does not take the reply, its caller is gone.
    let _ = raw.reply_errno(errno);
}

/// Lowers the lookup counts of `inodes`. There is no reply.
pub(super) fn forget(raw: RawRequest, inodes: impl IntoIterator<Item = (Ino, u64)>) {
    let shared = raw.shared();
    let _ = wall(|| {
        for (ino, count) in inodes {
            shared.vfs.forget(ino, count);
        }
    });
    raw.reply_none();
}

/// A request that is being served. Dropped without a reply, as by a panic, it is answered with EIO.
struct Request {
    /// Taken by the reply.
    raw: Option<RawRequest>,
    shared: Arc<Shared>,
    caller: Caller,
    op: Op,
    begun: Instant,
    /// The kernel's number of it; 0 if that is not known.
    unique: u64,
    /// Set by libfuse as long as `raw` is here, so it is kept longer than that.
    interrupt: Arc<Interrupt>,
}

impl Request {
    fn begin(raw: RawRequest, op: Op, about: &About<'_>) -> Self {
        let (shared, caller, interrupt) = (raw.shared(), raw.caller(), current::interrupt());
        interrupt.begin(caller.pid);
        // SAFETY: the request keeps the `Arc`, and ignores interrupts before it lets go of it.
        unsafe { raw.heed_interrupts(&interrupt) };
        let (begun, unique) = (Instant::now(), current::unique());
        shared.activity.begin(asked(op, about, caller, unique), begun);
        Self { raw: Some(raw), shared, caller, op, begun, unique, interrupt }
    }

    fn succeed(mut self, op: Op, subject: Subject<'_>, answer: Answer) {
        let raw = self.take_raw();
        // A reply of bytes that are on a disk waits for it: the worker is busy until that is over, and the pool grows.
        if !matches!(&answer, Answer::Data(slices) if slices.may_wait()) {
            current::end();
        }
        match send(raw, &answer) {
            Ok(()) => {}
            // The bytes could not be read, and it was answered with EIO.
            Err(Errno::EFAULT) => {
                log_failure(&self, op, subject, &cut_off());
            }
            Err(err) => {
                // ENOENT: the kernel has given up the request meanwhile. What it does not know of is undone.
                debug!("Reply to {} not taken: {err} (pid {})", op.name(), self.caller.pid);
                undo(&self.shared.vfs, &answer);
            }
        }
    }

    fn fail(mut self, errno: c_int) {
        // If the kernel does not take it, the caller is gone, and there is nothing to undo.
        let raw = self.take_raw();
        current::end();
        let _ = raw.reply_errno(errno);
    }

    fn take_raw(&mut self) -> RawRequest {
        let raw = self.raw.take().expect("a request is replied to once, by what consumes it");
        self.deafen(&raw);
        raw
    }

    /// Who asked, and the kernel's number of the request, for the log.
    fn caller(&self) -> String {
        let Caller { uid, pid, .. } = self.caller;
        format!("({}pid {pid}, uid {uid}), request {}", program(pid), self.unique)
    }

    /// No interrupt concerns this request any more.
    fn deafen(&self, raw: &RawRequest) {
        raw.ignore_interrupts();
        self.interrupt.end();
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            self.deafen(&raw);
            self.shared.activity.end();
            metrics::PANICS.count();
            metrics::record(self.op, self.begun.elapsed(), libc::EIO);
            let _ = raw.reply_errno(libc::EIO);
        }
    }
}

fn send(raw: RawRequest, answer: &Answer) -> Result<(), Errno> {
    match answer {
        Answer::Done => raw.reply_errno(0),
        Answer::Absent(ttl) => raw.reply_bytes(EntryOut::absent(*ttl).as_bytes()),
        Answer::Entry(entry) => raw.reply_bytes(EntryOut::from(&**entry).as_bytes()),
        Answer::Attr(attr, ttl) => raw.reply_bytes(AttrOut::new(attr, *ttl).as_bytes()),
        Answer::Opened(opened) => raw.reply_bytes(OpenOut::from(opened).as_bytes()),
        Answer::OpenedDir(fh) => raw.reply_bytes(OpenOut { fh: fh.0, ..OpenOut::default() }.as_bytes()),
        Answer::Created(entry, opened) => {
            raw.reply_bytes(CreateOut { entry: (&**entry).into(), open: opened.into() }.as_bytes())
        }
        Answer::Data(slices) => send_data(raw, slices),
        Answer::Written(len) => {
            let size = u32::try_from(*len).expect("at most what the kernel sent");
            raw.reply_bytes(WriteOut { size, padding: 0 }.as_bytes())
        }
        Answer::Listing(dirents) => raw.reply_bytes(dirents.bytes()),
        Answer::Statfs(stat) => raw.reply_bytes(StatfsOut::from(stat).as_bytes()),
        Answer::Xattr { data, room: 0 } => match u32::try_from(data.len()) {
            Ok(size) => raw.reply_bytes(XattrOut { size, padding: 0 }.as_bytes()),
            Err(_) => raw.reply_errno(libc::E2BIG),
        },
        Answer::Xattr { data, room } if data.len() > *room => raw.reply_errno(libc::ERANGE),
        Answer::Xattr { data, .. } => raw.reply_bytes(data),
    }
}

fn send_data(raw: RawRequest, slices: &Slices) -> Result<(), Errno> {
    if slices.parts().len() > PARTS_MAX {
        return match slices.copied() {
            Ok(bytes) => raw.reply_bytes(&bytes),
            Err(err) => {
                let _ = raw.reply_errno(errno(err.fault()));
                Err(Errno::EFAULT)
            }
        };
    }
    let parts = slices.iovecs();
    current::set_mapped(slices.is_mapped());
    let outcome = raw.reply_parts(&parts);
    current::set_mapped(false);
    outcome
}

/// Takes back what an answer gave to the kernel, which did not get it and so will not give it back.
fn undo(vfs: &Vfs, answer: &Answer) {
    match answer {
        Answer::Entry(entry) => vfs.forget(entry.ino, 1),
        Answer::Opened(opened) => release(vfs, opened.fh),
        Answer::OpenedDir(fh) => vfs.releasedir(*fh),
        Answer::Created(entry, opened) => {
            release(vfs, opened.fh);
            vfs.forget(entry.ino, 1);
        }
        Answer::Listing(dirents) => {
            for ino in dirents.counted() {
                vfs.forget(*ino, 1);
            }
        }
        Answer::Done
        | Answer::Absent(_)
        | Answer::Attr(..)
        | Answer::Data(_)
        | Answer::Written(_)
        | Answer::Statfs(_)
        | Answer::Xattr { .. } => {}
    }
}

fn release(vfs: &Vfs, fh: Fh) {
    if let Err(err) = vfs.release(fh) {
        debug!("Failed to release a file that its opener did not get: {err}");
    }
}

/// Counts the request, and the bytes that it is answered with or has brought.
fn count(op: Op, outcome: &crate::fs::Result<Answer>, time: Duration) {
    let code = match outcome {
        Ok(Answer::Data(slices)) => {
            metrics::read(slices.len(), slices.sources());
            0
        }
        Ok(Answer::Written(len)) => {
            metrics::BYTES_WRITTEN.add(*len as u64);
            0
        }
        Ok(Answer::Absent(_)) => libc::ENOENT,
        Ok(Answer::Xattr { data, room }) if *room > 0 && data.len() > *room => libc::ERANGE,
        Ok(_) => 0,
        Err(err) => errno(err.fault()),
    };
    metrics::record(op, time, code);
}

/// Bytes or 0; a negative error number if it failed.
fn code(outcome: &crate::fs::Result<Answer>) -> i64 {
    match outcome {
        Ok(Answer::Data(slices)) => slices.len() as i64,
        Ok(Answer::Written(count)) => *count as i64,
        Ok(Answer::Absent(_)) => -i64::from(libc::ENOENT),
        Ok(_) => 0,
        Err(err) => -i64::from(errno(err.fault())),
    }
}

/// The request, for whoever looks at what is done.
fn asked<'a>(op: Op, about: &About<'a>, caller: Caller, unique: u64) -> Asked<'a> {
    Asked { operation: op, subject: about.subject, range: about.range(), caller, unique }
}

/// Tells those who listen what was done.
fn tell(request: &Request, op: Op, about: &About<'_>, outcome: &crate::fs::Result<Answer>, time: Duration) {
    let activity = &request.shared.activity;
    if activity.is_heard() {
        let asked = activity::Request::new(asked(op, about, request.caller, request.unique));
        activity.tell(&Event { at: SystemTime::now(), request: asked, code: code(outcome), time });
    }
}

/// The lines of Alluxio's client for an operation that took long, and, if asked for, for each.
fn note_time(
    request: &Request,
    op: Op,
    about: &About<'_>,
    outcome: &crate::fs::Result<Answer>,
    time: Duration,
    waited: Option<(Wait, Duration)>,
) {
    let slow = request.shared.slow;
    let (is_slow, is_told) = (time >= slow, log_enabled!(Level::Debug));
    if !is_slow && !is_told {
        return;
    }
    let code = code(outcome);
    let (asked, ms) = (about.text(op, &request.shared.vfs), time.as_millis());
    if is_told {
        debug!("Exit ({code}): {asked} in {ms} ms");
    }
    if is_slow {
        let (limit, caller) = (slow.as_millis(), request.caller());
        let waited = waited.map(|(wait, waited)| {
            // What went on at the same time may add up to more.
            let ms = waited.min(time).as_millis();
            format!(", {ms} ms of it waiting for {} {}", wait.server, wait.what)
        });
        let waited = waited.unwrap_or_default();
        warn!("{asked} returned {code} in {ms} ms (>={limit} ms){waited} {caller}");
    }
}

fn log_failure(request: &Request, op: Op, subject: Subject<'_>, err: &FsError) {
    let level = failure_level(op, err.fault());
    if !log_enabled!(level) {
        return;
    }
    let path = subject.text(&request.shared.vfs);
    // An error's own text may leave out what kind of error it is.
    let cause = match err.detail() {
        Some(detail) => format!("{}: {detail}", err.fault()),
        None => err.fault().to_string(),
    };
    log!(level, "Failed to {} {path}: {cause} {}", op.name(), request.caller());
}

/// The name of the program of `pid`, if it still runs.
fn program(pid: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{}, ", name.trim_end()),
        Err(_) => String::new(),
    }
}

fn failure_level(op: Op, fault: Fault) -> Level {
    match (op, fault) {
        // The answer to access(2), not a failure of it.
        (Op::Access, Fault::PermissionDenied | Fault::ReadOnly) => Level::Debug,
        // The kernel asks for `security.capability` at each write, and `ls -l` for access control lists.
        (Op::Setxattr | Op::Getxattr | Op::Listxattr | Op::Removexattr, Fault::NotSupported) => Level::Debug,
        _ => level(fault),
    }
}
