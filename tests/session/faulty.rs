//! The embedded store with files that wait and files that panic.

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Wake;
use std::task::Waker;
use std::thread;
use std::thread::Thread;
use std::time::Duration;

use alluxio_fuse::backend::local::LocalFs;
use alluxio_fuse::fs::Attr;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::fs::Fault;
use alluxio_fuse::fs::FileReader;
use alluxio_fuse::fs::FileSystem;
use alluxio_fuse::fs::FsPath;
use alluxio_fuse::fs::Layer;
use alluxio_fuse::fs::Result;
use alluxio_fuse::fs::Slices;
use bytes::Bytes;

/// A store where reads of files called `wait..` last until they are interrupted or the gate opens, as do look-ups
/// of `slow`, and reads of `panic` panic. Those of `mapped` are answered from a mapped file that somebody has said.
pub(crate) struct Faulty {
    store: LocalFs,
    gate: Arc<Gate>,
}

/// What waiting reads wait for, and what was seen.
#[derive(Default)]
pub(crate) struct Gate {
    open: AtomicBool,
    waiting: AtomicUsize,
    interrupted: AtomicUsize,
    stats: AtomicUsize,
    mapped: OnceLock<Bytes>,
}

impl Gate {
    /// Says what `mapped` reads as.
    pub(crate) fn show(&self, mapped: Bytes) {
        self.mapped.set(mapped).expect("it is said once");
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Reads and look-ups that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Of these, those that were interrupted.
    pub(crate) fn interrupted(&self) -> usize {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Attributes that were asked for one by one.
    pub(crate) fn stats(&self) -> usize {
        self.stats.load(Ordering::SeqCst)
    }

    fn pass(&self, ctx: &Ctx) -> Result<()> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let interrupted = loop {
            if self.open.load(Ordering::SeqCst) {
                break false;
            }
            if ctx.cancel().register(&waker) {
                break true;
            }
            // The interrupt unparks; the gate is looked at now and then.
            thread::park_timeout(Duration::from_millis(20));
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if interrupted {
            self.interrupted.fetch_add(1, Ordering::SeqCst);
            return Err(Fault::Interrupted.into());
        }
        Ok(())
    }
}

impl Faulty {
    pub(crate) fn new(root: &Path) -> (Self, Arc<Gate>) {
        let gate = Arc::<Gate>::default();
        (Self { store: LocalFs::open(root).unwrap(), gate: Arc::clone(&gate) }, gate)
    }
}

struct FaultyReader {
    inner: Arc<dyn FileReader>,
    name: String,
    gate: Arc<Gate>,
}

impl FileReader for FaultyReader {
    fn attr(&self) -> &Attr {
        self.inner.attr()
    }

    fn read_at(&self, ctx: &Ctx, offset: u64, len: usize) -> Result<Slices> {
        if self.name.starts_with("wait") {
            self.gate.pass(ctx)?;
        }
        assert_ne!(self.name, "panic", "on purpose");
        if self.name == "mapped" {
            let (from, mut slices) = (offset as usize, Slices::new());
            slices.push_mapped(self.gate.mapped.get().unwrap().slice(from..from + len), true);
            return Ok(slices);
        }
        self.inner.read_at(ctx, offset, len)
    }
}

impl Layer for Faulty {
    fn below(&self) -> &dyn FileSystem {
        &self.store
    }

    fn stat(&self, ctx: &Ctx, path: &FsPath) -> Result<Attr> {
        self.gate.stats.fetch_add(1, Ordering::SeqCst);
        if path.name() == Some("slow") {
            self.gate.pass(ctx)?;
        }
        self.store.stat(ctx, path)
    }

    fn open(&self, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
        let inner = self.store.open(ctx, path)?;
        let name = path.name().unwrap_or_default().to_owned();
        Ok(Arc::new(FaultyReader { inner, name, gate: Arc::clone(&self.gate) }))
    }
}
