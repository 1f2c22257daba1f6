//! Programs that people use do what they do elsewhere, on a real cluster, in the modes of the page cache; what they
//! leave is checked through the Alluxio shell. Where a program wants what Alluxio cannot do, it says so, and
//! what was there stays.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::time::Duration;

use tempfile::TempDir;

use common::cluster::Cluster;
use common::cluster::RemoteDir;
use common::content;
use common::kernel;
use common::mount::Mount;
use common::mount::Spec;
use common::process;

const LIMIT: Duration = Duration::from_secs(120);

/// The default, `direct_io`, and the one in which the kernel keeps pages.
const CACHE_MODES: [&str; 2] = ["direct_io", "kernel_cache"];

/// What every script of these tests may use.
const PRELUDE: &str = r#"
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }
same() { [ "$1" = "$2" ] || fail "expected '$2', got '$1'"; }
# refused TEXT COMMAND...: the command fails and says TEXT.
refused() {
  local text=$1 said
  shift
  if said=$("$@" 2>&1); then fail "'$*' succeeded: $said"; fi
  case $said in *"$text"*) ;; *) fail "'$*' did not say '$text' but: $said" ;; esac
}
"#;

/// A mount, the same place as the cluster has it, and a directory of this machine.
struct Place {
    cluster: Cluster,
    dir: RemoteDir,
    mount: Mount,
    local: TempDir,
}

impl Place {
    /// Runs a script of bash in the local directory, with the mount as `$M`.
    fn run(&self, script: &str) -> String {
        let output = self.output(script);
        assert!(
            output.status.success(),
            "{script}\n{}\n{}{}\n{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr),
            self.mount.said()
        );
        text(&output.stdout)
    }

    fn output(&self, script: &str) -> Output {
        let mut command = Command::new("bash");
        command
            .arg("-c")
            .arg(format!("{PRELUDE}\n{script}"))
            .current_dir(self.local.path())
            .env("M", self.mount.path())
            .env("HOME", self.local.path())
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        process::output_within(&mut command, LIMIT)
    }

    /// Checks that `name` of the mount is, as the Alluxio shell copies it out, the same as `local` of this machine.
    fn same_for_others(&self, name: &str, local: &str) {
        let copy = tempfile::tempdir().unwrap();
        let copy = copy.path().join("copy");
        self.cluster.shell(&["copyToLocal", &self.dir.join(name), copy.to_str().unwrap()]);
        self.run(&format!("diff -r '{}' '{local}'", copy.display()));
    }

