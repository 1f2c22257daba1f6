//! A file system that remembers attributes, names and absent names of the one below it, for a time.
//!
//! What is changed through it is forgotten when the change has been made, before anybody learns that it was, and an
//! answer that was on its way meanwhile is not kept. Errors are not kept, but for absent names; nor are files that are
//! not complete. What gives somebody bytes is asked below each time, `open` and `fresh_stat`, and so is what is not kept:
//! extended attributes, the capacity.
//!
//! Who may ask for what is not a matter of this cache: below it all callers of a mount have the same rights, those of the
//! user of the mount, and the kernel checks those of each by the attributes, if it is to.

use std::sync::Arc;

use super::listing::Held;
use super::listing::Learning;
use super::loads::Reach;
use super::remembered::Boarding;
use super::remembered::MetadataOptions;
use super::remembered::Remembered;
use super::store::Known;
use super::writer::Noted;
use crate::fs::Attr;
use crate::fs::CreateOptions;
use crate::fs::Ctx;
use crate::fs::Fault;
use crate::fs::FileReader;
use crate::fs::FileSystem;
use crate::fs::FileWriter;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Layer;
use crate::fs::Listing;
use crate::fs::Memory;
use crate::fs::RenameMode;
use crate::fs::Result;
use crate::fs::SetAttr;
use crate::fs::XattrMode;
use crate::spans;

/// A file system with a memory for the metadata of another.
pub struct MetadataCache {
    below: Arc<dyn FileSystem>,
    memory: Arc<Remembered>,
}

impl MetadataCache {
    /// Remembers what `below` says, as far as `options` allow.
    pub fn new(below: Arc<dyn FileSystem>, options: MetadataOptions) -> Self {
        Self { below, memory: Arc::new(Remembered::new(options)) }
    }

    /// What is remembered: to be looked at, and to be forgotten.
    pub fn memory(&self) -> Arc<dyn Memory> {
        Arc::clone(&self.memory) as Arc<dyn Memory>
    }

    /// Makes a change of `path` and what is below it; with `names`, of the directory that it is in as well.
    fn change<T>(&self, path: &FsPath, names: bool, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut change = Change { memory: &self.memory, path, names, in_doubt: true };
        let result = make();
        change.in_doubt = result.as_ref().is_err_and(|error| is_in_doubt(error.fault()));
        result
    }
}

/// Whether a change that failed like this may be made all the same, even later.
fn is_in_doubt(fault: Fault) -> bool {
    matches!(fault, Fault::Interrupted | Fault::TimedOut | Fault::Unavailable | Fault::Io)
}

/// Until it is dropped, `path` is being changed. Then what was known of it and of all below it is forgotten, whatever has
/// become of the change.
struct Change<'a> {
    memory: &'a Remembered,
    path: &'a FsPath,
    /// Whether a name comes or goes.
    names: bool,
    /// The change may still be made, or be made in part.
    in_doubt: bool,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.memory.changed(self.path, self.names, self.in_doubt);
    }
}

fn found(known: Known) -> Result<Attr> {
    match known {
        Known::Attr(attr) => Ok(attr),
        Known::Absent => Err(FsError::new(Fault::NotFound)),
    }
}

impl Layer for MetadataCache {
    fn below(&self) -> &dyn FileSystem {
        &*self.below
    }

    fn stat(&self, ctx: &Ctx, path: &FsPath) -> Result<Attr> {
        let _step = spans::step("metadata cache");
        if let Some(known) = self.memory.known(path) {
            return found(known);
        }
        loop {
            match self.memory.board(path) {
                Boarding::Known(known) => return found(known),
                Boarding::Join(flight) => {
                    if let Some(answer) = flight.wait(ctx)? {
                        return answer;
                    }
                }
                Boarding::Ask(question) => {
                    let answer = self.below.stat(ctx, path);
                    question.answered(&answer);
                    return answer;
                }
            }
        }
    }

    fn fresh_stat(&self, ctx: &Ctx, path: &FsPath) -> Result<Attr> {
        let question = self.memory.ask(path, Reach::Path);
        let answer = self.below.fresh_stat(ctx, path);
        question.answered(&answer);
        answer
    }

