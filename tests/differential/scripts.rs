//! The table of scripts: matrices of what open and rename can meet, and short stories by hand.

use super::script::Script;

/// Scripts about names, kinds and attributes: once per backend will do.
pub(crate) fn about_names() -> Vec<Script> {
    let mut all = opens();
    all.extend(odd_opens());
    all.extend(renames());
    all.extend(wrong_kinds());
    all.extend(stories(NAMES));
    all.extend(stories(ATTRIBUTES));
    all.extend(stories(NODES));
    all
}

/// Scripts about bytes: in every way in which the kernel may keep them.
pub(crate) fn about_data() -> Vec<Script> {
    let mut all = stories(WRITING);
    all.extend(stories(READING));
    all.extend(stories(OPEN_WHILE));
    all.extend(stories(LOCKS));
    all
}

/// Scripts about bytes of files that were removed or replaced. Alluxio frees them in its own time, so only the embedded
/// store answers the same each time.
pub(crate) fn about_removed() -> Vec<Script> {
    stories(REMOVED)
}

fn script(name: String, calls: &[&str]) -> Script {
    Script { name, calls: calls.iter().map(|call| (*call).to_owned()).collect() }
}

/// A table of lines `name: call; call; ...`.
fn stories(table: &str) -> Vec<Script> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    let story = |line: &str| {
        let (name, calls) = line.split_once(": ").unwrap_or_else(|| panic!("no name: {line}"));
        Script { name: name.to_owned(), calls: calls.split(';').map(|call| call.trim().to_owned()).collect() }
    };
    lines.map(story).collect()
}

/// What can be at a path, and how it gets there.
const STATES: [(&str, &[&str]); 5] = [
    ("missing", &[]),
    ("empty file", &["put p"]),
    ("file", &["put p hello"]),
    ("empty dir", &["mkdir p"]),
    ("full dir", &["mkdir p", "put p/in inside"]),
];

fn opens() -> Vec<Script> {
    let mut all = Vec::new();
    for (state, setup) in STATES {
        for access in ["ro", "wo", "rw"] {
            for flags in [
                "",
                "+creat",
                "+creat+excl",
                "+trunc",
                "+append",
                "+creat+trunc",
                "+creat+append",
                "+trunc+append",
                "+creat+excl+trunc",
                "+directory",
                "+directory+trunc",
                "+nofollow",
                "+creat+directory",
                "+path",
                "+excl",
                "+nonblock",
            ] {
                let open = format!("open A p {access}{flags} 640");
                let mut calls = setup.to_vec();
                calls.extend([
                    open.as_str(),
                    "read A 10",
                    "write A XYZ",
                    "fstat A",
                    "close A",
                    "stat p",
                    "tree .",
                ]);
                all.push(script(format!("open {state} {access}{flags}"), &calls));
            }
        }
    }
    all
}

fn odd_opens() -> Vec<Script> {
    let mut all = Vec::new();
    for path in [
        "f/", "f/below", "f/below/", "d/", "no/f", "no/", "d/.", "d/..", "f/.", "f/..", "", ".", "/", "d/in/",
    ] {
        for flags in
            ["ro", "wo", "wo+creat", "rw+creat+excl", "ro+directory", "wo+trunc", "ro+path", "rw+tmpfile"]
        {
            let open = format!("open A {path} {flags}");
            let stat = format!("stat {path}");
            all.push(script(
                format!("open {path:?} {flags}"),
                &[
                    "put f hello",
                    "mkdir d",
                    "put d/in inside",
                    &open,
                    "readdir A",
                    "close A",
                    &stat,
                    "tree .",
                ],
            ));
        }
    }
    all
}

