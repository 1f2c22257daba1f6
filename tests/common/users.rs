//! What other users of the machine see and may do: threads of the test that act as one of them.

use std::io;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use nix::unistd::User;

/// A user of this machine that every system has, and that owns nothing.
#[derive(Clone, Debug)]
pub(crate) struct Somebody {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user `name`.
pub(crate) fn named(name: &str) -> Somebody {
    let user = User::from_name(name).unwrap().unwrap_or_else(|| panic!("this system has no user {name}"));
    Somebody { name: name.to_owned(), uid: user.uid.as_raw(), gid: user.gid.as_raw() }
}

/// Whether the tests may act as other users. Says so if not: who runs them as an ordinary user gets the rest.
pub(crate) fn are_available() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("not tested, as only root can act as other users");
    }
    root
}

impl Somebody {
    /// Runs `work` as this user, on a thread of its own: the kernel keeps the user of each thread apart, and only the C
    /// library makes them the same.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.become_them();
                work()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn become_them(&self) {
        let (uid, gid) = (self.uid, self.gid);
        let none = std::ptr::null::<libc::gid_t>();
        // SAFETY: system calls that change the credentials of this thread and touch no memory.
        let codes = unsafe {
            [
                libc::syscall(libc::SYS_setgroups, 0, none),
                libc::syscall(libc::SYS_setresgid, gid, gid, gid),
                libc::syscall(libc::SYS_setresuid, uid, uid, uid),
            ]
        };
        assert_eq!(codes, [0; 3], "cannot become {}: {}", self.name, io::Error::last_os_error());
    }

    /// Has `command` run as this user.
    pub(crate) fn runs<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.uid(self.uid).gid(self.gid)
    }
}
