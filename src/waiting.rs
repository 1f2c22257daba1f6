//! What is waited for outside of this process: calls that are under way, by server, and which of them the request of a
//! thread waits for. A leaf: whoever calls says so, and whoever looks for what hangs reads it. Knows neither requests nor
//! what the calls are.
//!
//! A thread that serves requests has a [`Waiting`] of its own, which calls that are made on this thread are noted in; a
//! future that runs elsewhere notes its calls in the list of all only.
//!
//! Lock order: the calls of one thread, the list of all; neither is held across anything else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

/// Something that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Who is to answer: `host:port`, the path of a domain socket, or nothing for this process itself.
    pub server: Arc<str>,
    /// What is to be answered: the name of the call.
    pub what: &'static str,
    /// Since when.
    pub since: Instant,
}

/// What the request of one thread waits for.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Which request of the thread it is. What belongs to an earlier one is not noted any more.
    turn: AtomicU64,
    /// Whether `calls` is not empty.
    used: AtomicBool,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    /// Under way, by number: the first is the oldest.
    running: Vec<(u64, Wait)>,
    /// Those that have ended, by what was waited for, and how long in all.
    ended: Vec<(Wait, Duration)>,
}

thread_local! {
    static HERE: RefCell<Option<Link>> = const { RefCell::new(None) };
}

/// All calls that are under way, by number.
static ALL: Mutex<Option<HashMap<u64, Wait>>> = Mutex::new(None);

/// So many things that were waited for are told apart in one request.
const ENDED_MAX: usize = 8;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The request that this thread works for.
#[derive(Clone, Debug)]
pub struct Link {
    waiting: Arc<Waiting>,
    turn: u64,
}

/// A call that is under way, or a wait, until this is dropped.
#[derive(Debug)]
pub struct Call {
    number: u64,
    /// Whether it is in the list of all.
    listed: bool,
    link: Option<Link>,
}

impl Waiting {
    /// The thread begins another request: this thread's calls are noted here from now on, and nothing of the last one is
    /// known any more.
    pub fn begin(self: &Arc<Self>) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) + 1;
        if self.used.swap(false, Ordering::Relaxed) {
            *self.calls.lock() = Calls::default();
        }
        HERE.with_borrow_mut(|here| match here {
            Some(link) if Arc::ptr_eq(&link.waiting, self) => link.turn = turn,
            _ => *here = Some(Link { waiting: Arc::clone(self), turn }),
        });
    }

    /// What has been waited for longest, of what is under way.
    pub fn now(&self) -> Option<Wait> {
        if !self.used.load(Ordering::Relaxed) {
            return None;
        }
        self.calls.lock().running.first().map(|(_, wait)| wait.clone())
    }

    /// What the request has waited for longest, and how long in all; what is under way counts as well.
    pub fn longest(&self) -> Option<(Wait, Duration)> {
        if !self.used.load(Ordering::Relaxed) {
            return None;
        }
        let calls = self.calls.lock();
        let running = calls.running.first().map(|(_, wait)| (wait.clone(), wait.since.elapsed()));
        calls.ended.iter().cloned().chain(running).max_by_key(|(_, time)| *time)
    }
}

/// The request that this thread works for, to be handed to one that helps it.
pub fn link() -> Option<Link> {
    HERE.with_borrow(Clone::clone)
}

/// This thread works for the request of another one from now on.
pub fn work_for(link: Option<Link>) {
    HERE.set(link);
}

/// A call of `what` to `server` begins; it ends when the result is dropped.
pub fn call(server: &Arc<str>, what: &'static str) -> Call {
    note(server, what, true)
}

/// This thread's request begins to wait for what is no call of its own: somebody else's call, or this process.
pub fn wait(server: &Arc<str>, what: &'static str) -> Call {
    note(server, what, false)
}

