//! A file of the embedded store that is being written.
//!
//! The file stands under its name from the start, as in Alluxio, and counts as unfinished in this process
//! until it is committed. One that replaces another takes its name by a rename, so the other is never seen half
//! emptied. Given up, it is removed if the name is still its own.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::fcntl::renameat;
use nix::sys::stat::Mode;
use nix::sys::stat::fchmod;
use nix::sys::stat::fstat;
use nix::unistd::UnlinkatFlags;
use nix::unistd::unlinkat;

use super::Store;
use super::reader::errno_of;
use super::translate;
use crate::fs::Attr;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FileWriter;
use crate::fs::FsPath;
use crate::fs::Naming;
use crate::fs::Result;

pub(super) struct LocalWriter {
    store: Arc<Store>,
    file: File,
    path: FsPath,
    id: u64,
    committed: bool,
}

impl LocalWriter {
    pub(super) fn create(
        store: &Arc<Store>,
        ctx: &Ctx,
        path: &FsPath,
        options: &CreateOptions,
    ) -> Result<(Attr, Self)> {
        let (dir, name) = store.place(path)?;
        let replaced = options.replace && exists(store, &dir, name)?;
        // Only for the moment between making a file and putting it in the place of another.
        let made = if replaced { path.beside()? } else { path.clone() };
        let made_name = made.name().expect("it has a parent");
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&dir, made_name, flags, Mode::from_bits_truncate(0o600)).map_err(translate)?;
        let stat = fstat(&file).map_err(translate)?;
        store.unfinished.lock().insert(stat.st_ino);
        // From here on, an error removes the file again.
        let mut writer = Self {
            store: Arc::clone(store),
            file: File::from(file),
            path: made.clone(),
            id: stat.st_ino,
            committed: false,
        };
        if !options.replace {
            store.adopt(ctx, &dir, &writer.file)?;
        }
        // After that, as a change of owner clears the bits that let a program run as another user.
        fchmod(&writer.file, Mode::from_bits_truncate(options.mode)).map_err(translate)?;
        if replaced {
            renameat(&dir, made_name, &dir, name).map_err(translate)?;
            writer.path = path.clone();
        }
        let attr = writer.attr()?;
        Ok((attr, writer))
    }

    fn attr(&self) -> Result<Attr> {
        self.store.attr(&fstat(&self.file).map_err(translate)?)
    }

    /// Removes the file, if the name is still its own.
    fn remove(&self) -> Result<()> {
        let (dir, name) = self.store.place(&self.path)?;
        if self.store.stat_at(&dir, name)?.id == self.id {
            unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir).map_err(translate)?;
        }
        Ok(())
    }
}

/// Whether there is a file to be replaced; a directory cannot be.
fn exists(store: &Store, dir: impl AsFd, name: &str) -> Result<bool> {
    match store.stat_at(dir, name) {
        Ok(attr) if attr.kind == FileKind::Directory => Err(Fault::IsDirectory.into()),
        Ok(_) => Ok(true),
        Err(error) if error.fault() == Fault::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl FileWriter for LocalWriter {
    fn append(&mut self, _ctx: &Ctx, data: &[u8]) -> Result<()> {
        self.file.write_all(data).map_err(|error| translate(errno_of(&error)))
    }

    fn sync(&mut self, _ctx: &Ctx) -> Result<()> {
        self.file.sync_all().map_err(|error| translate(errno_of(&error)))
    }

    fn commit(&mut self, _ctx: &Ctx) -> Result<Attr> {
        self.store.unfinished.lock().remove(&self.id);
        self.committed = true;
        self.attr()
    }

    fn naming(&self) -> Option<Arc<dyn Naming>> {
        None
    }

    fn can_move(&self) -> bool {
        true
    }

    fn renamed(&mut self, to: &FsPath) {
        self.path = to.clone();
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        match self.remove() {
            Ok(()) => {}
            Err(error) if error.fault() == Fault::NotFound => {}
            Err(error) => log::warn!("the unfinished file {} could not be removed: {error}", self.path),
        }
        self.store.unfinished.lock().remove(&self.id);
    }
}
