//! A small language of system calls, one a line, and what the system answers to each: a result or the name of an errno.
//!
//! Words are separated by blanks. Paths are below the directory of the script, which is empty at first; in names, `~`
//! stands for a blank and `LONG255` for as many bytes. Open files have names of one capital letter. Data is text, in which `x*1000` is a thousand `x` and a dot
//! is a zero byte; it is shown in the same way, in quotes, which need not be given where there is something in them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libc::c_int;
use nix::errno::Errno;

use super::common::holds_within;

type Answer = Result<String, Errno>;

/// A name, and the calls in their order.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) calls: Vec<String>,
}

impl Script {
    /// Whether it maps a file as shared, which a kernel without pages of its own (`direct_io`) can do from Linux 6.6 on.
    pub(crate) fn maps_shared(&self) -> bool {
        self.calls.iter().any(|call| call.starts_with("mmap") && call.contains(" shared "))
    }
}

/// Carries out `script` in the empty directory `dir` and returns its calls with their answers.
pub(crate) fn run(script: &Script, dir: &Path) -> Vec<(String, String)> {
    let mut run = Run { dir: dir.to_str().unwrap().to_owned(), open: BTreeMap::new() };
    let answers = script
        .calls
        .iter()
        .map(|call| (call.clone(), run.answer(call).unwrap_or_else(|errno| format!("{errno:?}"))));
    let answers = answers.collect();
    for fd in run.open.into_values() {
        // SAFETY: opened by the script, which has ended.
        unsafe { libc::close(fd) };
    }
    answers
}

struct Run {
    dir: String,
    open: BTreeMap<String, c_int>,
}

impl Run {
    fn answer(&mut self, call: &str) -> Answer {
        let words: Vec<&str> = call.split(' ').collect();
        let (verb, args) = words.split_first().unwrap();
        match *verb {
            "open" | "close" | "dup" | "spawn" => self.descriptors(verb, args),
            "read" | "pread" | "write" | "pwrite" | "seek" | "fsync" | "fdatasync" | "ftruncate"
            | "fallocate" | "fstat" | "fchmod" | "readdir" => self.on_open(verb, args),
            "sendfile" | "splice" | "copyrange" => self.between(verb, args),
            "mmap" | "mmap-write" => self.mapped(verb, args),
            "flock" | "lock" | "ofd" | "test-lock" => self.locks(verb, args),
            "setxattr" | "getxattr" | "listxattr" | "removexattr" => self.xattrs(verb, args),
            _ => self.names(verb, args),
        }
    }

    fn path(&self, word: &str) -> CString {
        CString::new(format!("{}/{}", self.dir, spelled_out(word))).unwrap()
    }

    fn text(&self, word: &str) -> String {
        self.path(word).into_string().unwrap()
    }

    /// -1, as nobody's descriptor is, if the open failed.
    fn fd(&self, name: &str) -> c_int {
        self.open.get(name).copied().unwrap_or(-1)
    }

    fn descriptors(&mut self, verb: &str, args: &[&str]) -> Answer {
        match verb {
            "open" => {
                let mode = args.get(3).map_or(0o644, |mode| octal(mode));
                // SAFETY: a C string that lives through the call.
                let fd = check(i64::from(unsafe {
                    libc::open(self.path(args[1]).as_ptr(), open_flags(args[2]), mode)
                }))?;
                self.open.insert(args[0].to_owned(), fd as c_int);
            }
            "close" => {
                let fd = self.open.remove(args[0]).unwrap_or(-1);
                // SAFETY: a number; whoever had it opened it by a script.
                check(i64::from(unsafe { libc::close(fd) }))?;
            }
            "dup" => {
                // SAFETY: a number.
                let fd = check(i64::from(unsafe { libc::dup(self.fd(args[0])) }))?;
                self.open.insert(args[1].to_owned(), fd as c_int);
            }
            _ => {
                // The child inherits what is open, as it was opened so, and closes it by ending.
                assert!(Command::new("true").status().unwrap().success());
            }
        }
        Ok("done".to_owned())
    }

