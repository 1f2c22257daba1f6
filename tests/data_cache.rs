//! File data on local disks: the bytes are always those of the file, whatever happens to the cache, and what is there is not
//! fetched again.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::cluster::Cluster;
use common::content;
use common::content::Random;
use common::disk::SmallDisk;
use common::kernel;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::users;
use common::wait_until;
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// A mount of `store` with a cache of `size` in `dir`.
fn cached(store: &Path, dir: &Path, size: &str) -> Spec {
    Spec::local(store)
        .option(&format!("data_cache={}", dir.display()))
        .option(&format!("data_cache_size={size}"))
}

/// What the files below `dir` take.
fn taken(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let each = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => taken(&entry.path()),
        Ok(found) => found.blocks() * 512,
        // Gone meanwhile.
        Err(_) => 0,
    });
    each.sum()
}

/// The number before `unit` after `name` in the line about the cache that a QUIT leaves in the log.
fn figure(mount: &Mount, name: &str) -> u64 {
    let before = mount.logged("data cache: ").len();
    process::signal(mount.pid(), Signal::SIGQUIT);
    wait_until("the state is logged", LIMIT, || mount.logged("data cache: ").len() > before);
    let line = mount.logged("data cache: ").pop().unwrap();
    let rest = line.split(&format!("{name} ")).nth(1).unwrap_or_else(|| panic!("no {name} in {line}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// Waits until `size` bytes are on disk.
fn filled(mount: &Mount, size: u64) {
    wait_until("it is on disk", LIMIT, || figure(mount, "written") >= size / MIB);
}

#[test]
fn what_was_read_once_is_not_fetched_again_also_by_the_next_mount() {
    let (cluster, dir) = (Cluster::get(), tempfile::tempdir().unwrap());
    let remote = cluster.directory("data-cache");
    let spec = Spec::alluxio(&cluster, &remote.path)
        .property("alluxio.user.short.circuit.enabled", "false")
        .property("alluxio.user.file.passive.cache.enabled", "false")
        .property("alluxio.user.client.cache.enabled", "true")
        .property("alluxio.user.client.cache.dirs", dir.path().to_str().unwrap())
        .property("alluxio.user.client.cache.size", "256MB");
    let mount = spec.start();
    let size = 20 * MIB + 12_345;
    content::write_file(&mount.path().join("file"), 1, size).unwrap();
    // Pages that come faster than the disk takes them are not kept at first.
    wait_until("all of it is there", LIMIT, || {
        let loaded = figure(&mount, "loaded");
        content::check_file(&mount.path().join("file"), 1, size).unwrap();
        figure(&mount, "loaded") == loaded
    });
    filled(&mount, size);
    mount.unmount();

    let mount = spec.start();
    let file = File::open(mount.path().join("file")).unwrap();
    let mut random = Random::new(2);
    for _ in 0..200 {
        content::check_range(&file, 1, random.below(size - 4096), 4096).unwrap();
    }
    assert_eq!(figure(&mount, "loaded"), 0);
    drop(file);

    // A second client writes it anew, as long as before.
    let other = Spec::alluxio(&cluster, &remote.path).start();
    content::overwrite_file(&other.path().join("file"), 3, size).unwrap();
    other.unmount();
    wait_until("the new version is seen", LIMIT, || {
        content::check_file(&mount.path().join("file"), 3, size).is_ok()
    });
    mount.unmount();
}

#[test]
fn files_are_brought_there_looked_for_and_dropped_by_a_command() {
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(store.path().join("dir")).unwrap();
    for n in 0..6 {
        content::write_file(&store.path().join(format!("dir/{n}")), n, n * 1_500_000).unwrap();
    }
    let mount = cached(store.path(), dir.path(), "64MB").start();
    let preload = |words: &[&str], path: &str| {
        let output = process::output_within(
            mount.command().arg("preload").args(words).arg(mount.path().join(path)),
            LIMIT,
        );
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    };
    let (code, said) = preload(&["--check"], "");
    assert!(code == 1 && said.contains("1 of 6 files are in the cache, 0 B of 21.46 MiB"), "{code} {said}");
    let (code, said) = preload(&[], "dir");
    assert!(code == 0 && said.contains("5 files were read"), "{code} {said}");
    assert_eq!(preload(&["--check"], "dir").0, 0);
    let loaded = figure(&mount, "loaded");
    for n in 0..6 {
        content::check_file(&mount.path().join(format!("dir/{n}")), n, n * 1_500_000).unwrap();
    }
    assert_eq!(figure(&mount, "loaded"), loaded);
    assert_eq!(preload(&["--evict"], "dir/5").0, 0);
    let (code, said) = preload(&["--check"], "dir/5");
    assert!(code == 1 && said.contains("0 of 1 files"), "{code} {said}");
    let (code, said) = preload(&["-j", "1"], "");
    assert!(code == 0 && said.contains("1 files were read, 14.31 MiB were there before"), "{code} {said}");

    content::write_file(&store.path().join("large"), 9, 100 * MIB).unwrap();
    let (code, said) = preload(&[], "large");
    assert!(code == 1 && said.contains("--force"), "{code} {said}");
    let (code, said) = preload(&[], "absent");
    assert!(code == 1 && said.contains("absent"), "{code} {said}");
    mount.unmount();
    let plain = Spec::local(store.path()).start();
    let output = process::output_within(plain.command().arg("preload").arg(plain.path()), LIMIT);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no mount with a data cache"), "{output:?}");
    plain.unmount();
}

#[test]
fn what_is_there_is_dropped_by_looking_at_a_name() {
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(store.path().join("dir")).unwrap();
    for name in ["one", "dir/two"] {
        content::write_file(&store.path().join(name), 7, 2 * MIB).unwrap();
    }
    let mount = cached(store.path(), dir.path(), "64MB")
        .property("alluxio.fuse.special.command.enabled", "true")
        .start();
    let look = |name: &str| {
        fs::metadata(mount.path().join(name.replace('@', ".alluxiocli.datacache"))).unwrap().len()
    };
    let read = || {
        for name in ["one", "dir/two"] {
            content::check_file(&mount.path().join(name), 7, 2 * MIB).unwrap();
        }
        wait_until("all is there", LIMIT, || look("@.size") >= 4 * MIB);
    };
    read();
    assert_eq!(look("dir/@.drop"), 0);
    assert!((2 * MIB..3 * MIB).contains(&look("dir/@.size")), "{}", look("@.size"));
    read();
    look("@.dropAll");
    assert_eq!((look("@.size"), taken(dir.path()) / MIB), (0, 0));
    read();
    mount.unmount();
}

#[test]
fn a_file_that_is_there_whole_is_read_by_the_kernel() {
    if !users::are_available() || !kernel::is_since(6, 9) {
        return;
    }
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    content::write_file(&store.path().join("file"), 6, 3 * MIB + 7).unwrap();
    let spec = cached(store.path(), dir.path(), "64MB");
    let passed = "opens for reading (passed through)";
    let mount = spec.start();
    content::check_file(&mount.path().join("file"), 6, 3 * MIB + 7).unwrap();
    wait_until("its four pages are there", LIMIT, || figure(&mount, "cache:") == 4);
    assert_eq!(mount.counted(passed), 0);
    // Until the kernel lets go of it, some time after its close, the first reader excludes passthrough.
    wait_until("it is let go", LIMIT, || mount.open_handles() == 0);
    content::check_file(&mount.path().join("file"), 6, 3 * MIB + 7).unwrap();
    assert_eq!(mount.counted(passed), 1);
    mount.unmount();
    // One that an earlier process has left is checked first.
    let mount = spec.start();
    content::check_file(&mount.path().join("file"), 6, 3 * MIB + 7).unwrap();
    assert_eq!((mount.counted(passed), figure(&mount, "loaded")), (1, 0));
    mount.unmount();
}

#[test]
fn a_large_file_that_an_earlier_mount_has_left_is_read_by_the_kernel_once_it_was_checked() {
    if !users::are_available() || !kernel::is_since(6, 9) {
        return;
    }
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let size = 20 * MIB + 7;
    content::write_file(&store.path().join("file"), 8, size).unwrap();
    let spec = cached(store.path(), dir.path(), "64MB");
    let mount = spec.start();
    let is_passed = |mount: &Mount| {
        content::check_file(&mount.path().join("file"), 8, size).unwrap();
        mount.counted("opens for reading (passed through)") > 0
    };
    // Pages that come faster than the disk takes them are not kept at first.
    wait_until("all of it is there", LIMIT, || is_passed(&mount));
    mount.unmount();
    let mount = spec.start();
    wait_until("it was checked", LIMIT, || is_passed(&mount));
    assert_eq!((figure(&mount, "loaded"), figure(&mount, "damaged")), (0, 0));
    mount.unmount();
}

#[test]
fn at_the_limit_of_memory_files_are_read_and_cached_all_the_same() {
    let (cluster, dir) = (Cluster::get(), tempfile::tempdir().unwrap());
    let remote = cluster.directory("data-cache-memory");
    // One page at a time, beside what is being fetched.
    let mount = Spec::alluxio(&cluster, &remote.path)
        .option(&format!("data_cache={},data_cache_size=64MB", dir.path().display()))
        .property("alluxio.user.short.circuit.enabled", "false")
        .property("alluxio.user.file.writetype.default", "MUST_CACHE")
        .property("alluxio.fuse.memory.limit", "2MB")
        .start();
    let size = 5 * MIB + 77;
    (0..6).for_each(|n| content::write_file(&mount.path().join(n.to_string()), n, size).unwrap());
    thread::scope(|scope| {
        for n in 0..6 {
            let path = mount.path().join(n.to_string());
            scope.spawn(move || (0..2).for_each(|_| content::check_file(&path, n, size).unwrap()));
        }
    });
    wait_until("something is kept, now that there is memory", LIMIT, || {
        content::check_file(&mount.path().join("0"), 0, size).unwrap();
        figure(&mount, "written") > 0
    });
    mount.unmount();
}

#[test]
fn the_cache_is_private_and_for_one_mount_at_a_time() {
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    content::write_file(&store.path().join("file"), 1, 3 * MIB).unwrap();
    let spec = cached(store.path(), dir.path(), "64MB");
    let mount = spec.start();
    content::check_file(&mount.path().join("file"), 1, 3 * MIB).unwrap();
    filled(&mount, 3 * MIB);
    let refusal = spec.refusal();
    for part in ["alluxio.user.client.cache.dirs", &format!("process {} uses it", mount.pid()), "of its own"]
    {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
    let root = dir.path().join("alluxio-fuse-cache");
    assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o777, 0o700);
    content::check_file(&mount.path().join("file"), 1, 3 * MIB).unwrap();
    mount.unmount();
}

#[test]
fn bad_settings_are_refused_naming_them() {
    let store = tempfile::tempdir().unwrap();
    for (size, part) in [("1MB", "hold two pages"), ("much", "alluxio.user.client.cache.size=much")] {
        let refusal = cached(store.path(), store.path(), size).refusal();
        assert!(refusal.contains(part), "{refusal}");
    }
    let refusal = cached(store.path(), Path::new("/proc/nowhere"), "64MB").refusal();
    assert!(refusal.contains("/proc/nowhere"), "{refusal}");
}

#[test]
fn on_a_full_disk_files_are_read_all_the_same() {
    if !users::are_available() {
        return;
    }
    let (store, disk) = (tempfile::tempdir().unwrap(), SmallDisk::new(8));
    let size = 20 * MIB;
    content::write_file(&store.path().join("file"), 4, size).unwrap();
    let mount = cached(store.path(), disk.path(), "1GB").start();
    for _ in 0..3 {
        content::check_file(&mount.path().join("file"), 4, size).unwrap();
    }
    wait_until("a line in the log", LIMIT, || !mount.logged("cannot be written").is_empty());
    mount.unmount();
}

/// How often the daemon is killed; `CACHE_KILLS=100` for a long run.
fn kills() -> u64 {
    std::env::var("CACHE_KILLS").map_or(8, |text| text.parse().unwrap())
}

#[test]
fn a_daemon_that_is_killed_while_it_fills_the_cache_leaves_right_bytes_and_no_lost_space() {
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (files, limit) = (12_u64, 16 * MIB);
    let size = |n: u64| 1 + n * 700_000;
    (0..files).for_each(|n| content::write_file(&store.path().join(n.to_string()), n, size(n)).unwrap());
    let mut random = Random::new(5);
    for _ in 0..kills() {
        let mount = cached(store.path(), dir.path(), "16MB")
            .property("alluxio.user.client.cache.page.size", "256KB")
            .start();
        let (time, seed) = (Duration::from_micros(random.below(150_000)), random.below(1 << 40));
        thread::scope(|scope| {
            for reader in 0..3 {
                let point = mount.path();
                scope.spawn(move || {
                    let mut random = Random::new(seed + reader);
                    while let Ok(file) = File::open(point.join(random.below(files).to_string())) {
                        let n = fs::canonicalize(point).is_ok();
                        let len = file.metadata().map_or(0, |found| found.len());
                        if !n || len == 0 {
                            break;
                        }
                        let offset = random.below(len);
                        let seed = (len - 1) / 700_000;
                        if let Err(wrong) =
                            content::check_range(&file, seed, offset, (len - offset).min(900_000) as usize)
                        {
                            assert!(wrong.contains("os error") || wrong.contains("read"), "{wrong}");
                            break;
                        }
                    }
                });
            }
            thread::sleep(time);
            process::signal(mount.pid(), Signal::SIGKILL);
        });
        mount.crash();
        // What was being written when it was killed comes on top, until the next one looks.
        assert!(taken(dir.path()) <= limit + 4 * MIB, "{}", taken(dir.path()));
    }
    let mount = cached(store.path(), dir.path(), "16MB")
        .property("alluxio.user.client.cache.page.size", "256KB")
        .start();
    for _ in 0..2 {
        (0..files).for_each(|n| content::check_file(&mount.path().join(n.to_string()), n, size(n)).unwrap());
    }
    assert_eq!(figure(&mount, "damaged"), 0);
    mount.unmount();
    assert!(taken(dir.path()) <= limit, "{}", taken(dir.path()));
}

#[test]
fn the_words_of_o_are_properties() {
    let (store, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mount = cached(store.path(), dir.path(), "105MB").start();
    fs::metadata(mount.path()).unwrap();
    let line = format!("Data cache: up to 100 MiB of pages in {}", dir.path().display());
    assert_eq!(mount.logged(&line).len(), 1, "{}", mount.said());
    mount.unmount();
}