fn renames() -> Vec<Script> {
    let mut all = Vec::new();
    for (source, setup) in STATES {
        for (target, prepare, to) in [
            ("missing", None, "t"),
            ("empty file", Some("put t"), "t"),
            ("file", Some("put t there"), "t"),
            ("empty dir", Some("mkdir t"), "t"),
            ("full dir", Some("mkdir t;put t/file there"), "t"),
            ("itself", None, "p"),
            ("below itself", None, "p/t"),
            ("missing dir", None, "no/t"),
            ("below a file", Some("put f x"), "f/t"),
            ("missing with slash", None, "t/"),
            ("file with slash", Some("put t there"), "t/"),
            ("empty dir with slash", Some("mkdir t"), "t/"),
            ("dot", None, "."),
            ("other dir", Some("mkdir t"), "t/moved"),
            ("dot in a dir", Some("mkdir t"), "t/."),
        ] {
            for flags in ["", " noreplace"] {
                let rename = format!("rename p {to}{flags}");
                let stat = format!("stat {to}");
                let mut calls = setup.to_vec();
                calls.extend(prepare.into_iter().flat_map(|calls| calls.split(';')));
                calls.extend([rename.as_str(), "stat p", &stat, "tree ."]);
                all.push(script(format!("rename {source} to {target}{flags}"), &calls));
            }
        }
        let mut calls = setup.to_vec();
        calls.extend(["rename p/ t", "stat p", "tree ."]);
        all.push(script(format!("rename {source} with slash"), &calls));
    }
    all
}

fn wrong_kinds() -> Vec<Script> {
    let mut all = Vec::new();
    for path in [
        "no", "f", "d", "full", "f/x", "no/x", "f/", "d/", "full/", "no/", "d/.", "full/..", ".", "f/.",
        "empty",
    ] {
        for call in [
            "unlink P",
            "rmdir P",
            "mkdir P",
            "mknod P file",
            "symlink P",
            "readlink P",
            "truncate P 0",
            "truncate P 5",
            "truncate P -1",
            "chmod P 600",
            "access P -",
            "access P rwx",
            "utimens P 1000 2000",
            "getxattr P user.a",
            "setxattr P user.a b",
            "statfs P",
            "stat P",
            "cat P",
        ] {
            let call = call.replace('P', path);
            all.push(script(
                format!("wrong kind {call}"),
                &[
                    "put f hello",
                    "put empty",
                    "mkdir d",
                    "mkdir full",
                    "put full/in x",
                    &call,
                    "stat .",
                    "tree .",
                ],
            ));
        }
    }
    all
}

const NAMES: &str = "
    blanks: put a~b~ x; stat a~b~; tree .
    per cent and colon: put a%20:b x; mkdir %2F; tree .
    signs: put *?# x; tree .
    star and hash: put a*b#c x; cat a*b#c; tree .
    question mark: put a?b x; stat a?b; stat a; tree .
    question mark of another name: put a x; stat a?b; unlink a?b; open A a?b ro; mkdir a?b; rename a a?b; rename a?b a; tree .
    backslash: put a\\b x; stat a\\b; mkdir d; put d\\x y; tree .
    dots: put ... x; put .. x; mkdir .; mkdir ..; tree .
    unicode: put ünïcode x; mkdir 文件; rename ünïcode 文件/é; tree .
    control characters: put \u{1}\u{7f} x; stat \u{1}\u{7f}; tree .
    leading dash and dot: put -rf x; put .hidden y; tree .
    case matters: put A x; put a y; tree .
    double slashes: mkdir d; put d//f x; cat .//d///f; stat d//; tree .
    parents: mkdir d; mkdir d/e; put d/e/../f x; stat d/e/../../d/f; tree .
    mkdir modes: mkdir d 700; stat d; mkdir e 555; stat e; mkdir g 0; stat g
    mkdir twice: mkdir d; mkdir d; put d/f x; mkdir d; mkdir d/f; tree .
    rmdir full: mkdir d; put d/f x; rmdir d; unlink d/f; rmdir d; tree .
    rmdir of a tree: mkdir d; mkdir d/e; mkdir d/e/f; rmdir d; rmdir d/e; rmdir d/e/f; rmdir d/e; rmdir d; tree .
    make again: put f one; unlink f; put f two; cat f; unlink f; mkdir f; stat f; rmdir f; put f three; cat f
    remove a directory that is open: mkdir d; open A d ro; rmdir d; readdir A; fstat A; close A; tree .
    rename a directory with an open file: mkdir d; put d/f x; open A d/f ro; rename d e; read A 5; close A; tree .
    rename forth and back: put f x; rename f g; rename g f; cat f; stat g
    rename a chain: put a 1; put b 2; rename a c; rename b a; rename c b; tree .
    rename to a name that was removed: put f x; put g y; unlink g; rename f g; tree .
    rename over itself by another way: mkdir d; put d/f x; rename d/f d/../d/f; rename d/f d//f; tree .
    rename into a child deeper: mkdir d; mkdir d/e; mkdir d/e/f; rename d d/e/f/g; tree .
    rename a parent over a child: mkdir d; mkdir d/e; rename d/e d; rename d/e .; tree .
    rename a full dir over an empty one: mkdir d; put d/f x; mkdir e; rename d e; tree .
    rename an open dir: mkdir d; put d/f x; open A d ro+directory; rename d e; readdir A; fstat A; close A
    long names: put LONG255 x; stat LONG255; mkdir LONG256; put LONG256 x; stat LONG256; unlink LONG256; rename LONG255 LONG256; rename LONG256 a; rename LONG255 f; tree .
    deep: mkdir a; mkdir a/b; mkdir a/b/c; mkdir a/b/c/d; mkdir a/b/c/d/e; put a/b/c/d/e/f x; cat a/b/c/d/e/f; tree .
    statfs: statfs .; put f x; statfs f; statfs no
    readdir of what is no directory: put f x; open A f ro; readdir A; close A
    read and write of a directory: mkdir d; open A d ro; read A 10; write A x; pread A 0 1; seek A 0 set; ftruncate A 0; fsync A; readdir A; close A
    exchange files: put f one; put g two; rename f g exchange; tree .
    exchange a file and a dir: put f one; mkdir d; put d/in two; rename f d exchange; tree .
    exchange with what is missing: put f one; rename f g exchange; tree .
    leave a whiteout: put f one; rename f g whiteout; tree .
    tree of many: put a 1; put b 2; put c 3; mkdir d; put d/a 4; put d/b 5; unlink b; rename c d/c; tree .