    fn on_open(&self, verb: &str, args: &[&str]) -> Answer {
        let fd = self.fd(args[0]);
        let offset = |at: usize| args[at].parse::<i64>().unwrap();
        // SAFETY: all of these: numbers, and buffers that are as long as is said.
        let code = unsafe {
            match verb {
                "read" | "pread" => {
                    let mut bytes = Aligned::new(args.last().unwrap().parse().unwrap());
                    let (at, len) = (bytes.pointer(), bytes.len());
                    let code = match verb {
                        "read" => libc::read(fd, at, len),
                        _ => libc::pread(fd, at, len, offset(1)),
                    };
                    let len = check(code as i64)? as usize;
                    return Ok(shown(&bytes.bytes()[..len]));
                }
                "write" | "pwrite" => {
                    let mut bytes = Aligned::of(&data(args.last().unwrap()));
                    let (at, len) = (bytes.pointer(), bytes.len());
                    match verb {
                        "write" => libc::write(fd, at, len) as i64,
                        _ => libc::pwrite(fd, at, len, offset(1)) as i64,
                    }
                }
                "seek" => libc::lseek(fd, offset(1), whence(args[2])),
                "fsync" => i64::from(libc::fsync(fd)),
                "fdatasync" => i64::from(libc::fdatasync(fd)),
                "ftruncate" => i64::from(libc::ftruncate(fd, offset(1))),
                "fallocate" => i64::from(libc::fallocate(fd, allocation(args[1]), offset(2), offset(3))),
                "fchmod" => i64::from(libc::fchmod(fd, octal(args[1]))),
                "readdir" => {
                    let mut bytes = [0u8; 4096];
                    libc::syscall(libc::SYS_getdents64, fd, bytes.as_mut_ptr(), bytes.len()).min(1)
                }
                _ => {
                    let mut stat: libc::stat = std::mem::zeroed();
                    check(i64::from(libc::fstat(fd, &mut stat)))?;
                    return Ok(status(stat.st_mode, stat.st_size, stat.st_nlink));
                }
            }
        };
        check(code).map(|code| code.to_string())
    }

    /// Bytes from one open file to another inside the kernel.
    fn between(&self, verb: &str, args: &[&str]) -> Answer {
        let (from, to, len) = (self.fd(args[0]), self.fd(args[1]), args[2].parse::<usize>().unwrap());
        let none = std::ptr::null_mut();
        // SAFETY: numbers, and null pointers where the positions of the files are meant.
        let code = unsafe {
            match verb {
                "sendfile" => libc::sendfile(to, from, none, len) as i64,
                "copyrange" => libc::copy_file_range(from, none, to, none, len, 0) as i64,
                _ => {
                    let mut pipe = [0; 2];
                    check(i64::from(libc::pipe(pipe.as_mut_ptr())))?;
                    let taken = libc::splice(from, none, pipe[1], none, len, 0);
                    let given = match taken {
                        1.. => libc::splice(pipe[0], none, to, none, taken as usize, 0),
                        _ => taken,
                    };
                    let result = check(given as i64);
                    libc::close(pipe[0]);
                    libc::close(pipe[1]);
                    result?
                }
            }
        };
        check(code).map(|code| code.to_string())
    }

