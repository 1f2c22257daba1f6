//! A look at a cluster from this machine, for a person who wonders why a mount does not work: who is the primary, which
//! workers can be reached, whose clock is wrong. Nothing is changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::configuration;
use super::options::AlluxioOptions;
use super::options::HostPort;
use super::workers::Workers;
use crate::fs::Ctx;
use crate::fs::FsPath;
use crate::fs::Result;

/// As many workers are connected to; a larger cluster is judged by these.
const WORKERS_MAX: usize = 64;

/// What was found.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Address of the primary master.
    pub primary: String,
    /// Its version, as it says.
    pub version: String,
    /// Whether it still waits for its workers.
    pub safe_mode: bool,
    /// How far its clock is before ours, in milliseconds; negative if it is behind. Good to a few milliseconds.
    pub clock_ahead_ms: i64,
    /// The live workers, or the first 64 of many.
    pub workers: Vec<Surveyed>,
    /// All live workers.
    pub live: usize,
}

/// One worker.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// Where its data port is.
    pub address: HostPort,
    /// Whether it is on this machine.
    pub local: bool,
    /// Bytes that it can hold.
    pub capacity: u64,
    /// Bytes that it holds.
    pub used: u64,
    /// Why there is no connection to it, if there is none.
    pub problem: Option<String>,
}

/// Looks at the cluster of `options`. Fails if its primary master cannot be found or does not let this user in.
pub fn survey(options: &AlluxioOptions) -> Result<Survey> {
    let options = Arc::new(options.clone());
    let (bridge, master) = configuration::open(&options)?;
    let master = Arc::new(master);
    let workers = Workers::new(Arc::clone(&options), Arc::clone(&master));
    bridge.run(&Ctx::daemon(), None, async {
        let info = master.master_info().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let theirs = info.start_time_ms() + info.up_time_ms();
        let ours = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        // Fails where authentication is wanted and this user is not let in.
        master.get_status(&FsPath::root()).await?;
        let all = workers.all().await?;
        let problems =
            connect_to(all.iter().map(|worker| worker.address.clone()), options.connect_timeout).await;
        let surveyed = all.iter().take(WORKERS_MAX).map(|worker| Surveyed {
            address: worker.address.clone(),
            local: worker.local,
            capacity: worker.capacity,
            used: worker.used,
            problem: problems.get(&worker.address).cloned(),
        });
        Ok(Survey {
            primary: master.primary().server().await?.name().to_owned(),
            version: info.version().to_owned(),
            safe_mode: info.safe_mode(),
            clock_ahead_ms: theirs - ours,
            workers: surveyed.collect(),
            live: all.len(),
        })
    })
}

/// Why those who cannot be reached cannot.
async fn connect_to(addresses: impl Iterator<Item = HostPort>, limit: Duration) -> HashMap<HostPort, String> {
    let mut attempts = JoinSet::new();
    for address in addresses.take(WORKERS_MAX) {
        attempts.spawn(async move {
            let attempt = TcpStream::connect((address.host.as_str(), address.port));
            let problem = match timeout(limit, attempt).await {
                Ok(Ok(_)) => None,
                Ok(Err(err)) => Some(err.to_string()),
                Err(_) => Some(format!("no answer within {} s", limit.as_secs())),
            };
            (address, problem)
        });
    }
    let mut problems = HashMap::new();
    while let Some(joined) = attempts.join_next().await {
        if let Ok((address, Some(problem))) = joined {
            problems.insert(address, problem);
        }
    }
    problems
}
