//! Who has a file open when its name goes to another, or is removed, reads the bytes that there were or an error:
//! never those of another file, and never a mixture. Who writes it goes on.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use memmap2::MmapOptions;
use nix::errno::Errno;

use common::cluster::Cluster;
use common::cluster::RemoteDir;
use common::content;
use common::mount::Mount;
use common::mount::Spec;
use common::wait_until;

const BLOCK: u64 = 1 << 20;
/// Three blocks and a bit.
const SIZE: u64 = 3 * BLOCK + 12_345;
const PIECE: usize = 50_000;

/// Ways to read that differ in where the bytes come from and who keeps them.
const WAYS: [(&str, &str, &str); 4] = [
    ("direct_io", "true", "CACHE"),
    ("direct_io", "false", "CACHE"),
    ("direct_io", "false", "NO_CACHE"),
    ("kernel_cache", "false", "CACHE"),
];

struct Place {
    cluster: Cluster,
    dir: RemoteDir,
    mount: Mount,
}

impl Place {
    fn new((mode, short_circuit, read_type): (&str, &str, &str)) -> Place {
        let cluster = Cluster::get();
        let dir = cluster.directory("open-files");
        let mount = spec(&cluster, &dir)
            .option(mode)
            .property("alluxio.user.short.circuit.enabled", short_circuit)
            .property("alluxio.user.file.readtype.default", read_type)
            .start();
        Place { cluster, dir, mount }
    }

    /// A new file with the content of `seed`, and its path.
    fn file(&self, name: &str, seed: u64) -> PathBuf {
        let path = self.mount.path().join(name);
        content::write_file(&path, seed, SIZE).unwrap();
        path
    }

    /// Lets the workers forget the blocks of `name`, so that the under store has the only copy.
    fn free(&self, name: &str) {
        self.cluster.shell(&["free", &self.dir.join(name)]);
        wait_until("the blocks are gone from the workers", Duration::from_secs(30), || {
            let said = self.cluster.shell(&["ls", &self.dir.join(name)]);
            said.contains(" 0% ")
        });
    }

    /// Another client puts other bytes in the place of `name`.
    fn replace_by_others(&self, name: &str, seed: u64) {
        let local = tempfile::tempdir().unwrap();
        let new = local.path().join("new");
        content::write_file(&new, seed, SIZE + 1).unwrap();
        self.cluster.shell(&["rm", &self.dir.join(name)]);
        self.cluster.shell(&["copyFromLocal", new.to_str().unwrap(), &self.dir.join(name)]);
    }
}

fn spec(cluster: &Cluster, dir: &RemoteDir) -> Spec {
    Spec::alluxio(cluster, &dir.path)
        .property("alluxio.user.block.size.bytes.default", &BLOCK.to_string())
        .property("alluxio.user.file.passive.cache.enabled", "false")
        .property("alluxio.user.block.read.retry.max.duration", "5sec")
}

/// How much of a file that was replaced or removed could still be read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    pieces: u64,
    stale: u64,
}

/// Reads all of `file` from `from` on: each piece is as it was, or ESTALE.
fn read_old(file: &File, seed: u64, from: u64) -> Read {
    let mut read = Read::default();
    for offset in (from..SIZE).step_by(PIECE) {
        let len = PIECE.min((SIZE - offset) as usize);
        let (mut got, mut expected) = (vec![0; len], vec![0; len]);
        match file.read_exact_at(&mut got, offset) {
            Ok(()) => {
                content::fill(seed, offset, &mut expected);
                assert!(got == expected, "other bytes at {offset}");
                read.pieces += 1;
            }
            Err(err) => {
                assert_eq!(err.raw_os_error(), Some(Errno::ESTALE as i32), "at {offset}: {err}");
                read.stale += 1;
            }
        }
    }
    read
}

