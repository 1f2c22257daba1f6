//! Names of files: what can be one, on a real cluster and on the embedded store, and the same names for the Alluxio
//! shell.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::stat::Mode;
use nix::sys::stat::mkdirat;
use nix::unistd::UnlinkatFlags;
use nix::unistd::unlinkat;

use common::cluster::Cluster;
use common::mount::Spec;

/// Names that are nothing special to a file system, but often are to programs.
fn good_names() -> Vec<String> {
    let plain = [
        "plain",
        "two words",
        " leading",
        "trailing ",
        " ",
        "\t",
        "new\nline",
        "\n",
        "carriage\rreturn",
        "%",
        "%2F",
        "100%25",
        "%zz",
        "a%20b",
        "a:b",
        ":",
        "C:",
        "http:",
        "a::b",
        "*",
        "[a-z]*",
        "{a,b}",
        "-rf",
        "--",
        "~",
        "$HOME",
        "`id`",
        "'",
        "\"",
        "a'b\"c",
        "a;b|c&d",
        "<>",
        "#",
        "#fragment",
        "a#b",
        "!",
        "@",
        "^",
        "=",
        "+",
        ",",
        "()",
        "...",
        "....",
        ".hidden",
        "a.",
        "a..",
        "..a",
        ".a.",
        "ü",
        "u\u{308}",
        "文件",
        "🦀",
        "\u{1}",
        "\u{7f}",
        "\u{202e}rtl",
        "\u{feff}bom",
        "\u{a0}",
        "\u{fffd}",
        "nul",
        "CON",
        "a&b=c",
        "ΑΒΓ",
        "İ",
        "ſ",
    ];
    let mut names: Vec<String> = plain.iter().map(|name| (*name).to_owned()).collect();
    names.extend(["x".repeat(255), "é".repeat(127), "文".repeat(85), "🦀".repeat(63), " ".repeat(255)]);
    names
}

/// Runs `scenario` on a mount of the cluster and on one of the embedded store.
fn everywhere(name: &str, scenario: fn(&Path, bool)) {
    let cluster = Cluster::get();
    let remote = cluster.directory(name);
    let mount = Spec::alluxio(&cluster, &remote.path).start();
    scenario(mount.path(), true);
    mount.unmount();
    let store = tempfile::tempdir().unwrap();
    let mount = Spec::local(store.path()).libfuse(3).start();
    scenario(mount.path(), false);
    mount.unmount();
}

fn listed(dir: &Path) -> BTreeSet<OsString> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn a_name_is_what_it_was_given_as() {
    everywhere("names", |root, _| {
        let names = good_names();
        let (files, dirs) = (root.join("files"), root.join("dirs"));
        fs::create_dir(&files).unwrap();
        fs::create_dir(&dirs).unwrap();
        for name in &names {
            fs::write(files.join(name), name).unwrap_or_else(|e| panic!("write {name:?}: {e}"));
            fs::create_dir(dirs.join(name)).unwrap_or_else(|e| panic!("mkdir {name:?}: {e}"));
        }
        let all: BTreeSet<OsString> = names.iter().map(OsString::from).collect();
        assert_eq!(all.len(), names.len());
        assert_eq!(listed(&files), all);
        assert_eq!(listed(&dirs), all);
        for name in &names {
            assert_eq!(fs::read_to_string(files.join(name)).unwrap(), *name);
            assert_eq!(fs::metadata(files.join(name)).unwrap().len(), name.len() as u64, "{name:?}");
        }
        // From each name to another and from one directory to another.
        for (from, to) in names.iter().zip(names.iter().rev()) {
            let to = dirs.join(to).join(from);
            fs::rename(files.join(from), &to).unwrap_or_else(|e| panic!("rename {from:?}: {e}"));
            assert_eq!(fs::read_to_string(to).unwrap(), *from);
        }
        assert_eq!(listed(&files), BTreeSet::new());
        for (name, dir) in names.iter().zip(names.iter().rev()) {
            let dir = dirs.join(dir);
            fs::remove_file(dir.join(name)).unwrap_or_else(|e| panic!("unlink {name:?}: {e}"));
            fs::remove_dir(&dir).unwrap_or_else(|e| panic!("rmdir {dir:?}: {e}"));
        }
        assert_eq!(listed(&dirs), BTreeSet::new());
    });
}

