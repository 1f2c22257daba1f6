//! Files that are one local file are read by the kernel itself, with the right bytes, whatever else happens to the
//! file, and nothing is left behind; all others are read as ever.
//!
//! Needs root, as the kernel does; that others do without is tested in `permissions.rs`.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use memmap2::Mmap;
use nix::errno::Errno;
use nix::sys::statfs::TMPFS_MAGIC;
use nix::sys::statfs::statfs;
use tempfile::TempDir;

use common::cluster::Cluster;
use common::content;
use common::kernel;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::users;
use common::wait_until;

const PASSED: &str = "opens for reading (passed through)";
const READS: &str = "reads";
const SIZE: u64 = (3 << 20) + 4321;
const LIMIT: Duration = Duration::from_secs(30);

/// Words of `-o` for each way to treat the kernel's pages; `rw` is none of them.
const MODES: [&str; 4] = ["direct_io", "kernel_cache", "auto_cache", "rw"];

/// A mount of the embedded store, and the store.
fn local(spec: impl FnOnce(Spec) -> Spec) -> (TempDir, Mount) {
    let store = tempfile::tempdir().unwrap();
    let mount = spec(Spec::local(store.path())).start();
    (store, mount)
}

/// What the log says of it: the mount is there a moment earlier.
fn word_in_the_log(mount: &Mount) -> String {
    wait_until("a word in the log", LIMIT, || mount.logged("Passthrough: ").len() == 1);
    mount.logged("Passthrough: ").remove(0)
}

/// Whether the mount can pass anything through; says so if not.
fn is_in_use(mount: &Mount) -> bool {
    let said = word_in_the_log(mount);
    let in_use = said.contains("Passthrough: in use");
    if !in_use {
        eprintln!("not tested, as it cannot be had here: {said}");
        assert!(!users::are_available() || !kernel::is_since(6, 9), "root has it since 6.9");
    }
    in_use
}

/// That `file` has the bytes of `seed`, by read and by mmap.
#[track_caller]
fn check(file: &File, seed: u64, size: u64) {
    content::check_range(file, seed, 0, size as usize).unwrap();
    let mut expected = vec![0; size as usize];
    content::fill(seed, 0, &mut expected);
    // SAFETY: nobody changes what was opened.
    let map = unsafe { Mmap::map(file) }.unwrap();
    assert!(map[..] == expected[..], "other bytes in the mapping");
    assert_eq!(file.read_at(&mut [0; 10], size).unwrap(), 0);
}

/// That nobody has `file` open: only then a lease for writing is granted.
fn is_open_by_nobody(file: &Path) -> bool {
    let file = File::open(file).unwrap();
    // SAFETY: a system call on a descriptor that is open.
    let code = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    code == 0
}

/// Writes a new file, and waits as [`let_go`] does: nothing else is open.
#[track_caller]
fn write_file(mount: &Mount, path: &Path, seed: u64, size: u64) {
    content::write_file(path, seed, size).unwrap();
    let_go(mount, 0);
}

/// Waits until all is closed but `left` files. The kernel lets go of a descriptor some time after its close, and until
/// then a writer's excludes passthrough.
#[track_caller]
fn let_go(mount: &Mount, left: u64) {
    wait_until("what was closed is let go", LIMIT, || mount.open_handles() == left);
}

#[test]
fn the_kernel_reads_by_itself_in_all_modes_with_both_libfuse_versions() {
    for libfuse in [2, 3] {
        for mode in MODES {
            let (store, mount) = local(|spec| spec.libfuse(libfuse).option(mode));
            if !is_in_use(&mount) {
                return;
            }
            assert!(mount.uses_libfuse(libfuse));
            let path = mount.path().join("file");
            write_file(&mount, &path, 1, SIZE);
            let (first, second) = (File::open(&path).unwrap(), File::open(&path).unwrap());
            check(&first, 1, SIZE);
            check(&second, 1, SIZE);
            assert_eq!((mount.counted(PASSED), mount.counted(READS)), (2, 0), "libfuse {libfuse}, {mode}");
            assert!(!is_open_by_nobody(&store.path().join("file")));
            drop((first, second));
            wait_until("the backing file is let go", LIMIT, || is_open_by_nobody(&store.path().join("file")));
            mount.unmount();
        }
    }
}

