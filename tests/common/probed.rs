//! A mount of this process that is given requests which are made up, beside those of the kernel.

use std::io;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;

use alluxio_fuse::session::LibraryChoice;
use alluxio_fuse::session::Probe;
use alluxio_fuse::session::Session;
use alluxio_fuse::session::SessionOptions;
use alluxio_fuse::session::Stop;
use alluxio_fuse::session::Stopper;
use alluxio_fuse::vfs::Vfs;
use tempfile::TempDir;

/// Unmounted with its guard.
pub(crate) struct Probed {
    pub(crate) probe: Probe,
    stopper: Stopper,
    serving: Option<JoinHandle<io::Result<()>>>,
    _point: TempDir,
}

impl Probed {
    /// Mounts `vfs` with `library`, so that replies to the probe can leave by another descriptor than the session's own.
    pub(crate) fn new(library: LibraryChoice, vfs: &Arc<Vfs>) -> Self {
        let point = tempfile::Builder::new().prefix("probed-").tempdir().unwrap();
        let options = SessionOptions {
            library,
            clone_fd: true,
            passthrough: false,
            ..SessionOptions::new(point.path())
        };
        let session = Session::mount(&options, Arc::clone(vfs)).unwrap();
        let (probe, stopper) = (session.probe(), session.stopper());
        let serving = Some(thread::spawn(move || session.run()));
        Self { probe, stopper, serving, _point: point }
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        // Of no use beside the panic, if there is one.
        let _ = self.stopper.stop(Stop::Force);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}