";

const ATTRIBUTES: &str = "
    chmod file: put f x; chmod f 600; stat f; chmod f 0; stat f; chmod f 777; stat f
    chmod dir: mkdir d; chmod d 700; stat d; chmod d 0; stat d; chmod d 755; stat d
    chmod with special bits on a file: put f x; chmod f 4755; stat f; chmod f 2755; stat f; chmod f 1644; stat f
    chmod with special bits on a dir: mkdir d; chmod d 1777; stat d; chmod d 2755; stat d; mkdir d/e; stat d/e
    open with special bits: open A f wo+creat 4711; close A; stat f
    mkdir with special bits: mkdir d 1777; stat d; mkdir e 2755; stat e
    fchmod: open A f rw+creat; fchmod A 600; fstat A; write A x; fstat A; close A; stat f; open A f ro; fchmod A 640; fstat A; close A; stat f
    fchmod of what was removed: put f x; open A f ro; unlink f; fchmod A 600; fstat A; close A
    umask is applied: open A f wo+creat 666; close A; stat f; mkdir d 777; stat d
    chown to oneself: put f x; chown f me -; chown f - -; chown f me -; stat f
    chown of a dir to oneself: mkdir d; chown d me -; stat d; owner d
    access: put f x; chmod f 644; access f r; access f w; access f rw; access f -; mkdir d; access d rwx; access no r; access f/x r
    access to execute: put f x; chmod f 644; access f x; chmod f 755; access f x
    times: put f x; utimens f 1000000.5 2000000.25; times f; utimens f omit 3000000; times f; utimens f 4000000 omit; times f; utimens f now now; times f
    times of a dir: mkdir d; utimens d 1000000 2000000; times d; put d/f x; unlink d/f; stat d
    times before 1970: put f x; utimens f -5 -7; times f
    times exact to the nanosecond: put f x; utimens f 1.000000001 2.999999999; times f
    times of now and of old: put f x; utimens f now 5; times f; utimens f 6 now; times f; utimens f omit omit; times f
    times that make no sense: put f x; utimens f 1.1000000000 2; utimens f 1 2.-1
    a write moves the time: put f x; utimens f 1000 2000; times f; open A f wo+trunc; write A y; close A; times f
    a read leaves mtime: put f x; utimens f now 2000; cat f; times f
    a rename leaves times: put f x; utimens f 1000 2000; rename f g; times g
    chmod leaves times: put f x; utimens f 1000 2000; chmod f 600; times f
    truncate to the same size: put f hello; utimens f 1000 2000; truncate f 5; stat f
    xattr: put f x; setxattr f user.a one; getxattr f user.a; setxattr f user.a two; getxattr f user.a; listxattr f; removexattr f user.a; listxattr f; getxattr f user.a
    xattr of a dir: mkdir d; setxattr d user.a one; getxattr d user.a; listxattr d; removexattr d user.a; removexattr d user.a
    xattr create and replace: put f x; setxattr f user.a one replace; setxattr f user.a one create; setxattr f user.a two create; setxattr f user.a two replace; getxattr f user.a; setxattr f user.a x 8
    xattr sizes: put f x; setxattr f user.a x*100; getxattr f user.a 0; getxattr f user.a 99; getxattr f user.a 100; getxattr f user.a; setxattr f user.b ''; getxattr f user.b; listxattr f
    xattr too large: put f x; setxattr f user.a x*65537
    xattr of a removed file: put f x; setxattr f user.a one; unlink f; getxattr f user.a; put f y; getxattr f user.a
    xattr stays over a rename: put f x; setxattr f user.a one; rename f g; getxattr g user.a; getxattr f user.a
    xattr is gone with what is renamed over: put f x; setxattr f user.a one; put g y; rename g f; getxattr f user.a
    xattr of the root of names: put f x; setxattr f user. y; getxattr f user.; setxattr f nodots y; getxattr f nodots; setxattr f bad.name y; getxattr f bad.name
    xattr with odd names: put f x; setxattr f user.ä.b%c y; getxattr f user.ä.b%c; listxattr f
    xattr name too long: put f x; setxattr f user.LONG255 y; getxattr f user.LONG255; setxattr f user.LONG256 y
    xattr of system and security: put f x; getxattr f system.posix_acl_access; getxattr f security.capability; getxattr f trusted.a
    xattr while writing: open A f wo+creat; setxattr f user.a one; getxattr f user.a; write A x; close A; getxattr f user.a; listxattr f
    xattr of many: put f x; setxattr f user.a 1; setxattr f user.b 2; setxattr f user.c 3; listxattr f; removexattr f user.b; listxattr f; getxattr f user.c