#[test]
fn whoever_opens_a_file_that_is_passed_through_gets_what_it_asked_for() {
    for libfuse in [2, 3] {
        for mode in MODES {
            let (_store, mount) = local(|spec| spec.libfuse(libfuse).option(mode));
            if !is_in_use(&mount) {
                return;
            }
            open_in_all_ways(&mount);
            let said = mount.said();
            assert!(!said.contains(" ERROR "), "libfuse {libfuse}, {mode}: {said}");
            mount.unmount();
        }
    }
}

fn open_in_all_ways(mount: &Mount) {
    let path = mount.path().join("file");
    write_file(mount, &path, 1, SIZE);
    let old = File::open(&path).unwrap();
    assert_eq!(mount.counted(PASSED), 1);

    // By who could write, but only reads; then what is set by one shows by the other.
    let both = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    content::check_range(&both, 1, 0, 10_000).unwrap();
    content::check_range(&both, 1, SIZE - 10, 10).unwrap();
    both.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    old.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
    check(&old, 1, SIZE);
    // Another reader finds that one there, and is served as ever; when it has gone the kernel reads again.
    check(&File::open(&path).unwrap(), 1, SIZE);
    drop(both);
    wait_until("the kernel reads by itself again", LIMIT, || {
        let before = mount.counted(PASSED);
        check(&File::open(&path).unwrap(), 1, SIZE);
        mount.counted(PASSED) > before
    });

    // Written over, twice, while both versions are open.
    for seed in [2, 3] {
        let before = File::open(&path).unwrap();
        let mut writer = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        writer.write_all(b"1234").unwrap();
        assert_eq!(File::open(&path).unwrap_err().raw_os_error(), Some(Errno::EBUSY as i32));
        assert_eq!(path.metadata().unwrap().len(), 4);
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), b"1234");
        content::overwrite_file(&path, seed, SIZE).unwrap();
        content::check_file(&path, seed, SIZE).unwrap();
        check(&before, seed - 1, SIZE);
        check(&old, 1, SIZE);
        assert_eq!(old.metadata().unwrap().nlink(), 0, "as if removed");
    }

    // truncate(2) of what is open, and what is written then.
    let before = File::open(&path).unwrap();
    nix::unistd::truncate(&path, 0).unwrap();
    assert_eq!(path.metadata().unwrap().len(), 0);
    assert_eq!(fs::read(&path).unwrap(), b"");
    content::overwrite_file(&path, 4, SIZE).unwrap();
    content::check_file(&path, 4, SIZE).unwrap();
    check(&before, 3, SIZE);

    // Renamed, renamed over, removed.
    let (moved, other) = (mount.path().join("moved"), mount.path().join("other"));
    content::write_file(&other, 5, SIZE).unwrap();
    let file = File::open(&path).unwrap();
    fs::rename(&path, &moved).unwrap();
    check(&file, 4, SIZE);
    assert_eq!(file.metadata().unwrap().nlink(), 1);
    fs::rename(&other, &moved).unwrap();
    check(&file, 4, SIZE);
    content::check_file(&moved, 5, SIZE).unwrap();
    let file = File::open(&moved).unwrap();
    fs::remove_file(&moved).unwrap();
    check(&file, 5, SIZE);
    check(&old, 1, SIZE);
    assert_eq!(file.metadata().unwrap().nlink(), 0);
}

#[test]
fn readers_and_writers_at_once_never_fail_and_leave_nothing_behind() {
    for mode in ["direct_io", "kernel_cache"] {
        let (store, mount) = local(|spec| spec.option(mode));
        if !is_in_use(&mount) {
            return;
        }
        let path = mount.path().join("file");
        write_file(&mount, &path, 0, 10_000);
        drop(File::open(&path).unwrap());
        let before = process::descriptors(mount.pid());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        read_some_version(&path, mode == "direct_io");
                    }
                });
            }
            let outcome = (1..300).try_for_each(|seed| {
                let overwrite = || content::overwrite_file(&path, seed, 10_000);
                match overwrite() {
                    Err(err) if err.raw_os_error() == Some(Errno::ESTALE as i32) => overwrite(),
                    outcome => outcome,
                }
            });
            done.store(true, Ordering::Relaxed);
            outcome.unwrap();
        });
        let_go(&mount, 0);
        content::check_file(&path, 299, 10_000).unwrap();
        // Those before and after at the least: while a writer is there, opens are not passed through.
        assert!(mount.counted(PASSED) >= 2, "{mode}");
        wait_until("nothing is open", LIMIT, || {
            is_open_by_nobody(&store.path().join("file")) && process::descriptors(mount.pid()) <= before
        });
        mount.unmount();
    }
}

