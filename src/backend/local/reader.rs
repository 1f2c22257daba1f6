//! A file of the embedded store, open for reading.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::translate;
use crate::fs::Attr;
use crate::fs::Backing;
use crate::fs::Ctx;
use crate::fs::FileReader;
use crate::fs::NoBacking;
use crate::fs::Result;
use crate::fs::Slices;
use crate::metrics::Source;

pub(super) struct LocalReader {
    file: Arc<File>,
    attr: Attr,
}

impl LocalReader {
    pub(super) fn new(file: OwnedFd, attr: Attr) -> Self {
        Self { file: Arc::new(File::from(file)), attr }
    }
}

impl FileReader for LocalReader {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    /// One copy, out of the page cache. Not a mapping: another program may shorten the file meanwhile, and a
    /// mapping would then end this process with SIGBUS.
    fn read_at(&self, _ctx: &Ctx, offset: u64, len: usize) -> Result<Slices> {
        let left = self.attr.size.saturating_sub(offset);
        let mut data = vec![0; len.min(usize::try_from(left).unwrap_or(usize::MAX))];
        let mut filled = 0;
        while filled < data.len() {
            match self.file.read_at(&mut data[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(translate(errno_of(&error))),
            }
        }
        data.truncate(filled);
        Ok(Slices::from(Bytes::from(data)).from_source(Source::Store))
    }

    /// The opened file itself. Other programs can change it, and that shows at once, as in any local file system.
    fn backing(&self, _ctx: &Ctx) -> Result<std::result::Result<Backing, NoBacking>> {
        Ok(Ok(Backing { file: Arc::clone(&self.file), keeper: Box::new(()), is_copy: false }))
    }
}

pub(super) fn errno_of(error: &std::io::Error) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
