//! What lets others see inside a mount while it serves: the figures of its parts, their rates, the reports to the master,
//! and the web server that shows them.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;

use super::Failure;
use super::figures;
use super::figures::Parts;
use super::web::Identity;
use super::web::Port;
use super::web::Web;
use crate::backend::alluxio::AlluxioFs;
use crate::backend::alluxio::Report;
use crate::config::Config;
use crate::config::keys;
use crate::fs::Cancel;
use crate::fs::Ctx;
use crate::fs::FileSystem;
use crate::metrics;
use crate::metrics::Registration;

/// How long the last report may take when the mount has ended, and how long the one before it, if it is under way.
const LAST_REPORT: Duration = Duration::from_secs(2);

/// Everything of one mount. Dropped, its threads end and are joined: nobody is asked for figures any more.
pub(super) struct Insight {
    _web: Option<Web>,
    _rates: Ticker,
    _reports: Option<Ticker>,
    _figures: Registration,
}

/// Starts it for the mount at `point`: its `parts`, and `fs`, what is behind it, without the caches. `also` is called as
/// often as rates are counted.
pub(super) fn start(
    config: &Config,
    port: Option<Port>,
    point: PathBuf,
    fs: Arc<dyn FileSystem>,
    parts: Parts,
    mut also: impl FnMut() + Send + 'static,
) -> Result<Insight, Failure> {
    let client = config.optional_text(&keys::USER_APP_ID);
    let host = host(config);
    // As Alluxio's client has it: the dots of a given name stay.
    let source = client.map_or_else(|| host.replace('.', "_"), str::to_owned);
    let identity = Identity { source, user: config.login_user().to_owned() };
    let cluster = parts.cluster.clone();
    let figures = figures::register(parts);
    let work = move |_: &Cancel| {
        metrics::tick();
        also();
    };
    let rates = Ticker::start("rates", metrics::TICK, work, || {});
    let rates = rates.map_err(|err| Failure::because("cannot start a thread", err))?;
    let reports = match cluster {
        Some(cluster) if config.flag(&keys::USER_METRICS) => Some(reports(config, cluster, host)?),
        _ => None,
    };
    let web = port.map(|port| port.serve(identity, point, fs)).transpose()?;
    Ok(Insight { _web: web, _rates: rates, _reports: reports, _figures: figures })
}

/// This machine's name towards the cluster.
fn host(config: &Config) -> String {
    let given = config.optional_text(&keys::USER_HOSTNAME).map(str::to_owned);
    given
        .or_else(|| nix::unistd::gethostname().ok()?.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Tells the master from time to time what was added to the counters that it adds up over its clients.
fn reports(config: &Config, cluster: Arc<AlluxioFs>, host: String) -> Result<Ticker, Failure> {
    let client = match config.optional_text(&keys::USER_APP_ID) {
        Some(id) => id.to_owned(),
        None => format!("app-{}", uuid::Uuid::new_v4().as_u64_pair().0 >> 1),
    };
    log::info!(
        "Created metrics heartbeat with ID {client}. This ID will be used for identifying info from the client. It can \
         be set manually through the {} property",
        keys::USER_APP_ID.name
    );
    let interval = config.duration(&keys::USER_METRICS_INTERVAL);
    let reporter = Arc::new(Reporter { cluster, client, host, told: Default::default() });
    let last = Arc::clone(&reporter);
    let ticker = Ticker::start(
        "heartbeat",
        interval,
        move |cancel| reporter.report(&Ctx::new(0, 0, 0, cancel), None),
        move || last.report(&Ctx::daemon(), Some(Instant::now() + LAST_REPORT)),
    );
    ticker.map_err(|err| Failure::because("cannot start a thread", err))
}

struct Reporter {
    cluster: Arc<AlluxioFs>,
    client: String,
    host: String,
    /// What the master knows.
    told: parking_lot::Mutex<[u64; 4]>,
}

impl Reporter {
    fn report(&self, ctx: &Ctx, deadline: Option<Instant>) {
        let now = metrics::reported();
        let told = *self.told.lock();
        let added: Vec<_> = now
            .iter()
            .zip(told)
            .map(|((name, value), told)| (*name, value - told))
            .filter(|(_, added)| *added > 0)
            .collect();
        if deadline.is_some() && added.is_empty() {
            return;
        }
        let report = Report { client: self.client.clone(), host: self.host.clone(), added };
        match self.cluster.report(ctx, deadline, &report) {
            Ok(()) => *self.told.lock() = now.map(|(_, value)| value),
            Err(err) => log::debug!("the master was not told what this client has done: {err}"),
        }
    }
}

/// A thread that does something from time to time. Dropped, it does something else for the last time, ends and is
/// joined.
///
/// What is under way then may end within [`LAST_REPORT`], as a report that the master has counted must not be cut off and
/// sent again. After that it is cancelled, and nothing is done for the last time.
struct Ticker {
    stop: Option<Sender<()>>,
    /// Broken when the thread has ended.
    ended: Receiver<()>,
    cancel: Arc<Cancel>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(
        name: &str,
        interval: Duration,
        mut work: impl FnMut(&Cancel) + Send + 'static,
        last: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        // A zero would keep a processor busy.
        let interval = interval.max(Duration::from_millis(100));
        let (stop, stopped): (_, Receiver<()>) = bounded(0);
        let (ending, ended) = bounded(0);
        let cancel = Arc::new(Cancel::new());
        let heard = Arc::clone(&cancel);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ending: Sender<()> = ending;
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                work(&heard);
            }
            if !heard.is_cancelled() {
                last();
            }
        })?;
        Ok(Self { stop: Some(stop), ended, cancel, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        if self.ended.recv_timeout(LAST_REPORT) == Err(RecvTimeoutError::Timeout) {
            self.cancel.cancel();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("a thread that counts panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;

    use super::*;

    /// Ends a ticker while its work is under way, which goes on until `is_over` says so. Whether it was cancelled, and
    /// whether the last was done.
    fn ended_at_work(is_over: impl Fn(&Cancel) -> bool + Send + 'static) -> (bool, bool) {
        let (begun, under_way) = bounded(1);
        let (cancelled, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (seen, done) = (Arc::clone(&cancelled), Arc::clone(&last));
        let ticker = Ticker::start(
            "test",
            Duration::ZERO,
            move |cancel| {
                let _ = begun.try_send(());
                while !is_over(cancel) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                seen.store(cancel.is_cancelled(), Ordering::Relaxed);
            },
            move || done.store(true, Ordering::Relaxed),
        );
        let ticker = ticker.expect("a thread");
        under_way.recv().expect("it works");
        drop(ticker);
        (cancelled.load(Ordering::Relaxed), last.load(Ordering::Relaxed))
    }

    #[test]
    fn what_is_under_way_at_the_end_is_not_done_again() {
        let begun = Instant::now();
        assert_eq!(ended_at_work(move |_| begun.elapsed() > Duration::from_millis(300)), (false, true));
        assert_eq!(ended_at_work(Cancel::is_cancelled), (true, false));
    }
}