/// Reads the file at `path`, or gets EBUSY while the next version is written. `strictly` all of one: a reader that came
/// while a writer was there, and so is not passed through, shares the kernel's pages with it in some modes.
fn read_some_version(path: &Path, strictly: bool) {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(err) if err.raw_os_error() == Some(Errno::EBUSY as i32) => return,
        // Replaced twice while the kernel looked it up, as SEMANTICS.md says.
        Err(err) if err.raw_os_error() == Some(Errno::ESTALE as i32) => return,
        Err(err) => panic!("open: {err}"),
    };
    let mut got = vec![0; 10_001];
    let len = match file.read_at(&mut got, 0) {
        Ok(len) => len,
        // Through the daemon, of a version that is gone.
        Err(err) if err.raw_os_error() == Some(Errno::ESTALE as i32) => return,
        Err(err) => panic!("read: {err}"),
    };
    if !strictly {
        return;
    }
    assert!(len == 10_000 || len == 0, "{len} bytes");
    let mut expected = vec![0; 10_000];
    let of_one = (0..300).any(|seed| {
        content::fill(seed, 0, &mut expected);
        got[..len] == expected[..len]
    });
    assert!(of_one, "a mixture");
}

#[test]
fn o_direct_reads_what_there_is() {
    for dir in ["/dev/shm", env!("CARGO_TARGET_TMPDIR")] {
        let passes = statfs(dir).unwrap().filesystem_type() == TMPFS_MAGIC;
        let store = TempDir::with_prefix_in("alluxio-fuse-direct", dir).unwrap();
        let mount = Spec::local(store.path()).start();
        if !is_in_use(&mount) {
            return;
        }
        let path = mount.path().join("file");
        write_file(&mount, &path, 1, SIZE);
        let direct = || OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
        content::check_range(&direct(), 1, 3, 5000).unwrap();
        let plain = File::open(&path).unwrap();
        content::check_range(&direct(), 1, 3, 5000).unwrap();
        check(&plain, 1, SIZE);
        assert_eq!(mount.counted(READS) == 0, passes, "{dir}");
        mount.unmount();
    }
}

#[test]
fn switched_off_it_is_not_used() {
    for libfuse in [2, 3] {
        let (store, mount) =
            local(|spec| spec.libfuse(libfuse).property("alluxio.fuse.passthrough.enabled", "false"));
        let said = word_in_the_log(&mount);
        assert!(said.contains("not in use (switched off)"), "{said}");
        content::write_file(&store.path().join("file"), 1, SIZE).unwrap();
        content::check_file(&mount.path().join("file"), 1, SIZE).unwrap();
        assert_eq!(mount.counted(PASSED), 0);
        assert_eq!(mount.counted("opens for reading (switched off)"), 1);
        assert!(mount.counted(READS) > 0);
        mount.unmount();
    }
}

/// A directory of the cluster whose files stay at the worker alone, in blocks of 4 MiB.
fn alluxio(cluster: &Cluster, path: &str) -> Spec {
    Spec::alluxio(cluster, path)
        .property("alluxio.user.block.size.bytes.default", "4MB")
        .property("alluxio.user.file.writetype.default", "MUST_CACHE")
        .property("alluxio.user.block.read.retry.max.duration", "5sec")
}

/// The block file of `size` bytes at one of the workers: the sizes of these tests are like no other's.
fn block_file(cluster: &Cluster, size: u64) -> Option<PathBuf> {
    let mut dirs = vec![cluster.memory()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                Ok(meta) if meta.len() == size => return Some(entry.path()),
                _ => {}
            }
        }
    }
    None
}