    fn mapped(&self, verb: &str, args: &[&str]) -> Answer {
        let (fd, share) = (self.fd(args[0]), args[1]);
        let bytes = if verb == "mmap" { Vec::new() } else { data(args[2]) };
        let len = if verb == "mmap" { args[2].parse().unwrap() } else { bytes.len() };
        let protection = if verb == "mmap" { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
        let flags = if share == "shared" { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        // SAFETY: a new mapping of `len` bytes, used only below; the script sees to it that the file is as long.
        unsafe {
            let at = libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0);
            if at == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            let given = through_a_file(bytes.as_ptr().cast(), at, bytes.len());
            let mut seen = vec![0u8; len];
            let taken = through_a_file(at, seen.as_mut_ptr().cast(), len);
            let synced = check(i64::from(libc::msync(at, len, libc::MS_SYNC)));
            libc::munmap(at, len);
            given?;
            taken?;
            synced.map(|_| shown(&seen))
        }
    }

    fn locks(&self, verb: &str, args: &[&str]) -> Answer {
        let fd = self.fd(args[0]);
        if verb == "flock" {
            let how = match args[1] {
                "shared" => libc::LOCK_SH,
                "exclusive" => libc::LOCK_EX,
                _ => libc::LOCK_UN,
            };
            // SAFETY: numbers.
            check(i64::from(unsafe { libc::flock(fd, how | libc::LOCK_NB) }))?;
            return Ok("done".to_owned());
        }
        let kind = match args[1] {
            "read" => libc::F_RDLCK,
            "write" => libc::F_WRLCK,
            _ => libc::F_UNLCK,
        };
        let command = match verb {
            "lock" => libc::F_SETLK,
            "ofd" => libc::F_OFD_SETLK,
            _ => libc::F_OFD_GETLK,
        };
        // SAFETY: a structure of numbers, for which zeros are values, and which lives through the call.
        let found = unsafe {
            let mut lock: libc::flock = std::mem::zeroed();
            lock.l_type = kind as i16;
            lock.l_whence = libc::SEEK_SET as i16;
            lock.l_start = args[2].parse().unwrap();
            lock.l_len = args[3].parse().unwrap();
            check(i64::from(libc::fcntl(fd, command, &mut lock)))?;
            lock
        };
        Ok(match (verb, c_int::from(found.l_type)) {
            ("test-lock", libc::F_UNLCK) => "free".to_owned(),
            ("test-lock", _) => format!("locked from {} for {}", found.l_start, found.l_len),
            _ => "done".to_owned(),
        })
    }

    fn xattrs(&self, verb: &str, args: &[&str]) -> Answer {
        let path = self.path(args[0]);
        let name = CString::new(spelled_out(args.get(1).copied().unwrap_or_default())).unwrap();
        // SAFETY: C strings that live through the call, and buffers that are as long as is said.
        unsafe {
            match verb {
                "setxattr" => {
                    let value = data(args[2]);
                    let flags = match args.get(3).copied() {
                        Some("create") => libc::XATTR_CREATE,
                        Some("replace") => libc::XATTR_REPLACE,
                        Some(other) => other.parse().unwrap(),
                        None => 0,
                    };
                    let code = libc::setxattr(
                        path.as_ptr(),
                        name.as_ptr(),
                        value.as_ptr().cast(),
                        value.len(),
                        flags,
                    );
                    check(i64::from(code)).map(|code| code.to_string())
                }
                "getxattr" => {
                    let room = args.get(2).map_or(70_000, |room| room.parse().unwrap());
                    let mut value = vec![0u8; room];
                    let code = libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), room);
                    let len = check(code as i64)? as usize;
                    Ok(if room == 0 { len.to_string() } else { shown(&value[..len]) })
                }
                "listxattr" => {
                    let mut names = vec![0u8; 4096];
                    let code = libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len());
                    let len = check(code as i64)? as usize;
                    let text = String::from_utf8(names[..len].to_vec()).unwrap();
                    let mut names: Vec<_> =
                        text.split_terminator('\0').filter(|n| n.starts_with("user.")).collect();
                    names.sort_unstable();
                    Ok(names.join(" "))
                }
                _ => check(i64::from(libc::removexattr(path.as_ptr(), name.as_ptr())))
                    .map(|code| code.to_string()),
            }
        }
    }

    fn names(&self, verb: &str, args: &[&str]) -> Answer {
        let path = self.path(args[0]);
        let at = path.as_ptr();
        let mode = |nth: usize, usual: u32| args.get(nth).map_or(usual, |mode| octal(mode));
        // SAFETY: all of these: C strings that live through the call, and numbers.
        let code = unsafe {
            match verb {
                "put" => return put(&self.text(args[0]), &data(args.get(1).copied().unwrap_or_default())),
                "cat" => return cat(&self.text(args[0])),
                "settled" => return settled(&self.text(args[0])),
                "stat" => return stat(&self.text(args[0])),
                "times" => return times(&self.text(args[0])),
                "owner" => return owner(&self.text(args[0])),
                "tree" => return Ok(tree(Path::new(&self.text(args[0])))),
                "statfs" => return statfs(&path),
                "utimens" => return utimens(&path, args),
                "mkdir" => libc::mkdir(at, mode(1, 0o755)),
                "rmdir" => libc::rmdir(at),
                "unlink" => libc::unlink(at),
                "rename" => {
                    let flags = match args.get(2).copied() {
                        None => 0,
                        Some("noreplace") => libc::RENAME_NOREPLACE,
                        Some("exchange") => libc::RENAME_EXCHANGE,
                        Some("whiteout") => libc::RENAME_WHITEOUT,
                        Some(other) => panic!("{other}"),
                    };
                    let to = self.path(args[1]);
                    libc::renameat2(libc::AT_FDCWD, at, libc::AT_FDCWD, to.as_ptr(), flags)
                }
                "link" => libc::link(at, self.path(args[1]).as_ptr()),
                "symlink" => libc::symlink(c"target".as_ptr(), at),
                "readlink" => libc::readlink(at, [0; 10].as_mut_ptr(), 10) as c_int,
                "mkfifo" => libc::mkfifo(at, 0o644),
                "mknod" => libc::mknod(at, mknod_kind(args[1]) | 0o644, libc::makedev(1, 3)),
                "truncate" => libc::truncate(at, args[1].parse().unwrap()),
                "chmod" => libc::chmod(at, mode(1, 0)),
                "chown" => libc::chown(at, id(args[1]), id(args[2])),
                "access" => libc::access(at, access_mask(args[1])),
                other => panic!("there is no call {other:?}"),
            }
        };
        check(i64::from(code))?;
        Ok("done".to_owned())
    }
}

