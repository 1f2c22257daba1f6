//! Names and lookup counts of live inodes. Knows nothing of handles or backends.
//!
//! Lock order: last; nothing else is taken while the table is locked, and no call is made.
//! Invariant: a node is in the table exactly while the kernel counts it, or a node below it is there.
//!
//! A name has one inode, and may have others beside it that stand for the same file: see [`Inodes::part`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

use crate::fs::Attr;
use crate::fs::FileKind;
use crate::fs::FsPath;
use crate::fs::Timestamp;

/// The kernel's number of an inode. Never used again after it was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The root of the mount, which is never forgotten.
    pub const ROOT: Self = Self(1);
}

/// Opens that give way to a writer who was told to look once more.
const GIVE_WAY: u32 = 64;

/// What of a file decides whether pages that the kernel holds are still its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    id: u64,
    size: u64,
    mtime: Timestamp,
}

impl Version {
    pub(super) fn of(attr: &Attr) -> Self {
        Self { id: attr.id, size: attr.size, mtime: attr.mtime }
    }
}

struct Node {
    /// Where it is; none once the name was removed or given to another file.
    place: Option<(Ino, Box<str>)>,
    /// The backend's number of the file that this stands for.
    id: u64,
    kind: FileKind,
    /// How often the kernel was told of it, less what it forgot.
    lookups: u64,
    children: HashMap<Box<str>, Ino>,
    /// How often this mount changed what a listing of this directory shows.
    listed: u64,
    /// Inodes that had a name in this directory before the one that has it, and are of the same file.
    shadows: Vec<Ino>,
    /// The version that was last opened.
    opened: Option<Version>,
    /// The kernel may have pages of a version that never came to be.
    spoiled: bool,
    /// The file that those read who were entered, and how many they are. It may be an older one than this stands for.
    readers: Option<(u64, usize)>,
    /// The version that the kernel was last told of.
    shown: Option<Version>,
    /// When the kernel was last told that it can go by the name without asking.
    believed: Option<Instant>,
    /// Names in this directory whose inode was parted for a writer who is yet to come, and how many opens by others give
    /// way to him until he is taken to have given up. The kernel may look up and forget several inodes before it opens
    /// one for him.
    awaited: HashMap<Box<str>, u32>,
}

impl Node {
    fn new(place: Option<(Ino, Box<str>)>, id: u64, kind: FileKind) -> Self {
        Self {
            place,
            id,
            kind,
            lookups: 1,
            children: HashMap::new(),
            listed: 0,
            shadows: Vec::new(),
            opened: None,
            spoiled: false,
            readers: None,
            shown: None,
            believed: None,
            awaited: HashMap::new(),
        }
    }
}

struct Table {
    nodes: HashMap<Ino, Node>,
    next: u64,
    /// How often a name came to stand for another file, or for none, by what this mount did.
    changes: u64,
}

/// All live inodes.
pub(super) struct Inodes {
    table: Mutex<Table>,
}

impl Inodes {
    pub(super) fn new() -> Self {
        let root = Node::new(None, 0, FileKind::Directory);
        Self { table: Mutex::new(Table { nodes: HashMap::from([(Ino::ROOT, root)]), next: 2, changes: 0 }) }
    }

    /// The path of `ino`, or none if it was forgotten or its name is gone.
    pub(super) fn path(&self, ino: Ino) -> Option<FsPath> {
        self.table.lock().path(ino)
    }

    /// The live inode of the name `name` in `parent`, uncounted.
    pub(super) fn child(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.table.lock().nodes.get(&parent)?.children.get(name).copied()
    }

    /// The same, if it is a file.
    pub(super) fn child_file(&self, parent: Ino, name: &str) -> Option<Ino> {
        let table = self.table.lock();
        let child = *table.nodes.get(&parent)?.children.get(name)?;
        table.nodes.get(&child).filter(|node| node.kind == FileKind::Regular).map(|_| child)
    }