/// A size below a block that only this call gives.
fn own_size() -> u64 {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    (1 << 20) + 7 * (u64::from(std::process::id()) % 300_000) + NEXT.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn a_file_of_one_block_of_a_local_worker_is_passed_through() {
    let cluster = Cluster::get();
    for libfuse in [2, 3] {
        for mode in MODES {
            let dir = cluster.directory("passthrough");
            let mount = alluxio(&cluster, &dir.path).libfuse(libfuse).option(mode).start();
            if !is_in_use(&mount) {
                return;
            }
            let path = mount.path().join("one");
            write_file(&mount, &path, 1, SIZE);
            check(&File::open(&path).unwrap(), 1, SIZE);
            assert_eq!((mount.counted(PASSED), mount.counted(READS)), (1, 0), "libfuse {libfuse}, {mode}");

            for (name, size, reason) in [("many", 2 * SIZE, "not one local file"), ("empty", 0, "empty file")]
            {
                let path = mount.path().join(name);
                write_file(&mount, &path, 1, size);
                content::check_file(&path, 1, size).unwrap();
                assert_eq!(mount.counted(&format!("opens for reading ({reason})")), 1, "{name}");
            }
            see_each_version(&mount);
            mount.unmount();
        }
    }
}

/// Whoever has a file open sees the version that it opened.
fn see_each_version(mount: &Mount) {
    let path = mount.path().join("versions");
    write_file(mount, &path, 1, SIZE);
    let old = File::open(&path).unwrap();
    let both = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    content::check_range(&both, 1, 0, 10_000).unwrap();
    drop(both);
    content::overwrite_file(&path, 2, SIZE).unwrap();
    content::check_file(&path, 2, SIZE).unwrap();
    let_go(mount, 1);
    let new = File::open(&path).unwrap();
    nix::unistd::truncate(&path, 0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
    fs::remove_file(&path).unwrap();
    check(&old, 1, SIZE);
    check(&new, 2, SIZE);
}

#[test]
fn without_a_local_worker_or_its_files_reads_go_through_a_worker() {
    let cluster = Cluster::get();
    let dir = cluster.directory("passthrough-remote");
    let mount = alluxio(&cluster, &dir.path).property("alluxio.user.short.circuit.enabled", "false").start();
    if !is_in_use(&mount) {
        return;
    }
    let path = mount.path().join("one");
    write_file(&mount, &path, 1, SIZE);
    content::check_file(&path, 1, SIZE).unwrap();
    assert_eq!(mount.counted("opens for reading (not on this machine)"), 1);
    mount.unmount();
}

#[test]
fn another_clients_new_version_is_read_beside_the_old_one() {
    let cluster = Cluster::get();
    let dir = cluster.directory("passthrough-replaced");
    let mount = alluxio(&cluster, &dir.path).start();
    if !is_in_use(&mount) {
        return;
    }
    let path = mount.path().join("one");
    write_file(&mount, &path, 1, SIZE);
    let old = File::open(&path).unwrap();
    let local = tempfile::tempdir().unwrap();
    content::write_file(&local.path().join("new"), 2, SIZE + 1).unwrap();
    cluster.shell(&["rm", &dir.join("one")]);
    cluster.shell(&["copyFromLocal", local.path().join("new").to_str().unwrap(), &dir.join("one")]);
    content::check_file(&path, 2, SIZE + 1).unwrap();
    check(&old, 1, SIZE);
    check(&File::open(&path).unwrap(), 2, SIZE + 1);
    mount.unmount();
}

#[test]
fn a_lease_is_held_until_the_last_release_and_no_longer() {
    let cluster = Cluster::get();
    let dir = cluster.directory("passthrough-lease");
    let mount = alluxio(&cluster, &dir.path).start();
    if !is_in_use(&mount) {
        return;
    }
    let size = own_size();
    let path = mount.path().join("one");
    write_file(&mount, &path, 1, size);
    let before = process::descriptors(mount.pid());
    for _ in 0..300 {
        let (first, second) = (File::open(&path).unwrap(), File::open(&path).unwrap());
        content::check_range(&first, 1, size - 100, 100).unwrap();
        content::check_range(&second, 1, 5, 100).unwrap();
    }
    assert_eq!(mount.counted(PASSED), 600);
    let block = block_file(&cluster, size).expect("the worker has it");
    // Connections may have come, but not one for each.
    wait_until("nothing is open", LIMIT, || {
        is_open_by_nobody(&block) && process::descriptors(mount.pid()) < before + 64
    });

    let (first, second) = (File::open(&path).unwrap(), File::open(&path).unwrap());
    let other = own_size();
    content::write_file(&path.with_extension("other"), 2, other).unwrap();
    let closed = block_file(&cluster, other).expect("the worker has it");
    fs::remove_file(&path).unwrap();
    fs::remove_file(path.with_extension("other")).unwrap();
    drop(first);
    wait_until("the worker removes what is not open", LIMIT, || !closed.exists());
    assert!(block.exists(), "removed while it is open");
    check(&second, 1, size);
    drop(second);
    wait_until("the worker removes the block", LIMIT, || !block.exists());
    mount.unmount();
}

#[test]
fn many_files_may_be_open_at_once() {
    let cluster = Cluster::get();
    let dir = cluster.directory("passthrough-many");
    let mount = alluxio(&cluster, &dir.path).start();
    if !is_in_use(&mount) {
        return;
    }
    let path = |n: u64| mount.path().join(format!("file{n}"));
    for n in 0..300 {
        content::write_file(&path(n), n, 100).unwrap();
    }
    let_go(&mount, 0);
    let files: Vec<File> = (0..300).map(|n| File::open(path(n)).unwrap()).collect();
    for (n, file) in files.iter().enumerate() {
        content::check_range(file, n as u64, 0, 100).unwrap();
    }
    assert_eq!(mount.counted(PASSED), 256);
    assert_eq!(mount.counted("opens for reading (too many at a time)"), 44);
    drop(files);
    mount.unmount();
}

#[test]
fn a_block_file_that_is_cut_off_under_its_mapping_is_an_error_for_its_reader_alone() {
    let cluster = Cluster::get();
    for options in ["direct_io", "direct_io,io_uring"] {
        let dir = cluster.directory("cut-off");
        let mount = alluxio(&cluster, &dir.path)
            .property("alluxio.fuse.passthrough.enabled", "false")
            .option(options)
            .start();
        let size = own_size();
        let (path, other) = (mount.path().join("one"), mount.path().join("other"));
        content::write_file(&path, 1, size).unwrap();
        content::write_file(&other, 2, SIZE).unwrap();
        let file = File::open(&path).unwrap();
        content::check_range(&file, 1, size / 2, 4096).unwrap();
        let block = block_file(&cluster, size).expect("the worker has it");
        cut_off(&block);
        let err = file.read_at(&mut [0; 4096], size / 2).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EIO), "{options}: {err}");
        // The kernel answers before the daemon knows.
        wait_until("a line in the log", LIMIT, || {
            mount.logged("became shorter while it was mapped").iter().any(|line| line.contains("/one"))
        });
        content::check_file(&other, 2, SIZE).unwrap();
        drop(file);
        mount.unmount();
    }
}

