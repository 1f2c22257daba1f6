//! What each step of a read costs: instructions, as callgrind counts them, and allocations. Neither depends on how busy
//! the machine is, so a change of a few instructions shows. Needs a cluster, on this machine (`ALLUXIO_TEST_MASTER`), and
//! valgrind; `BENCH_PART=pieces make bench` has both.
//!
//! Each piece runs in a process of its own, a copy of this program, once as it is and once under valgrind. Only what
//! the thread does inside of [`measured`] is counted. Of a step that is inside of libfuse or between it and us, what is counted
//! is the whole without it, or it without the rest: callgrind stops where that function begins and goes on where it ends.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on says so by its panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is what it is for")]

mod counting;
mod opened;
#[path = "../../tests/common/probed.rs"]
mod probed;

use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use alluxio_fuse::backend::alluxio::pieces::decode_read_response;
use alluxio_fuse::backend::alluxio::pieces::read_response;
use alluxio_fuse::fs::Ctx;
use alluxio_fuse::session::LibraryChoice;
use bytes::Bytes;

use counting::allocations;
use opened::Mounted;
use opened::Opened;
use opened::SIZE;
use opened::Way;

/// What a copy of this program is told in its environment: which piece it is for.
const TASK: &str = "ALLUXIO_FUSE_BENCH_PIECE";

/// What a READ asks for.
const READ: usize = 128 << 10;

/// What a worker sends in one frame.
const FRAME: usize = 32 << 10;

/// How often each piece is run to be counted.
const TIMES: usize = SIZE / READ;

/// Where our code begins when libfuse has decoded a READ. One name for both versions of the library.
const SHIM: &str = "alluxio_fuse::session::shims::v?::read";

/// Where libfuse takes over our reply.
const REPLY: &str = "fuse_reply_iov";

struct Piece {
    name: &'static str,
    work: Work,
    /// Which part of the work it is.
    part: Part,
}