/// A name: `~` stands for a blank, `LONG255` for a name of so many bytes.
fn spelled_out(word: &str) -> String {
    let word = word.replace('~', " ");
    match word.split_once("LONG") {
        Some((before, len)) => {
            format!("{before}{}", "x".repeat(len.parse::<usize>().unwrap() - before.len()))
        }
        None => word,
    }
}

fn check(code: i64) -> Result<i64, Errno> {
    if code < 0 { Err(Errno::last()) } else { Ok(code) }
}

/// Copies `len` bytes by system calls: a page that cannot be had is EFAULT, where an access would be a fatal signal.
///
/// # Safety
/// Both places are mapped, and nobody else uses them.
unsafe fn through_a_file(from: *const libc::c_void, to: *mut libc::c_void, len: usize) -> Result<(), Errno> {
    let file = tempfile::tempfile().unwrap();
    // SAFETY: as promised; the kernel checks the rest.
    unsafe {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let written = check(libc::pwrite(fd, from, len, 0) as i64)?;
        let read = check(libc::pread(fd, to, len, 0) as i64)?;
        if written.min(read) == len as i64 { Ok(()) } else { Err(Errno::EFAULT) }
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn put(path: &str, data: &[u8]) -> Answer {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(|e| errno(&e))?;
    file.write_all(data).map_err(|e| errno(&e))?;
    nix::unistd::close(file)?;
    Ok("done".to_owned())
}

fn cat(path: &str) -> Answer {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map(|_| shown(&bytes)).map_err(|e| errno(&e))
}

/// The content once nobody is writing any more: what a failed writer leaves is removed soon, not at once.
fn settled(path: &str) -> Answer {
    let mut content = cat(path);
    holds_within(Duration::from_secs(10), || {
        content = cat(path);
        content != Err(Errno::EBUSY)
    });
    content
}

fn stat(path: &str) -> Answer {
    let meta = fs::symlink_metadata(path).map_err(|e| errno(&e))?;
    Ok(status(meta.mode(), meta.len() as i64, meta.nlink()))
}

fn status(mode: u32, size: i64, links: u64) -> String {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => format!("dir {:o}", mode & 0o7777),
        libc::S_IFREG => format!("file {:o} size {size} links {links}", mode & 0o7777),
        other => format!("kind {other:o}"),
    }
}

fn times(path: &str) -> Answer {
    let meta = fs::symlink_metadata(path).map_err(|e| errno(&e))?;
    let shown = |secs: i64, nanos: i64| {
        let age = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).unwrap().tv_sec() - secs;
        if (-5..600).contains(&age) { "now".to_owned() } else { format!("{secs}.{nanos:09}") }
    };
    Ok(format!("{} {}", shown(meta.atime(), meta.atime_nsec()), shown(meta.mtime(), meta.mtime_nsec())))
}

fn owner(path: &str) -> Answer {
    let meta = fs::symlink_metadata(path).map_err(|e| errno(&e))?;
    Ok(format!("{}:{}", meta.uid(), meta.gid()))
}

/// All names below `dir` with what is there.
fn tree(dir: &Path) -> String {
    let Ok(entries) = fs::read_dir(dir) else { return "unreadable".to_owned() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let shown = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().replace(' ', "~");
        if path.is_dir() {
            format!("{name}({})", tree(path))
        } else if !path.is_file() {
            format!("{name} of another kind")
        } else {
            format!("{name}={}", cat(path.to_str().unwrap()).unwrap_or_else(|errno| format!("{errno:?}")))
        }
    };
    names.iter().map(|path| shown(path)).collect::<Vec<_>>().join(" ")
}

fn statfs(path: &CString) -> Answer {
    // SAFETY: a structure of numbers, for which zeros are values, and which lives through the call.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        check(i64::from(libc::statvfs(path.as_ptr(), &mut stat)))?;
        stat
    };
    let sane = stat.f_blocks > 0 && stat.f_bfree <= stat.f_blocks && stat.f_bavail <= stat.f_bfree;
    Ok(format!("names of {} bytes, {}", stat.f_namemax, if sane { "room" } else { "nonsense" }))
}