";

const NODES: &str = "
    fifo: mkfifo p; stat p; tree .
    nodes: mknod n char; mknod b block; mknod s socket; tree .
    regular node: mknod n file; stat n; open A n wo; write A x; close A; cat n; mknod n file
    symlink: symlink s; stat s; readlink s; tree .
    link: put f x; link f g; stat f; tree .
    link of what is missing: link no g; link . g; tree .
    link to what is there: put f x; put g y; link f g; tree .
    readlink of others: put f x; readlink f; mkdir d; readlink d; readlink no
    temporary file: open A . rw+tmpfile 600; write A x; close A; tree .
";

const WRITING: &str = "
    write and read back: open A f wo+creat; write A hello; write A ,~world; close A; cat f; stat f
    size while writing: open A f wo+creat; write A hello; fstat A; stat f; write A x*5000; fstat A; stat f; close A; stat f
    size of a new file: open A f wo+creat; fstat A; stat f; close A; stat f; cat f
    position while writing: open A f wo+creat; write A hello; seek A 0 cur; seek A 0 end; write A x; close A; cat f
    pwrite in order: open A f wo+creat; pwrite A 0 abc; pwrite A 3 def; pwrite A 6 ghi; close A; cat f
    pwrite out of order: open A f wo+creat; pwrite A 3 def; pwrite A 0 abc; close A; settled f
    pwrite over itself: open A f wo+creat; pwrite A 0 abcdef; pwrite A 2 X; close A; settled f
    write after seek back: open A f wo+creat; write A abcdef; seek A 0 set; write A XY; close A; settled f
    write twice at the start: open A f wo+creat; pwrite A 0 abc; pwrite A 0 abc; close A; settled f
    hole by pwrite: open A f wo+creat; write A abc; pwrite A 10 def; fstat A; close A; cat f
    hole by seek: open A f wo+creat; seek A 5 set; write A x; seek A 3 cur; write A y; close A; cat f
    hole at the start: open A f wo+creat; pwrite A 100000 end; close A; stat f; open A f ro; pread A 99998 10; pread A 0 10; close A
    large hole: open A f wo+creat; write A a; pwrite A 3000000 b; close A; stat f; open A f ro; pread A 2999999 5; close A
    nothing written: open A f wo+creat; write A ''; fstat A; close A; stat f; cat f
    zero bytes at an offset: open A f wo+creat; pwrite A 10 ''; fstat A; close A; stat f
    large write: open A f wo+creat; write A x*3000000; write A y*3; close A; stat f; open A f ro; pread A 2999999 5; pread A 3000003 5; close A
    odd writes: open A f wo+creat; write A a*4095; write A b*4097; write A c; close A; stat f; open A f ro; pread A 4093 4; pread A 8190 5; close A
    across a block: open A f wo+creat; write A a*16777210; write A b*20; close A; stat f; open A f ro; pread A 16777208 10; pread A 16777228 9; close A
    read of what is written: open A f rw+creat; write A hello; pread A 0 5; close A; cat f
    read of what is only for writing: put f x; open A f wo; read A 1; close A
    write to what is only for reading: put f x; open A f ro; write A y; ftruncate A 0; close A; cat f
    negative offsets: put f x; open A f ro; pread A -1 1; seek A -1 set; seek A -5 end; close A
    rewrite of a complete file: put f hello; open A f wo; write A J; close A; cat f; stat f
    rewrite with the same length: put f hello; open A f wo; write A HELLO; close A; cat f
    rewrite in the middle: put f hello; open A f rw; pwrite A 2 LL; close A; cat f
    write at the end of a complete file: put f hello; open A f wo; pwrite A 5 x; close A; cat f
    append: put f hello; open A f wo+append; write A x; close A; cat f
    append to nothing: open A f wo+creat+append; write A a; write A b; close A; cat f
    append to an empty file: put f; open A f wo+append; write A abc; write A def; close A; cat f
    append with offsets: open A f wo+creat+append; pwrite A 0 abc; pwrite A 0 def; seek A 0 set; write A ghi; close A; cat f
    append for reading: put f hello; open A f ro+append; read A 10; close A
    append by two: open A f wo+creat+append; open B f wo+append; write A a; write B b; write A c; close A; close B; cat f
    truncate at open: put f hello; open A f wo+trunc; fstat A; stat f; write A x; close A; cat f
    truncate at open without a write: put f hello; open A f wo+trunc; close A; stat f; cat f
    truncate at open keeps the mode: put f hello; chmod f 600; open A f wo+creat+trunc 644; fstat A; write A x; close A; stat f
    truncate at open twice: put f hello; open A f wo+trunc; write A abc; open B f wo+trunc; fstat A; write B x; close B; close A; cat f
    truncate to nothing: put f hello; truncate f 0; stat f; cat f
    truncate to less: put f hello; truncate f 3; stat f; cat f
    truncate to the same: put f hello; truncate f 5; stat f; cat f
    truncate to more: put f hello; truncate f 8; stat f; cat f
    truncate an empty file to more: put f; truncate f 8; stat f; cat f
    truncate an empty file to nothing: put f; truncate f 0; stat f
    ftruncate to nothing: put f hello; open A f wo; ftruncate A 0; fstat A; write A x; close A; cat f
    ftruncate to less: put f hello; open A f wo; ftruncate A 3; close A; cat f
    ftruncate while writing to nothing: open A f wo+creat; write A hello; ftruncate A 0; fstat A; pwrite A 0 x; close A; cat f
    ftruncate while writing and writing on: open A f wo+creat; write A hello; ftruncate A 0; write A x; close A; cat f
    ftruncate while writing to less: open A f wo+creat; write A hello; ftruncate A 3; close A; cat f
    ftruncate while writing to the same: open A f wo+creat; write A hello; ftruncate A 5; write A x; close A; cat f
    ftruncate while writing to more: open A f wo+creat; write A hello; ftruncate A 8; fstat A; close A; cat f
    ftruncate to more and write on: open A f wo+creat; write A hello; ftruncate A 8; write A x; close A; cat f
    ftruncate to more and write there: open A f wo+creat; write A hello; ftruncate A 8; pwrite A 8 x; close A; cat f
    ftruncate of a new file to more: open A f rw+creat; ftruncate A 5000; fstat A; close A; stat f; open A f ro; pread A 4998 5; close A
    ftruncate for reading: put f x; open A f ro; ftruncate A 0; ftruncate A 1; close A
    fsync: open A f wo+creat; write A hello; fsync A; fdatasync A; write A x; close A; cat f; open A f ro; fsync A; close A
    fsync of a dir: mkdir d; open A d ro; fsync A; fdatasync A; close A
    synchronous writes: open A f wo+creat+sync; write A hello; write A x; close A; cat f
    close twice: open A f wo+creat; write A x; close A; close A; cat f
    dup and close: open A f wo+creat; dup A B; write A hello; close B; write A x; close A; cat f
    dup and close before the first write: open A f wo+creat; dup A B; close B; write A hello; close A; cat f
    dup shares the position: open A f wo+creat; dup A B; write A abc; write B def; seek B 0 cur; close A; close B; cat f
    a child ends with the file: open A f wo+creat; write A hello; spawn A; write A x; close A; cat f
    a child ends before the first write: open A f wo+creat; spawn A; write A hello; spawn A; close A; cat f
    fallocate: open A f rw+creat; fallocate A grow 0 100; fstat A; close A; stat f
    fallocate keeps the size: open A f rw+creat; fallocate A keep 0 100; fstat A; write A x; close A; cat f
    fallocate a hole: put f hello; open A f rw; fallocate A punch 0 2; close A; cat f
    o_direct: open A f wo+creat+direct; write A x*4096; write A y*8192; close A; stat f; open A f ro+direct; pread A 0 4096; pread A 4096 4096; pread A 8192 8192; pread A 12288 4096; close A
    o_direct and large: open A f wo+creat+direct; write A x*2097152; close A; stat f; open A f ro+direct; pread A 1048576 2097152; close A
    copy_file_range: put f hello; open A f ro; open B g wo+creat; copyrange A B 5; close B; cat g; close A
    copy_file_range in pieces: put f abcdefghij; open A f ro; open B g wo+creat; copyrange A B 4; copyrange A B 100; copyrange A B 100; close B; cat g; close A
    copy_file_range into a complete file: put f hello; put g there; open A f ro; open B g wo; copyrange A B 5; close B; cat g; close A
    copy_file_range of large: put f x*3000000; open A f ro; open B g wo+creat; copyrange A B 3000000; close B; stat g; close A
    sendfile: put f hello; open A f ro; open B g wo+creat; sendfile A B 100; close B; cat g; close A
    sendfile of large: put f x*3000000; open A f ro; open B g wo+creat; sendfile A B 3000000; close B; stat g; close A
    splice: put f hello; open A f ro; open B g wo+creat; splice A B 100; close B; cat g; close A
    splice into append: open A f rw+creat+append; put g x; open B g ro; splice B A 5; close A; close B; cat f
    mmap to write shared: put f hello; open A f rw; mmap-write A shared HELLO; close A; cat f
    mmap to write a new file: open A f rw+creat; ftruncate A 5; mmap-write A shared HELLO; close A; cat f
    two writers of one file: open A f wo+creat; open B f wo; write A abc; pwrite B 3 def; close A; close B; cat f
    writers one after the other: open A f wo+creat; write A abc; close A; open B f wo; pwrite B 3 def; close B; cat f
    close with a second writer open: open A f wo+creat; open B f wo; write A abc; close A; cat f; pwrite B 3 def; close B; cat f
    a failed write is told at close: open A f wo+creat; write A abcdef; pwrite A 0 X; write A g; fsync A; close A; settled f
    write at the largest offset: open A f wo+creat; pwrite A 9223372036854775800 abcdefghij; close A; stat f
