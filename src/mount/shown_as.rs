//! A file system whose files are shown as somebody's: the mount options `uid`, `gid` and `umask`. What is shown is
//! all that changes; the backend goes on with the true owners and modes.

use std::sync::Arc;

use bytes::Bytes;

use crate::fs::Attr;
use crate::fs::Backing;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::DirEntry;
use crate::fs::FileReader;
use crate::fs::FileSystem;
use crate::fs::FileWriter;
use crate::fs::FsPath;
use crate::fs::Layer;
use crate::fs::Listing;
use crate::fs::Naming;
use crate::fs::NoBacking;
use crate::fs::Result;
use crate::fs::SetAttr;
use crate::fs::Slices;

/// What is shown in the place of the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mask {
    /// Owner of everything.
    pub(super) uid: Option<u32>,
    /// Group of everything.
    pub(super) gid: Option<u32>,
    /// Everything has all permissions but these.
    pub(super) umask: Option<u32>,
}

impl Mask {
    fn apply(self, attr: Attr) -> Attr {
        Attr {
            uid: self.uid.unwrap_or(attr.uid),
            gid: self.gid.unwrap_or(attr.gid),
            mode: self.umask.map_or(attr.mode, |umask| 0o777 & !umask),
            ..attr
        }
    }
}

/// `inner`, shown through `mask`; `inner` itself if the mask hides nothing.
pub(super) fn shown_as(mask: Mask, inner: Arc<dyn FileSystem>) -> Arc<dyn FileSystem> {
    if mask == Mask::default() { inner } else { Arc::new(Shown { mask, inner }) }
}

struct Shown {
    mask: Mask,
    inner: Arc<dyn FileSystem>,
}

impl Layer for Shown {
    fn below(&self) -> &dyn FileSystem {
        &*self.inner
    }

    fn stat(&self, ctx: &Ctx, path: &FsPath) -> Result<Attr> {
        self.inner.stat(ctx, path).map(|attr| self.mask.apply(attr))
    }

    fn fresh_stat(&self, ctx: &Ctx, path: &FsPath) -> Result<Attr> {
        self.inner.fresh_stat(ctx, path).map(|attr| self.mask.apply(attr))
    }

    fn list(&self, ctx: &Ctx, path: &FsPath) -> Result<Box<dyn Listing>> {
        let inner = self.inner.list(ctx, path)?;
        Ok(Box::new(ShownListing { mask: self.mask, inner }))
    }

    fn make_dir(&self, ctx: &Ctx, path: &FsPath, mode: u32) -> Result<Attr> {
        self.inner.make_dir(ctx, path, mode).map(|attr| self.mask.apply(attr))
    }

    fn create(
        &self,
        ctx: &Ctx,
        path: &FsPath,
        options: &CreateOptions,
    ) -> Result<(Attr, Box<dyn FileWriter>)> {
        let (attr, inner) = self.inner.create(ctx, path, options)?;
        Ok((self.mask.apply(attr), Box::new(ShownWriter { mask: self.mask, inner })))
    }

    fn open(&self, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
        let inner = self.inner.open(ctx, path)?;
        let attr = self.mask.apply(inner.attr().clone());
        Ok(Arc::new(ShownReader { attr, inner }))
    }

    fn replace(&self, ctx: &Ctx, new: &FsPath, old: &FsPath) -> Result<Attr> {
        self.inner.replace(ctx, new, old).map(|attr| self.mask.apply(attr))
    }

    fn set_attr(&self, ctx: &Ctx, path: &FsPath, change: &SetAttr) -> Result<Attr> {
        self.inner.set_attr(ctx, path, change).map(|attr| self.mask.apply(attr))
    }
}

struct ShownListing {
    mask: Mask,
    inner: Box<dyn Listing>,
}

impl Listing for ShownListing {
    fn next_batch(&mut self, ctx: &Ctx) -> Result<Vec<DirEntry>> {
        let mut batch = self.inner.next_batch(ctx)?;
        for entry in &mut batch {
            entry.attr = self.mask.apply(entry.attr.clone());
        }
        Ok(batch)
    }

    fn renamed(&mut self, to: &FsPath) {
        self.inner.renamed(to);
    }

    fn is_snapshot(&self) -> bool {
        self.inner.is_snapshot()
    }
}

struct ShownReader {
    attr: Attr,
    inner: Arc<dyn FileReader>,
}

impl FileReader for ShownReader {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn read_at(&self, ctx: &Ctx, offset: u64, len: usize) -> Result<Slices> {
        self.inner.read_at(ctx, offset, len)
    }

    fn backing(&self, ctx: &Ctx) -> Result<std::result::Result<Backing, NoBacking>> {
        self.inner.backing(ctx)
    }
}

struct ShownWriter {
    mask: Mask,
    inner: Box<dyn FileWriter>,
}

impl FileWriter for ShownWriter {
    fn append(&mut self, ctx: &Ctx, data: &[u8]) -> Result<()> {
        self.inner.append(ctx, data)
    }

    fn append_given(&mut self, ctx: &Ctx, data: Bytes) -> Result<()> {
        self.inner.append_given(ctx, data)
    }

    fn sync(&mut self, ctx: &Ctx) -> Result<()> {
        self.inner.sync(ctx)
    }

    fn commit(&mut self, ctx: &Ctx) -> Result<Attr> {
        self.inner.commit(ctx).map(|attr| self.mask.apply(attr))
    }

    fn naming(&self) -> Option<Arc<dyn Naming>> {
        self.inner.naming()
    }

    fn can_move(&self) -> bool {
        self.inner.can_move()
    }

    fn renamed(&mut self, to: &FsPath) {
        self.inner.renamed(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::local::LocalFs;

    #[test]
    fn every_way_to_an_attribute_shows_the_mask() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn FileSystem> = Arc::new(LocalFs::open(dir.path()).unwrap());
        let fs = shown_as(Mask { uid: Some(71), gid: Some(72), umask: Some(0o027) }, Arc::clone(&store));
        let ctx = Ctx::daemon();
        let path = |text| FsPath::parse(text).unwrap();
        let seen = |attr: &Attr| (attr.uid, attr.gid, attr.mode);
        let expected = (71, 72, 0o750);

        assert_eq!(seen(&fs.make_dir(&ctx, &path("/d"), 0o700).unwrap()), expected);
        let options = CreateOptions { mode: 0o600, replace: false, beside: false };
        let (attr, mut writer) = fs.create(&ctx, &path("/d/f"), &options).unwrap();
        assert_eq!(seen(&attr), expected);
        writer.append(&ctx, b"x").unwrap();
        assert_eq!(seen(&writer.commit(&ctx).unwrap()), expected);
        assert_eq!(seen(fs.open(&ctx, &path("/d/f")).unwrap().attr()), expected);
        assert_eq!(seen(&fs.stat(&ctx, &path("/d/f")).unwrap()), expected);
        assert_eq!(seen(&fs.fresh_stat(&ctx, &path("/d/f")).unwrap()), expected);
        let batch = fs.list(&ctx, &path("/d")).unwrap().next_batch(&ctx).unwrap();
        assert_eq!(batch.iter().map(|entry| seen(&entry.attr)).collect::<Vec<_>>(), [expected]);
        let change = SetAttr { mode: Some(0o640), ..SetAttr::default() };
        assert_eq!(seen(&fs.set_attr(&ctx, &path("/d/f"), &change).unwrap()), expected);
        assert_eq!(store.stat(&ctx, &path("/d/f")).unwrap().mode, 0o640, "the truth is below");
    }
}
