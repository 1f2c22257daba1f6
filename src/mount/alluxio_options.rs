//! What the properties mean for the Alluxio backend, which knows none.

use std::time::Duration;

use nix::unistd::Group;
use nix::unistd::User;

use super::Failure;
use super::memory;
use super::registry;
use crate::backend::alluxio::AlluxioOptions;
use crate::backend::alluxio::Authentication;
use crate::backend::alluxio::EndOfLife;
use crate::backend::alluxio::HostPort;
use crate::backend::alluxio::Lifetime;
use crate::backend::alluxio::LocationPolicy;
use crate::backend::alluxio::MetadataLoad;
use crate::backend::alluxio::OwnerPolicy;
use crate::backend::alluxio::PathOptions;
use crate::backend::alluxio::PathTable;
use crate::backend::alluxio::ReadType;
use crate::backend::alluxio::RetryTimes;
use crate::backend::alluxio::SyncInterval;
use crate::backend::alluxio::WriteType;
use crate::config::Config;
use crate::config::Key;
use crate::config::keys;
use crate::fs::FsPath;

/// The options of a mount that shows `root`.
pub(super) fn from_config(config: &Config, root: &FsPath) -> Result<AlluxioOptions, Failure> {
    refuse_unsupported(config)?;
    let hostname = config.optional_text(&keys::USER_HOSTNAME);
    let write_init_retry = RetryTimes {
        base: config.duration(&keys::USER_WRITE_INIT_BASE),
        max: config.duration(&keys::USER_WRITE_INIT_MAX),
        total: config.duration(&keys::USER_WRITE_INIT_DURATION),
    };
    Ok(AlluxioOptions {
        masters: masters(config)?,
        root: root.clone(),
        paths: path_table(config, Vec::new())?,

        authentication: authentication(config),
        user: config.login_user().to_owned(),
        owner_policy: owner_policy(config)?,
        auth_timeout: config.duration(&keys::NETWORK_AUTH_TIMEOUT),

        umask: umask(config)?,
        times: config.flag(&keys::FUSE_TIMES),
        include_operation_id: config.flag(&keys::USER_OPERATION_ID),
        capacity_refresh: config.optional_duration(&keys::FUSE_STAT_CACHE_INTERVAL).unwrap_or(Duration::ZERO),

        journal_dir: registry::place(&config.runtime_dirs()),

        memory_limit: memory::limit(config),
        reader_chunk: config.bytes(&keys::USER_READER_CHUNK),
        reader_buffer_messages: count(config, &keys::USER_READER_BUFFER),
        writer_chunk: config.bytes(&keys::USER_WRITER_CHUNK),
        writer_buffer_messages: count(config, &keys::USER_WRITER_BUFFER),
        local_reader_chunk: config.bytes(&keys::USER_LOCAL_READER_CHUNK),
        local_writer_chunk: config.bytes(&keys::USER_LOCAL_WRITER_CHUNK),
        data_read_timeout: config.duration(&keys::USER_DATA_READ_TIMEOUT),
        data_write_timeout: config.duration(&keys::USER_DATA_WRITE_TIMEOUT),
        reader_close_timeout: config.duration(&keys::USER_READER_CLOSE_TIMEOUT),
        writer_flush_timeout: config.duration(&keys::USER_WRITER_FLUSH_TIMEOUT),
        writer_close_timeout: config.duration(&keys::USER_WRITER_CLOSE_TIMEOUT),
        pread_threshold: config.bytes(&keys::USER_PREAD_THRESHOLD),
        locations_expire: config.duration(&keys::USER_STATUS_EXPIRATION),
        ufs_read_concurrency: count(config, &keys::USER_UFS_READ_CONCURRENCY),

        short_circuit: config.flag(&keys::USER_SHORT_CIRCUIT),
        short_circuit_preferred: config.flag(&keys::USER_SHORT_CIRCUIT_PREFERRED),
        hostname: hostname.or_else(|| config.optional_text(&keys::LOCALITY_NODE)).map(str::to_owned),
        rack: config.optional_text(&keys::LOCALITY_RACK).map(str::to_owned),
        domain_socket_as_uuid: config.flag(&keys::WORKER_SOCKET_AS_UUID),
        write_policy: location_policy(config, &keys::USER_WRITE_POLICY)?,
        ufs_read_policy: location_policy(config, &keys::USER_UFS_READ_POLICY)?,
        worker_list_refresh: config.duration(&keys::USER_WORKER_LIST_INTERVAL),

        rpc_retry: RetryTimes {
            base: config.duration(&keys::USER_RPC_RETRY_BASE),
            max: config.duration(&keys::USER_RPC_RETRY_MAX),
            total: config.duration(&keys::USER_RPC_RETRY_DURATION),
        },
        block_read_retry: RetryTimes {
            base: config.duration(&keys::USER_BLOCK_RETRY_BASE),
            max: config.duration(&keys::USER_BLOCK_RETRY_MAX),
            total: config.duration(&keys::USER_BLOCK_RETRY_DURATION),
        },
        write_init_retry,
        logging_threshold: config.duration(&keys::USER_LOGGING_THRESHOLD),
        block_read_metrics: config.flag(&keys::USER_BLOCK_READ_METRICS),
        polling_timeout: config.duration(&keys::USER_MASTER_POLLING_TIMEOUT),

        streaming_connections_max: count(config, &keys::USER_STREAMING_CONNECTIONS),
        rpc_window: config.bytes(&keys::USER_RPC_WINDOW),
        streaming_window: config.bytes(&keys::USER_STREAMING_WINDOW),
        rpc_message_max: config.bytes(&keys::USER_RPC_MESSAGE_MAX),
        streaming_message_max: config.bytes(&keys::USER_STREAMING_MESSAGE_MAX),
        keepalive: config.duration(&keys::USER_RPC_KEEPALIVE),
        keepalive_timeout: config.duration(&keys::USER_RPC_KEEPALIVE_TIMEOUT),
        streaming_keepalive: config.optional_duration(&keys::USER_STREAMING_KEEPALIVE),
        streaming_keepalive_timeout: config.duration(&keys::USER_STREAMING_KEEPALIVE_TIMEOUT),

        ..AlluxioOptions::default()
    })
}

