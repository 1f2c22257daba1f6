//! How many calls to servers everyday work takes, and that what is saved costs no freshness: an open shows the file as it is
//! when it is opened, whatever the thread has asked before.
//!
//! The tests count calls, so one runs at a time.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use common::cluster::Cluster;
use common::cluster::RemoteDir;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::users;
use common::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const FILES: u32 = 40;
const SMALL: usize = 100 << 10;

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mount, and another one of the same directory that stands for another client.
struct Pair {
    mount: Mount,
    other: Mount,
    _dir: RemoteDir,
}

impl Pair {
    fn new(name: &str, with: impl Fn(Spec) -> Spec) -> Pair {
        let cluster = Cluster::get();
        let dir = cluster.directory(name);
        let spec = || {
            Spec::alluxio(&cluster, &dir.path)
                .property("alluxio.user.file.writetype.default", "MUST_CACHE")
                .property("alluxio.user.short.circuit.enabled", "false")
        };
        Pair { mount: with(spec()).start(), other: spec().start(), _dir: dir }
    }

    fn plain(name: &str) -> Pair {
        Pair::new(name, |spec| spec)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    /// Another client makes `name` anew, as its version `number`.
    fn replace(&self, name: &str, number: u32) {
        fs::write(self.other.path().join(name), format!("{number:08}")).unwrap();
    }

    fn unmount(self) {
        self.mount.unmount();
        self.other.unmount();
    }
}

/// Calls to masters and to workers so far.
fn calls(mount: &Mount) -> [u64; 2] {
    let lines = || mount.logged(" - calls: ");
    let before = lines().len();
    process::signal(mount.pid(), Signal::SIGQUIT);
    wait_until("the daemon logs its state", LIMIT, || lines().len() > before);
    let line = lines().pop().unwrap();
    ["calls: ", "masters, "].map(|name| {
        let digits: String =
            line.split_once(name).unwrap().1.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    })
}

/// Calls to masters and workers for each of [`FILES`] times `work`, rounded: now and then the settings and the workers are
/// asked for, and a thread that cannot be seen to sleep yet makes a call more.
fn calls_for_each(mount: &Mount, mut work: impl FnMut(u32)) -> [u64; 2] {
    let before = calls(mount);
    (0..FILES).for_each(&mut work);
    let after = calls(mount);
    [0, 1].map(|at| ((after[at] - before[at]) as f64 / f64::from(FILES)).round() as u64)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; SMALL + 1];
    let len = file.read(&mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// The version that `file` is of; none if its bytes are gone already.
fn version_of(mut file: &File) -> Option<u32> {
    let mut text = [0; 8];
    match file.read_exact(&mut text) {
        Ok(()) => Some(std::str::from_utf8(&text).unwrap().parse().unwrap()),
        Err(err) if err.raw_os_error() == Some(libc::ESTALE) => None,
        Err(err) => panic!("{err}"),
    }
}

/// openat(2), always by the same instruction and with the same in all registers, as a program may do that calls it in a
/// loop. The stack is the same if the caller's is.
#[inline(never)]
fn open_here(path: &[u8], flags: i32) -> io::Result<File> {
    let (path, none) = (path.as_ptr(), 0_u64);
    // SAFETY: a path that ends with a zero byte and lives until the call has returned.
    match unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, none, none, none) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: a descriptor that nobody else has.
        fd => Ok(unsafe { File::from_raw_fd(fd as i32) }),
    }
}

/// A path whose memory is used again and again for others.
struct Buffer([u8; 4096]);

impl Buffer {
    fn open(&mut self, path: impl AsRef<Path>, flags: i32) -> io::Result<File> {
        let path = CString::new(path.as_ref().as_os_str().as_bytes()).unwrap();
        let bytes = path.as_bytes_with_nul();
        self.0[..bytes.len()].copy_from_slice(bytes);
        open_here(&self.0, flags)
    }
}

fn error_of<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|err| err.raw_os_error())
}