    /// A number that changes when this mount changes what a name stands for.
    pub(super) fn changes(&self) -> u64 {
        self.table.lock().changes
    }

    /// This mount has changed what is shown of `ino`, or may have.
    pub(super) fn touch(&self, ino: Ino) {
        self.table.lock().touch(ino);
    }

    /// This mount has changed what is in the directory `ino`, or may have, and so what is shown of itself.
    pub(super) fn touch_in(&self, ino: Ino) {
        let mut table = self.table.lock();
        if let Some(node) = table.nodes.get_mut(&ino) {
            node.listed += 1;
        }
        table.touch(ino);
    }

    /// A number that changes when this mount changes what a listing of the directory `ino` shows.
    pub(super) fn listed(&self, ino: Ino) -> u64 {
        self.table.lock().nodes.get(&ino).map_or(0, |node| node.listed)
    }

    /// Whether `attr`, of the file that `name` in `parent` was at the time of `changes`, may be of one that has been
    /// replaced since: the name's inode is of another.
    pub(super) fn is_outdated(&self, parent: Ino, name: &str, attr: &Attr, changes: u64) -> bool {
        let table = self.table.lock();
        let Some(dir) = table.nodes.get(&parent) else { return false };
        let is_another = |ino: &Ino| table.nodes.get(ino).is_some_and(|node| node.id != attr.id);
        table.changes != changes && dir.children.get(name).is_some_and(is_another)
    }

    /// Counts one lookup of `name` in `parent`, which the backend says is the file of `attr`. A name that now
    /// stands for another file gets a new inode, so that nothing cached for the old one is taken for it.
    /// None if `parent` is gone.
    pub(super) fn look_up(&self, parent: Ino, name: &str, attr: &Attr) -> Option<Ino> {
        let mut table = self.table.lock();
        if let Some(&ino) = table.nodes.get(&parent)?.children.get(name) {
            let node = table.nodes.get_mut(&ino).expect("a child is in the table");
            if node.id == attr.id && node.kind == attr.kind {
                node.lookups += 1;
                node.shown = Some(Version::of(attr));
                return Some(ino);
            }
            table.detach(parent, name);
        }
        table.drop_shadows(parent, name, Some(attr.id));
        Some(table.add(parent, name, attr))
    }

    /// Takes the name of `ino` for another inode of the same file, which the next look-up makes: `ino` is open in a way
    /// that excludes another, and who comes now is to have that. It stays beside the new one as long as the file has the
    /// name. `for_writer` says that the new one is for a writer, who may come after others.
    pub(super) fn part(&self, ino: Ino, for_writer: bool) {
        let mut table = self.table.lock();
        let Some((parent, name)) = table.nodes.get(&ino).and_then(|node| node.place.clone()) else { return };
        let Some(dir) = table.nodes.get_mut(&parent) else { return };
        if dir.children.get(&name) == Some(&ino) {
            dir.children.remove(&name);
            dir.shadows.push(ino);
        }
        if for_writer {
            dir.awaited.insert(name, GIVE_WAY);
        }
    }

    /// Whether another inode stands for the file of `ino`, too, so that the kernel knows attributes of it twice.
    pub(super) fn has_twin(&self, ino: Ino) -> bool {
        let table = self.table.lock();
        let place = table.nodes.get(&ino).and_then(|node| node.place.as_ref());
        place.is_some_and(|(parent, name)| !table.shadows(*parent, name).is_empty())
    }

    /// Whether an open of `ino` is to give way to a writer, for whom it was parted from another one.
    pub(super) fn awaits_writer(&self, ino: Ino) -> bool {
        let mut table = self.table.lock();
        let Some((dir, name)) = table.place_of(ino) else { return false };
        if dir.children.get(&name) != Some(&ino) {
            return false;
        }
        match dir.awaited.get_mut(&name) {
            Some(1) => dir.awaited.remove(&name).is_some(),
            Some(left) => {
                *left -= 1;
                true
            }
            None => false,
        }
    }

