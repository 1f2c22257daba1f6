//! `alluxio-fuse preload`: reads files through a mount, so that its data cache has them. What is there already is not read
//! again, so an interrupted preload goes on where it was. Knows of the cache only an extended attribute of the mount's files.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use indicatif::HumanBytes;
use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use nix::errno::Errno;

use super::args::PreloadArgs;
use super::complain;
use super::out;
use crate::cache::data::ATTRIBUTE;

/// Bytes of one read.
const PIECE: usize = 1 << 20;

/// How often a file is read that the cache does not keep.
const PASSES: usize = 10;

/// Between two looks at how much of a file is kept.
const LOOK: Duration = Duration::from_millis(10);

/// So many looks without a change, and nothing more of it is on its way to the disk.
const SETTLED: u32 = 5;

/// Problems that are printed; more are counted.
const PROBLEMS_MAX: usize = 20;

/// A file, and what the cache has of it.
struct Found {
    path: PathBuf,
    cached: u64,
    size: u64,
}

pub(super) fn run(args: &PreloadArgs) -> ExitCode {
    let outcome = if args.evict { evict(args) } else { load(args) };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            complain(problem);
            ExitCode::FAILURE
        }
    }
}

fn evict(args: &PreloadArgs) -> Result<bool, String> {
    for path in &args.paths {
        drop_from_cache(path).map_err(|errno| explain(path, errno))?;
        out(format_args!("{} is dropped from the cache", path.display()));
    }
    Ok(true)
}

fn load(args: &PreloadArgs) -> Result<bool, String> {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    let mut room = None;
    for path in &args.paths {
        room = room.max(Some(limit(path)?));
        collect(path, &mut files, &mut problems);
    }
    let (size, cached): (u64, u64) =
        files.iter().fold((0, 0), |(size, cached), file| (size + file.size, cached + file.cached));
    let room = room.unwrap_or_default();
    if args.check {
        let whole = files.iter().filter(|file| file.cached == file.size).count();
        out(format_args!(
            "{whole} of {} files are in the cache, {} of {}",
            files.len(),
            HumanBytes(cached),
            HumanBytes(size)
        ));
        return Ok(report(&problems) && whole == files.len());
    }
    if size > room && !args.force {
        return Err(format!(
            "the files have {}, and the cache may take {}: name fewer, give it more (alluxio.user.client.cache.size), or say --force",
            HumanBytes(size),
            HumanBytes(room)
        ));
    }
    let bar = ProgressBar::new(size).with_position(cached);
    let style = "{bar:40} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} to go";
    bar.set_style(ProgressStyle::with_template(style).expect("a good template"));
    files.retain(|file| file.cached < file.size);
    problems.extend(read_all(&files, usize::from(args.jobs), &bar));
    bar.finish_and_clear();
    let good = report(&problems);
    out(format_args!("{} files were read, {} were there before", files.len(), HumanBytes(cached)));
    Ok(good)
}

/// Says what went wrong; whether nothing did.
fn report(problems: &[String]) -> bool {
    problems.iter().take(PROBLEMS_MAX).for_each(complain);
    if problems.len() > PROBLEMS_MAX {
        complain(format!("and {} more problems", problems.len() - PROBLEMS_MAX));
    }
    problems.is_empty()
}

/// Finds the files at and below `path`.
fn collect(path: &Path, files: &mut Vec<Found>, problems: &mut Vec<String>) {
    let mut say = |path: &Path, err: &io::Error| problems.push(format!("{}: {err}", path.display()));
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(err) => return say(path, &err),
    };
    if kind.is_dir() {
        let entries: Vec<_> = match fs::read_dir(path) {
            Ok(entries) => entries.collect(),
            Err(err) => return say(path, &err),
        };
        for entry in entries {
            match entry {
                Ok(entry) => collect(&entry.path(), files, problems),
                Err(err) => problems.push(format!("{}: {err}", path.display())),
            }
        }
    } else if kind.is_file() {
        match ask(path) {
            Ok((cached, size)) => files.push(Found { path: path.to_owned(), cached, size }),
            Err(errno) => problems.push(explain(path, errno)),
        }
    }
}

