//! A tree of files in memory that counts what it is asked, and that can be made slow or failing.

use std::collections::BTreeMap;

use parking_lot::Condvar;
use parking_lot::MutexGuard;

use super::*;
use crate::fs::FileKind;
use crate::fs::Naming;
use crate::fs::Slices;
use crate::fs::StatFs;
use crate::fs::Timestamp;

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Attr>,
    /// Every change has its own number, which is also its time.
    changes: i64,
    asked: usize,
    fail: Option<Fault>,
    holds: bool,
    held: usize,
}

/// The tree. Its clones are the same.
#[derive(Clone, Default)]
pub(super) struct Tree(Arc<(Mutex<State>, Condvar)>);

/// Answers of `stat` wait until this is opened.
pub(super) struct Gate(Tree);

impl Gate {
    pub(super) fn open(&self) {
        let (state, changed) = &*self.0.0;
        state.lock().holds = false;
        changed.notify_all();
    }
}

impl State {
    fn put(&mut self, path: &str, kind: FileKind, size: u64) -> Attr {
        self.changes += 1;
        let time = Timestamp { secs: self.changes, nanos: 0 };
        let attr = Attr {
            id: self.changes.cast_unsigned(),
            kind,
            size,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            atime: time,
            mtime: time,
            ctime: time,
            complete: true,
        };
        self.entries.insert(path.to_owned(), attr.clone());
        attr
    }

    /// The attributes; the size of a directory is the number of its entries.
    fn stat(&self, path: &str) -> Result<Attr> {
        let mut attr = match self.entries.get(path) {
            Some(attr) => attr.clone(),
            None if path == "/" => State::default().put("/", FileKind::Directory, 0),
            None => return Err(Fault::NotFound.into()),
        };
        if attr.kind == FileKind::Directory {
            attr.size = self.names(path).len() as u64;
        }
        Ok(attr)
    }

    fn names(&self, path: &str) -> Vec<String> {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let child = |key: &String| {
            let name = key.strip_prefix(&prefix).filter(|name| !name.is_empty() && !name.contains('/'));
            name.map(str::to_owned)
        };
        self.entries.keys().filter_map(child).collect()
    }

    fn ask(&mut self) -> Result<()> {
        self.asked += 1;
        self.fail.take().map_or(Ok(()), |fault| Err(fault.into()))
    }
}

impl Tree {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock()
    }

    /// Makes a file as another client does.
    pub(super) fn file(&self, path: &str, size: u64) {
        self.state().put(path, FileKind::Regular, size);
    }

    pub(super) fn dir(&self, path: &str) {
        self.state().put(path, FileKind::Directory, 0);
    }

    pub(super) fn chmod(&self, path: &str, mode: u32) {
        let mut state = self.state();
        state.changes += 1;
        let time = Timestamp { secs: state.changes, nanos: 0 };
        if let Some(attr) = state.entries.get_mut(path) {
            (attr.mode, attr.ctime) = (mode, time);
        }
    }

    pub(super) fn remove(&self, path: &str) {
        let below = format!("{path}/");
        self.state().entries.retain(|key, _| key != path && !key.starts_with(&below));
    }

    /// The truth.
    pub(super) fn truth(&self, path: &str) -> Option<Attr> {
        self.state().stat(path).ok()
    }

    /// Calls until now.
    pub(super) fn asked(&self) -> usize {
        self.state().asked
    }

    pub(super) fn fail_next(&self, fault: Fault) {
        self.state().fail = Some(fault);
    }

    /// From now on `stat` looks, and answers when the gate is opened.
    pub(super) fn hold(&self) -> Gate {
        self.state().holds = true;
        Gate(self.clone())
    }

    /// Waits until so many answers have been held back.
    pub(super) fn wait_for_held(&self, count: usize) {
        let (state, changed) = &*self.0;
        let mut state = state.lock();
        while state.held < count {
            changed.wait(&mut state);
        }
    }
}

impl FileSystem for Tree {
    fn stat(&self, ctx: &Ctx, path: &FsPath) -> Result<Attr> {
        let (state, changed) = &*self.0;
        let mut state = state.lock();
        let answer = state.ask().and_then(|()| state.stat(path.as_str()));
        if let (Some(finding), Ok(attr)) = (ctx.finding(), &answer) {
            finding.keep(attr.clone());
        }
        if state.holds {
            state.held += 1;
            changed.notify_all();
            while state.holds {
                changed.wait(&mut state);
            }
        }
        answer
    }

    fn list(&self, _ctx: &Ctx, path: &FsPath) -> Result<Box<dyn Listing>> {
        let mut state = self.state();
        state.ask()?;
        state.stat(path.as_str())?;
        let names = state.names(path.as_str()).into_iter();
        Ok(Box::new(Names { tree: self.clone(), path: path.clone(), names }))
    }

    fn make_dir(&self, _ctx: &Ctx, path: &FsPath, mode: u32) -> Result<Attr> {
        let mut state = self.state();
        state.ask()?;
        let attr = Attr { mode, ..state.put(path.as_str(), FileKind::Directory, 0) };
        state.entries.insert(path.as_str().to_owned(), attr.clone());
        Ok(attr)
    }

    fn create(
        &self,
        _ctx: &Ctx,
        path: &FsPath,
        _options: &CreateOptions,
    ) -> Result<(Attr, Box<dyn FileWriter>)> {
        let mut state = self.state();
        state.ask()?;
        let attr = Attr { complete: false, ..state.put(path.as_str(), FileKind::Regular, 0) };
        state.entries.insert(path.as_str().to_owned(), attr.clone());
        Ok((attr, Box::new(Writer { tree: self.clone(), path: path.as_str().to_owned() })))
    }

