//! The settings of the cluster, at the start and while the mount serves. Its hashes are looked at again and again; what
//! may differ from path to path is changed at once, for what is opened from then on, whatever is open already. The rest
//! is for the next mount.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;

use super::Failure;
use super::alluxio_options;
use crate::backend::alluxio::AlluxioFs;
use crate::backend::alluxio::ClusterConfiguration;
use crate::backend::alluxio::ClusterProperty;
use crate::backend::alluxio::PathTable;
use crate::backend::alluxio::fetch_configuration;
use crate::config::Config;
use crate::config::keys;
use crate::fs::Cancel;
use crate::fs::Ctx;
use crate::fs::FsPath;

/// Adds what the cluster wants its clients to use, unless it is not to be asked.
pub fn add_cluster_defaults(config: &mut Config) -> Result<(), Failure> {
    match fetch(config)? {
        Some(cluster) => Ok(config.add_cluster_defaults(offered(&cluster.properties))?),
        None => Ok(()),
    }
}

fn fetch(config: &Config) -> Result<Option<ClusterConfiguration>, Failure> {
    if !config.flag(&keys::USER_CLUSTER_DEFAULTS) {
        return Ok(None);
    }
    fetch_configuration(&alluxio_options::from_config(config, &FsPath::root())?)
        .map(Some)
        .map_err(|err| Failure::because("cannot load the configuration of the cluster", err))
}

/// The cluster's file system from `path` on, and what keeps its settings up to date. What the cluster wants its clients
/// to use is asked for first, and added to `config`.
pub(super) fn connect(
    config: &mut Config,
    path: &FsPath,
) -> Result<(Arc<AlluxioFs>, Option<Watch>), Failure> {
    let local = config.clone();
    let cluster = fetch(config)?;
    if let Some(cluster) = &cluster {
        config.add_cluster_defaults(offered(&cluster.properties))?;
    }
    let fs = Arc::new(AlluxioFs::connect(alluxio_options::from_config(config, path)?)?);
    let Some(cluster) = cluster else { return Ok((fs, None)) };
    fs.set_paths(path_table(config, &cluster)?);
    let sight = Sight { local, shown: config.clone(), hashes: (cluster.hash, cluster.path_hash) };
    let watch = Watch::start(Arc::clone(&fs), sight, config.duration(&keys::USER_CONF_SYNC_INTERVAL));
    Ok((fs, Some(watch.map_err(|err| Failure::because("cannot start a thread", err))?)))
}

/// What counts of the master's settings. It sends all that it knows, its built-in defaults included: those for mounts
/// are not ours, so of these only what somebody has set is taken.
fn offered(properties: &[ClusterProperty]) -> Vec<(String, String)> {
    let chosen = |property: &&ClusterProperty| {
        !(property.name.starts_with("alluxio.fuse.") && property.source.starts_with("DEFAULT"))
    };
    let chosen = properties.iter().filter(chosen);
    chosen.filter_map(|property| Some((property.name.clone(), property.value.clone()?))).collect()
}

fn path_table(config: &Config, cluster: &ClusterConfiguration) -> Result<PathTable, Failure> {
    let mut below = Vec::with_capacity(cluster.paths.len());
    for (path, properties) in &cluster.paths {
        let mut at = config.for_path(path, offered(properties))?;
        for (level, note) in at.take_notes() {
            log::log!(level, "{note}");
        }
        below.push((FsPath::parse(path)?, alluxio_options::path_options(&at)));
    }
    alluxio_options::path_table(config, below)
}

/// What was seen of the cluster's settings.
struct Sight {
    /// The settings of this machine alone.
    local: Config,
    /// Those in force.
    shown: Config,
    /// Of the cluster's settings and of those for paths.
    hashes: (String, String),
}

/// Looks at the cluster's settings from time to time. Dropped, it stops.
pub(super) struct Watch {
    stop: Option<Sender<()>>,
    cancel: Arc<Cancel>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(fs: Arc<AlluxioFs>, sight: Sight, interval: Duration) -> std::io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let cancel = Arc::new(Cancel::new());
        let heard = Arc::clone(&cancel);
        let thread = std::thread::Builder::new()
            .name("settings".to_owned())
            .spawn(move || sight.follow(&fs, &stopped, interval, &heard))?;
        Ok(Self { stop: Some(stop), cancel, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        self.cancel.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that looks at the cluster's settings panicked");
        }
    }
}

impl Sight {
    fn follow(mut self, fs: &AlluxioFs, stopped: &Receiver<()>, interval: Duration, cancel: &Cancel) {
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            match self.look(fs, &Ctx::new(0, 0, 0, cancel)) {
                Ok(()) => {}
                Err(_) if stopped.try_recv().is_err_and(|err| err.is_disconnected()) => return,
                Err(failure) => log::warn!("the settings of the cluster are not known: {failure}"),
            }
        }
    }

    fn look(&mut self, fs: &AlluxioFs, ctx: &Ctx) -> Result<(), Failure> {
        if fs.configuration_hashes(ctx)? == self.hashes {
            return Ok(());
        }
        let cluster = fs.configuration(ctx)?;
        let mut config = self.local.clone();
        config.add_cluster_defaults(offered(&cluster.properties))?;
        fs.set_paths(path_table(&config, &cluster)?);
        let before = self.shown.effective();
        let changed: Vec<String> = config
            .effective()
            .iter()
            .filter(|setting| !before.contains(setting))
            .map(ToString::to_string)
            .collect();
        log::info!(
            "the settings of the cluster have changed, for what is opened from now on, and what is not for files with the \
             next mount: {}",
            if changed.is_empty() { "those for paths".to_owned() } else { changed.join(", ") }
        );
        self.hashes = (cluster.hash, cluster.path_hash);
        self.shown = config;
        Ok(())
    }
}