#[test]
fn who_has_a_removed_file_open_reads_its_bytes_or_an_error() {
    for way in WAYS {
        let place = Place::new(way);
        let path = place.file("file", 1);
        let file = File::open(&path).unwrap();
        content::check_range(&file, 1, 0, PIECE).unwrap();
        fs::remove_file(&path).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!((meta.len(), meta.nlink()), (SIZE, 0));
        read_old(&file, 1, 0);
        // Another file of that name is another file.
        content::write_file(&path, 2, SIZE).unwrap();
        read_old(&file, 1, 0);
        content::check_file(&path, 2, SIZE).unwrap();
        drop(file);

        let file = File::open(&path).unwrap();
        place.cluster.shell(&["rm", &place.dir.join("file")]);
        read_old(&file, 2, 0);
        let meta = file.metadata().unwrap();
        assert_eq!((meta.len(), meta.nlink()), (SIZE, 0), "removed by another client");
        drop(file);
        place.mount.unmount();
    }
}

#[test]
fn who_has_a_replaced_file_open_never_reads_bytes_of_the_new_one() {
    for way in WAYS {
        let place = Place::new(way);
        let path = place.file("file", 3);
        let old = File::open(&path).unwrap();
        content::check_range(&old, 3, 0, PIECE).unwrap();
        place.replace_by_others("file", 4);
        read_old(&old, 3, 0);
        // At once, though the kernel may still know the old one by this name.
        let new = File::open(&path).unwrap();
        content::check_range(&new, 4, 0, PIECE).unwrap();
        content::check_range(&new, 4, SIZE + 1 - PIECE as u64, PIECE).unwrap();
        content::check_file(&path, 4, SIZE + 1).unwrap();
        read_old(&old, 3, 0);
        assert_eq!(old.metadata().unwrap().len(), SIZE);
        assert_eq!(new.metadata().unwrap().len(), SIZE + 1);
        assert_eq!(fs::metadata(&path).unwrap().len(), SIZE + 1);
        drop((old, new));
        place.mount.unmount();
    }
}

#[test]
fn bytes_from_the_under_store_are_those_of_the_file_that_was_opened() {
    for read_type in ["CACHE", "NO_CACHE"] {
        let place = Place::new(("direct_io", "false", read_type));
        let path = place.file("file", 5);
        place.free("file");
        let old = File::open(&path).unwrap();
        content::check_range(&old, 5, 0, 1000).unwrap();
        place.replace_by_others("file", 6);
        // The last block was not read before, so nobody but the under store had it, at a path that is another's now.
        let read = read_old(&old, 5, SIZE - PIECE as u64);
        assert_eq!(read, Read { pieces: 0, stale: 1 }, "{read_type}");
        read_old(&old, 5, 0);
        content::check_file(&path, 6, SIZE + 1).unwrap();
        drop(old);
        place.mount.unmount();
    }
}

#[test]
fn who_has_a_renamed_file_open_reads_on() {
    let place = Place::new(("direct_io", "false", "NO_CACHE"));
    let path = place.file("file", 7);
    place.file("other", 8);
    place.free("file");
    let file = File::open(&path).unwrap();
    content::check_range(&file, 7, 0, 1000).unwrap();
    // By another client, and another file in its place: in the under store as well.
    place.cluster.shell(&["mv", &place.dir.join("file"), &place.dir.join("moved")]);
    place.cluster.shell(&["mv", &place.dir.join("other"), &place.dir.join("file")]);
    let all = SIZE.div_ceil(PIECE as u64);
    assert_eq!(read_old(&file, 7, 0), Read { pieces: all, stale: 0 });
    // By this mount, over another file.
    fs::rename(place.mount.path().join("moved"), &path).unwrap();
    assert_eq!(read_old(&file, 7, 0), Read { pieces: all, stale: 0 });
    content::check_file(&path, 7, SIZE).unwrap();
    drop(file);
    place.mount.unmount();
}

