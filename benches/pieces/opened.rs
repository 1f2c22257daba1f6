//! A file of the cluster that three have open, and a mount of this process to which requests for it are given.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use alluxio_fuse::backend::alluxio::AlluxioFs;
use alluxio_fuse::backend::alluxio::AlluxioOptions;
use alluxio_fuse::backend::alluxio::PathOptions;
use alluxio_fuse::backend::alluxio::WriteType;
use alluxio_fuse::fs::CreateOptions;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::FileReader;
use alluxio_fuse::fs::FileSystem;
use alluxio_fuse::fs::FsPath;
use alluxio_fuse::session::LibraryChoice;
use alluxio_fuse::session::ReadRequest;
use alluxio_fuse::vfs::Fh;
use alluxio_fuse::vfs::Ino;
use alluxio_fuse::vfs::Vfs;
use alluxio_fuse::vfs::VfsOptions;

use crate::probed::Probed;

const MIB: usize = 1 << 20;

/// Bytes of the file.
pub(crate) const SIZE: usize = 16 * MIB;

/// Bytes of the header of a reply.
pub(crate) const REPLY_HEADER: usize = 16;

/// How the bytes are there already.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// In block files of a worker on this machine, which are mapped.
    Mapped,
    /// In the window: fetched by another reader, and kept for those who are behind.
    Window,
}

/// Three readers, and three handles. The file goes with its guard.
pub(crate) struct Opened {
    pub(crate) readers: [Arc<dyn FileReader>; 3],
    pub(crate) handles: [Fh; 3],
    pub(crate) vfs: Arc<Vfs>,
    ino: Ino,
    name: String,
}

impl Opened {
    pub(crate) fn new(way: Way) -> Opened {
        let fs = connect(matches!(way, Way::Mapped));
        let name = format!("pieces-{}", std::process::id());
        let path = FsPath::parse(&format!("/{name}")).unwrap();
        let ctx = Ctx::daemon();
        let options = CreateOptions { mode: 0o644, replace: false, beside: false };
        let (_, mut writer) = fs.create(&ctx, &path, &options).unwrap();
        for _ in 0..SIZE / MIB {
            writer.append(&ctx, &[7; MIB]).unwrap();
        }
        writer.commit(&ctx).unwrap();
        let readers = [(); 3].map(|()| fs.open(&ctx, &path).unwrap());
        let vfs = Arc::new(Vfs::new(Arc::new(fs), VfsOptions::default()));
        let ino = vfs.lookup(&ctx, Ino::ROOT, OsStr::new(&name)).unwrap().ino;
        let handles = [(); 3].map(|()| vfs.open(&ctx, ino, libc::O_RDONLY).unwrap().fh);
        Opened { readers, handles, vfs, ino, name }
    }

    /// Has the bytes there, whatever was dropped meanwhile as nobody was reading.
    pub(crate) fn bring(&self) {
        for offset in (0..SIZE).step_by(MIB) {
            assert_eq!(self.readers[0].read_at(&Ctx::daemon(), offset as u64, MIB).unwrap().len(), MIB);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Of no use beside the panic, if there is one.
        let _ = self.vfs.unlink(&Ctx::daemon(), Ino::ROOT, OsStr::new(&self.name));
    }
}

/// The file behind a mount.
pub(crate) struct Mounted {
    mount: Probed,
    pub(crate) opened: Opened,
}

impl Mounted {
    pub(crate) fn new(library: LibraryChoice, way: Way) -> Mounted {
        let opened = Opened::new(way);
        Mounted { mount: Probed::new(library, &opened.vfs), opened }
    }

    /// One READ of `size` bytes after the other, for all of the file, by the handle `number`.
    pub(crate) fn requests(&self, number: usize, size: usize) -> Vec<ReadRequest> {
        let (ino, fh) = (self.opened.ino.0, self.opened.handles[number].0);
        // The kernel's own numbers are small.
        let unique = |offset: usize| (1 << 40) + 2 * (offset / size) as u64;
        (0..SIZE)
            .step_by(size)
            .map(|offset| ReadRequest::new(unique(offset), ino, fh, offset as u64, size as u32))
            .collect()
    }

    pub(crate) fn serve(&self, requests: &mut [ReadRequest], reply_fd: BorrowedFd<'_>) {
        self.mount.probe.serve(requests, reply_fd).unwrap();
    }
}

fn connect(short_circuit: bool) -> AlluxioFs {
    let master = std::env::var("ALLUXIO_TEST_MASTER").expect("ALLUXIO_TEST_MASTER=host:port names a cluster");
    let paths = PathOptions {
        block_size: 4 * MIB as u64,
        write_type: WriteType::MustCache,
        passive_cache: false,
        ..PathOptions::default()
    };
    let masters = vec![master.parse().unwrap()];
    let options = AlluxioOptions { masters, paths: paths.into(), short_circuit, ..AlluxioOptions::default() };
    AlluxioFs::connect(options).unwrap()
}
