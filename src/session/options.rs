//! How to mount, and which part of that goes to libfuse and which to the kernel.

use std::path::PathBuf;
use std::time::Duration;

use fuse_sys::Choice as LibraryChoice;
use fuse_sys::Library;

use super::init::Wishes;

/// How to mount.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Which libfuse.
    pub library: LibraryChoice,
    /// Where: a directory.
    pub mount_point: PathBuf,
    /// Shown as the source in the table of mounts.
    pub fs_name: String,
    /// Shown as the type, after `fuse.`.
    pub subtype: String,
    /// Words for libfuse and the kernel: `allow_other`, `default_permissions`, `ro`, `nosuid` and so on. Those that
    /// only concern the loop are heeded or have no meaning here; unknown ones make the mount fail.
    pub kernel_options: Vec<String>,
    /// Workers that may wait for a request once it has been quiet for a while.
    pub max_idle_threads: usize,
    /// Workers at a time. A worker that waits for the network holds one request, and interrupts need a free worker,
    /// so this is large.
    pub max_threads: usize,
    /// How long surplus workers stay after the last shortage.
    pub linger: Duration,
    /// A clone of `/dev/fuse` for each worker.
    pub clone_fd: bool,
    /// Take requests over io_uring, where the kernel offers it.
    pub io_uring: bool,
    /// Most bytes of one read, if less than the kernel's own limit.
    pub max_read: Option<u32>,
    /// Most bytes of one write.
    pub max_write: u32,
    /// Most bytes of read-ahead, if less than the kernel's own limit.
    pub max_readahead: Option<u32>,
    /// Most requests at a time that nobody waits for.
    pub max_background: Option<u16>,
    /// From how many of them on the kernel holds back.
    pub congestion_threshold: Option<u16>,
    /// Let the kernel read files by itself whose bytes are in one local file, where it can.
    pub passthrough: bool,
    /// Those local files may lie on overlayfs, or another file system over others. Then this one may be no part of such
    /// a file system itself.
    pub over_stacked: bool,
    /// Serve by libfuse's own loop instead of the session's, to compare them.
    pub libfuse_loop: bool,
    /// A request that takes as long is logged as a warning.
    pub slow: Duration,
    /// Have libfuse print each request.
    pub debug: bool,
}

impl SessionOptions {
    /// The defaults, for `mount_point`.
    pub fn new(mount_point: impl Into<PathBuf>) -> Self {
        Self {
            library: LibraryChoice::TwoThenThree,
            mount_point: mount_point.into(),
            fs_name: "alluxio-fuse".to_owned(),
            subtype: "alluxio-fuse".to_owned(),
            kernel_options: Vec::new(),
            max_idle_threads: 64,
            max_threads: 512,
            linger: Duration::from_secs(5),
            clone_fd: false,
            io_uring: false,
            max_read: None,
            max_write: MAX_WRITE,
            max_readahead: None,
            max_background: None,
            congestion_threshold: None,
            passthrough: true,
            over_stacked: false,
            libfuse_loop: false,
            slow: Duration::from_secs(10),
            debug: false,
        }
    }

    /// The words that this library is to be given.
    pub(super) fn words(&self, library: Library) -> Vec<String> {
        let mut words = vec![format!("fsname={}", self.fs_name), format!("subtype={}", self.subtype)];
        words.extend(self.max_read.map(|len| format!("max_read={len}")));
        words.extend(self.debug.then(|| "debug".to_owned()));
        let understood = |word: &&String| {
            let word = word.as_str();
            let only_2 = ONLY_LIBFUSE_2.contains(&word) && matches!(library, Library::V3(_));
            !only_2 && !SETTLED_HERE.contains(&word)
        };
        words.extend(self.kernel_options.iter().filter(understood).cloned());
        words
    }

    /// Most bytes of one write, as far as the kernel takes it.
    pub(super) fn max_write(&self) -> u32 {
        self.max_write.clamp(LEAST_WRITE, MAX_WRITE)
    }

    /// What to ask the kernel for. `passthrough` and `io_uring` say whether those can be had.
    pub(super) fn wishes(&self, passthrough: bool, io_uring: bool) -> Wishes {
        let mut flags = Wishes::FLAGS;
        if self.kernel_options.iter().any(|word| word == "sync_read") {
            flags = Wishes::sync_read(flags);
        }
        let max_background = self.max_background.unwrap_or(MAX_BACKGROUND);
        Wishes {
            flags,
            max_write: self.max_write(),
            max_readahead: self.max_readahead,
            max_background,
            congestion_threshold: self
                .congestion_threshold
                .unwrap_or(max_background / 4 * 3)
                .min(max_background),
            stack_depth: match (passthrough, self.over_stacked) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => 2,
            },
            io_uring,
        }
    }
}

/// The most that the kernel takes without a changed `fs.fuse.max_pages_limit`.
const MAX_WRITE: u32 = 1 << 20;

/// The kernel's own lower limit.
const LEAST_WRITE: u32 = 4096;

/// The kernel's default of 12 leaves a fast network idle under read-ahead.
const MAX_BACKGROUND: u16 = 64;

/// Options of libfuse 2 that version 3 does without, as it always acts like that.
const ONLY_LIBFUSE_2: &[&str] = &["nonempty", "large_read"];

/// Options of the library's loop and INIT, both of which are ours. They have no effect, but `sync_read`.
const SETTLED_HERE: &[&str] = &[
    "async_read",
    "sync_read",
    "big_writes",
    "atomic_o_trunc",
    "no_remote_lock",
    "no_remote_flock",
    "no_remote_posix_lock",
    "splice_read",
    "splice_write",
    "splice_move",
    "no_splice_read",
    "no_splice_write",
    "no_splice_move",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_gets_the_words_that_it_knows() {
        let options = SessionOptions {
            kernel_options: ["allow_other", "nonempty", "big_writes", "sync_read"]
                .map(str::to_owned)
                .to_vec(),
            max_read: Some(65536),
            ..SessionOptions::new("/mnt")
        };
        let library = |choice| fuse_sys::open(choice).unwrap();
        let common = ["fsname=alluxio-fuse", "subtype=alluxio-fuse", "max_read=65536", "allow_other"];
        assert_eq!(options.words(library(LibraryChoice::Only3)), common);
        assert_eq!(options.words(library(LibraryChoice::Only2)), [&common[..], &["nonempty"]].concat());
    }

    #[test]
    fn sizes_stay_within_what_the_kernel_takes() {
        let wishes = |max_write, max_background| {
            SessionOptions { max_write, max_background, ..SessionOptions::new("/mnt") }.wishes(false, false)
        };
        assert_eq!(wishes(1, None).max_write, 4096);
        assert_eq!(wishes(u32::MAX, None).max_write, 1 << 20);
        assert_eq!(wishes(1, Some(12)).congestion_threshold, 9);
        assert_eq!(wishes(1, None).congestion_threshold, 48);
    }
}