fn utimens(path: &CString, args: &[&str]) -> Answer {
    let time = |word: &str| match word {
        "now" => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
        "omit" => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        word => {
            let (secs, nanos) = word.split_once('.').unwrap_or((word, "0"));
            libc::timespec { tv_sec: secs.parse().unwrap(), tv_nsec: nanos.parse().unwrap() }
        }
    };
    let times = [time(args[1]), time(args[2])];
    // SAFETY: a C string and two times that live through the call.
    let code = unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0) };
    check(i64::from(code)).map(|code| code.to_string())
}

fn octal(word: &str) -> u32 {
    u32::from_str_radix(word, 8).unwrap()
}

fn id(word: &str) -> u32 {
    match word {
        "-" => u32::MAX,
        "me" => nix::unistd::geteuid().as_raw(),
        other => other.parse().unwrap(),
    }
}

fn open_flags(words: &str) -> c_int {
    words.split('+').fold(0, |flags, word| {
        flags
            | match word {
                "ro" => libc::O_RDONLY,
                "wo" => libc::O_WRONLY,
                "rw" => libc::O_RDWR,
                "creat" => libc::O_CREAT,
                "excl" => libc::O_EXCL,
                "trunc" => libc::O_TRUNC,
                "append" => libc::O_APPEND,
                "directory" => libc::O_DIRECTORY,
                "nofollow" => libc::O_NOFOLLOW,
                "path" => libc::O_PATH,
                "direct" => libc::O_DIRECT,
                "sync" => libc::O_SYNC,
                "nonblock" => libc::O_NONBLOCK,
                "noatime" => libc::O_NOATIME,
                "tmpfile" => libc::O_TMPFILE,
                other => panic!("there is no flag {other:?}"),
            }
    })
}

fn whence(word: &str) -> c_int {
    match word {
        "set" => libc::SEEK_SET,
        "cur" => libc::SEEK_CUR,
        "end" => libc::SEEK_END,
        "data" => libc::SEEK_DATA,
        "hole" => libc::SEEK_HOLE,
        other => panic!("{other}"),
    }
}

fn allocation(word: &str) -> c_int {
    match word {
        "grow" => 0,
        "keep" => libc::FALLOC_FL_KEEP_SIZE,
        "punch" => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        other => panic!("{other}"),
    }
}

fn mknod_kind(word: &str) -> u32 {
    match word {
        "file" => libc::S_IFREG,
        "fifo" => libc::S_IFIFO,
        "socket" => libc::S_IFSOCK,
        "char" => libc::S_IFCHR,
        "block" => libc::S_IFBLK,
        other => panic!("{other}"),
    }
}

fn access_mask(word: &str) -> c_int {
    word.chars().fold(libc::F_OK, |mask, bit| {
        mask | match bit {
            'r' => libc::R_OK,
            'w' => libc::W_OK,
            'x' => libc::X_OK,
            _ => 0,
        }
    })
}

/// The bytes that `text` stands for.
fn data(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.trim_matches('\'');
    while let Some(first) = rest.chars().next() {
        let byte = if first == '.' { 0 } else { u8::try_from(first).unwrap() };
        rest = &rest[1..];
        let count = match rest.strip_prefix('*') {
            Some(after) => {
                let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let count = after[..digits].parse().unwrap();
                rest = &after[digits..];
                count
            }
            None => 1,
        };
        bytes.extend(std::iter::repeat_n(byte, count));
    }
    bytes
}

/// The text that stands for `bytes`.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::from("'");
    for run in bytes.chunk_by(|a, b| a == b) {
        let byte = if run[0] == 0 { '.' } else { char::from(run[0]) };
        match run.len() {
            1..8 => text.extend(std::iter::repeat_n(byte, run.len())),
            len => text.push_str(&format!("{byte}*{len}")),
        }
    }
    text.push('\'');
    text
}

/// Bytes that begin at a page, as `O_DIRECT` wants them.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let bytes = vec![0; len + 4096];
        let start = bytes.as_ptr().align_offset(4096);
        Aligned { bytes, start }
    }

    fn of(data: &[u8]) -> Aligned {
        let mut aligned = Aligned::new(data.len());
        let start = aligned.start;
        aligned.bytes[start..start + data.len()].copy_from_slice(data);
        aligned
    }

    fn len(&self) -> usize {
        self.bytes.len() - 4096
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len()]
    }

    fn pointer(&mut self) -> *mut libc::c_void {
        self.bytes[self.start..].as_mut_ptr().cast()
    }
}

#[test]
fn data_is_shown_as_it_is_written() {
    for text in ["", "abc", "a*9b.*20c", "....x"] {
        assert_eq!(shown(&data(text)), format!("'{text}'"));
    }
    assert_eq!(data("x*3."), b"xxx\0");
}