#[derive(Clone, Copy)]
enum Part {
    Whole,
    /// What is not inside of this function.
    Without(&'static str),
    /// What is.
    Inside(&'static str),
}

#[derive(Clone, Copy)]
enum Work {
    /// A READ from the bytes of the request to the reply.
    Request(LibraryChoice, Way),
    /// The table of handles alone.
    LookUp,
    /// `FileReader::read_at` alone.
    ReadAt(Way),
    /// One message of a ReadBlock stream, with as many bytes as a worker puts into one.
    Message,
}

const PIECES: [Piece; 12] = {
    use LibraryChoice::Only2;
    use LibraryChoice::Only3;
    const fn piece(name: &'static str, work: Work, part: Part) -> Piece {
        Piece { name, work, part }
    }
    [
        piece("decode of a READ, libfuse 2", Work::Request(Only2, Way::Mapped), Part::Without(SHIM)),
        piece("decode of a READ, libfuse 3", Work::Request(Only3, Way::Mapped), Part::Without(SHIM)),
        piece("handle look-up", Work::LookUp, Part::Whole),
        piece("bytes out of a mapped block", Work::ReadAt(Way::Mapped), Part::Whole),
        piece("bytes out of the window", Work::ReadAt(Way::Window), Part::Whole),
        piece("reply, libfuse 2", Work::Request(Only2, Way::Mapped), Part::Inside(REPLY)),
        piece("reply, libfuse 3", Work::Request(Only3, Way::Mapped), Part::Inside(REPLY)),
        piece("READ of a mapped block, libfuse 2", Work::Request(Only2, Way::Mapped), Part::Whole),
        piece("READ of a mapped block, libfuse 3", Work::Request(Only3, Way::Mapped), Part::Whole),
        piece("READ that hits the window, libfuse 2", Work::Request(Only2, Way::Window), Part::Whole),
        piece("READ that hits the window, libfuse 3", Work::Request(Only3, Way::Window), Part::Whole),
        piece("decode of a ReadBlock message of 1 MiB in frames of 32 KiB", Work::Message, Part::Whole),
    ]
};

fn main() {
    if let Ok(task) = std::env::var(TASK) {
        let [rust, all] = PIECES[task.parse::<usize>().unwrap()].work.run();
        println!("{rust} {all}");
        return;
    }
    let valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    if !valgrind {
        eprintln!("valgrind not found, so no instructions are counted: `apt-get install valgrind`");
    }
    println!("| step | instructions | allocations of ours | of libfuse |\n|---|---:|---:|---:|");
    for (number, piece) in PIECES.iter().enumerate() {
        let [rust, all] = run_alone(number);
        let instructions = if valgrind { figure(instructions(number, piece.part)) } else { "-".to_owned() };
        // Of a part only the instructions are known; the rows of the whole have all allocations.
        let of = |count: u64| {
            if matches!(piece.part, Part::Whole) {
                figure(count as f64 / TIMES as f64)
            } else {
                "-".to_owned()
            }
        };
        println!("| {} | {instructions} | {} | {} |", piece.name, of(rust), of(all - rust));
    }
}

impl Work {
    /// Prepares the work, runs it, and runs it once more, counted. Returns the allocations of that: of Rust code and of all.
    fn run(self) -> [u64; 2] {
        match self {
            Work::Request(library, way) => {
                let mounted = Mounted::new(library, way);
                // The first round shows that the requests are answered; nobody reads what the second one is answered with.
                let replies = tempfile::tempfile().unwrap();
                mounted.serve(&mut mounted.requests(1, READ), replies.as_fd());
                let expected = TIMES * (opened::REPLY_HEADER + READ);
                assert_eq!(
                    replies.metadata().unwrap().len(),
                    expected as u64,
                    "not all was answered with bytes"
                );
                let nowhere = File::options().write(true).open("/dev/null").unwrap();
                let mut requests = mounted.requests(2, READ);
                mounted.opened.bring();
                count(|| mounted.serve(&mut requests, nowhere.as_fd()))
            }
            Work::LookUp => {
                let opened = Opened::new(Way::Mapped);
                let look =
                    || (0..TIMES).for_each(|_| assert!(opened.vfs.is_open(black_box(opened.handles[2]))));
                look();
                count(look)
            }
            Work::ReadAt(way) => {
                let opened = Opened::new(way);
                let ctx = Ctx::daemon();
                let read = |reader: usize| {
                    for offset in (0..SIZE).step_by(READ) {
                        let slices = opened.readers[reader].read_at(&ctx, offset as u64, READ).unwrap();
                        assert_eq!(slices.len(), READ);
                    }
                };
                read(1);
                opened.bring();
                count(|| read(2))
            }
            Work::Message => {
                let message = read_response(Bytes::from(vec![7; 1 << 20]));
                let decode = || {
                    for _ in 0..TIMES {
                        assert_eq!(decode_read_response(black_box(message.clone()), FRAME).unwrap(), 1 << 20);
                    }
                };
                decode();
                count(decode)
            }
        }
    }
}

fn count(mut work: impl FnMut()) -> [u64; 2] {
    let before = allocations();
    measured(&mut work);
    let after = allocations();
    [after.rust - before.rust, after.all - before.all]
}

/// Callgrind counts what happens in here, so it must remain a function.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

/// Instructions of one run of a part.
fn instructions(number: usize, part: Part) -> f64 {
    match part {
        Part::Whole => under_valgrind(number, None),
        Part::Without(function) => under_valgrind(number, Some(function)),
        Part::Inside(function) => under_valgrind(number, None) - under_valgrind(number, Some(function)),
    }
}

/// Instructions of one run of the piece, but for those inside of `without`.
fn under_valgrind(number: usize, without: Option<&str>) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    // What happens before the work is counted is forgotten: the other function is used there, too.
    let measured = ["--toggle-collect=pieces::measured", "--zero-before=pieces::measured"];
    command.args(["--quiet", "--tool=callgrind"]).args(measured);
    if let Some(without) = without {
        command.arg(format!("--toggle-collect={without}"));
    }
    command.arg(format!("--callgrind-out-file={}", out.display()));
    copy(&mut command, number);
    total(&out) as f64 / TIMES as f64
}

fn run_alone(number: usize) -> [u64; 2] {
    let said = copy(&mut Command::new("env"), number);
    let counts: Vec<u64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    counts.try_into().unwrap()
}

/// Runs a copy of this program for the piece by `command`, and returns what it prints.
fn copy(command: &mut Command, number: usize) -> String {
    let program = std::env::current_exe().unwrap();
    let output = command.arg(program).env(TASK, number.to_string()).output().unwrap();
    // Valgrind names system calls there that it does not know; the standard library can do without.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The sum that callgrind has at the end of its file, or of its files, if it has written one for each part.
fn total(out: &Path) -> u64 {
    let text = std::fs::read_to_string(out).unwrap();
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    line.unwrap_or_else(|| panic!("no totals in {}", out.display())).trim().parse().unwrap()
}

fn figure(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