    /// A writer has opened `ino`.
    pub(super) fn writer_came(&self, ino: Ino) {
        let mut table = self.table.lock();
        if let Some((dir, name)) = table.place_of(ino) {
            dir.awaited.remove(&name);
        }
    }

    /// `ino` stays until it is forgotten once more, whatever the kernel does.
    pub(super) fn hold(&self, ino: Ino) {
        if let Some(node) = self.table.lock().nodes.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    /// Takes back `count` lookups. The kernel may send this as soon as it sees a reply, so counts are raised
    /// before replies leave.
    pub(super) fn forget(&self, ino: Ino, count: u64) {
        if ino == Ino::ROOT {
            return;
        }
        let mut table = self.table.lock();
        if let Some(node) = table.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
            table.drop_unused(ino);
        }
    }

    /// The name is gone: its inode stays for those who have it open, but has no path any more.
    pub(super) fn remove(&self, parent: Ino, name: &str) -> Option<Ino> {
        let mut table = self.table.lock();
        table.changes += 1;
        if let Some(dir) = table.nodes.get_mut(&parent) {
            dir.awaited.remove(name);
        }
        table.detach(parent, name)
    }

    /// The file of `ino` is gone, by whatever name it had.
    pub(super) fn lose_name(&self, ino: Ino) {
        let mut table = self.table.lock();
        if let Some((parent, name)) = table.nodes.get(&ino).and_then(|node| node.place.clone()) {
            table.detach(parent, &name);
        }
    }

    /// The file `name` of `parent` is now `new_name` of `new_parent`, whatever had that name before.
    pub(super) fn rename(&self, parent: Ino, name: &str, new_parent: Ino, new_name: &str) {
        if (parent, name) == (new_parent, new_name) {
            return;
        }
        let mut table = self.table.lock();
        table.changes += 1;
        table.detach(new_parent, new_name);
        table.move_shadows((parent, name), (new_parent, new_name));
        let Some(ino) = table.nodes.get_mut(&parent).and_then(|node| node.children.remove(name)) else {
            return;
        };
        let moved = table.nodes.get_mut(&ino).expect("a child is in the table");
        moved.place = Some((new_parent, new_name.into()));
        match table.nodes.get_mut(&new_parent) {
            Some(target) => {
                target.children.insert(new_name.into(), ino);
            }
            // The kernel holds the target directory for the whole call; without it the path is lost.
            None => table.nodes.get_mut(&ino).expect("just seen").place = None,
        }
        table.drop_unused(parent);
    }

    /// The path of `ino` holds the file of `attr` now. False if that is of another kind, or `ino` is gone.
    pub(super) fn adopt(&self, ino: Ino, attr: &Attr) -> bool {
        let mut table = self.table.lock();
        match table.nodes.get_mut(&ino) {
            Some(node) if node.kind == attr.kind => {
                let is_new = std::mem::replace(&mut node.id, attr.id) != attr.id;
                let place = node.place.clone();
                table.changes += u64::from(is_new);
                if is_new && let Some((parent, name)) = place {
                    table.drop_shadows(parent, &name, Some(attr.id));
                }
                true
            }
            _ => false,
        }
    }

    /// Whether the file that `ino` stands for is that of `attr`. One that took its place gets an inode of its own.
    pub(super) fn is(&self, ino: Ino, attr: &Attr) -> bool {
        self.table.lock().nodes.get(&ino).is_some_and(|node| node.id == attr.id && node.kind == attr.kind)
    }

    /// The kernel may have pages of `ino` with bytes of a new version that has failed.
    pub(super) fn spoil(&self, ino: Ino) {
        if let Some(node) = self.table.lock().nodes.get_mut(&ino) {
            node.spoiled = true;
        }
    }