#[test]
fn a_name_that_cannot_be_is_refused_and_touches_nothing() {
    everywhere("bad-names", |root, alluxio| {
        let refused = |name: &[u8], create: Errno, find: Errno| {
            let (path, other) = (root.join(OsStr::from_bytes(name)), root.join("a"));
            let code = |result: io::Result<()>| Errno::from_raw(result.unwrap_err().raw_os_error().unwrap());
            assert_eq!(code(File::create(&path).map(drop)), create, "create {path:?}");
            assert_eq!(code(fs::create_dir(&path)), create, "mkdir {path:?}");
            assert_eq!(code(fs::rename(&other, &path)), create, "rename {path:?}");
            assert_eq!(code(fs::metadata(&path).map(drop)), find, "stat {path:?}");
            assert_eq!(code(fs::remove_file(&path)), find, "unlink {path:?}");
            assert_eq!(code(fs::remove_dir(&path)), find, "rmdir {path:?}");
        };
        // What a name is cut to or taken for, where somebody is careless, is there and stays.
        fs::write(root.join("a"), b"a").unwrap();
        fs::create_dir(root.join("b")).unwrap();
        fs::write(root.join("x".repeat(255)), b"x").unwrap();
        refused("x".repeat(256).as_bytes(), Errno::ENAMETOOLONG, Errno::ENAMETOOLONG);
        refused("é".repeat(128).as_bytes(), Errno::ENAMETOOLONG, Errno::ENAMETOOLONG);
        for bytes in [&b"a\xff"[..], b"\x80", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf8\x88\x80\x80\x80"]
        {
            refused(bytes, Errno::EILSEQ, Errno::EILSEQ);
        }
        if alluxio {
            for name in ["a?", "a?b", "?", "a\\b", "\\", "b\\c", "b?/", "a?b=c"] {
                refused(name.trim_end_matches('/').as_bytes(), Errno::EINVAL, Errno::ENOENT);
            }
        }
        assert_eq!(fs::read(root.join("a")).unwrap(), b"a");
        assert_eq!(listed(root), BTreeSet::from(["a".into(), "b".into(), "x".repeat(255).into()]));
        assert_eq!(listed(&root.join("b")), BTreeSet::new());
    });
}

#[test]
fn paths_may_be_as_deep_as_the_system_allows() {
    everywhere("deep", |root, _| {
        // A path of one call has 4095 bytes at most, and so has one in the store below.
        let name = "d".repeat(120);
        let mut dirs: Vec<OwnedFd> = vec![File::open(root).unwrap().into()];
        loop {
            let dir = dirs.last().unwrap();
            match mkdirat(dir, &*name, Mode::S_IRWXU) {
                Err(Errno::ENAMETOOLONG) => break,
                made => made.unwrap_or_else(|e| panic!("{} levels: {e}", dirs.len())),
            }
            dirs.push(openat(dir, &*name, OFlag::O_DIRECTORY, Mode::empty()).unwrap());
            assert!(dirs.len() < 1000, "no end");
        }
        assert!(dirs.len() * (name.len() + 1) > 3800, "{} levels", dirs.len());
        let deep = &dirs[dirs.len() - 2];
        let file = openat(deep, "file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU).unwrap();
        nix::unistd::write(&file, b"deep").unwrap();
        nix::unistd::close(file).unwrap();
        let file = openat(deep, "file", OFlag::O_RDONLY, Mode::empty()).unwrap();
        let mut content = [0; 10];
        assert_eq!(nix::unistd::read(&file, &mut content).unwrap(), 4);
        assert_eq!(&content[..4], b"deep");
        unlinkat(deep, "file", UnlinkatFlags::NoRemoveDir).unwrap();
        let mut path = root.to_owned();
        path.extend((0..40).map(|_| &name));
        assert_eq!(fs::metadata(path).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
        dirs.pop();
        while let Some(dir) = dirs.pop() {
            unlinkat(dir, &*name, UnlinkatFlags::RemoveDir).unwrap();
        }
        assert_eq!(listed(root), BTreeSet::new());
    });
}

#[test]
fn names_are_the_same_for_the_shell_of_alluxio() {
    let cluster = Cluster::get();
    let dir = cluster.directory("shell-names");
    let mount = Spec::alluxio(&cluster, &dir.path).start();
    // Without what the shell itself acts upon: patterns, options, and characters that end its input.
    let special =
        |name: &&str| !name.starts_with('-') && !name.contains(['*', '\t', '\n', '\r', '{', '[', '%']);
    let names = good_names();
    let names: Vec<&str> = names.iter().map(String::as_str).filter(special).collect();
    assert!(names.len() > 40, "{}", names.len());

    let theirs = dir.join("theirs");
    cluster.shell(&["mkdir", &theirs]);
    for name in &names {
        cluster.shell(&["touch", &format!("{theirs}/{name}")]);
    }
    let seen = listed(&mount.path().join("theirs"));
    let expected: BTreeSet<OsString> = names.iter().map(OsString::from).collect();
    assert_eq!(seen, expected, "what the shell has made");

    fs::create_dir(mount.path().join("ours")).unwrap();
    for name in &names {
        fs::write(mount.path().join("ours").join(name), name).unwrap();
        let text = cluster.shell(&["cat", &format!("{}/{name}", dir.join("ours"))]);
        assert_eq!(text.trim_end_matches('\n'), *name);
    }
    let text = cluster.shell(&["ls", &dir.join("ours")]);
    for name in &names {
        let path = format!("{}/{name}", dir.join("ours"));
        assert!(text.lines().any(|line| line.ends_with(&path)), "{name:?} is not in\n{text}");
    }
    mount.unmount();
}
