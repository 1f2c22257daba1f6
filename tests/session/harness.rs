//! A mount in this process that always goes away, and the tools to try it.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use alluxio_fuse::session::LibraryChoice;
use alluxio_fuse::session::Session;
use alluxio_fuse::session::SessionOptions;
use alluxio_fuse::session::Stop;
use alluxio_fuse::session::Stopper;
use alluxio_fuse::vfs::Vfs;
use alluxio_fuse::vfs::VfsOptions;
use tempfile::TempDir;

use crate::faulty::Faulty;
use crate::faulty::Gate;

/// Far more than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Runs the scenario once through each version of libfuse.
pub(crate) fn with_each_library(scenario: impl Fn(LibraryChoice)) {
    for library in [LibraryChoice::Only2, LibraryChoice::Only3] {
        scenario(library);
    }
}

/// A change of the options for each way that requests may come, with each library: one device for all, a clone for each
/// worker, rings. For the last one tests/setup/test switches it on in the kernel; where it is off, this tries that
/// a session goes on without.
pub(crate) fn with_each_transport(scenario: impl Fn(LibraryChoice, fn(&mut SessionOptions))) {
    let ways: [fn(&mut SessionOptions); 3] =
        [|_| {}, |options| options.clone_fd = true, |options| options.io_uring = true];
    for way in ways {
        with_each_library(|library| scenario(library, way));
    }
}

/// A mounted store.
pub(crate) struct Mount {
    /// The directory behind the mount.
    pub(crate) store: TempDir,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stopper: Stopper,
    point: TempDir,
    serving: Option<JoinHandle<io::Result<()>>>,
}

impl Mount {
    pub(crate) fn new(library: LibraryChoice) -> Self {
        Self::with(library, |_| {})
    }

    /// With other options than the usual ones.
    pub(crate) fn with(library: LibraryChoice, change: impl FnOnce(&mut SessionOptions)) -> Self {
        Self::with_vfs(library, VfsOptions::default(), change)
    }

    pub(crate) fn with_vfs(
        library: LibraryChoice,
        vfs_options: VfsOptions,
        change: impl FnOnce(&mut SessionOptions),
    ) -> Self {
        // What the session logs is shown with a test that fails.
        let _ = env_logger::builder().is_test(true).try_init();
        let directory = || tempfile::Builder::new().prefix("session-").tempdir().unwrap();
        let (store, point) = (directory(), directory());
        let (faulty, gate) = Faulty::new(store.path());
        let vfs = Arc::new(Vfs::new(Arc::new(faulty), vfs_options));
        let mut options = SessionOptions { library, ..SessionOptions::new(point.path()) };
        change(&mut options);
        let session = Session::mount(&options, Arc::clone(&vfs)).unwrap();
        let stopper = session.stopper();
        let session = session.start().unwrap();
        let serving = Some(thread::spawn(move || session.wait()));
        Self { store, vfs, gate, stopper, point, serving }
    }

    /// A path in the mount.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.point.path()
    }

    /// Puts a file into the store, past the mount.
    pub(crate) fn put(&self, name: &str, data: &[u8]) {
        fs::write(self.store.path().join(name), data).unwrap();
    }

    /// Waits until the session has ended by itself.
    pub(crate) fn wait_for_end(&mut self) -> io::Result<()> {
        let serving = self.serving.take().expect("it ends once");
        eventually("the session ends", || serving.is_finished());
        serving.join().unwrap()
    }

    pub(crate) fn is_mounted(&self) -> bool {
        mount_line(self.root()).is_some()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Errors would only hide the one that made the test fail.
        let _ = self.stopper.stop(Stop::Force);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
        // Should all else have failed.
        while self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(self.root()).status();
        }
    }
}

/// The line of mount(8) for the directory.
pub(crate) fn mount_line(path: &Path) -> Option<String> {
    let table = run(Command::new("mount").arg("-l"));
    let needle = format!(" on {} type ", path.display());
    String::from_utf8_lossy(&table.stdout).lines().find(|line| line.contains(&needle)).map(str::to_owned)
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// Runs the command, which must succeed, and returns what it prints.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Starts `cat` on the path; its output is thrown away.
pub(crate) fn cat(path: &Path) -> Child {
    Command::new("cat")
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for the condition.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not in {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for the child to end.
pub(crate) fn wait(child: &mut Child) -> std::process::ExitStatus {
    let mut status = None;
    eventually("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Bytes that tell where they are.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64 / 8 + 1).flat_map(u64::to_le_bytes).take(len).collect()
}