    /// Whether that is so. Whoever asks has the kernel drop them.
    pub(super) fn take_spoiled(&self, ino: Ino) -> bool {
        let mut table = self.table.lock();
        table.nodes.get_mut(&ino).is_some_and(|node| std::mem::take(&mut node.spoiled))
    }

    /// Enters one who reads the file `id` by `ino`, until what is returned is dropped. None if others read another one by it:
    /// the kernel's pages belong to the inode, and each would be shown those of the other.
    pub(super) fn enter_reader(self: &Arc<Self>, ino: Ino, id: u64) -> Option<Reader> {
        if let Some(node) = self.table.lock().nodes.get_mut(&ino) {
            let (file, count) = node.readers.get_or_insert((id, 0));
            if *file != id {
                return None;
            }
            *count += 1;
        }
        Some(Reader { inodes: Arc::clone(self), ino })
    }

    /// Whether somebody who was entered reads another file than `id` by `ino`.
    pub(super) fn has_reader_of_another(&self, ino: Ino, id: u64) -> bool {
        let table = self.table.lock();
        table.nodes.get(&ino).and_then(|node| node.readers).is_some_and(|(file, _)| file != id)
    }

    /// Notes that `version` is opened; true if it is what was opened before, so that pages that the kernel
    /// kept are still good.
    pub(super) fn note_open(&self, ino: Ino, version: Version) -> bool {
        match self.table.lock().nodes.get_mut(&ino) {
            Some(node) => node.opened.replace(version) == Some(version),
            None => false,
        }
    }

    /// The kernel is told `attr` of `ino`.
    pub(super) fn note_shown(&self, ino: Ino, attr: &Attr) {
        if let Some(node) = self.table.lock().nodes.get_mut(&ino) {
            node.shown = Some(Version::of(attr));
        }
    }

    /// The kernel is told that it can go by the name of `ino` for a while.
    pub(super) fn note_believed(&self, ino: Ino) {
        if let Some(node) = self.table.lock().nodes.get_mut(&ino) {
            node.believed = Some(Instant::now());
        }
    }

    /// Whether the kernel was told so within the last `time`.
    pub(super) fn was_believed(&self, ino: Ino, time: Duration) -> bool {
        let believed = self.table.lock().nodes.get(&ino).and_then(|node| node.believed);
        believed.is_some_and(|when| when.elapsed() < time)
    }

    /// Whether `version` is what the kernel was last told of `ino`.
    pub(super) fn was_shown(&self, ino: Ino, version: Version) -> bool {
        self.table.lock().nodes.get(&ino).is_some_and(|node| node.shown == Some(version))
    }

    /// `dir`, those above it and those below it; all of them, if none.
    pub(super) fn around(&self, dir: Option<Ino>) -> Vec<Ino> {
        let table = self.table.lock();
        let Some(dir) = dir else { return table.nodes.keys().copied().collect() };
        let mut around = vec![dir];
        let mut next = 0;
        while let Some(ino) = around.get(next) {
            around.extend(table.nodes.get(ino).into_iter().flat_map(|node| node.children.values()).copied());
            next += 1;
        }
        let above = |ino: &Ino| table.nodes.get(ino)?.place.as_ref().map(|(parent, _)| *parent);
        around.extend(std::iter::successors(above(&dir), above));
        around
    }

    /// Number of inodes, the root included.
    pub(super) fn len(&self) -> usize {
        self.table.lock().nodes.len()
    }
}

/// One who reads a file by an inode.
pub(super) struct Reader {
    inodes: Arc<Inodes>,
    ino: Ino,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut table = self.inodes.table.lock();
        // Gone already if the kernel has forgotten it before it says that the file is closed.
        let Some(node) = table.nodes.get_mut(&self.ino) else { return };
        node.readers = node.readers.map(|(id, count)| (id, count - 1)).filter(|(_, count)| *count > 0);
    }
}