";

const READING: &str = "
    read in order: put f abcdefghij; open A f ro; read A 3; read A 3; read A 3; read A 3; read A 3; close A
    read at offsets: put f abcdefghij; open A f ro; pread A 7 2; pread A 0 3; pread A 9 5; pread A 10 5; pread A 1000 5; close A
    read past the end: put f hello; open A f ro; read A 100; read A 1; seek A 100 set; read A 1; close A
    read nothing: put f hello; open A f ro; read A 0; seek A 0 cur; close A; put g; open A g ro; read A 10; close A
    read large: put f a*1000000b*1000000; open A f ro; read A 3000000; read A 1; close A
    read backwards: put f a*4096b*4096c*4096; open A f ro; pread A 8192 4096; pread A 4096 4096; pread A 0 4096; pread A 4090 12; close A
    read across a block: put f a*16777216b*100; open A f ro; pread A 16777210 12; pread A 16777316 10; pread A 16777300 100; close A
    seek: put f abcdefghij; open A f ro; seek A 3 set; read A 2; seek A 2 cur; read A 2; seek A -1 end; read A 2; seek A 5 end; read A 1; close A
    seek for data: put f hello; open A f ro; seek A 0 data; seek A 3 data; seek A 5 data; seek A 0 hole; seek A 4 hole; seek A 5 hole; seek A 9 data; close A
    seek for data in nothing: put f; open A f ro; seek A 0 data; seek A 0 hole; close A
    dup shares the position for reading: put f abcdef; open A f ro; dup A B; read A 2; read B 2; close A; read B 2; close B
    two opens have two positions: put f abcdef; open A f ro; open B f ro; read A 2; read B 2; close A; read B 2; close B
    mmap private: put f hello; open A f ro; mmap A private 5; close A
    mmap shared: put f hello; open A f ro; mmap A shared 5; close A
    mmap beyond the end of the file in its last page: put f hello; open A f ro; mmap A shared 4096; mmap A private 4096; close A
    mmap of large: put f a*100000b*100000; open A f ro; mmap A shared 200000; mmap A private 200000; close A
    mmap private to write: put f hello; open A f ro; mmap-write A private HELLO; close A; cat f
    mmap after read: put f hello; open A f ro; read A 5; mmap A shared 5; pread A 0 5; close A
    mmap of what is written only: put f hello; open A f wo; mmap A shared 5; close A
    mmap for reading and writing: put f hello; open A f rw; mmap A shared 5; close A; cat f
    mmap of an empty file: put f; open A f ro; mmap A private 0; close A
    mmap after it was replaced: put f hello; open A f ro; mmap A shared 5; close A; put f world; open A f ro; mmap A shared 5; close A
    mmap after a rename over: put f hello; open A f ro; mmap A shared 5; close A; put g world; rename g f; open A f ro; mmap A shared 5; close A
    o_direct reading: put f x*10000; open A f ro+direct; pread A 0 8192; pread A 8192 8192; close A
    read after o_direct: put f a*8192; open A f ro+direct; pread A 0 4096; close A; open A f ro; pread A 0 8192; close A
    read in every size: put f abcdefghijklmnopqrstuvwxyz; open A f ro; read A 1; read A 2; read A 3; read A 5; read A 8; read A 13; close A
    read what was replaced: put f one; cat f; put f three; cat f; put f two; cat f; stat f
    read what was replaced by the same size: put f aaa; cat f; put f bbb; cat f; put f ccc; open A f ro; read A 10; close A
    noatime: put f x; open A f ro+noatime; read A 1; close A
    reopen and read many times: put f hello; cat f; cat f; open A f ro; open B f ro; read B 5; close B; read A 5; close A; cat f
    ro and created: open A f ro+creat; read A 5; fstat A; cat f; close A; open A f ro+creat; read A 5; close A
    rw used for reading: put f hello; open A f rw; read A 3; read A 3; fstat A; close A; cat f
    rw used for writing: open A f rw+creat; write A hello; close A; open A f rw; read A 5; close A; cat f
