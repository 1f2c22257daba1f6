//! The system call in which a thread waits for an answer of this mount, as `/proc/TID/syscall` shows it: its number, its
//! arguments and where it was made. Nothing of the caller's memory is looked at: that might have to be fetched, from this
//! mount, or from somebody who means harm and never gives it.
//!
//! What cannot be seen is not known, and nothing depends on it: a caller of another user or pid namespace, a system
//! that permits nobody to look (Yama), a thread that is just going to sleep.
//!
//! Looking takes the lock `exec_update_lock` of the caller's process. Before Linux 5.11 (5.7) it was a lock that is held by
//! whoever starts a program, also while the kernel asks a mount for it, which would wait for each other. Since then
//! it is held only when all other threads of the process have ended, and none of them ends while it waits for us.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// The first version of Linux where looking cannot wait for the start of a program.
const FIRST_LINUX: (u32, u32) = (5, 11);

/// How long nobody is looked at after it was refused once: the system may write a line into its log each time.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// How often and how long it is waited for a thread that has sent its request and does not sleep yet.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_micros(20);

/// Nine numbers in hexadecimal with what is between them.
const TEXT_MAX: usize = 256;

/// A system call that has not returned yet. Two that are equal need not be the same: a thread can make the same call again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SystemCall {
    number: i64,
    arguments: [u64; 6],
    stack: u64,
    place: u64,
}

impl SystemCall {
    /// That of the thread `tid`, which waits for an answer.
    pub(super) fn of_thread(tid: u32) -> Option<Self> {
        static REFUSALS: LazyLock<Refusals> = LazyLock::new(Refusals::default);
        if tid == 0 || !*CAN_LOOK || REFUSALS.is_recent(Instant::now()) {
            return None;
        }
        for look in 1..=LOOKS {
            match look_at(tid) {
                Ok(Sight::Call(call)) => return Some(call),
                Ok(Sight::Running) if look < LOOKS => thread::sleep(BETWEEN_LOOKS),
                Ok(Sight::Running | Sight::Nothing) => return None,
                Err(err) if err.kind() == ErrorKind::PermissionDenied => {
                    REFUSALS.refused(Instant::now());
                    return None;
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// Whether it opens a file for reading, and does nothing else.
    pub(super) fn opens_to_read(&self) -> bool {
        self.open_flags().is_some_and(|flags| {
            let more = libc::O_PATH
                | libc::O_TRUNC
                | libc::O_CREAT
                | libc::O_EXCL
                | libc::O_DIRECTORY
                | libc::O_TMPFILE;
            flags & libc::O_ACCMODE == libc::O_RDONLY && flags & more == 0
        })
    }

    /// An openat(2) for reading, made at `place`.
    #[cfg(test)]
    pub(super) fn example(place: u64) -> Self {
        Self { number: libc::SYS_openat, arguments: [0; 6], stack: 1, place }
    }

    /// The flags of open(2) and openat(2). Those of openat2(2) are in the caller's memory.
    fn open_flags(&self) -> Option<i32> {
        let argument = match self.number {
            libc::SYS_openat => 2,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => 1,
            _ => return None,
        };
        // A thread of the kernel has no place of its own where it called: it shows a call of who started it.
        let is_own = self.stack != 0 && self.place != 0;
        is_own.then(|| self.arguments[argument] as u32 as i32)
    }
}

/// When it was last refused to look, in milliseconds since the first look, raised by one.
struct Refusals {
    begun: Instant,
    last_ms: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Refusals {
    fn refused(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.begun).as_millis() as u64;
        self.last_ms.store(ms + 1, Ordering::Relaxed);
    }

    fn is_recent(&self, now: Instant) -> bool {
        let last = self.last_ms.load(Ordering::Relaxed);
        last != 0 && now < self.begun + Duration::from_millis(last - 1) + REFUSED_FOR
    }
}

/// What is to be seen of a thread.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    Call(SystemCall),
    Running,
    /// It waits outside of a system call, or in a way that is not understood.
    Nothing,
}

fn look_at(tid: u32) -> std::io::Result<Sight> {
    let mut text = [0; TEXT_MAX];
    let len = File::open(format!("/proc/{tid}/syscall"))?.read(&mut text)?;
    Ok(parse(&String::from_utf8_lossy(&text[..len])))
}

fn parse(text: &str) -> Sight {
    if text.trim() == "running" {
        return Sight::Running;
    }
    parse_call(text).map_or(Sight::Nothing, Sight::Call)
}

fn parse_call(text: &str) -> Option<SystemCall> {
    let mut words = text.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let mut next = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = next()?;
    }
    Some(SystemCall { number, arguments, stack: next()?, place: next()? })
}

/// Whether the kernel is new enough, and `/proc` shows the processes as the kernel numbers them for this one.
static CAN_LOOK: LazyLock<bool> = LazyLock::new(|| {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    has_own_numbers(&text("/proc/self/status"), std::process::id())
        && version(&text("/proc/sys/kernel/osrelease")).is_some_and(|version| version >= FIRST_LINUX)
});

/// Whether `status` of this process is from a `/proc` of its own pid namespace: that shows one number for it, its own.
/// One from outside, bound into a container, shows that of the outside first.
fn has_own_numbers(status: &str, own: u32) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_ascii_whitespace().eq([own.to_string().as_str()]))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: &str = "0xffffff9c 0x7ffd0 0x80000 0x0 0x0 0x0 0x7ffc8 0x7f3a1";