    fn open(&self, ctx: &Ctx, path: &FsPath) -> Result<Arc<dyn FileReader>> {
        if let Some(attr) = found(ctx) {
            return Ok(Arc::new(Reader(attr)));
        }
        let mut state = self.state();
        state.ask()?;
        Ok(Arc::new(Reader(state.stat(path.as_str())?)))
    }

    fn remove_file(&self, _ctx: &Ctx, path: &FsPath) -> Result<()> {
        self.state().ask()?;
        self.remove(path.as_str());
        Ok(())
    }

    fn remove_dir(&self, ctx: &Ctx, path: &FsPath) -> Result<()> {
        self.remove_file(ctx, path)
    }

    fn replace(&self, ctx: &Ctx, new: &FsPath, old: &FsPath) -> Result<Attr> {
        self.rename(ctx, new, old, RenameMode::Replace)?;
        self.state().stat(old.as_str())
    }

    fn rename(&self, _ctx: &Ctx, from: &FsPath, to: &FsPath, _mode: RenameMode) -> Result<()> {
        let mut state = self.state();
        state.ask()?;
        let parsed = |key: &str| FsPath::parse(key).unwrap();
        if state.entries.keys().any(|key| parsed(key).starts_with(from)) {
            state.entries.retain(|key, _| !parsed(key).starts_with(to));
        }
        let entries = std::mem::take(&mut state.entries);
        let moved = |key: String| match parsed(&key).rebased(from, to) {
            Some(path) => path.as_str().to_owned(),
            None => key,
        };
        state.entries = entries.into_iter().map(|(key, attr)| (moved(key), attr)).collect();
        Ok(())
    }

    fn set_attr(&self, _ctx: &Ctx, path: &FsPath, change: &SetAttr) -> Result<Attr> {
        self.state().ask()?;
        self.chmod(path.as_str(), change.mode.unwrap_or(0o644));
        self.state().stat(path.as_str())
    }

    fn xattr(&self, _: &Ctx, _: &FsPath, _: &str) -> Result<bytes::Bytes> {
        Err(Fault::NoData.into())
    }

    fn xattrs(&self, _: &Ctx, _: &FsPath) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn set_xattr(&self, _: &Ctx, _: &FsPath, _: &str, _: &[u8], _: XattrMode) -> Result<()> {
        Err(Fault::NotSupported.into())
    }

    fn remove_xattr(&self, _: &Ctx, _: &FsPath, _: &str) -> Result<()> {
        Err(Fault::NoData.into())
    }

    fn stat_fs(&self, _: &Ctx) -> Result<StatFs> {
        Ok(StatFs::default())
    }

    fn access(&self, ctx: &Ctx, path: &FsPath, mask: u32) -> Result<()> {
        let attr = match found(ctx) {
            Some(attr) => attr,
            None => {
                let mut state = self.state();
                state.ask()?;
                state.stat(path.as_str())?
            }
        };
        let may = attr.mode & mask == mask;
        if may { Ok(()) } else { Err(Fault::PermissionDenied.into()) }
    }
}

/// What a call that goes with this one has learned.
fn found(ctx: &Ctx) -> Option<Attr> {
    let finding = ctx.finding()?;
    let attr = finding.kept::<Attr>()?;
    finding.note_used();
    Some(Attr::clone(&attr))
}

/// Parts of a few names, with their attributes of then.
struct Names {
    tree: Tree,
    path: FsPath,
    names: std::vec::IntoIter<String>,
}

impl Listing for Names {
    fn next_batch(&mut self, _ctx: &Ctx) -> Result<Vec<DirEntry>> {
        let mut batch = Vec::new();
        while batch.is_empty() && self.names.len() > 0 {
            let mut state = self.tree.state();
            state.ask()?;
            for name in self.names.by_ref().take(3) {
                if let Ok(attr) = state.stat(self.path.join(&name)?.as_str()) {
                    batch.push(DirEntry { name, attr });
                }
            }
        }
        Ok(batch)
    }

    fn renamed(&mut self, to: &FsPath) {
        self.path = to.clone();
    }
}

struct Reader(Attr);

impl FileReader for Reader {
    fn attr(&self) -> &Attr {
        &self.0
    }

    fn read_at(&self, _ctx: &Ctx, _offset: u64, _len: usize) -> Result<Slices> {
        Ok(Slices::new())
    }
}

struct Writer {
    tree: Tree,
    path: String,
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.tree.state();
        if state.entries.get(&self.path).is_some_and(|attr| !attr.complete) {
            state.entries.remove(&self.path);
        }
    }
}

impl FileWriter for Writer {
    fn append(&mut self, _ctx: &Ctx, data: &[u8]) -> Result<()> {
        let mut state = self.tree.state();
        let attr = state.entries.get_mut(&self.path).ok_or_else(|| FsError::new(Fault::NotFound))?;
        attr.size += data.len() as u64;
        Ok(())
    }

    fn sync(&mut self, _ctx: &Ctx) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self, _ctx: &Ctx) -> Result<Attr> {
        let mut state = self.tree.state();
        let attr = state.entries.get_mut(&self.path).ok_or_else(|| FsError::new(Fault::NotFound))?;
        attr.complete = true;
        Ok(attr.clone())
    }

    fn naming(&self) -> Option<Arc<dyn Naming>> {
        None
    }

    fn can_move(&self) -> bool {
        false
    }

    fn renamed(&mut self, to: &FsPath) {
        self.path = to.as_str().to_owned();
    }
}