";

const OPEN_WHILE: &str = "
    unlink while writing: open A f wo+creat; write A hello; unlink f; write A x; fstat A; close A; stat f
    unlink before the first write: open A f wo+creat; unlink f; write A hello; close A; stat f; tree .
    unlink and make again while open: open A f wo+creat; write A old; unlink f; put f new; write A x; close A; cat f
    rename while reading: put f hello; open A f ro; rename f g; read A 5; fstat A; close A; tree .
    rename while writing: open A f wo+creat; write A hel; rename f g; write A lo; close A; tree .
    rename over what is being written: open A f wo+creat; write A old; put g new; rename g f; write A x; close A; tree .
    rename what is being written over another: put g old; open A f wo+creat; write A new; rename f g; stat g; close A; tree .
    rename the directory of what is being written: mkdir d; open A d/f wo+creat; write A hel; rename d e; write A lo; close A; tree .
    move what is being written elsewhere: mkdir d; open A f wo+creat; write A hel; rename f d/g; write A lo; fstat A; close A; tree .
    remove the directory of what is being written: mkdir d; open A d/f wo+creat; write A x; rmdir d; unlink d/f; rmdir d; write A y; close A; tree .
    read what is being written: open A f wo+creat; write A hello; open B f ro; read B 10; close B; close A; cat f
    stat of what is being written by name: open A f wo+creat; stat f; write A hello; stat f; chmod f 600; stat f; close A; stat f
    list what is being written: mkdir d; open A d/f wo+creat; write A hello; tree d; close A; tree d
    truncate what is being written by name: open A f wo+creat; write A hello; truncate f 0; pwrite A 0 x; close A; cat f
    open what is being written with O_EXCL: open A f wo+creat; open B f wo+creat+excl; write A x; close A; cat f
    open what is being written again: open A f wo+creat; write A hello; open B f wo; close B; write A x; close A; cat f
    times of what is being written: open A f wo+creat; utimens f 1000 2000; times f; close A; times f
    times of what is being written, then a write: open A f wo+creat; utimens f 1000 2000; write A x; close A; times f
    chmod of what is being written to nothing: open A f wo+creat; chmod f 0; write A x; close A; stat f
    write, close, reopen to truncate, write: open A f wo+creat; write A one; close A; open A f wo+trunc; write A two; close A; cat f
    close in another order: open A f wo+creat; open B f rw; write A hello; close B; write A x; close A; cat f
