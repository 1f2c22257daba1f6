//! On which processors threads run. A leaf.

use log::debug;
use nix::sched::CpuSet;
use nix::sched::sched_getaffinity;
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;

/// The thread that asks, for sched_setaffinity(2).
const SELF: Pid = Pid::from_raw(0);

/// Has this thread run on that processor alone, if this process may use it.
pub(crate) fn bind(processor: u16) {
    let mut set = CpuSet::new();
    let bound = set.set(usize::from(processor)).and_then(|()| sched_setaffinity(SELF, &set));
    if let Err(err) = bound {
        debug!("A thread is not bound to processor {processor}: {err}");
    }
}

/// Has this thread run wherever this process may. A new thread is bound to what its starter is bound to, which may be a
/// worker of a session.
pub(crate) fn unbind() {
    // That of the process's first thread, which nobody binds.
    let unbound = sched_getaffinity(Pid::this()).and_then(|set| sched_setaffinity(SELF, &set));
    if let Err(err) = unbound {
        debug!("A thread stays bound to the processors of its starter: {err}");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_is_bound_as_its_starter_until_it_is_unbound() {
        let whole = sched_getaffinity(Pid::this()).unwrap();
        let first = (0..CpuSet::count()).find(|&cpu| whole.is_set(cpu).unwrap()).unwrap();
        let mut alone = CpuSet::new();
        alone.set(first).unwrap();
        let seen = thread::spawn(move || {
            bind(u16::try_from(first).unwrap());
            thread::spawn(|| {
                let before = sched_getaffinity(SELF).unwrap();
                unbind();
                (before, sched_getaffinity(SELF).unwrap())
            })
            .join()
            .unwrap()
        });
        assert_eq!(seen.join().unwrap(), (alone, whole));
    }
}
