//! Processes with a deadline, and what the kernel says of them.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Output;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::socket::Shutdown;
use nix::sys::socket::shutdown;
use nix::unistd::Pid;

use super::holds_within;
use super::wait_until;

/// Runs `command` to its end and returns what it said; kills it and panics after `limit`.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = status_within(&mut child, limit);
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let all = |pipe: &Receiver<Vec<u8>>| {
        // What it has started may have the pipe as well.
        pipe.recv_timeout(limit).unwrap_or_else(|_| panic!("{command:?}: somebody keeps its output open"))
    };
    let (stdout, stderr) = (all(&stdout), all(&stderr));
    let Some(status) = status else {
        panic!("{command:?}: not done within {limit:?}, said {}", String::from_utf8_lossy(&stderr));
    };
    Output { status, stdout, stderr }
}

/// Runs `command`; panics with what it said unless it succeeds within `limit`.
pub(crate) fn succeed(command: &mut Command, limit: Duration) -> String {
    let output = output_within(command, limit);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How `child` ended, if it did within `limit`.
pub(crate) fn status_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    holds_within(limit, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status
}

/// Whether `child` prints a line that `is_it` within `limit`. What it prints from then on is thrown away.
pub(crate) fn prints_within(child: &mut Child, limit: Duration, is_it: impl Fn(&str) -> bool) -> bool {
    let stdout = child.stdout.take().expect("the command was started with a pipe");
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            drop(tell.send(line));
        }
    });
    let end = Instant::now() + limit;
    let next = || told.recv_timeout(end.saturating_duration_since(Instant::now())).ok();
    std::iter::from_fn(next).any(|line| is_it(&line))
}

/// Waits until `child` sleeps in the kernel for an answer of a file system in user space.
pub(crate) fn wait_until_in_fuse(child: &Child) {
    let wchan = format!("/proc/{}/wchan", child.id());
    wait_until("the process waits for an answer of the mount", Duration::from_secs(20), || {
        let place = std::fs::read_to_string(&wchan).unwrap_or_default();
        place.contains("fuse") || place.contains("request_wait")
    });
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap_or_else(|e| panic!("{signal} to {pid}: {e}"));
}

/// For guards, which must not panic when the process has just ended.
pub(crate) fn signal_if_alive(pid: u32, signal: Signal) {
    if is_alive(pid) {
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
}

/// Whether there is a process `pid` that has not ended; one that nobody has waited for has.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

/// The number of open descriptors of `pid`.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The number of threads of `pid`.
pub(crate) fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// The most memory that `pid` has had since [`forget_peak`], in bytes.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// The peak of `pid` is what it has now.
pub(crate) fn forget_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// The processes that have `entry`, as `NAME=value`, in the environment that they were started with.
pub(crate) fn with_environment(entry: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for dir in std::fs::read_dir("/proc").unwrap() {
        let Ok(pid) = dir.unwrap().file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environ.split(|&b| b == 0).any(|e| e == entry.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// Breaks one of the TCP connections that `pid` has to one of `ports`, chosen by `choose` from their number. False if
/// there is none. For a process that this one may trace, such as its child.
pub(crate) fn break_connection(pid: u32, ports: &[u16], choose: impl FnOnce(usize) -> usize) -> bool {
    let sockets = sockets_to(pid, ports);
    if sockets.is_empty() {
        return false;
    }
    let theirs = sockets[choose(sockets.len())];
    // SAFETY: the calls take numbers; each descriptor that they give is owned by one value from here on.
    let ours = unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(process >= 0, "pidfd_open: {}", Errno::last());
        let process = OwnedFd::from_raw_fd(process as RawFd);
        let copy = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), theirs, 0);
        match Errno::result(copy) {
            Ok(copy) => OwnedFd::from_raw_fd(copy as RawFd),
            // Closed in the meantime.
            Err(Errno::EBADF) => return false,
            Err(errno) => panic!("pidfd_getfd: {errno}"),
        }
    };
    shutdown(ours.as_raw_fd(), Shutdown::Both).is_ok()
}

/// The descriptors of `pid` that are TCP connections to one of `ports`.
fn sockets_to(pid: u32, ports: &[u16]) -> Vec<RawFd> {
    let mut inodes = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let port = words[2].rsplit_once(':').map(|(_, port)| u16::from_str_radix(port, 16).unwrap());
            if port.is_some_and(|port| ports.contains(&port)) {
                inodes.push(format!("socket:[{}]", words[9]));
            }
        }
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if inodes.iter().any(|inode| target.as_os_str() == inode.as_str()) {
            found.push(entry.file_name().to_string_lossy().parse().unwrap());
        }
    }
    found
}

/// What comes out of `pipe`, once it is closed.
fn drain(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let mut pipe = pipe.expect("the command was started with pipes");
    let (give, all) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        drop(give.send(bytes));
    });
    all
}

/// The resident memory of a process, and the most that it ever was, in bytes.
pub(crate) fn resident(pid: u32) -> [u64; 2] {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    })
}
