//! Calls to servers: how long each took, how many failed and were made again, by method and server. A server's methods
//! are known from the start, so that recording looks nothing up.
//!
//! Lock order: the list of servers is the only lock; who records does not take it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;

use super::Counter;
use super::histogram::Histogram;

/// Servers beyond these are counted together: where workers come and go under new names, that is to have an end.
const SERVERS_MAX: usize = 1024;

/// The name that servers beyond [`SERVERS_MAX`] share.
const OTHERS: &str = "others";

/// What is counted of one method.
#[derive(Debug, Default)]
pub struct Method {
    /// Of each call, from the request to the end of the answer.
    pub(super) time: Histogram,
    pub(super) failures: Counter,
    pub(super) retries: Counter,
}

/// The calls to one server, or to all of them.
#[derive(Debug)]
pub struct Calls {
    names: &'static [&'static str],
    methods: Box<[OnceLock<Box<Method>>]>,
}

static SERVERS: Mutex<BTreeMap<String, Arc<Calls>>> = Mutex::new(BTreeMap::new());

static ALL: OnceLock<Calls> = OnceLock::new();

/// Where calls to the server `name` are counted, of which there are the methods `names`. The same for each who asks.
pub fn server(name: &str, names: &'static [&'static str]) -> Arc<Calls> {
    let mut servers = SERVERS.lock();
    let name = if servers.len() < SERVERS_MAX || servers.contains_key(name) { name } else { OTHERS };
    Arc::clone(servers.entry(name.to_owned()).or_insert_with(|| Arc::new(Calls::new(names))))
}

/// Where calls are counted as their callers see them: with all that was tried, at whatever servers.
pub fn all_servers(names: &'static [&'static str]) -> &'static Calls {
    ALL.get_or_init(|| Calls::new(names))
}

impl Calls {
    fn new(names: &'static [&'static str]) -> Self {
        Self { names, methods: names.iter().map(|_| OnceLock::new()).collect() }
    }

    /// A call of `method`, a place in the list of names, has taken `time`.
    pub fn record(&self, method: usize, time: Duration, failed: bool) {
        let method = self.method(method);
        method.time.record(time);
        if failed {
            method.failures.add(1);
        }
    }

    /// A call of `method` is made once more.
    pub fn retry(&self, method: usize) {
        self.method(method).retries.add(1);
    }

    fn method(&self, method: usize) -> &Method {
        self.methods[method].get_or_init(Box::default)
    }

    fn used(&self) -> impl Iterator<Item = (&'static str, &Method)> {
        let named = self.names.iter().zip(&self.methods);
        named.filter_map(|(name, method)| Some((*name, &**method.get()?)))
    }
}

/// Gives each method that was called, by its name, of each server, by its name.
pub(super) fn each(mut found: impl FnMut(&str, &'static str, &Method)) {
    let servers: Vec<(String, Arc<Calls>)> =
        SERVERS.lock().iter().map(|(name, calls)| (name.clone(), Arc::clone(calls))).collect();
    for (server, calls) in &servers {
        calls.used().for_each(|(name, method)| found(server, name, method));
    }
}

/// Gives each method that was called, whatever the server, by its name.
pub(super) fn each_of_all(found: impl FnMut((&'static str, &Method))) {
    ALL.get().into_iter().flat_map(Calls::used).for_each(found);
}
