//! What the table of inodes promises.

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

#[test]
fn a_name_is_believed_for_a_time_after_the_kernel_was_told_so() {
    let inodes = Inodes::new();
    let ino = inodes.look_up(Ino::ROOT, "a", &attr(7, FILE)).unwrap();
    assert!(!inodes.was_believed(ino, Duration::MAX), "looked up, but not to be believed");
    inodes.note_believed(ino);
    assert!(inodes.was_believed(ino, Duration::MAX));
    assert!(!inodes.was_believed(ino, Duration::ZERO));
    inodes.forget(ino, 1);
    assert!(!inodes.was_believed(ino, Duration::MAX));
}

#[test]
fn those_who_read_by_one_inode_read_one_file() {
    let inodes = Arc::new(Inodes::new());
    let ino = inodes.look_up(Ino::ROOT, "f", &attr(1, FILE)).unwrap();
    let first = inodes.enter_reader(ino, 1).expect("nobody else reads");
    let second = inodes.enter_reader(ino, 1).expect("it is the same file");
    inodes.adopt(ino, &attr(2, FILE));
    assert!(inodes.enter_reader(ino, 2).is_none());
    drop(first);
    assert!(inodes.has_reader_of_another(ino, 2) && !inodes.has_reader_of_another(ino, 1));
    drop(second);
    let new = inodes.enter_reader(ino, 2).expect("nobody reads the old one any more");
    inodes.forget(ino, 1);
    drop(new);
    assert_eq!(inodes.len(), 1);
}