#[test]
fn a_small_file_is_read_by_one_call_to_the_master_and_one_to_a_worker() {
    let _one = one_at_a_time();
    for words in ["direct_io", "auto_cache", "metadata_cache_size=1000"] {
        let pair = Pair::new("one-call", |spec| spec.option(words));
        for n in 0..FILES {
            fs::write(pair.other.path().join(format!("f{n}")), vec![7; SMALL]).unwrap();
        }
        fs::write(pair.other.path().join("first"), vec![7; SMALL]).unwrap();
        assert_eq!(read(&pair.at("first")).unwrap().len(), SMALL, "and the workers are known");
        let each = calls_for_each(&pair.mount, |n| {
            assert_eq!(read(&pair.at(&format!("f{n}"))).unwrap(), vec![7; SMALL]);
        });
        assert_eq!(each, [1, 1], "{words}");
        pair.unmount();
    }
}

#[test]
fn an_open_that_cannot_be_recognized_asks_twice() {
    let _one = one_at_a_time();
    let pair = Pair::plain("openat2");
    for n in 0..FILES {
        pair.replace(&format!("f{n}"), n);
    }
    let each = calls_for_each(&pair.mount, |n| {
        let path = CString::new(pair.at(&format!("f{n}")).as_os_str().as_bytes()).unwrap();
        let how = [libc::O_RDONLY as u64, 0, 0];
        let size = size_of_val(&how);
        // SAFETY: a path and three numbers that live until the call has returned.
        let fd =
            unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), size) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: a descriptor that nobody else has.
        let file = unsafe { File::from_raw_fd(fd as i32) };
        assert_eq!(version_of(&file), Some(n));
    });
    assert_eq!(each, [2, 1]);
    pair.unmount();
}

#[test]
fn the_master_learns_of_an_access_that_it_would_note() {
    let _one = one_at_a_time();
    let precise = "alluxio.master.file.access.time.update.precision";
    let pair = Pair::new("access-time", |spec| {
        spec.property(precise, "0").property("alluxio.fuse.debug.enabled", "true")
    });
    pair.replace("file", 1);
    assert_eq!(read(&pair.at("file")).unwrap(), b"00000001");
    let told = pair.mount.logged("access_mode: Some(Read)");
    assert!(told.iter().any(|line| line.contains("update_timestamps: Some(true)")), "{told:?}");
    pair.unmount();
}