fn refuse_unsupported(config: &Config) -> Result<(), Failure> {
    if config.flag(&keys::NETWORK_TLS) {
        return Err(refuse(config, &keys::NETWORK_TLS, "true", "TLS is not supported"));
    }
    Ok(())
}

/// All masters, from the first key that names any.
fn masters(config: &Config) -> Result<Vec<HostPort>, Failure> {
    let parse = |key: &'static Key, text: &str| {
        text.parse::<HostPort>().map_err(|err| refuse(config, key, text, &err.to_string()))
    };
    let default_port = count(config, &keys::MASTER_RPC_PORT);
    let named = config.list(&keys::MASTER_RPC_ADDRESSES);
    if !named.is_empty() {
        return named.iter().map(|text| parse(&keys::MASTER_RPC_ADDRESSES, text)).collect();
    }
    // Which master Alluxio's clients would find there, the other keys do not say.
    if config.flag(&keys::ZOOKEEPER_ENABLED) {
        let reason = format!(
            "masters cannot be looked up in ZooKeeper, list them in {}: who is the primary is found out by asking them",
            keys::MASTER_RPC_ADDRESSES.name
        );
        return Err(refuse(config, &keys::ZOOKEEPER_ENABLED, "true", &reason));
    }
    let journals = config.list(&keys::MASTER_JOURNAL_ADDRESSES);
    if !journals.is_empty() {
        let hosts = journals.iter().map(|text| parse(&keys::MASTER_JOURNAL_ADDRESSES, text));
        return hosts.map(|host| host.map(|found| HostPort::new(found.host, default_port))).collect();
    }
    match config.optional_text(&keys::MASTER_HOSTNAME) {
        // A host only, so that an address that does not look like one is found out.
        Some(host) => parse(&keys::MASTER_HOSTNAME, &in_brackets(host))
            .map(|found| vec![HostPort::new(found.host, default_port)]),
        None => Err(Failure::new(format!(
            "no Alluxio master is known, set {} or {} in alluxio-site.properties, or ALLUXIO_MASTER_HOSTNAME",
            keys::MASTER_HOSTNAME.name,
            keys::MASTER_RPC_ADDRESSES.name
        ))),
    }
}