impl Table {
    fn path(&self, ino: Ino) -> Option<FsPath> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let (parent, name) = self.nodes.get(&at)?.place.as_ref()?;
            names.push(&**name);
            at = *parent;
        }
        Some(FsPath::from_names(names.into_iter().rev()))
    }

    fn touch(&mut self, ino: Ino) {
        let parent = self.nodes.get(&ino).and_then(|node| node.place.as_ref()).map(|(parent, _)| *parent);
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.listed += 1;
        }
    }

    /// The directory that `ino` is in, and its name there.
    fn place_of(&mut self, ino: Ino) -> Option<(&mut Node, Box<str>)> {
        let (parent, name) = self.nodes.get(&ino)?.place.clone()?;
        Some((self.nodes.get_mut(&parent)?, name))
    }

    fn add(&mut self, parent: Ino, name: &str, attr: &Attr) -> Ino {
        let ino = Ino(self.next);
        self.next += 1;
        let mut node = Node::new(Some((parent, name.into())), attr.id, attr.kind);
        node.shown = Some(Version::of(attr));
        self.nodes.insert(ino, node);
        let parent = self.nodes.get_mut(&parent).expect("looked at under the same lock");
        parent.children.insert(name.into(), ino);
        ino
    }

    fn detach(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        self.drop_shadows(parent, name, None);
        let ino = self.nodes.get_mut(&parent)?.children.remove(name)?;
        self.nodes.get_mut(&ino).expect("a child is in the table").place = None;
        self.drop_unused(ino);
        self.drop_unused(parent);
        Some(ino)
    }

    /// The shadows of `name` in `parent` lose it, but those of the file `but`.
    fn drop_shadows(&mut self, parent: Ino, name: &str, but: Option<u64>) {
        for ino in self.shadows(parent, name) {
            let node = self.nodes.get_mut(&ino).expect("a shadow is in the table");
            if but == Some(node.id) {
                continue;
            }
            node.place = None;
            let dir = self.nodes.get_mut(&parent).expect("it has shadows");
            dir.shadows.retain(|shadow| *shadow != ino);
        }
    }

    /// The shadows of a name follow it.
    fn move_shadows(&mut self, from: (Ino, &str), to: (Ino, &str)) {
        for ino in self.shadows(from.0, from.1) {
            let known = self.nodes.contains_key(&to.0);
            let node = self.nodes.get_mut(&ino).expect("a shadow is in the table");
            node.place = known.then(|| (to.0, to.1.into()));
            let dir = self.nodes.get_mut(&from.0).expect("it has shadows");
            dir.shadows.retain(|shadow| *shadow != ino);
            if let Some(dir) = self.nodes.get_mut(&to.0) {
                dir.shadows.push(ino);
            }
        }
    }

    /// The inodes beside the one that has `name` in `parent`: hardly ever one.
    fn shadows(&self, parent: Ino, name: &str) -> Vec<Ino> {
        let Some(dir) = self.nodes.get(&parent) else { return Vec::new() };
        let has_name =
            |ino: &&Ino| self.nodes[*ino].place.as_ref().is_some_and(|(_, place)| **place == *name);
        dir.shadows.iter().filter(has_name).copied().collect()
    }

    /// Drops `ino` and then its ancestors, as far as nobody needs them.
    fn drop_unused(&mut self, ino: Ino) {
        let mut at = ino;
        while at != Ino::ROOT {
            match self.nodes.get(&at) {
                Some(node) if node.lookups == 0 && node.children.is_empty() && node.shadows.is_empty() => {}
                _ => return,
            }
            let node = self.nodes.remove(&at).expect("just seen");
            let Some((parent, name)) = node.place else { return };
            let Some(dir) = self.nodes.get_mut(&parent) else { return };
            if dir.children.get(&name) == Some(&at) {
                dir.children.remove(&name);
            } else {
                dir.shadows.retain(|shadow| *shadow != at);
            }
            at = parent;
        }
    }
}

#[cfg(test)]
mod tests;