/// Reads `files`, some at a time; what went wrong.
fn read_all(files: &[Found], jobs: usize, bar: &ProgressBar) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut problems, mut piece) = (Vec::new(), vec![0; PIECE]);
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(problem) = bring(file, &mut piece, bar) {
                problems.push(format!("{}: {problem}", file.path.display()));
            }
        }
        problems
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..jobs.min(files.len())).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

/// Reads `found` until the cache has it: the cache rather leaves out pages than have readers wait for its disks.
fn bring(found: &Found, piece: &mut [u8], bar: &ProgressBar) -> Result<(), String> {
    let mut cached = 0;
    for pass in 0..PASSES {
        let silent = ProgressBar::hidden();
        read(found, piece, if pass == 0 { bar } else { &silent }).map_err(|err| err.to_string())?;
        let mut quiet = 0;
        while quiet < SETTLED {
            let (now, size) = ask(&found.path).map_err(|errno| errno.desc().to_owned())?;
            if now == size {
                return Ok(());
            }
            quiet = if now == cached { quiet + 1 } else { 0 };
            cached = now;
            thread::sleep(LOOK);
        }
    }
    Err(format!(
        "only {} of {} are kept: is the cache full, or its disk?",
        HumanBytes(cached),
        HumanBytes(found.size)
    ))
}

fn read(found: &Found, piece: &mut [u8], bar: &ProgressBar) -> io::Result<()> {
    // Past the kernel's pages: they would be read from there, and not from the mount.
    let options = |flags| fs::OpenOptions::new().read(true).custom_flags(flags).open(&found.path);
    let mut file: File = options(libc::O_DIRECT).or_else(|_| options(0))?;
    let mut counted = found.cached;
    loop {
        match file.read(piece) {
            Ok(0) => break,
            Ok(n) => {
                let fresh = (n as u64).min(found.size.saturating_sub(counted));
                counted += fresh;
                bar.inc(fresh);
            }
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// The bytes of `path` that the cache has, and all of them.
fn ask(path: &Path) -> Result<(u64, u64), Errno> {
    let text = attribute(path)?;
    let (first, second) = text.split_once(' ').ok_or(Errno::ENODATA)?;
    Ok((first.parse().map_err(|_| Errno::ENODATA)?, second.parse().map_err(|_| Errno::ENODATA)?))
}

/// The bytes that the cache of the mount at `path` may take.
fn limit(path: &Path) -> Result<u64, String> {
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    ask(dir).map(|(_, limit)| limit).map_err(|errno| explain(path, errno))
}

fn explain(path: &Path, errno: Errno) -> String {
    let path = path.display();
    match errno {
        Errno::ENODATA | Errno::EOPNOTSUPP | Errno::ENOSYS => format!(
            "{path}: no mount with a data cache, which `-o data_cache=DIRECTORY,data_cache_size=SIZE` of `mount` makes"
        ),
        _ => format!("{path}: {}", errno.desc()),
    }
}

fn terminated(path: &Path) -> Result<std::ffi::CString, Errno> {
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

fn name() -> std::ffi::CString {
    std::ffi::CString::new(ATTRIBUTE).expect("it has no zero")
}

/// Its value, which is short.
fn attribute(path: &Path) -> Result<String, Errno> {
    let (path, name) = (terminated(path)?, name());
    let mut value = [0_u8; 64];
    // SAFETY: two texts with an end, and a buffer of the size that is named.
    let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let len = Errno::result(len)?;
    Ok(String::from_utf8_lossy(&value[..len.cast_unsigned()]).into_owned())
}

fn drop_from_cache(path: &Path) -> Result<(), Errno> {
    let (path, name) = (terminated(path)?, name());
    // SAFETY: two texts with an end.
    Errno::result(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}
