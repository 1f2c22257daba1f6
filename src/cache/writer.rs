//! A file that is being written below a cache of metadata, which is told when it becomes complete or goes.

use std::sync::Arc;

use super::remembered::Remembered;
use bytes::Bytes;

use crate::fs::Attr;
use crate::fs::Ctx;
use crate::fs::FileWriter;
use crate::fs::FsPath;
use crate::fs::Naming;
use crate::fs::Result;

/// The writer of the file `path`.
pub(super) struct Noted {
    /// None once it is dropped.
    below: Option<Box<dyn FileWriter>>,
    path: FsPath,
    memory: Arc<Remembered>,
}

impl Noted {
    pub(super) fn new(below: Box<dyn FileWriter>, path: FsPath, memory: Arc<Remembered>) -> Self {
        Self { below: Some(below), path, memory }
    }

    fn below(&mut self) -> &mut dyn FileWriter {
        self.below.as_deref_mut().expect("there until this is dropped")
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // What was not completed is removed by this, or has been taken away.
        drop(self.below.take());
        self.memory.changed(&self.path, true, false);
    }
}

impl FileWriter for Noted {
    fn append(&mut self, ctx: &Ctx, data: &[u8]) -> Result<()> {
        self.below().append(ctx, data)
    }

    fn append_given(&mut self, ctx: &Ctx, data: Bytes) -> Result<()> {
        self.below().append_given(ctx, data)
    }

    fn sync(&mut self, ctx: &Ctx) -> Result<()> {
        self.below().sync(ctx)
    }

    fn commit(&mut self, ctx: &Ctx) -> Result<Attr> {
        let result = self.below().commit(ctx);
        // In doubt, the file is not complete, and what is not is not remembered.
        self.memory.changed(&self.path, true, false);
        result
    }

    fn naming(&self) -> Option<Arc<dyn Naming>> {
        self.below.as_ref()?.naming()
    }

    fn can_move(&self) -> bool {
        self.below.as_ref().is_some_and(|below| below.can_move())
    }

    fn renamed(&mut self, to: &FsPath) {
        self.path = to.clone();
        self.below().renamed(to);
    }
}
