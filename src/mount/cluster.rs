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
use crate::config::keys::Scope;
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
        let passed_over = passed_over(&cluster.properties, &local);
        if !passed_over.is_empty() {
            log::info!(
                "set in the cluster, and only counts where it is set for a mount: {}",
                passed_over.join(", ")
            );
        }
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

/// What somebody has set in the cluster, perhaps for mounts, and what only those who mount may set. What servers need
/// themselves is left out, such as where they keep their logs.
fn passed_over(properties: &[ClusterProperty], local: &Config) -> Vec<String> {
    let is_for_clients = |name: &str| {
        ["alluxio.fuse.", "alluxio.security.", "alluxio.user."].iter().any(|start| name.starts_with(start))
    };
    let is_passed_over = |property: &&ClusterProperty| {
        !property.source.starts_with("DEFAULT")
            && property.value.is_some()
            && is_for_clients(&property.name)
            && keys::find(&property.name)
                .is_some_and(|key| key.scope == Scope::Local && !local.is_set_by_user(key))
    };
    properties.iter().filter(is_passed_over).map(|property| property.name.clone()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn property(name: &str, source: &str, value: &str) -> ClusterProperty {
        ClusterProperty { name: name.to_owned(), source: source.to_owned(), value: Some(value.to_owned()) }
    }

    fn config(properties: &[(&str, &str)]) -> Config {
        Config::given(properties).unwrap()
    }

    #[test]
    fn what_somebody_sets_for_mounts_in_the_cluster_counts_and_the_masters_own_defaults_do_not() {
        let given = [
            property("alluxio.fuse.web.enabled", "SITE_PROPERTY (/a)", "true"),
            property("alluxio.fuse.web.port", "SYSTEM_PROPERTY", "1234"),
            property("alluxio.fuse.web.bind.host", "DEFAULT", "0.0.0.0"),
            property("alluxio.fuse.debug.enabled", "SITE_PROPERTY (/a)", "true"),
            property("alluxio.fuse.special.command.enabled", "SITE_PROPERTY (/a)", "true"),
        ];
        let mut config = config(&[("alluxio.fuse.special.command.enabled", "false")]);
        config.add_cluster_defaults(offered(&given)).unwrap();
        assert!(config.flag(&keys::FUSE_WEB_ENABLED) && config.flag(&keys::FUSE_DEBUG));
        assert_eq!(config.int(&keys::FUSE_WEB_PORT), 1234);
        assert_eq!(config.text(&keys::FUSE_WEB_BIND_HOST), "127.0.0.1");
        assert!(!config.flag(&keys::FUSE_SPECIAL_COMMANDS), "who mounts has the last word");
    }

    #[test]
    fn what_only_who_mounts_may_set_is_named() {
        let site = "SITE_PROPERTY (/a)";
        let given = [
            property("alluxio.fuse.mount.point", site, "/mnt/a"),
            property("alluxio.fuse.fs.name", "DEFAULT", "alluxio-fuse"),
            property("alluxio.user.app.id", site, "all"),
            property("alluxio.user.hostname", site, "h"),
            property("alluxio.logs.dir", site, "/logs"),
            property("alluxio.user.file.writetype.default", site, "THROUGH"),
        ];
        let local = config(&[("alluxio.user.hostname", "mine")]);
        assert_eq!(passed_over(&given, &local), ["alluxio.fuse.mount.point", "alluxio.user.app.id"]);
    }
}