#[test]
fn a_page_of_the_data_cache_cannot_be_had_of_a_block_that_is_cut_off() {
    let cluster = Cluster::get();
    let (dir, cache) = (cluster.directory("cut-off"), tempfile::tempdir().unwrap());
    let mount = alluxio(&cluster, &dir.path)
        .property("alluxio.fuse.passthrough.enabled", "false")
        .property("alluxio.user.client.cache.page.size", "768KB")
        .option(&format!("direct_io,data_cache={},data_cache_size=64MB", cache.path().display()))
        .start();
    let (page, first, size) = (768 << 10, 4 << 20, own_size());
    let path = mount.path().join("two");
    content::write_file(&path, 1, first + size).unwrap();
    let file = File::open(&path).unwrap();
    // A page of the second block, which is then mapped.
    content::check_range(&file, 1, 6 * page, 4096).unwrap();
    cut_off(&block_file(&cluster, size).expect("the worker has it"));
    // The page before has bytes of both, so that the daemon has to put it together. It does so when it finds the time.
    let mut rest = vec![0; (6 * page - first - 8192) as usize];
    wait_until("a page that is not kept", LIMIT, || {
        let err = file.read_at(&mut rest, first + 8192).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
        !mount.logged("is not kept: ").is_empty()
    });
    content::check_range(&file, 1, 0, 5 * page as usize).unwrap();
    drop(file);
    mount.unmount();
}

#[test]
fn a_file_that_goes_on_after_its_block_was_cut_off_is_an_error_for_its_writer_alone() {
    let cluster = Cluster::get();
    let dir = cluster.directory("goes-on");
    // What goes to the under store as well is copied by the daemon.
    let mount = alluxio(&cluster, &dir.path)
        .property("alluxio.fuse.passthrough.enabled", "false")
        .property("alluxio.user.file.writetype.default", "CACHE_THROUGH")
        .start();
    let size = own_size();
    let mut file = File::create_new(mount.path().join("one")).unwrap();
    file.write_all(&vec![7; size as usize]).unwrap();
    // A close by the opener completes it; what follows makes a copy of it.
    drop(file.try_clone().unwrap());
    let reader = File::open(mount.path().join("one")).unwrap();
    reader.read_exact_at(&mut [0; 4096], size / 2).unwrap();
    cut_off(&block_file(&cluster, size).expect("the worker has it"));
    let err = file.write_all(b"more").unwrap_err();
    assert_eq!(err.raw_os_error(), Some(libc::EIO), "{err}");
    drop((file, reader));
    let other = mount.path().join("other");
    content::write_file(&other, 2, SIZE).unwrap();
    content::check_file(&other, 2, SIZE).unwrap();
    mount.unmount();
}

/// Leaves a block file with its first page only.
fn cut_off(block: &Path) {
    OpenOptions::new().write(true).open(block).unwrap().set_len(4096).unwrap();
}