/// The table of SEMANTICS.md.
#[test]
fn everyday_work_takes_these_calls_to_the_master() {
    let _one = one_at_a_time();
    let pair = Pair::new("everyday", |spec| spec.option("entry_timeout=0,attr_timeout=60"));
    let mount = &pair.mount;
    let at = |name: &str, n: u32| pair.at(&format!("{name}{n}"));
    fs::write(pair.at("first"), "first").unwrap();
    let masters = |what: &str, work: &mut dyn FnMut(u32)| {
        let [masters, workers] = calls_for_each(mount, work);
        println!("| {what} | {masters} | {workers} |");
        masters
    };
    let make = masters("create, write, close", &mut |n| fs::write(at("f", n), [7; 4096]).unwrap());
    assert_eq!(make, 4, "LOOKUP, CreateFile, GetNewBlockIdForFile, CompleteFile");
    assert_eq!(masters("stat", &mut |n| assert!(fs::metadata(at("f", n)).is_ok())), 1);
    assert_eq!(masters("open, read, close", &mut |n| drop(fs::read(at("f", n)).unwrap())), 1);
    let write = masters("open to write, close", &mut |n| {
        drop(OpenOptions::new().write(true).open(at("f", n)).unwrap());
    });
    assert_eq!(write, 2, "LOOKUP, and what there is to write over, with the right to do so");
    assert_eq!(
        masters("chmod", &mut |n| {
            fs::set_permissions(at("f", n), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        3
    );
    assert_eq!(masters("rename", &mut |n| fs::rename(at("f", n), at("g", n)).unwrap()), 3);
    assert_eq!(masters("unlink", &mut |n| fs::remove_file(at("g", n)).unwrap()), 2);
    assert_eq!(masters("mkdir", &mut |n| fs::create_dir(at("d", n)).unwrap()), 3);
    assert_eq!(masters("rmdir", &mut |n| fs::remove_dir(at("d", n)).unwrap()), 3);

    for n in 0..100 {
        fs::write(at("x", n), "x").unwrap();
    }
    // With the names believed for a second, as by default, the attributes come with them.
    let before = calls(&pair.other)[0];
    let entries = fs::read_dir(pair.other.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    assert_eq!(entries.filter(|meta| meta.len() == 1).count(), 100);
    let listed = calls(&pair.other)[0] - before;
    println!("| ls -l of 100 | {listed} | 0 |");
    assert_eq!(listed, 2);
    pair.unmount();
}

/// What a thread does with a file before it opens it, by its name.
type Before<'a> = (&'a str, &'a dyn Fn(&mut Buffer, &Path));

/// Whatever a thread has asked for just before, its open shows what another client has made meanwhile.
#[test]
fn an_open_shows_what_was_made_before_it() {
    let _one = one_at_a_time();
    for words in ["direct_io", "entry_timeout=0", "metadata_cache_size=1000", "kernel_cache"] {
        let pair = Pair::new("fresh", |spec| spec.option(words));
        let mut number = 0;
        let mut buffer = Buffer([0; 4096]);
        let befores: [Before; 7] = [
            ("stat", &|_, file| assert!(fs::metadata(file).is_ok())),
            ("open", &|buffer, file| drop(buffer.open(file, libc::O_RDONLY).unwrap())),
            ("open(O_PATH)", &|buffer, file| drop(buffer.open(file, libc::O_PATH).unwrap())),
            ("open(O_DIRECTORY)", &|buffer, file| {
                let failed = buffer.open(file, libc::O_RDONLY | libc::O_DIRECTORY);
                assert_eq!(error_of(failed), Some(libc::ENOTDIR));
            }),
            ("open of something below", &|buffer, file| {
                assert_eq!(error_of(buffer.open(file.join("x"), libc::O_RDONLY)), Some(libc::ENOTDIR));
            }),
            ("open(O_EXCL)", &|buffer, file| {
                let failed = buffer.open(file, libc::O_RDONLY | libc::O_CREAT | libc::O_EXCL);
                assert_eq!(error_of(failed), Some(libc::EEXIST));
            }),
            ("open by another thread", &|_, file| {
                thread::scope(|scope| scope.spawn(|| drop(File::open(file).unwrap())).join().unwrap());
            }),
        ];
        for (round, (what, before)) in befores.iter().cycle().take(2 * befores.len()).enumerate() {
            // A name that nobody has looked up yet, and then once more with one that the kernel knows.
            let name = format!("file{}", round % befores.len());
            number += 1;
            pair.replace(&name, number);
            before(&mut buffer, &pair.at(&name));
            number += 1;
            pair.replace(&name, number);
            let file = buffer.open(pair.at(&name), libc::O_RDONLY).unwrap();
            assert_eq!(version_of(&file), Some(number), "after {what}, with {words}");
        }
        pair.unmount();
    }
}

/// The look-up of the first call is as good as that of the second, but for what happened between them: the same thread,
/// instruction, stack and arguments.
#[test]
fn an_open_that_failed_leaves_nothing_behind_for_the_same_call_made_again() {
    let _one = one_at_a_time();
    for words in ["direct_io", "entry_timeout=60,attr_timeout=60", "metadata_cache_size=1000"] {
        let pair = Pair::new("failed", |spec| spec.option(words));
        let mut buffer = Buffer([0; 4096]);
        // Between them somebody else may have looked the name up, so that the kernel goes by it.
        for (name, is_believed) in [("a", false), ("b", true), ("c", false), ("d", true)] {
            let file = pair.at(name);
            let mut outcomes = Vec::new();
            for (number, path) in [(1, file.join("x")), (2, file.clone())] {
                pair.replace(name, number);
                outcomes.push(buffer.open(path, libc::O_RDONLY).map(|file| version_of(&file)));
                if is_believed {
                    thread::scope(|scope| scope.spawn(|| drop(fs::metadata(&file))).join().unwrap());
                }
            }
            let [first, second] = outcomes.try_into().unwrap();
            assert_eq!(error_of(first), Some(libc::ENOTDIR), "it was looked up, {words}");
            assert_eq!(second.unwrap(), Some(2), "{words}");
        }
        pair.unmount();
    }
}

#[test]
fn an_open_after_one_that_was_not_permitted_shows_what_was_made_before_it() {
    if !users::are_available() {
        return;
    }
    let _one = one_at_a_time();
    let policy = ("alluxio.fuse.auth.policy.class", "alluxio.fuse.auth.SystemUserGroupAuthPolicy");
    let pair = Pair::new("refused", |spec| {
        spec.property(policy.0, policy.1).option("allow_other,default_permissions")
    });
    pair.replace("file", 1);
    let mode = |mode| {
        fs::set_permissions(pair.other.path().join("file"), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o600);
    let (refused, replaced) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            users::named("daemon").run(|| {
                let mut buffer = Buffer([0; 4096]);
                let first = buffer.open(pair.at("file"), libc::O_RDONLY);
                refused.wait();
                replaced.wait();
                assert_eq!(error_of(first), Some(libc::EACCES));
                // The kernel goes by the mode that it was told for as long as that holds.
                let mut opened = None;
                wait_until("the file can be opened", LIMIT, || {
                    opened = buffer.open(pair.at("file"), libc::O_RDONLY).ok();
                    opened.is_some()
                });
                assert_eq!(version_of(&opened.unwrap()), Some(2));
            });
        });
        refused.wait();
        pair.replace("file", 2);
        mode(0o644);
        replaced.wait();
    });
    pair.unmount();
}

#[test]
fn a_descriptor_without_a_path_is_reopened_as_what_is_there() {
    let _one = one_at_a_time();
    let pair = Pair::plain("reopened");
    pair.replace("file", 1);
    let mut buffer = Buffer([0; 4096]);
    let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(pair.at("file")).unwrap();
    let link = format!("/proc/self/fd/{}", path.as_raw_fd());
    assert_eq!(version_of(&buffer.open(&link, libc::O_RDONLY).unwrap()), Some(1));
    assert_eq!(error_of(buffer.open(pair.at("file/x"), libc::O_RDONLY)), Some(libc::ENOTDIR));
    pair.replace("file", 2);
    match buffer.open(&link, libc::O_RDONLY) {
        Ok(file) => assert_ne!(version_of(&file), Some(1)),
        Err(err) => assert_eq!(err.raw_os_error(), Some(libc::ESTALE), "it stands for a file that is gone"),
    }
    pair.unmount();
}

/// What a thread does between two opens.
fn disturb(buffer: &mut Buffer, file: &Path, step: u32) {
    match step % 5 {
        0 => {}
        1 => drop(fs::metadata(file)),
        2 => drop(buffer.open(file.join("x"), libc::O_RDONLY)),
        3 => drop(buffer.open(file, libc::O_RDONLY | libc::O_DIRECTORY)),
        _ => drop(buffer.open(file, libc::O_PATH)),
    }
}

#[test]
fn threads_that_open_a_file_beside_its_writer_never_see_what_was_replaced_before() {
    let _one = one_at_a_time();
    for words in ["direct_io", "entry_timeout=0", "metadata_cache_size=1000,entry_timeout=0"] {
        let pair = Pair::new("beside", |spec| spec.option(words));
        let (made, done) = (AtomicU32::new(1), AtomicBool::new(false));
        pair.replace("file", 1);
        let file = pair.at("file");
        let opens = AtomicU32::new(0);
        thread::scope(|scope| {
            for reader in 0..6 {
                let (made, done, opens, file) = (&made, &done, &opens, &file);
                scope.spawn(move || {
                    let mut buffer = Buffer([0; 4096]);
                    let mut step = reader;
                    while !done.load(Ordering::Acquire) {
                        disturb(&mut buffer, file, step);
                        let least = made.load(Ordering::Acquire);
                        // By the same instruction and stack: what the one that fails has looked up is not for the next.
                        let path = if step % 3 == 0 { file.join("x") } else { file.clone() };
                        // Replaced twice in the moment of the look-up: ESTALE, as SEMANTICS.md says.
                        if let Ok(opened) = buffer.open(path, libc::O_RDONLY)
                            && let Some(seen) = version_of(&opened)
                        {
                            assert!(seen >= least, "{seen} after {least}, with {words}");
                            opens.fetch_add(1, Ordering::Relaxed);
                        }
                        step += 1;
                    }
                });
            }
            for number in 2..60 {
                pair.replace("file", number);
                made.store(number, Ordering::Release);
            }
            done.store(true, Ordering::Release);
        });
        assert!(opens.into_inner() > 60, "too few to tell anything, with {words}");
        pair.unmount();
    }
}