    fn list(&self, ctx: &Ctx, path: &FsPath) -> Result<Box<dyn Listing>> {
        if let Some(entries) = self.memory.entries(path) {
            return Ok(Box::new(Held::new(entries)));
        }
        let question = self.memory.ask(path, Reach::Entries);
        Ok(Box::new(Learning::new(self.below.list(ctx, path)?, question)))
    }

    /// Keeps what may be done; what may not is asked again.
    fn access(&self, ctx: &Ctx, path: &FsPath, mask: u32) -> Result<()> {
        let ways = u8::try_from(mask & 0o7).expect("three bits");
        if ways == 0 {
            return Layer::stat(self, ctx, path).map(drop);
        }
        if self.memory.is_granted(path, ways) {
            return Ok(());
        }
        // What may be done is kept with the attributes, which the kernel has mostly asked for just before.
        Layer::stat(self, ctx, path)?;
        let question = self.memory.ask(path, Reach::Path);
        let result = self.below.access(ctx, path, mask);
        match &result {
            // Somebody may have learned newer attributes since, and the right would be kept with those.
            Ok(()) if ctx.is_by_finding() => {}
            Ok(()) => question.granted(ways),
            Err(error) if error.fault() == Fault::NotFound => question.answered(&Err(error.clone())),
            Err(_) => {}
        }
        result
    }

    fn make_dir(&self, ctx: &Ctx, path: &FsPath, mode: u32) -> Result<Attr> {
        self.change(path, true, || self.below.make_dir(ctx, path, mode))
    }

    fn create(
        &self,
        ctx: &Ctx,
        path: &FsPath,
        options: &CreateOptions,
    ) -> Result<(Attr, Box<dyn FileWriter>)> {
        let (attr, writer) = self.change(path, true, || self.below.create(ctx, path, options))?;
        Ok((attr, Box::new(Noted::new(writer, path.clone(), Arc::clone(&self.memory)))))
    }

    /// Asks below, which checks that the file may be read; what it says of it is remembered.
    fn open(&self, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
        let question = self.memory.ask(path, Reach::Path);
        let result = self.below.open(ctx, path);
        match &result {
            // It was remembered when it was found out, and something newer may have been since.
            Ok(_) if ctx.is_by_finding() => {}
            Ok(reader) => question.answered(&Ok(reader.attr().clone())),
            Err(error) if error.fault() == Fault::NotFound => question.answered(&Err(error.clone())),
            // Nothing was said of the file.
            Err(error) if is_in_doubt(error.fault()) => {}
            // It is not what it may be remembered as: incomplete, a directory, with other rights.
            Err(_) => self.memory.changed(path, false, false),
        }
        result
    }

    fn remove_file(&self, ctx: &Ctx, path: &FsPath) -> Result<()> {
        self.change(path, true, || self.below.remove_file(ctx, path))
    }

    fn remove_seen_file(&self, ctx: &Ctx, path: &FsPath) -> Result<()> {
        self.change(path, true, || self.below.remove_seen_file(ctx, path))
    }

    fn remove_dir(&self, ctx: &Ctx, path: &FsPath) -> Result<()> {
        self.change(path, true, || self.below.remove_dir(ctx, path))
    }

    fn replace(&self, ctx: &Ctx, new: &FsPath, old: &FsPath) -> Result<Attr> {
        self.change(new, true, || self.change(old, true, || self.below.replace(ctx, new, old)))
    }

    fn rename(&self, ctx: &Ctx, from: &FsPath, to: &FsPath, mode: RenameMode) -> Result<()> {
        self.change(from, true, || self.change(to, true, || self.below.rename(ctx, from, to, mode)))
    }

    /// What a directory lets through concerns all that is below it.
    fn set_attr(&self, ctx: &Ctx, path: &FsPath, change: &SetAttr) -> Result<Attr> {
        self.change(path, false, || self.below.set_attr(ctx, path, change))
    }

    fn set_xattr(&self, ctx: &Ctx, path: &FsPath, name: &str, value: &[u8], mode: XattrMode) -> Result<()> {
        self.change(path, false, || self.below.set_xattr(ctx, path, name, value, mode))
    }

    fn remove_xattr(&self, ctx: &Ctx, path: &FsPath, name: &str) -> Result<()> {
        self.change(path, false, || self.below.remove_xattr(ctx, path, name))
    }
}

#[cfg(test)]
mod tests;
