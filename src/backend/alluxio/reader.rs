//! An open file for reading: maps the blocks that a local worker holds, and fetches ranges of the others.
//!
//! Every step of a fetch has a time-out of its own, and so has the trying of other workers: a read has none beside
//! those, so that it does not end while there is still another worker to ask.

use std::sync::Arc;

use super::Shared;
use super::layout::Piece;
use super::version;
use super::version::Member;
use crate::fs::Attr;
use crate::fs::Backing;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileReader;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::NoBacking;
use crate::fs::Result;
use crate::fs::Slices;
use crate::metrics;

/// Opens the complete file `path`, a path in Alluxio.
pub(super) fn open(shared: &Arc<Shared>, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
    let info = shared.bridge.run(ctx, None, async {
        let info = match shared.known(ctx, path, |info| !shared.is_access_noted(path, info)) {
            Some(info) => info,
            None => Arc::new(shared.master.open_status(path).await?),
        };
        if info.folder() {
            return Err(Fault::IsDirectory.into());
        }
        shared.check_read(path, &info).await?;
        if !info.completed() {
            return Err(FsError::because(Fault::Busy, format!("{path} is still being written")));
        }
        Ok(info)
    })?;
    let attr = shared.attr(&info);
    let version = version::join(shared, path, &info)?;
    Ok(Arc::new(Reader { path: path.clone(), attr, version }))
}

/// One handle. What it reads with, it shares with the others that have the same version open.
struct Reader {
    path: FsPath,
    attr: Attr,
    version: Member,
}

impl FileReader for Reader {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn read_at(&self, ctx: &Ctx, offset: u64, len: usize) -> Result<Slices> {
        ctx.check()?;
        let layout = self.version.layout();
        let wanted = layout.clip(offset, len);
        let mut slices = Slices::new();
        for Piece { block, range } in layout.pieces(wanted.clone()) {
            match self.version.mapped(ctx, block)? {
                Some(bytes) => {
                    metrics::BYTES_READ_LOCAL.add(range.end - range.start);
                    let part = bytes.slice(range.start as usize..range.end as usize);
                    slices.push_mapped(part, self.version.is_on_disk());
                }
                None => {
                    let start = layout.block_start(block);
                    slices.append(self.version.fetched(ctx, start + range.start..start + range.end)?);
                }
            }
        }
        assert_eq!(slices.len() as u64, wanted.end - wanted.start, "a read of {wanted:?} of {}", self.path);
        Ok(slices)
    }

    fn backing(&self, ctx: &Ctx) -> Result<std::result::Result<Backing, NoBacking>> {
        self.version.backing(ctx)
    }
}