/// An address of version 6 as it stands in front of a port.
fn in_brackets(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// The options of each path: as `config` has them, but for those of `below`.
pub(super) fn path_table(config: &Config, below: Vec<(FsPath, PathOptions)>) -> Result<PathTable, Failure> {
    let key = &keys::USER_DIRECT_ACCESS;
    let pattern = config.optional_text(key);
    PathTable::new(path_options(config), below).with_direct(pattern).map_err(|err| {
        refuse(config, key, pattern.unwrap_or_default(), &format!("not a regular expression: {err}"))
    })
}

/// What may differ from path to path, as `config` has it.
pub(super) fn path_options(config: &Config) -> PathOptions {
    PathOptions {
        metadata_load: metadata_load(config),
        sync_interval: sync_interval(config),
        access_time_disabled: config.flag(&keys::USER_ATIME_DISABLED),
        access_time_precision: config.duration(&keys::MASTER_ATIME_PRECISION),
        delete_unchecked: config.flag(&keys::USER_DELETE_UNCHECKED),
        persist_on_rename: config.flag(&keys::USER_PERSIST_ON_RENAME),
        write_type: write_type(config),
        read_type: read_type(config),
        block_size: config.bytes(&keys::USER_BLOCK_SIZE),
        replication_min: count(config, &keys::USER_REPLICATION_MIN),
        replication_max: count(config, &keys::USER_REPLICATION_MAX),
        replication_durable: count(config, &keys::USER_REPLICATION_DURABLE),
        persistence_wait: config.optional_duration(&keys::USER_PERSISTENCE_WAIT),
        lifetime: lifetime(config),
        write_tier: count(config, &keys::USER_WRITE_TIER),
        passive_cache: config.flag(&keys::USER_PASSIVE_CACHE),
    }
}

fn authentication(config: &Config) -> Authentication {
    match config.text(&keys::SECURITY_AUTHENTICATION) {
        "NOSASL" => Authentication::NoSasl,
        _ => Authentication::Simple,
    }
}

fn lifetime(config: &Config) -> Lifetime {
    let end = match config.text(&keys::USER_CREATE_TTL_ACTION) {
        "DELETE" => EndOfLife::Delete,
        "DELETE_ALLUXIO" => EndOfLife::DeleteAlluxio,
        _ => EndOfLife::Free,
    };
    Lifetime { limit: config.optional_duration(&keys::USER_CREATE_TTL), end }
}

fn write_type(config: &Config) -> WriteType {
    match config.text(&keys::USER_WRITE_TYPE) {
        "MUST_CACHE" => WriteType::MustCache,
        "CACHE_THROUGH" => WriteType::CacheThrough,
        "THROUGH" => WriteType::Through,
        _ => WriteType::AsyncThrough,
    }
}

fn read_type(config: &Config) -> ReadType {
    match config.text(&keys::USER_READ_TYPE) {
        "NO_CACHE" => ReadType::NoCache,
        "CACHE_PROMOTE" => ReadType::CachePromote,
        _ => ReadType::Cache,
    }
}

fn metadata_load(config: &Config) -> MetadataLoad {
    match config.text(&keys::USER_LOAD_TYPE) {
        "NEVER" => MetadataLoad::Never,
        "ALWAYS" => MetadataLoad::Always,
        _ => MetadataLoad::Once,
    }
}

/// Sent only if somebody here asks for it: the master has rules of its own.
fn sync_interval(config: &Config) -> Option<SyncInterval> {
    let key = &keys::USER_SYNC_INTERVAL;
    let interval = || config.optional_duration(key).map_or(SyncInterval::Never, SyncInterval::AtMost);
    config.is_set_by_user(key).then(interval)
}

fn umask(config: &Config) -> Result<u32, Failure> {
    let text = config.text(&keys::SECURITY_UMASK);
    let mask = u32::from_str_radix(text.trim(), 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| {
        refuse(config, &keys::SECURITY_UMASK, text, "expected octal permission bits, such as 022")
    })
}

/// Whose files are shown and made.
pub(super) fn owner_policy(config: &Config) -> Result<OwnerPolicy, Failure> {
    let class = config.text(&keys::FUSE_AUTH_POLICY);
    match class.rsplit('.').next().unwrap_or_default() {
        "LaunchUserGroupAuthPolicy" => Ok(OwnerPolicy::LaunchUser {
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        }),
        "SystemUserGroupAuthPolicy" => Ok(OwnerPolicy::SystemUser),
        "CustomAuthPolicy" => Ok(OwnerPolicy::Custom {
            uid: named(config, &keys::FUSE_AUTH_CUSTOM_USER, |name| {
                User::from_name(name).map(|user| user.map(|user| user.uid.as_raw()))
            })?,
            gid: named(config, &keys::FUSE_AUTH_CUSTOM_GROUP, |name| {
                Group::from_name(name).map(|group| group.map(|group| group.gid.as_raw()))
            })?,
        }),
        _ => Err(refuse(
            config,
            &keys::FUSE_AUTH_POLICY,
            class,
            "expected alluxio.fuse.auth.LaunchUserGroupAuthPolicy, ...SystemUserGroupAuthPolicy or ...CustomAuthPolicy",
        )),
    }
}

/// The number of the user or group that `key` names.
fn named(
    config: &Config,
    key: &'static Key,
    number: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> Result<u32, Failure> {
    let Some(name) = config.optional_text(key) else {
        return Err(Failure::new(format!("{} must be set for the custom policy", key.name)));
    };
    match number(name) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => Err(refuse(config, key, name, "there is no such name on this machine")),
        Err(errno) => Err(refuse(config, key, name, errno.desc())),
    }
}

/// A policy by its Java class.
fn location_policy(config: &Config, key: &'static Key) -> Result<LocationPolicy, Failure> {
    let class = config.text(key);
    Ok(match class.rsplit('.').next().unwrap_or_default() {
        "LocalFirstPolicy" => LocationPolicy::LocalFirst,
        "LocalFirstAvoidEvictionPolicy" => LocationPolicy::LocalFirstAvoidEviction {
            reserved_bytes: config.bytes(&keys::USER_AVOID_EVICTION_BYTES),
        },
        "MostAvailableFirstPolicy" => LocationPolicy::MostAvailableFirst,
        "RoundRobinPolicy" => LocationPolicy::RoundRobin,
        "DeterministicHashPolicy" => {
            LocationPolicy::DeterministicHash { shards: count(config, &keys::USER_UFS_READ_SHARDS) }
        }
        "CapacityBasedDeterministicHashPolicy" => {
            LocationPolicy::CapacityBasedHash { shards: count(config, &keys::USER_UFS_READ_SHARDS) }
        }
        "CapacityBaseRandomPolicy" => LocationPolicy::CapacityBasedRandom,
        "SpecificHostPolicy" => match config.optional_text(&keys::WORKER_HOSTNAME) {
            Some(host) => LocationPolicy::SpecificHost(host.to_owned()),
            None => {
                let reason = format!("it needs {}", keys::WORKER_HOSTNAME.name);
                return Err(refuse(config, key, class, &reason));
            }
        },
        _ => {
            let reason =
                "there is no such policy, the usual one is alluxio.client.block.policy.LocalFirstPolicy";
            return Err(refuse(config, key, class, reason));
        }
    })
}

/// A number whose bounds in the table fit the type.
fn count<N: TryFrom<i64>>(config: &Config, key: &'static Key) -> N {
    let number = config.int(key);
    match N::try_from(number) {
        Ok(number) => number,
        Err(_) => panic!("the bounds of {} let {number} through", key.name),
    }
}

fn refuse(config: &Config, key: &'static Key, text: &str, reason: &str) -> Failure {
    Failure::new(format!("{}={text} ({}): {reason}", key.name, config.origin(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(properties: &[(&str, &str)]) -> Result<AlluxioOptions, String> {
        let config = Config::given(properties).map_err(|err| err.to_string())?;
        from_config(&config, &FsPath::root()).map_err(|err| err.to_string())
    }

    fn with_master(properties: &[(&str, &str)]) -> Result<AlluxioOptions, String> {
        let all: Vec<_> =
            [("alluxio.master.rpc.addresses", "m:1")].iter().chain(properties).copied().collect();
        options(&all)
    }

    #[test]
    fn masters_come_from_the_first_key_that_names_any() {
        let journal = ("alluxio.master.embedded.journal.addresses", "a:19200,b:19200");
        let host = ("alluxio.master.hostname", "c");
        let port = ("alluxio.master.rpc.port", "7");
        let masters = |properties: &[(&str, &str)]| options(properties).unwrap().masters;
        assert_eq!(
            masters(&[("alluxio.master.rpc.addresses", "x:1, y:2"), journal, host]),
            [HostPort::new("x", 1), HostPort::new("y", 2)]
        );
        assert_eq!(masters(&[journal, host, port]), [HostPort::new("a", 7), HostPort::new("b", 7)]);
        assert_eq!(masters(&[host]), [HostPort::new("c", 19_998)]);
        assert_eq!(masters(&[("alluxio.master.hostname", "::1"), port]), [HostPort::new("::1", 7)]);
    }

    #[test]
    fn a_missing_or_bad_master_names_the_key() {
        let hostname = ("alluxio.master.hostname", "");
        assert!(options(&[hostname]).unwrap_err().contains("set alluxio.master.hostname or"));
        let zookeeper = ("alluxio.zookeeper.enabled", "true");
        let journal = ("alluxio.master.embedded.journal.addresses", "a:1");
        for other in [hostname, ("alluxio.master.hostname", "h"), journal] {
            let problem = options(&[other, zookeeper]).unwrap_err();
            assert!(problem.starts_with("alluxio.zookeeper.enabled=true (command line): "), "{problem}");
            assert!(problem.contains("list them in alluxio.master.rpc.addresses"), "{problem}");
        }
        assert!(with_master(&[zookeeper]).is_ok());
        let bad = options(&[("alluxio.master.rpc.addresses", "h:port")]).unwrap_err();
        assert!(bad.starts_with("alluxio.master.rpc.addresses=h:port (command line): "), "{bad}");
    }

    #[test]
    fn without_settings_the_backend_has_its_own_defaults() {
        let own = AlluxioOptions { masters: vec![HostPort::new("m", 1)], ..AlluxioOptions::default() };
        let mut built = with_master(&[]).unwrap();
        // The backend raises what servers would not stand.
        // The backend by itself knows no directory of this user.
        built.journal_dir = None;
        built.keepalive = built.keepalive.max(own.keepalive);
        built.streaming_keepalive = built.streaming_keepalive.max(own.streaming_keepalive);
        assert_eq!(format!("{built:#?}"), format!("{own:#?}"));
    }

    #[test]
    fn policies_are_known_by_their_java_classes() {
        let policy = |class: &str| {
            with_master(&[("alluxio.user.block.write.location.policy.class", class)])
                .map(|options| options.write_policy)
        };
        assert_eq!(policy("alluxio.client.block.policy.RoundRobinPolicy"), Ok(LocationPolicy::RoundRobin));
        assert_eq!(policy("alluxio.client.file.policy.LocalFirstPolicy"), Ok(LocationPolicy::LocalFirst));
        assert!(policy("com.acme.Policy").unwrap_err().contains("there is no such policy"));
        assert!(policy("a.SpecificHostPolicy").unwrap_err().contains("needs alluxio.worker.hostname"));
    }

    #[test]
    fn owners_follow_the_auth_policy() {
        let class = |name: &'static str| ("alluxio.fuse.auth.policy.class", name);
        let system = with_master(&[class("alluxio.fuse.auth.SystemUserGroupAuthPolicy")]).unwrap();
        assert_eq!(system.owner_policy, OwnerPolicy::SystemUser);
        let user = ("alluxio.fuse.auth.policy.custom.user", "root");
        let group = ("alluxio.fuse.auth.policy.custom.group", "root");
        let custom = class("alluxio.fuse.auth.CustomAuthPolicy");
        let root = OwnerPolicy::Custom { uid: 0, gid: 0 };
        assert_eq!(with_master(&[custom, user, group]).unwrap().owner_policy, root);
        assert!(with_master(&[custom, user]).unwrap_err().contains("custom.group must be set"));
        let nobody = ("alluxio.fuse.auth.policy.custom.user", "no-such-user-here");
        assert!(with_master(&[custom, nobody, group]).unwrap_err().contains("no such name"));
        assert!(with_master(&[class("x.Y")]).unwrap_err().contains("LaunchUserGroupAuthPolicy"));
    }

    #[test]
    fn the_sync_interval_is_sent_only_if_set() {
        let interval = |text: &str| {
            let options = with_master(&[("alluxio.user.file.metadata.sync.interval", text)]).unwrap();
            options.paths.at(&FsPath::root()).sync_interval
        };
        assert_eq!(with_master(&[]).unwrap().paths.at(&FsPath::root()).sync_interval, None);
        assert_eq!(interval("-1"), Some(SyncInterval::Never));
        assert_eq!(interval("0"), Some(SyncInterval::AtMost(Duration::ZERO)));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        assert!(with_master(&[("alluxio.network.tls.enabled", "true")]).unwrap_err().contains("TLS"));
        let kerberos = with_master(&[("alluxio.security.authentication.type", "KERBEROS")]);
        assert!(kerberos.unwrap_err().contains("expected one of NOSASL, SIMPLE, CUSTOM"));
        assert!(with_master(&[("alluxio.security.authorization.permission.umask", "9")]).is_err());
    }
}