fn note(server: &Arc<str>, what: &'static str, listed: bool) -> Call {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let wait = Wait { server: Arc::clone(server), what, since: Instant::now() };
    let link = link().filter(Link::is_current);
    if let Some(link) = &link {
        link.waiting.used.store(true, Ordering::Relaxed);
        link.waiting.calls.lock().running.push((number, wait.clone()));
    }
    if listed {
        ALL.lock().get_or_insert_default().insert(number, wait);
    }
    Call { number, listed, link }
}

/// All calls that are under way, the longest first.
pub fn all() -> Vec<Wait> {
    let mut waits: Vec<Wait> = ALL.lock().iter().flat_map(|all| all.values().cloned()).collect();
    waits.sort_by_key(|wait| wait.since);
    waits
}

impl Link {
    fn is_current(&self) -> bool {
        self.waiting.turn.load(Ordering::Relaxed) == self.turn
    }
}

impl Calls {
    fn add(&mut self, wait: Wait, time: Duration) {
        let is_same = |known: &Wait| known.what == wait.what && known.server == wait.server;
        match self.ended.iter().position(|(known, _)| is_same(known)) {
            Some(at) => self.ended[at].1 += time,
            None if self.ended.len() < ENDED_MAX => self.ended.push((wait, time)),
            None => {}
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.listed
            && let Some(all) = &mut *ALL.lock()
        {
            all.remove(&self.number);
        }
        let Some(link) = &self.link else { return };
        let mut calls = link.waiting.calls.lock();
        let Some(at) = calls.running.iter().position(|(number, _)| *number == self.number) else { return };
        let (_, wait) = calls.running.remove(at);
        let time = wait.since.elapsed();
        if link.is_current() {
            calls.add(wait, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> Arc<str> {
        name.into()
    }

    fn is_under_way(name: &str) -> bool {
        all().iter().any(|wait| &*wait.server == name)
    }

    #[test]
    fn a_call_is_seen_by_its_thread_and_by_all_until_it_ends() {
        let waiting = Arc::new(Waiting::default());
        waiting.begin();
        assert_eq!(waiting.now(), None);
        let first = call(&server("one:1"), "GetStatus");
        let second = call(&server("two:2"), "ReadBlock");
        let now = waiting.now().unwrap();
        assert_eq!((&*now.server, now.what), ("one:1", "GetStatus"));
        assert!(is_under_way("one:1") && is_under_way("two:2"));
        drop(first);
        assert_eq!(&*waiting.now().unwrap().server, "two:2");
        assert!(!is_under_way("one:1"));
        drop(second);
        assert_eq!(waiting.now(), None);
        assert!(waiting.longest().is_some());
        let wait = wait(&server("three:1"), "ReadBlock");
        assert_eq!(&*waiting.now().unwrap().server, "three:1");
        assert!(!is_under_way("three:1"), "it is another's call");
        drop(wait);
        waiting.begin();
        assert_eq!(waiting.longest(), None);
    }

    #[test]
    fn a_helper_notes_its_calls_for_the_request_until_the_next_one() {
        let waiting = Arc::new(Waiting::default());
        waiting.begin();
        let helped = link();
        let (shared, turn) = (Arc::clone(&waiting), waiting.turn.load(Ordering::Relaxed));
        std::thread::spawn(move || {
            work_for(helped);
            let call = call(&server("three:3"), "CompleteFile");
            assert_eq!(shared.now().unwrap().what, "CompleteFile");
            drop(call);
        })
        .join()
        .unwrap();
        let late = Some(Link { waiting: Arc::clone(&waiting), turn });
        waiting.begin();
        std::thread::spawn(move || {
            work_for(late);
            let _call = call(&server("four:4"), "CompleteFile");
            assert!(is_under_way("four:4"));
        })
        .join()
        .unwrap();
        assert_eq!(waiting.longest(), None, "that belonged to the request before");
    }

    #[test]
    fn who_serves_no_request_is_seen_by_all() {
        std::thread::spawn(|| {
            let call = call(&server("five:5"), "GetConfigHash");
            assert!(is_under_way("five:5"));
            drop(call);
            assert!(!is_under_way("five:5"));
        })
        .join()
        .unwrap();
    }
}