#[test]
fn who_has_a_file_open_that_is_renamed_over_reads_its_bytes_or_an_error() {
    for way in WAYS {
        let place = Place::new(way);
        let path = place.file("file", 9);
        let old = File::open(&path).unwrap();
        content::check_range(&old, 9, 0, PIECE).unwrap();
        fs::rename(place.file("new", 10), &path).unwrap();
        read_old(&old, 9, 0);
        content::check_file(&path, 10, SIZE).unwrap();
        read_old(&old, 9, 0);
        drop(old);
        place.mount.unmount();
    }
}

#[test]
fn a_file_that_is_being_written_moves_while_it_is() {
    let place = Place::new(("direct_io", "true", "CACHE"));
    let root = place.mount.path();
    for (seed, by_others) in [(11, false), (12, true)] {
        let mut file = File::create_new(root.join("begun")).unwrap();
        let mut bytes = vec![0; SIZE as usize];
        content::fill(seed, 0, &mut bytes);
        file.write_all(&bytes[..PIECE]).unwrap();
        file.sync_all().unwrap();
        if by_others {
            place.cluster.shell(&["mv", &place.dir.join("begun"), &place.dir.join("ended")]);
        } else {
            fs::rename(root.join("begun"), root.join("ended")).unwrap();
        }
        file.write_all(&bytes[PIECE..]).unwrap();
        nix::unistd::close(file).unwrap();
        content::check_file(&root.join("ended"), seed, SIZE).unwrap();
        assert!(!root.join("begun").exists());
        fs::remove_file(root.join("ended")).unwrap();
    }
    place.mount.unmount();
}

#[test]
fn a_mapping_has_the_bytes_of_its_version_also_beside_one_of_another() {
    let [first, second] = [1, 2].map(|seed| {
        let mut bytes = vec![0; SIZE as usize];
        content::fill(seed, 0, &mut bytes);
        bytes
    });
    for shared in [true, false] {
        let store = tempfile::tempdir().unwrap();
        let mount = Spec::local(store.path())
            .option("direct_io")
            .property("alluxio.fuse.passthrough.enabled", "false")
            .start();
        let path = mount.path().join("file");
        let open = || {
            let (file, options) = (File::open(&path).unwrap(), MmapOptions::new());
            // SAFETY: what is opened stays as it is.
            unsafe { if shared { options.map(&file) } else { options.map_copy_read_only(&file) } }.unwrap()
        };
        content::write_file(&path, 1, SIZE).unwrap();
        let old = open();
        content::overwrite_file(&path, 2, SIZE).unwrap();
        let new = open();
        // Each finds there what the other has put into the kernel's pages, if they share them.
        for (at, pieces) in first.chunks(PIECE).zip(second.chunks(PIECE)).enumerate() {
            let range = at * PIECE..at * PIECE + pieces.0.len();
            assert!(old[range.clone()] == *pieces.0, "piece {at} of the old version");
            assert!(new[range] == *pieces.1, "piece {at} of the new version");
        }
        drop((old, new));
        mount.unmount();
    }
}

#[test]
fn a_file_that_another_client_is_writing_is_busy_and_can_be_read_when_it_is_complete() {
    let place = Place::new(("direct_io", "true", "CACHE"));
    let writer = spec(&place.cluster, &place.dir).start();
    let path = place.mount.path().join("file");
    let mut file = File::create_new(writer.path().join("file")).unwrap();
    let mut bytes = vec![0; SIZE as usize];
    content::fill(13, 0, &mut bytes);
    file.write_all(&bytes).unwrap();
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(errno(File::open(&path)), Some(Errno::EBUSY));
        assert_eq!(errno(File::options().write(true).open(&path)), Some(Errno::EBUSY));
        assert!(began.elapsed() < Duration::from_secs(2), "it waited {:?}", began.elapsed());
    }
    assert!(fs::metadata(&path).unwrap().is_file());
    nix::unistd::close(file).unwrap();
    content::check_file(&path, 13, SIZE).unwrap();
    place.mount.unmount();
    writer.unmount();
}

fn errno(result: std::io::Result<File>) -> Option<Errno> {
    result.err().and_then(|err| err.raw_os_error()).map(Errno::from_raw)
}