    /// What the Alluxio shell shows as the content of `name`.
    fn seen_by_others(&self, name: &str) -> String {
        let said = self.cluster.shell(&["cat", &self.dir.join(name)]);
        // The shell's loop ends its answer with an empty line.
        said.strip_suffix('\n').unwrap().to_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn in_each_mode(name: &str, test: impl Fn(&Place)) {
    in_modes(&CACHE_MODES, name, test);
}

fn in_modes(modes: &[&str], name: &str, test: impl Fn(&Place)) {
    for mode in modes {
        let cluster = Cluster::get();
        let dir = cluster.directory(&format!("programs-{name}"));
        let mount = Spec::alluxio(&cluster, &dir.path).option(mode).start();
        let place = Place { cluster, dir, mount, local: tempfile::tempdir().unwrap() };
        make_source(place.local.path());
        test(&place);
        place.mount.unmount();
    }
}

/// `src`: a tree of directories, an empty file, small ones, one of several blocks; odd names, modes and times.
fn make_source(local: &Path) {
    let src = local.join("src");
    for dir in ["deep/er/still", "with space", "empty dir"] {
        fs::create_dir_all(src.join(dir)).unwrap();
    }
    let files = [
        ("empty", 0),
        ("small", 100),
        ("with space/ümläut", 4097),
        ("deep/er/still/page", 4096),
        ("deep/er/middle", 3_000_001),
        ("deep/large", 20_000_003),
    ];
    for (n, (name, size)) in files.into_iter().enumerate() {
        content::write_file(&src.join(name), n as u64, size).unwrap();
    }
    let mut command = Command::new("bash");
    command.current_dir(&src).arg("-c").arg(
        "chmod 640 small && chmod 755 deep/er/middle && chmod 700 'with space' && \
         touch -d '2001-02-03 04:05:06.789' small && find . -type d -exec touch -d '2002-03-04 05:06:07.25' {} + && \
         touch -d '1999-12-31 23:59:59.5' deep/er deep/large",
    );
    process::succeed(&mut command, LIMIT);
}

/// The modes, sizes and times of all that is in a tree.
const LISTING: &str = r#"
listing() {
  (cd "$1" && find . -type d -printf '%P %y %m %T@\n' -o -printf '%P %y %m %T@ %s\n' | sort)
}"#;

#[test]
fn cp_and_mv_keep_trees() {
    in_each_mode("cp", |place| {
        place.run(&format!(
            r#"{LISTING}
            cp -a src "$M/copy"
            diff -r src "$M/copy"
            diff <(listing src) <(listing "$M/copy")
            # Over itself: the same files once more, with the bytes of others.
            cp -a src/small "$M/copy/deep/large" && cmp src/small "$M/copy/deep/large"
            cp -a src/deep/large "$M/copy/deep/large" && cmp src/deep/large "$M/copy/deep/large"
            cp -r src "$M/second" && diff -r src "$M/second"
            cp -n src/small "$M/second/empty" || true
            same "$(stat -c %s "$M/second/empty")" 0
            touch -r src/deep "$M/copy/deep"
            # Out of the mount, within it, from outside, over another file, and a directory.
            cp -a "$M/copy" out && diff <(listing src) <(listing out)
            mv "$M/second/small" "$M/second/deep/" && cmp src/small "$M/second/deep/small"
            mv "$M/second/deep/small" "$M/second/deep/er/middle" && cmp src/small "$M/second/deep/er/middle"
            mv out "$M/moved" && diff <(listing src) <(listing "$M/moved")
            mv "$M/moved" "$M/second/deep/moved" && diff -r src "$M/second/deep/moved"
            refused 'not empty' mv -T "$M/copy" "$M/second"
            mv "$M/second/deep/moved" back && diff <(listing src) <(listing back)
            [ ! -e "$M/second/deep/moved" ] || fail 'moved out, but still there'
            "#
        ));
        place.same_for_others("copy", "src");
    });
}

#[test]
fn rsync_transfers_what_has_changed_and_nothing_else() {
    in_each_mode("rsync", |place| {
        place.run(&format!(
            r#"{LISTING}
            transferred() {{ rsync --stats "$@" | sed -n 's/Number of regular files transferred: //p'; }}
            same "$(transferred -a src/ "$M/copy")" 6
            diff <(listing src) <(listing "$M/copy")
            same "$(transferred -a src/ "$M/copy")" 0
            same "$(transferred -a "$M/copy/" src)" 0
            echo more >> src/small
            rm src/deep/er/middle && touch -d '2003-04-05' src/deep/er
            same "$(transferred -a --delete src/ "$M/copy")" 1
            diff <(listing src) <(listing "$M/copy")
            same "$(transferred -ac src/ "$M/copy")" 0
            # In place, a changed file would be written in its middle. A new one is written once.
            cp -a "$M/copy" before
            head -c 20000003 /dev/urandom > src/deep/large
            refused 'Operation not supported (95)' rsync -a --inplace src/ "$M/copy"
            diff -r before "$M/copy"
            echo yet more >> src/small
            refused 'Operation not supported (95)' rsync -a --append src/small "$M/copy/small"
            diff -r before "$M/copy"
            same "$(transferred -a --inplace src/ "$M/new")" 5
            diff <(listing src) <(listing "$M/new")
            # As it does by default: beside it, then renamed over it.
            same "$(transferred -a src/ "$M/copy")" 2
            same "$(find "$M" -name '.*' -type f | wc -l)" 0
            "#
        ));
        place.same_for_others("copy", "src");
        place.same_for_others("new", "src");
    });
}

#[test]
fn archives_are_written_and_unpacked() {
    in_each_mode("archives", |place| {
        place.run(&format!(
            r#"{LISTING}
            tar c --format=posix -f "$M/a.tar" src
            same "$(tar tf "$M/a.tar" | grep -c .)" 12
            mkdir "$M/tar" && tar xpf "$M/a.tar" -C "$M/tar"
            diff <(listing src) <(listing "$M/tar/src")
            tar df "$M/a.tar" -C "$M/tar"
            tar c --format=posix -C "$M/tar" src | tar xp -C . --transform 's/^src/tar-out/'
            diff <(listing src) <(listing tar-out)
            tar czf "$M/a.tgz" -C src . && mkdir "$M/tgz" && tar xzpf "$M/a.tgz" -C "$M/tgz" && diff -r src "$M/tgz"
            # An archive is not added to in place.
            cp "$M/a.tar" a.tar
            refused 'Operation not supported' tar rf "$M/a.tar" src/small
            cmp a.tar "$M/a.tar"

            cp src/deep/large "$M/large"
            gzip "$M/large" && [ ! -e "$M/large" ] && gzip -t "$M/large.gz"
            gunzip "$M/large.gz" && [ ! -e "$M/large.gz" ] && cmp src/deep/large "$M/large"
            gzip -c src/deep/large > "$M/large.gz" && zcat "$M/large.gz" | cmp - src/deep/large

            # zip goes back to fill in lengths, unless it writes to a pipe.
            refused 'Operation not supported' zip -qr "$M/a.zip" src
            [ ! -e "$M/a.zip" ] || fail 'half an archive was left'
            zip -qr - src | cat > "$M/a.zip"
            unzip -tqq "$M/a.zip" && mkdir "$M/zip" && unzip -qq "$M/a.zip" -d "$M/zip" && diff -r src "$M/zip/src"
            "#
        ));
        place.same_for_others("tar/src", "src");
        place.same_for_others("zip/src", "src");
    });
}

#[test]
fn git_clones_into_the_mount_and_reads_there() {
    in_each_mode("git", |place| {
        place.run(
            r#"
            git config --global user.name Somebody && git config --global user.email somebody@example.com
            git config --global init.defaultBranch main
            git init -q repo
            for n in 1 2 3; do
              mkdir "repo/d$n" && seq 1 "${n}000" > "repo/d$n/numbers"
              git -C repo add . && git -C repo commit -qm "commit $n"
            done
            cp src/deep/er/middle repo/ && git -C repo add . && git -C repo commit -qm last && git -C repo gc -q
            good() { git -C "$1" fsck --strict && same "$(git -C "$1" log --format=%s | tr '\n' ' ')" 'last commit 3 commit 2 commit 1 '; }

            # From a directory, git copies the objects' files.
            git clone -q repo "$M/clone"
            good "$M/clone"
            diff -r --exclude=.git repo "$M/clone"
            same "$(git -C "$M/clone" status --porcelain)" ''
            git clone -q --bare repo "$M/bare.git" && good "$M/bare.git"
            git clone -q "$M/bare.git" out && good out
            git clone -q --no-checkout repo "$M/later" && good "$M/later"
            git -C "$M/later" checkout -q -f HEAD && diff -r --exclude=.git repo "$M/later"

            # By a protocol, git reads the pack that it is writing. There is nothing to read before it is complete.
            refused 'Device or resource busy' git clone -q --no-local repo "$M/remote"
            [ ! -e "$M/remote" ] || fail 'half a clone was left'
            refused 'Device or resource busy' git -c pack.threads=1 clone -q --no-local repo "$M/remote"
            # Object by object, it works; later they can be packed.
            git init -q "$M/fetched"
            git -C "$M/fetched" -c fetch.unpackLimit=100000 fetch -q "file://$PWD/repo" main:refs/remotes/origin/main
            git -C "$M/fetched" -c core.logAllRefUpdates=false checkout -q -b main origin/main
            good "$M/fetched"
            git -C "$M/fetched" repack -adq && git -C "$M/fetched" prune-packed -q && good "$M/fetched"
            diff -r --exclude=.git repo "$M/fetched"

            # A commit appends to the log of the branch, if there is one.
            echo new > "$M/clone/new" && git -C "$M/clone" add new
            refused 'unable to append' git -C "$M/clone" commit -qm new
            git -C "$M/clone" config core.logAllRefUpdates false && rm -r "$M/clone/.git/logs"
            git -C "$M/clone" commit -qm new && git -C "$M/clone" fsck --strict
            same "$(git -C "$M/clone" log --format=%s | head -n 1)" new
            git -C "$M/clone" reset -q --hard HEAD~2 && same "$(git -C "$M/clone" status --porcelain)" ''
            git -C "$M/clone" push -q origin HEAD:pushed && good repo
            rm -rf "$M/clone" && [ ! -e "$M/clone" ]
            "#,
        );
        place.same_for_others(
            "bare.git/objects",
            &place.mount.path().join("bare.git/objects").display().to_string(),
        );
    });
}

#[test]
fn dd_reads_and_writes_in_any_block_size_and_directly() {
    in_each_mode("dd", |place| {
        place.run(
            r#"
            dd() { command dd status=none "$@"; }
            for bs in 777 4k 64k 1M 3000001 16M; do
              dd if=src/deep/large of="$M/f" bs=$bs && cmp src/deep/large "$M/f"
              dd if="$M/f" bs=$bs | cmp - src/deep/large
              rm "$M/f"
            done
            for bs in 4k 64k 1M 16M; do
              head -c 16M src/deep/large > aligned
              dd if=aligned of="$M/f" bs=$bs oflag=direct && cmp aligned "$M/f"
              dd if="$M/f" of=back bs=$bs iflag=direct && cmp aligned back
              dd if="$M/f" of=back bs=$bs iflag=direct skip=$((16777216 - 4096))B count=4096B && cmp back <(tail -c 4096 aligned)
              rm "$M/f"
            done
            # Over a file that is there, as dd does without notrunc.
            dd if=src/small of="$M/f" && dd if=src/deep/er/middle of="$M/f" bs=1M && cmp src/deep/er/middle "$M/f"
            dd if=src/deep/er/middle of="$M/s" bs=64k conv=fsync && cmp src/deep/er/middle "$M/s"
            dd if=src/deep/er/middle of="$M/s" bs=64k oflag=sync && cmp src/deep/er/middle "$M/s"
            # Holes are zeros.
            dd if=src/small of="$M/hole" bs=100 seek=1000 && cmp "$M/hole" <(head -c 100000 /dev/zero; cat src/small)
            dd if=src/small of="$M/sparse" conv=sparse && cmp src/small "$M/sparse"
            dd if=/dev/null of="$M/long" bs=1M seek=10 && cmp "$M/long" <(head -c 10M /dev/zero)
            # In the middle of what is there, and after it, nothing is written.
            refused 'Operation not supported' dd if=src/small of="$M/f" bs=100 conv=notrunc
            refused 'Operation not supported' dd if=src/small of="$M/f" bs=100 seek=10 conv=notrunc
            refused 'Operation not supported' dd if=src/small of="$M/f" oflag=append conv=notrunc
            cmp src/deep/er/middle "$M/f"
            "#,
        );
        place.same_for_others("f", "src/deep/er/middle");
        place.same_for_others("s", "src/deep/er/middle");
    });
}

#[test]
fn trees_are_walked_summed_up_and_removed() {
    in_each_mode("walk", |place| {
        place.run(
            r#"
            cp -a src "$M/copy"
            cd "$M/copy"
            same "$(find . | wc -l)" 12
            same "$(find . -type f -size +1000k | sort | tr '\n' ' ')" './deep/er/middle ./deep/large '
            same "$(find . -newermt 2001-01-01 ! -newermt 2002-01-01)" ./small
            same "$(find . -perm 640 -name 'sm*')" ./small
            same "$(find . -empty | sort | tr '\n' ' ')" './empty ./empty dir '
            same "$(find . -type f -printf '%s\n' | paste -sd+ | bc)" 23008297
            same "$(du -b --apparent-size deep/large | cut -f 1)" 20000003
            same "$(du -k deep/large | cut -f 1)" 19532
            same "$(find . -type f -exec du -b {} + | cut -f 1 | paste -sd+ | bc)" 23008297
            find . -type f -print0 | sort -z | xargs -0 md5sum > "$OLDPWD/sums"
            (cd "$OLDPWD/src" && md5sum --quiet -c ../sums)
            md5sum --quiet -c "$OLDPWD/sums"
            cp "$OLDPWD/sums" ../sums && md5sum --quiet -c ../sums
            cd "$OLDPWD"
            grep -rqF 'nothing has this' "$M/copy" && fail 'grep found it'
            rm -rf "$M/copy" && [ ! -e "$M/copy" ]
            mkdir "$M/many" && (cd "$M/many" && seq -f 'file%05g' 500 | xargs touch)
            same "$(ls -U "$M/many" | head -n 3 | wc -l)" 3
            same "$(ls "$M/many" | wc -l)" 500
            same "$(ls "$M/many" | tail -n 1)" file00500
            same "$(find "$M/many" -type f | wc -l)" 500
            rm -rf "$M/many" && [ ! -e "$M/many" ]
            "#,
        );
        let (code, said) = place.cluster.shell_code(&["ls", &place.dir.join("many")]);
        assert_ne!(code, 0, "still there: {said}");
    });
}

#[test]
fn the_redirections_of_a_shell_write_what_they_should() {
    in_each_mode("shell", |place| {
        place.run(
            r#"
            cd "$M"
            echo one > a && same "$(cat a)" one
            echo two > a && same "$(cat a)" two
            echo new >> b && same "$(cat b)" new
            (echo 1; echo 2) > c && same "$(paste -sd' ' c)" '1 2'
            { echo 1; /bin/echo 2; echo 3; } > d && same "$(paste -sd' ' d)" '1 2 3'
            (echo 1; seq 2 4; sleep 0.05; echo 5) >> e && same "$(paste -sd' ' e)" '1 2 3 4 5'
            cat > f << 'END'
a here
document
END
            same "$(paste -sd' ' f)" 'a here document'
            echo shown | tee g h > /dev/null && same "$(cat g h | paste -sd' ')" 'shown shown'
            exec 3> i && echo first >&3 && /bin/echo second >&3 && exec 3>&- && same "$(paste -sd' ' i)" 'first second'
            : > a && same "$(stat -c %s a)" 0 && echo again >> a && same "$(cat a)" again
            set -o noclobber
            refused 'cannot overwrite' bash -o noclobber -c 'echo x > c'
            echo forced >| c && same "$(cat c)" forced
            set +o noclobber
            for n in 1 2 3; do echo "line $n"; done > j && same "$(wc -l < j)" 3
            # There is no appending to what is complete.
            refused 'Operation not supported' bash -c 'echo more >> f'
            refused 'Operation not supported' bash -c 'echo more | tee -a f'
            same "$(paste -sd' ' f)" 'a here document'
            "#,
        );
        for (name, content) in
            [("a", "again\n"), ("c", "forced\n"), ("d", "1\n2\n3\n"), ("i", "first\nsecond\n")]
        {
            assert_eq!(place.seen_by_others(name), content, "{name}");
        }
    });
}

#[test]
fn files_are_installed_touched_made_and_edited() {
    in_each_mode("tools", |place| {
        place.run(
            r#"
            install -m 755 src/small "$M/program" && cmp src/small "$M/program" && same "$(stat -c %a "$M/program")" 755
            install -m 600 src/deep/er/middle "$M/program" && cmp src/deep/er/middle "$M/program"
            same "$(stat -c %a "$M/program")" 600
            install -D -m 644 src/small "$M/usr/share/doc/small" && cmp src/small "$M/usr/share/doc/small"
            install -p src/small "$M/kept" && same "$(stat -c %y "$M/kept")" "$(stat -c %y src/small)"

            touch "$M/stamp" && same "$(stat -c %s "$M/stamp")" 0
            touch -d '2000-01-01 UTC' "$M/stamp" && same "$(stat -c %Y "$M/stamp")" 946684800
            touch -r src/small "$M/stamp" && same "$(stat -c %Y "$M/stamp")" "$(stat -c %Y src/small)"
            touch "$M/stamp" && [ "$M/stamp" -nt src/small ]
            touch -c "$M/none" && [ ! -e "$M/none" ]

            mkdir "$M/make" && cd "$M/make"
            printf 'out: in\n\t@cp in out\n\t@echo made\n' > Makefile
            echo 1 > in
            same "$(make)" made
            make -q
            touch -d '+2 seconds' in
            if make -q; then fail 'make saw no change'; fi
            echo 2 > in && touch -d '1 minute ago' out
            same "$(make)" made && same "$(cat out)" 2 && make -q
            cd "$OLDPWD"

            printf 'one\ntwo\n' > "$M/text" && chmod 640 "$M/text"
            sed -i s/one/ONE/ "$M/text" && same "$(paste -sd' ' "$M/text")" 'ONE two'
            same "$(stat -c %a "$M/text")" 640
            sed -i.bak s/two/TWO/ "$M/text" && same "$(cat "$M/text" "$M/text.bak" | paste -sd' ')" 'ONE TWO ONE two'
            split -b 1000000 src/deep/er/middle "$M/part." && cat "$M"/part.* | cmp - src/deep/er/middle
            sort -r "$M/text" -o "$M/text" && same "$(paste -sd' ' "$M/text")" 'TWO ONE'
            truncate -s 0 "$M/text" && same "$(stat -c %s "$M/text")" 0
            truncate -s 5000 "$M/text" && cmp "$M/text" <(head -c 5000 /dev/zero)
            truncate -s 5000 "$M/text"
            refused 'Operation not supported' truncate -s 4000 "$M/text"
            same "$(stat -c %s "$M/text")" 5000
            "#,
        );
        place.same_for_others("program", "src/deep/er/middle");
        place.same_for_others("kept", "src/small");
    });
}

#[test]
fn python_maps_copies_and_replaces_files() {
    // An older kernel has no shared mapping without pages of its own.
    let modes = if kernel::is_since(6, 6) { &CACHE_MODES[..] } else { &["kernel_cache"] };
    in_modes(modes, "python", |place| {
        let script = r#"
import array, mmap, os, shutil, sqlite3, sys, tempfile, zipfile
M = os.environ["M"]
middle = open("src/deep/er/middle", "rb").read()

def refused(errno, work):
    try:
        work()
    except OSError as error:
        assert error.errno == errno, error
    else:
        raise AssertionError("it succeeded")

# Twice over the same file, and with a file of another size.
for source in ("src/deep/er/middle", "src/deep/er/middle", "src/small", "src/deep/er/middle"):
    for copy in (shutil.copy, shutil.copyfile, shutil.copy2):
        copy(source, M + "/copied")
        assert open(M + "/copied", "rb").read() == open(source, "rb").read(), (source, copy)

# Memory that is a file: to read, privately to write, as numbers; by several maps, and after the descriptor is closed.
with open(M + "/copied", "rb") as f:
    whole = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
    shared = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    private = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    part = mmap.mmap(f.fileno(), 8192, offset=4096, access=mmap.ACCESS_READ)
assert whole[:] == middle and shared[:] == middle and part[:] == middle[4096:12288]
assert whole.find(middle[2_999_000:]) == 2_999_000
for offset in range(2_999_999, 0, -300_007):
    assert whole[offset] == middle[offset]
private[:3] = b"abc"
assert private[:4] == b"abc" + middle[3:4] and whole[:] == middle
numbers = memoryview(whole)[:3_000_000].cast("I")
assert numbers.tolist() == array.array("I", middle[:3_000_000]).tolist()
numbers.release()

# Bytes at offsets, several at once, to the end and past it.
fd = os.open(M + "/copied", os.O_RDONLY)
assert os.pread(fd, 100, 1_000_000) == middle[1_000_000:1_000_100]
assert os.pread(fd, 100, 2_999_999) == middle[2_999_999:] and os.pread(fd, 100, 5_000_000) == b""
first, second = bytearray(1000), bytearray(2000)
assert os.preadv(fd, [first, second], 500) == 3000 and first + second == middle[500:3500]
out = os.open("sent", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
assert os.sendfile(out, fd, 1000, 5000) == 5000 and os.pread(out, 5000, 0) == middle[1000:6000]
os.close(fd)

# As editors and data bases save: beside it, synced, renamed over it, the directory synced.
fd, name = tempfile.mkstemp(dir=M)
os.write(fd, b"new "); os.fsync(fd); os.write(fd, b"content"); os.fsync(fd); os.close(fd)
os.replace(name, M + "/copied")
directory = os.open(M, os.O_RDONLY | os.O_DIRECTORY)
os.fsync(directory)
assert open(M + "/copied").read() == "new content"
# Who had mapped the file keeps what there was.
assert whole[:1000] == middle[:1000]

# A file is not changed in its middle, and stays as it is.
def overwrite():
    with open(M + "/copied", "r+b") as f:
        f.write(b"x")
refused(95, overwrite)
def append():
    open(M + "/copied", "ab")
refused(95, append)
assert open(M + "/copied").read() == "new content"
shutil.copy("src/small", M + "/mapped")
def change_mapped():
    with open(M + "/mapped", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        m[0] ^= 255
        m.flush()
refused(95, change_mapped)

# A data base is read, and not written.
db = sqlite3.connect("db")
db.execute("create table t (n integer, s text)")
db.executemany("insert into t values (?, ?)", ((n, str(n) * 100) for n in range(1000)))
db.commit()
question = "select count(*), sum(n) from t where s like '%7%'"
answer = db.execute(question).fetchone()
assert answer[0] > 100
db.close()
shutil.copy("db", M + "/db")
before = open("db", "rb").read()
for uri in (f"file:{M}/db?mode=ro", f"file:{M}/db?immutable=1", f"file:{M}/db"):
    db = sqlite3.connect(uri, uri=True)
    assert db.execute(question).fetchone() == answer, uri
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()
db = sqlite3.connect(M + "/db")
try:
    with db:
        db.execute("delete from t")
    raise AssertionError("the data base was changed")
except sqlite3.OperationalError as error:
    print("sqlite:", error)
db.close()
try:
    os.remove(M + "/db-journal")
except FileNotFoundError:
    # A file that could not be completed goes away by itself, some time after its close.
    pass
assert open(M + "/db", "rb").read() == before

# Archives can be read; written ones only where nothing is filled in later.
with zipfile.ZipFile("z.zip", "w") as z:
    z.write("src/deep/er/middle")
shutil.copy("z.zip", M)
assert zipfile.ZipFile(M + "/z.zip").read("src/deep/er/middle") == middle
for line in open(M + "/copied"):
    assert line == "new content"
"#;
        fs::write(place.local.path().join("script.py"), script).unwrap();
        place.run("python3 script.py");
        assert_eq!(place.seen_by_others("copied"), "new content");
        place.same_for_others("mapped", "src/small");
        place.same_for_others("db", "db");
    });
}