    fn openat(words: &str) -> SystemCall {
        match parse(&format!("{} {words}\n", libc::SYS_openat)) {
            Sight::Call(call) => call,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_is_its_number_its_arguments_and_its_place() {
        let call = openat(READS);
        assert_eq!(call.arguments, [0xffff_ff9c, 0x7_ffd0, 0x8_0000, 0, 0, 0]);
        assert_eq!((call.stack, call.place), (0x7_ffc8, 0x7_f3a1));
        assert_eq!(call, openat(READS));
        assert_ne!(call, openat(&READS.replace("0x7ffd0", "0x7ffd8")));
        assert_ne!(call, openat(&READS.replace("0x7f3a1", "0x7f3a2")));
    }

    #[test]
    fn what_is_no_call_is_not_taken_for_one() {
        assert_eq!(parse("running\n"), Sight::Running);
        assert_eq!(parse("-1 0x7ffc8 0x7f3a1\n"), Sight::Nothing);
        assert_eq!(parse(""), Sight::Nothing);
        assert_eq!(parse("257 0x1 0x2"), Sight::Nothing);
    }

    #[test]
    fn only_an_open_that_reads_and_does_nothing_else_opens_to_read() {
        let with = |flags: i32| openat(&READS.replace("0x80000", &format!("{flags:#x}"))).opens_to_read();
        assert!(with(libc::O_RDONLY));
        assert!(with(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_DIRECT));
        for flags in [
            libc::O_WRONLY,
            libc::O_RDWR,
            libc::O_ACCMODE,
            libc::O_PATH,
            libc::O_TRUNC,
            libc::O_CREAT,
            libc::O_EXCL,
            libc::O_DIRECTORY,
        ] {
            assert!(!with(flags), "{flags:#o}");
        }
        let call = openat(READS);
        assert!(!SystemCall { number: libc::SYS_openat2, ..call }.opens_to_read());
        assert!(!SystemCall { number: libc::SYS_newfstatat, ..call }.opens_to_read());
        // Workers of io_uring show a call of the thread that started them.
        assert!(!SystemCall { stack: 0, place: 0, ..call }.opens_to_read());
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_older_call_has_its_flags_elsewhere() {
        let call = openat("0x7ffd0 0x80000 0x1 0x0 0x0 0x0 0x7ffc8 0x7f3a1");
        let call = SystemCall { number: libc::SYS_open, ..call };
        assert!(call.opens_to_read());
        let arguments = [0x7_ffd0, 0x8_0001, 0, 0, 0, 0];
        assert!(!SystemCall { arguments, ..call }.opens_to_read());
    }

    #[test]
    fn after_a_refusal_nobody_is_looked_at_for_a_while() {
        let refusals = Refusals::default();
        let now = Instant::now();
        assert!(!refusals.is_recent(now));
        refusals.refused(now);
        assert!(refusals.is_recent(now));
        assert!(!refusals.is_recent(now + REFUSED_FOR + Duration::from_millis(2)));
    }

    #[test]
    fn numbers_of_another_pid_namespace_are_not_taken_for_own_ones() {
        let status = |numbers: &str| format!("Name:\talluxio-fuse\nNSpid:\t{numbers}\nVmPeak:\t1 kB\n");
        assert!(has_own_numbers(&status("12"), 12));
        assert!(!has_own_numbers(&status("12\t12"), 12), "the same number by chance");
        assert!(!has_own_numbers(&status("4711\t12"), 12));
        assert!(!has_own_numbers(&status("1"), 12));
        assert!(!has_own_numbers("", 12));
    }

    #[test]
    fn the_version_is_read_off_the_release() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.4.0"), Some((5, 4)));
        assert!(
            version("4.18.0-553.el8").unwrap() < FIRST_LINUX && version("5.11.0").unwrap() >= FIRST_LINUX
        );
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn callers_without_a_number_are_not_looked_at() {
        assert_eq!(SystemCall::of_thread(0), None);
        assert_eq!(SystemCall::of_thread(u32::MAX), None);
    }
}