";

const LOCKS: &str = "
    flock shared: put f x; open A f ro; open B f ro; flock A shared; flock B shared; flock B exclusive; flock A un; flock B exclusive; close A; close B
    flock exclusive: put f x; open A f ro; open B f ro; flock A exclusive; flock B shared; flock B exclusive; close A; flock B exclusive; close B
    flock of one that writes: open A f wo+creat; flock A exclusive; write A x; open B f wo; flock B exclusive; close A; flock B exclusive; close B; cat f
    flock goes with a dup: put f x; open A f ro; dup A C; open B f ro; flock A exclusive; close A; flock B exclusive; close C; flock B exclusive; close B
    flock of a dir: mkdir d; open A d ro; open B d ro; flock A exclusive; flock B shared; close A; flock B shared; close B
    posix locks: put f hello; open A f rw; open B f rw; lock A write 0 3; test-lock B write 0 1; test-lock B write 3 2; lock A un 0 0; test-lock B write 0 1; close A; close B
    posix locks are for the mode of opening: put f hello; open A f ro; lock A write 0 1; lock A read 0 1; close A; open A f wo; lock A read 0 1; lock A write 0 1; close A
    posix locks go with any close: put f hello; open A f rw; open B f rw; open C f ro; lock A write 0 3; close C; test-lock B write 0 1; close A; close B
    locks of descriptions: put f hello; open A f rw; open B f rw; ofd A write 0 3; ofd B write 2 1; ofd B write 3 1; ofd B read 0 1; ofd A un 0 0; ofd B write 0 1; close A; close B
    locks of descriptions for reading: put f hello; open A f rw; open B f rw; ofd A read 0 0; ofd B read 0 0; ofd B write 0 1; close A; ofd B write 0 1; close B
    locks beyond the end: put f x; open A f rw; open B f rw; ofd A write 1000 10; ofd B write 1005 1; ofd B write 1010 1; close A; close B
";

const REMOVED: &str = "
    truncate at open while another reads: put f hello; open R f ro; pread R 0 2; open A f wo+trunc; write A bye; close A; pread R 0 10; fstat R; close R; cat f
    unlink while reading: put f hello; open A f ro; unlink f; read A 5; fstat A; stat f; close A; stat f
    unlink while reading before the first read: put f x*100000; open A f ro; unlink f; pread A 99998 5; pread A 0 2; close A
    unlink and make a dir while reading: put f hello; open A f ro; unlink f; mkdir f; read A 5; close A; stat f
    rename over while reading: put f old; put g new; open A f ro; rename g f; read A 5; fstat A; close A; tree .
    open before, replaced by rename: put f old; open A f ro; put g new; rename g f; read A 10; fstat A; close A; cat f
    many readers of one file: put f hello; open A f ro; open B f ro; open C f ro; unlink f; read A 5; close A; read B 5; read C 5; close B; close C
    readers of what is replaced: put f one; open A f ro; put f three; open B f ro; pread B 0 10; close A; pread B 0 10; close B; cat f
    rw and removed: put f hello; open A f rw; unlink f; read A 5; close A; put f other; open A f rw; unlink f; put f third; read A 5; close A
";
