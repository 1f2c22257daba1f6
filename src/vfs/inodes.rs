//! Names and lookup counts of live inodes. Knows nothing of handles or backends.
//!
//! Lock order: last; nothing else is taken while the table is locked, and no call is made.
//! Invariant: a node is in the table exactly while the kernel counts it, or a node below it is there.
//!
//! A name has one inode, and may have others beside it that stand for the same file: see [`Inodes::part`].

use std::collections::HashMap;

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
    /// Inodes that had a name in this directory before the one that has it, and are of the same file.
    shadows: Vec<Ino>,
    /// The version that was last opened.
    opened: Option<Version>,
    /// The version that the kernel was last told of.
    shown: Option<Version>,
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
            shadows: Vec::new(),
            opened: None,
            shown: None,
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

    /// A number that changes when this mount changes what a name stands for.
    pub(super) fn changes(&self) -> u64 {
        self.table.lock().changes
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
mod tests {
    use super::*;

    const DIR: FileKind = FileKind::Directory;
    const FILE: FileKind = FileKind::Regular;

    fn attr(id: u64, kind: FileKind) -> Attr {
        let time = Timestamp::default();
        Attr {
            id,
            kind,
            size: 0,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            atime: time,
            mtime: time,
            ctime: time,
            complete: true,
        }
    }

    fn text(inodes: &Inodes, ino: Ino) -> Option<String> {
        inodes.path(ino).map(|path| path.to_string())
    }

    #[test]
    fn forgetting_the_last_count_drops_the_inode() {
        let inodes = Inodes::new();
        let ino = inodes.look_up(Ino::ROOT, "a", &attr(7, FILE)).unwrap();
        assert_eq!(inodes.look_up(Ino::ROOT, "a", &attr(7, FILE)), Some(ino));
        inodes.forget(ino, 1);
        assert_eq!(text(&inodes, ino).as_deref(), Some("/a"));
        inodes.forget(ino, 1);
        assert_eq!(inodes.path(ino), None);
        assert_eq!(inodes.len(), 1);
    }

    #[test]
    fn a_directory_that_was_forgotten_first_still_gives_its_children_their_path() {
        let inodes = Inodes::new();
        let dir = inodes.look_up(Ino::ROOT, "d", &attr(1, DIR)).unwrap();
        let file = inodes.look_up(dir, "f", &attr(2, FILE)).unwrap();
        inodes.forget(dir, 1);
        assert_eq!(text(&inodes, file).as_deref(), Some("/d/f"));
        inodes.forget(file, 1);
        assert_eq!(inodes.len(), 1);
    }

    #[test]
    fn a_renamed_directory_takes_its_children_along() {
        let inodes = Inodes::new();
        let from = inodes.look_up(Ino::ROOT, "from", &attr(1, DIR)).unwrap();
        let to = inodes.look_up(Ino::ROOT, "to", &attr(2, DIR)).unwrap();
        let file = inodes.look_up(from, "f", &attr(3, FILE)).unwrap();
        inodes.rename(Ino::ROOT, "from", to, "moved");
        assert_eq!(text(&inodes, file).as_deref(), Some("/to/moved/f"));
        assert_eq!(inodes.child(Ino::ROOT, "from"), None);
    }

    #[test]
    fn what_a_rename_replaces_has_no_path_any_more() {
        let inodes = Inodes::new();
        let new = inodes.look_up(Ino::ROOT, "new", &attr(1, FILE)).unwrap();
        let old = inodes.look_up(Ino::ROOT, "old", &attr(2, FILE)).unwrap();
        inodes.rename(Ino::ROOT, "new", Ino::ROOT, "old");
        assert_eq!(text(&inodes, new).as_deref(), Some("/old"));
        assert_eq!(inodes.path(old), None);
        inodes.forget(old, 1);
        inodes.forget(new, 1);
        assert_eq!(inodes.len(), 1);
    }

    #[test]
    fn a_name_that_stands_for_another_file_gets_a_new_inode() {
        let inodes = Inodes::new();
        let old = inodes.look_up(Ino::ROOT, "f", &attr(1, FILE)).unwrap();
        let new = inodes.look_up(Ino::ROOT, "f", &attr(2, FILE)).unwrap();
        assert_ne!(old, new);
        assert_eq!(inodes.path(old), None);
        assert_eq!(text(&inodes, new).as_deref(), Some("/f"));
    }

    #[test]
    fn around_a_directory_is_what_is_above_and_below_it() {
        let inodes = Inodes::new();
        let dir = inodes.look_up(Ino::ROOT, "d", &attr(1, DIR)).unwrap();
        let deep = inodes.look_up(dir, "deep", &attr(2, DIR)).unwrap();
        let file = inodes.look_up(deep, "f", &attr(3, FILE)).unwrap();
        let other = inodes.look_up(Ino::ROOT, "other", &attr(4, FILE)).unwrap();
        let around = |dir| {
            let mut around = inodes.around(dir);
            around.sort();
            around
        };
        assert_eq!(around(Some(dir)), [Ino::ROOT, dir, deep, file]);
        assert_eq!(around(Some(deep)), [Ino::ROOT, dir, deep, file]);
        assert_eq!(around(Some(Ino::ROOT)), [Ino::ROOT, dir, deep, file, other]);
        assert_eq!(around(None), [Ino::ROOT, dir, deep, file, other]);
    }

    #[test]
    fn what_the_kernel_was_told_last_counts() {
        let inodes = Inodes::new();
        let file = attr(1, FILE);
        let ino = inodes.look_up(Ino::ROOT, "f", &file).unwrap();
        let grown = Attr { size: 9, ..file };
        assert!(inodes.was_shown(ino, Version::of(&file)) && !inodes.was_shown(ino, Version::of(&grown)));
        inodes.note_shown(ino, &grown);
        assert!(inodes.was_shown(ino, Version::of(&grown)));
    }

    #[test]
    fn only_an_unchanged_version_may_keep_its_pages() {
        let inodes = Inodes::new();
        let file = attr(1, FILE);
        let ino = inodes.look_up(Ino::ROOT, "f", &file).unwrap();
        assert!(!inodes.note_open(ino, Version::of(&file)));
        assert!(inodes.note_open(ino, Version::of(&file)));
        let grown = Attr { size: 9, ..file };
        assert!(!inodes.note_open(ino, Version::of(&grown)));
    }

    #[test]
    fn an_inode_that_was_parted_goes_where_its_file_goes() {
        let inodes = Inodes::new();
        let dir = inodes.look_up(Ino::ROOT, "d", &attr(1, DIR)).unwrap();
        let old = inodes.look_up(Ino::ROOT, "f", &attr(2, FILE)).unwrap();
        inodes.part(old, true);
        assert_eq!(text(&inodes, old).as_deref(), Some("/f"), "before anybody looks");
        let new = inodes.look_up(Ino::ROOT, "f", &attr(2, FILE)).unwrap();
        assert_ne!(old, new);
        assert!(inodes.awaits_writer(new) && !inodes.awaits_writer(old));
        assert_eq!(text(&inodes, old).as_deref(), Some("/f"), "still");
        inodes.forget(new, 1);
        let new = inodes.look_up(Ino::ROOT, "f", &attr(2, FILE)).unwrap();
        assert!(inodes.awaits_writer(new), "looked up, forgotten, and looked up once more");
        inodes.writer_came(new);
        inodes.forget(new, 1);
        let new = inodes.look_up(Ino::ROOT, "f", &attr(2, FILE)).unwrap();
        assert!(!inodes.awaits_writer(new));
        // One who never comes is not waited for for ever.
        inodes.part(new, true);
        let newer = inodes.look_up(Ino::ROOT, "f", &attr(2, FILE)).unwrap();
        assert_eq!((0..1000).filter(|_| inodes.awaits_writer(newer)).count(), GIVE_WAY as usize);
        inodes.forget(newer, 1);
        inodes.rename(Ino::ROOT, "f", dir, "g");
        assert_eq!(text(&inodes, old).as_deref(), Some("/d/g"));
        assert_eq!(text(&inodes, new).as_deref(), Some("/d/g"));
        // Its directory has a path as long as somebody below needs it.
        inodes.forget(new, 1);
        inodes.forget(dir, 1);
        assert_eq!(text(&inodes, old).as_deref(), Some("/d/g"));
        inodes.forget(old, 1);
        assert_eq!(inodes.len(), 1);
    }

    #[test]
    fn an_inode_that_was_parted_is_never_of_another_file() {
        let parted = |inodes: &Inodes| {
            let old = inodes.look_up(Ino::ROOT, "f", &attr(2, FILE)).unwrap();
            inodes.part(old, false);
            old
        };
        let inodes = Inodes::new();
        let old = parted(&inodes);
        inodes.look_up(Ino::ROOT, "f", &attr(3, FILE)).unwrap();
        assert_eq!(inodes.path(old), None, "looked up as another");

        let inodes = Inodes::new();
        let old = parted(&inodes);
        let new = inodes.look_up(Ino::ROOT, "f", &attr(2, FILE)).unwrap();
        inodes.adopt(new, &attr(3, FILE));
        assert_eq!(inodes.path(old), None, "written over");

        let inodes = Inodes::new();
        let old = parted(&inodes);
        inodes.remove(Ino::ROOT, "f");
        assert_eq!(inodes.path(old), None, "removed before anybody looked");

        let inodes = Inodes::new();
        let old = parted(&inodes);
        inodes.look_up(Ino::ROOT, "other", &attr(4, FILE)).unwrap();
        inodes.rename(Ino::ROOT, "other", Ino::ROOT, "f");
        assert_eq!(inodes.path(old), None, "renamed over");
    }
}
