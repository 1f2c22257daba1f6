//! Every key that the program reads: its name, kind, default, older names and what it is for. A key that is not
//! here is accepted, as Alluxio has hundreds for its servers, and has no effect.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything.
    Text,
    /// Texts separated by commas.
    List,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds.
    Int(i64, i64),
    /// A time that is not negative.
    Duration,
    /// A time, or something negative for "never".
    Timeout,
    /// A number of bytes.
    Bytes,
    /// Numbers of bytes separated by commas.
    Sizes,
    /// One of these words, in any case; kept in upper case.
    Choice(&'static [&'static str]),
}

/// Whether the master's value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A matter of this machine or mount.
    Local,
    /// A matter of the cluster, which may set it for all its clients.
    Client,
}

/// One property. All of them are statics of this module.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in Alluxio.
    pub name: &'static str,
    /// What its values look like.
    pub kind: Kind,
    /// The value when nobody says anything; it may refer to other keys.
    pub default: Option<&'static str>,
    /// Older names that still count.
    pub aliases: &'static [&'static str],
    /// Who may set it.
    pub scope: Scope,
    about: &'static str,
}

impl Key {
    /// What it is for, in one line.
    pub fn about(&self) -> &'static str {
        self.about.trim()
    }
}

/// The key of this name, old or new.
pub fn find(name: &str) -> Option<&'static Key> {
    static BY_NAME: LazyLock<HashMap<&'static str, &'static Key>> = LazyLock::new(|| {
        let names = |key: &'static Key| std::iter::once(key.name).chain(key.aliases.iter().copied());
        all().flat_map(|key| names(key).map(move |name| (name, key))).collect()
    });
    BY_NAME.get(name).copied()
}

/// All keys.
pub fn all() -> impl Iterator<Item = &'static Key> {
    LOCAL.iter().chain(CLIENT).copied()
}

macro_rules! keys {
    ($list:ident, $scope:ident; $(
        #[doc = $about:literal]
        $ident:ident: $kind:expr, $name:literal = $default:tt $(was $($alias:literal)+)?;
    )*) => {
        $(
            #[doc = $about]
            pub static $ident: Key = Key {
                name: $name,
                kind: $kind,
                default: keys!(@default $default),
                aliases: &[$($($alias),+)?],
                scope: Scope::$scope,
                about: $about,
            };
        )*
        static $list: &[&Key] = &[$(&$ident),*];
    };
    (@default unset) => { None };
    (@default $default:literal) => { Some($default) };
}

const WRITE_TYPES: Kind = Kind::Choice(&["MUST_CACHE", "CACHE_THROUGH", "THROUGH", "ASYNC_THROUGH"]);
const READ_TYPES: Kind = Kind::Choice(&["CACHE", "CACHE_PROMOTE", "NO_CACHE"]);
const LOAD_TYPES: Kind = Kind::Choice(&["NEVER", "ONCE", "ALWAYS"]);
const TTL_ACTIONS: Kind = Kind::Choice(&["FREE", "DELETE_ALLUXIO", "DELETE"]);
const LOGINS: Kind = Kind::Choice(&["NOSASL", "SIMPLE", "CUSTOM"]);
const PORT: Kind = Kind::Int(1, 65_535);
const COUNT: Kind = Kind::Int(0, i32::MAX as i64);

keys! { LOCAL, Local;
    /// Local directory to mount at when the command line names none.
    FUSE_MOUNT_POINT: Kind::Text, "alluxio.fuse.mount.point" = "/mnt/alluxio-fuse"
        was "alluxio.worker.fuse.mount.point";
    /// Path shown at the root of the mount when the command line names none.
    FUSE_ALLUXIO_PATH: Kind::Text, "alluxio.fuse.mount.alluxio.path" = "/"
        was "alluxio.worker.fuse.mount.alluxio.path";
    /// Name of the file system in the list of mounts.
    FUSE_FS_NAME: Kind::Text, "alluxio.fuse.fs.name" = "alluxio-fuse";
    /// Collector of OpenTelemetry that spans of requests are sent to: a URL for OTLP over HTTP, such as http://localhost:4318. Where it is not set, OTEL_EXPORTER_OTLP_ENDPOINT counts. Only in builds with the feature otlp.
    FUSE_TRACING_ENDPOINT: Kind::Text, "alluxio.fuse.tracing.endpoint" = unset;
    /// One in so many requests is traced.
    FUSE_TRACING_ONE_IN: Kind::Int(1, 1_000_000_000), "alluxio.fuse.tracing.one.in" = "1";
    /// This machine's name in the address of the web server that the log shows.
    FUSE_WEB_HOSTNAME: Kind::Text, "alluxio.fuse.web.hostname" = unset;

    /// Where Alluxio is installed.
    HOME: Kind::Text, "alluxio.home" = unset;
    /// Directory of the configuration.
    CONF_DIR: Kind::Text, "alluxio.conf.dir" = unset;
    /// Directories where alluxio-site.properties is looked for; the first one found is read.
    SITE_CONF_DIR: Kind::List, "alluxio.site.conf.dir" = "${alluxio.conf.dir}/,${user.home}/.alluxio/,/etc/alluxio/";
    /// Directory of fuse.log and fuse.out.
    LOGS_DIR: Kind::Text, "alluxio.logs.dir" = unset;
    /// Directory of the logs of other commands.
    USER_LOGS_DIR: Kind::Text, "alluxio.user.logs.dir" = unset;

    /// The master's host.
    MASTER_HOSTNAME: Kind::Text, "alluxio.master.hostname" = unset;
    /// The master's port.
    MASTER_RPC_PORT: PORT, "alluxio.master.rpc.port" = "19998" was "alluxio.master.port";
    /// All masters as host:port, comma separated.
    MASTER_RPC_ADDRESSES: Kind::List, "alluxio.master.rpc.addresses" = unset;
    /// Addresses of the masters' journals; their hosts are the masters if nothing else says who is.
    MASTER_JOURNAL_ADDRESSES: Kind::List, "alluxio.master.embedded.journal.addresses" = unset;
    /// Whether Alluxio's own clients find masters through ZooKeeper. This program does not: list all masters in alluxio.master.rpc.addresses.
    ZOOKEEPER_ENABLED: Kind::Flag, "alluxio.zookeeper.enabled" = "false";

    /// File with sinks for the metrics of Alluxio's own clients. This program has none of them, and says so if the file names any.
    METRICS_CONF_FILE: Kind::Text, "alluxio.metrics.conf.file" = "${alluxio.conf.dir}/metrics.properties";

    /// The user to be known as; the operating system's user if unset.
    SECURITY_LOGIN_USERNAME: Kind::Text, "alluxio.security.login.username" = unset;
    /// Whom to act as: _HDFS_USER_ or _NONE_, which both mean nobody else for a mount.
    SECURITY_IMPERSONATION: Kind::Text, "alluxio.security.login.impersonation.username" = "_HDFS_USER_";
    /// This machine's name towards the cluster; found out if unset.
    USER_HOSTNAME: Kind::Text, "alluxio.user.hostname" = unset;
    /// The worker's host, for the policy that takes this one only.
    WORKER_HOSTNAME: Kind::Text, "alluxio.worker.hostname" = unset;
    /// This client's name in the cluster's metrics.
    USER_APP_ID: Kind::Text, "alluxio.user.app.id" = unset;
    /// This machine's name when deciding which worker is near.
    LOCALITY_NODE: Kind::Text, "alluxio.locality.node" = unset;
    /// This machine's rack: workers of the same come before others, after those of this machine. A locality script is not run.
    LOCALITY_RACK: Kind::Text, "alluxio.locality.rack" = unset;
    /// Idle time before a worker connection is probed; negative for never, Alluxio's own default.
    USER_STREAMING_KEEPALIVE: Kind::Timeout, "alluxio.user.network.streaming.keepalive.time" = "${alluxio.user.network.rpc.keepalive.time}"
        was "alluxio.user.network.keepalive.time";
    /// Longest wait for the answer to that probe.
    USER_STREAMING_KEEPALIVE_TIMEOUT: Kind::Duration, "alluxio.user.network.streaming.keepalive.timeout" = "30sec"
        was "alluxio.user.network.keepalive.timeout";

    /// Takes the cluster's settings as defaults.
    USER_CLUSTER_DEFAULTS: Kind::Flag, "alluxio.user.conf.cluster.default.enabled" = "true";
}

keys! { CLIENT, Client;
    /// Mount options, comma separated, when the command line has none that is not a property.
    FUSE_MOUNT_OPTIONS: Kind::Text, "alluxio.fuse.mount.options" = "direct_io"
        was "alluxio.worker.fuse.mount.options";
    /// libfuse to use: 2, 3, or any other number for 2 and then 3, which is also what happens if unset.
    FUSE_LIBFUSE_VERSION: Kind::Int(i64::MIN, i64::MAX), "alluxio.fuse.jnifuse.libfuse.version" = unset;
    /// An operation that takes longer than this is logged as a warning.
    FUSE_LOGGING_THRESHOLD: Kind::Duration, "alluxio.fuse.logging.threshold" = "10s";
    /// Whose the files are shown as: Java class name of the policy.
    FUSE_AUTH_POLICY: Kind::Text, "alluxio.fuse.auth.policy.class" = "alluxio.fuse.auth.LaunchUserGroupAuthPolicy";
    /// Owner of all files under the custom policy.
    FUSE_AUTH_CUSTOM_USER: Kind::Text, "alluxio.fuse.auth.policy.custom.user" = unset;
    /// Group of all files under the custom policy.
    FUSE_AUTH_CUSTOM_GROUP: Kind::Text, "alluxio.fuse.auth.policy.custom.group" = unset;
    /// How long a terminated mount waits for files that are open.
    FUSE_UMOUNT_TIMEOUT: Kind::Timeout, "alluxio.fuse.umount.timeout" = "0s";
    /// Logs every operation.
    FUSE_DEBUG: Kind::Flag, "alluxio.fuse.debug.enabled" = "false";
    /// Switches the `.alluxiocli` names on.
    FUSE_SPECIAL_COMMANDS: Kind::Flag, "alluxio.fuse.special.command.enabled" = "false";
    /// Serves metrics, health and the log's level over HTTP.
    FUSE_WEB_ENABLED: Kind::Flag, "alluxio.fuse.web.enabled" = "false";
    /// Port for that; 0 for any that is free, which the log then names.
    FUSE_WEB_PORT: Kind::Int(0, 65_535), "alluxio.fuse.web.port" = "49999";
    /// Address for that; Alluxio's own default is 0.0.0.0, for all who reach this machine.
    FUSE_WEB_BIND_HOST: Kind::Text, "alluxio.fuse.web.bind.host" = "127.0.0.1";
    /// How long the capacity figures of statfs are used again.
    FUSE_STAT_CACHE_INTERVAL: Kind::Timeout, "alluxio.fuse.stat.cache.refresh.interval" = "5min";
    /// Keeps the times that applications set, in an extended attribute of the file. Not one of Alluxio's.
    FUSE_TIMES: Kind::Flag, "alluxio.fuse.times.enabled" = "true";
    /// Lets the kernel read files by itself whose bytes are one local file. Needs CAP_SYS_ADMIN. Not one of Alluxio's.
    FUSE_PASSTHROUGH: Kind::Flag, "alluxio.fuse.passthrough.enabled" = "true";
    /// Memory for data that is read ahead, on its way to the data cache, or not yet written; a quarter of the control group's or the machine's, 64MB to 1GB, if unset. Not one of Alluxio's.
    FUSE_MEMORY_LIMIT: Kind::Bytes, "alluxio.fuse.memory.limit" = unset;
    /// How clients say who they are.
    SECURITY_AUTHENTICATION: LOGINS, "alluxio.security.authentication.type" = "SIMPLE";
    /// TLS to masters and workers.
    NETWORK_TLS: Kind::Flag, "alluxio.network.tls.enabled" = "false";

    /// Write type of new files.
    USER_WRITE_TYPE: WRITE_TYPES, "alluxio.user.file.writetype.default" = "ASYNC_THROUGH";
    /// Block size of new files.
    USER_BLOCK_SIZE: Kind::Bytes, "alluxio.user.block.size.bytes.default" = "64MB";
    /// Tier for the blocks of new files.
    USER_WRITE_TIER: Kind::Int(i32::MIN as i64, i32::MAX as i64), "alluxio.user.file.write.tier.default" = "0";
    /// Fewest copies of a block.
    USER_REPLICATION_MIN: COUNT, "alluxio.user.file.replication.min" = "0";
    /// Most copies of a block; -1 for any number.
    USER_REPLICATION_MAX: Kind::Int(-1, i32::MAX as i64), "alluxio.user.file.replication.max" = "-1";
    /// Copies of a block until an asynchronously written file is persisted.
    USER_REPLICATION_DURABLE: COUNT, "alluxio.user.file.replication.durable" = "1";
    /// Life time of new files; negative for ever.
    USER_CREATE_TTL: Kind::Timeout, "alluxio.user.file.create.ttl" = "-1";
    /// What happens at the end of the life time.
    USER_CREATE_TTL_ACTION: TTL_ACTIONS, "alluxio.user.file.create.ttl.action" = "FREE";
    /// Wait before a file is persisted asynchronously; negative for never.
    USER_PERSISTENCE_WAIT: Kind::Timeout, "alluxio.user.file.persistence.initial.wait.time" = "0";
    /// Persists a file when it is renamed.
    USER_PERSIST_ON_RENAME: Kind::Flag, "alluxio.user.file.persist.on.rename" = "false";
    /// Size of one step of a short-circuit write.
    USER_LOCAL_WRITER_CHUNK: Kind::Bytes, "alluxio.user.local.writer.chunk.size.bytes" = "64KB";
    /// Size of one message of a write stream.
    USER_WRITER_CHUNK: Kind::Bytes, "alluxio.user.streaming.writer.chunk.size.bytes" = "1MB"
        was "alluxio.user.network.writer.chunk.size.bytes";
    /// Messages of a write stream that may be under way.
    USER_WRITER_BUFFER: COUNT, "alluxio.user.streaming.writer.buffer.size.messages" = "16"
        was "alluxio.user.network.writer.buffer.size.messages";
    /// Longest wait for a flush.
    USER_WRITER_FLUSH_TIMEOUT: Kind::Duration, "alluxio.user.streaming.writer.flush.timeout" = "30min"
        was "alluxio.user.network.writer.flush.timeout";
    /// Longest wait for the end of a write stream.
    USER_WRITER_CLOSE_TIMEOUT: Kind::Duration, "alluxio.user.streaming.writer.close.timeout" = "30min"
        was "alluxio.user.network.writer.close.timeout";
    /// Longest wait until a write stream takes a message.
    USER_DATA_WRITE_TIMEOUT: Kind::Duration, "alluxio.user.streaming.data.write.timeout" = "3m";
    /// How long a worker is looked for when writing begins.
    USER_WRITE_INIT_DURATION: Kind::Duration, "alluxio.user.file.write.init.max.duration" = "2min";
    /// First pause between tries to find one.
    USER_WRITE_INIT_BASE: Kind::Duration, "alluxio.user.file.write.init.sleep.min" = "1sec";
    /// Longest pause between tries to find one.
    USER_WRITE_INIT_MAX: Kind::Duration, "alluxio.user.file.write.init.sleep.max" = "5sec";
    /// Space that the policy against eviction leaves free.
    USER_AVOID_EVICTION_BYTES: Kind::Bytes, "alluxio.user.block.avoid.eviction.policy.reserved.size.bytes" = "0MB";
    /// Which worker is written to: Java class name of the policy.
    USER_WRITE_POLICY: Kind::Text, "alluxio.user.block.write.location.policy.class" = "alluxio.client.block.policy.LocalFirstPolicy"
        was "alluxio.user.file.write.location.policy.class";
    /// Permission bits taken from new files where no mode is given.
    SECURITY_UMASK: Kind::Text, "alluxio.security.authorization.permission.umask" = "022";

    /// Read type of files.
    USER_READ_TYPE: READ_TYPES, "alluxio.user.file.readtype.default" = "CACHE";
    /// Has the local worker cache what is read from another one.
    USER_PASSIVE_CACHE: Kind::Flag, "alluxio.user.file.passive.cache.enabled" = "true";
    /// Which worker reads what is not in Alluxio: Java class name of the policy.
    USER_UFS_READ_POLICY: Kind::Text, "alluxio.user.ufs.block.read.location.policy" = "alluxio.client.block.policy.LocalFirstPolicy";
    /// Workers that share a block under the hash policies.
    USER_UFS_READ_SHARDS: Kind::Int(1, i32::MAX as i64), "alluxio.user.ufs.block.read.location.policy.deterministic.hash.shards" = "1";
    /// Reads of one block from the storage below that a worker may do at a time.
    USER_UFS_READ_CONCURRENCY: COUNT, "alluxio.user.ufs.block.read.concurrency.max" = "2147483647";
    /// Size of one message of a read stream.
    USER_READER_CHUNK: Kind::Bytes, "alluxio.user.streaming.reader.chunk.size.bytes" = "1MB"
        was "alluxio.user.network.reader.chunk.size.bytes";
    /// Messages of a read stream that may be under way.
    USER_READER_BUFFER: COUNT, "alluxio.user.streaming.reader.buffer.size.messages" = "16"
        was "alluxio.user.network.reader.buffer.size.messages";
    /// Longest wait for the next message of a read stream.
    USER_DATA_READ_TIMEOUT: Kind::Duration, "alluxio.user.streaming.data.read.timeout" = "3m"
        was "alluxio.user.streaming.data.timeout" "alluxio.user.network.data.timeout" "alluxio.user.network.data.timeout.ms";
    /// Longest wait for the end of a read stream.
    USER_READER_CLOSE_TIMEOUT: Kind::Duration, "alluxio.user.streaming.reader.close.timeout" = "5s";
    /// Size of one step of a short-circuit read.
    USER_LOCAL_READER_CHUNK: Kind::Bytes, "alluxio.user.local.reader.chunk.size.bytes" = "8MB";
    /// Reads and writes the block files of a worker on this machine.
    USER_SHORT_CIRCUIT: Kind::Flag, "alluxio.user.short.circuit.enabled" = "true";
    /// Prefers that to the worker's domain socket.
    USER_SHORT_CIRCUIT_PREFERRED: Kind::Flag, "alluxio.user.short.circuit.preferred" = "false";
    /// Finds the worker of this machine by its domain socket, as containers need.
    WORKER_SOCKET_AS_UUID: Kind::Flag, "alluxio.worker.data.server.domain.socket.as.uuid" = "false";
    /// How long one block is tried again.
    USER_BLOCK_RETRY_DURATION: Kind::Duration, "alluxio.user.block.read.retry.max.duration" = "5min";
    /// First pause between tries of a block.
    USER_BLOCK_RETRY_BASE: Kind::Duration, "alluxio.user.block.read.retry.sleep.base" = "250ms";
    /// Longest pause between tries of a block.
    USER_BLOCK_RETRY_MAX: Kind::Duration, "alluxio.user.block.read.retry.sleep.max" = "2sec";
    /// Positioned reads below this size do not make the worker cache the block.
    USER_PREAD_THRESHOLD: Kind::Bytes, "alluxio.user.file.sequential.pread.threshold" = "2MB";
    /// How long an open file's block locations are used.
    USER_STATUS_EXPIRATION: Kind::Duration, "alluxio.user.file.in.stream.status.expiration.time" = "5min";
    /// Leaves the access time alone when a file is opened.
    USER_ATIME_DISABLED: Kind::Flag, "alluxio.user.update.file.accesstime.disabled" = "false";
    /// How long ago the last access must be for the master to note another: until then an open need not tell it.
    MASTER_ATIME_PRECISION: Kind::Duration, "alluxio.master.file.access.time.update.precision" = "1d";

    /// How old the master's knowledge of the storage below may be; negative for any age.
    USER_SYNC_INTERVAL: Kind::Timeout, "alluxio.user.file.metadata.sync.interval" = "-1";
    /// When the master loads metadata from the storage below.
    USER_LOAD_TYPE: LOAD_TYPES, "alluxio.user.file.metadata.load.type" = "ONCE";
    /// Regular expression: paths that it matches as a whole are read and written below, past all caches.
    USER_DIRECT_ACCESS: Kind::Text, "alluxio.user.file.direct.access" = unset;
    /// Deletes without asking the storage below whether it is in step.
    USER_DELETE_UNCHECKED: Kind::Flag, "alluxio.user.file.delete.unchecked" = "false";
    /// Sends ids with changes, so that a repeated one is done once.
    USER_OPERATION_ID: Kind::Flag, "alluxio.user.file.include.operation.id" = "true";

    /// Remembers attributes, names and absent names in the mount.
    USER_METADATA_CACHE: Kind::Flag, "alluxio.user.metadata.cache.enabled" = "false";
    /// How many of them at most; they take 1 KB each at most, in all.
    USER_METADATA_CACHE_SIZE: COUNT, "alluxio.user.metadata.cache.max.size" = "100000";
    /// For how long, if they are not changed through this mount.
    USER_METADATA_CACHE_EXPIRATION: Kind::Duration, "alluxio.user.metadata.cache.expiration.time" = "10min";
    /// Keeps file data on local disks.
    USER_CLIENT_CACHE: Kind::Flag, "alluxio.user.client.cache.enabled" = "false";
    /// In these directories.
    USER_CLIENT_CACHE_DIRS: Kind::List, "alluxio.user.client.cache.dirs" = "/tmp/alluxio_cache"
        was "alluxio.user.client.cache.dir";
    /// This much in each of them.
    USER_CLIENT_CACHE_SIZE: Kind::Sizes, "alluxio.user.client.cache.size" = "512MB";
    /// In pages of this size, a multiple of 4 KB.
    USER_CLIENT_CACHE_PAGE: Kind::Bytes, "alluxio.user.client.cache.page.size" = "1MB";
    /// What goes when it is full: Java class name.
    USER_CLIENT_CACHE_EVICTOR: Kind::Text, "alluxio.user.client.cache.evictor.class" = "alluxio.client.file.cache.evictor.LRUCacheEvictor";
    /// Drops pages that came long ago.
    USER_CLIENT_CACHE_TTL: Kind::Flag, "alluxio.user.client.cache.ttl.enabled" = "false";
    /// So many seconds ago.
    USER_CLIENT_CACHE_TTL_SECONDS: COUNT, "alluxio.user.client.cache.ttl.threshold.seconds" = "10800";
    /// Seconds between two looks for them.
    USER_CLIENT_CACHE_TTL_INTERVAL: Kind::Int(1, i32::MAX as i64), "alluxio.user.client.cache.ttl.check.interval.seconds" = "3600";

    /// First pause between tries of a call.
    USER_RPC_RETRY_BASE: Kind::Duration, "alluxio.user.rpc.retry.base.sleep" = "50ms";
    /// Longest pause between tries of a call.
    USER_RPC_RETRY_MAX: Kind::Duration, "alluxio.user.rpc.retry.max.sleep" = "3sec";
    /// How long a call is tried again.
    USER_RPC_RETRY_DURATION: Kind::Duration, "alluxio.user.rpc.retry.max.duration" = "2min";
    /// A call that takes longer than this is logged as a warning.
    USER_LOGGING_THRESHOLD: Kind::Duration, "alluxio.user.logging.threshold" = "10s";
    /// Longest wait for a master when the primary is looked for.
    USER_MASTER_POLLING_TIMEOUT: Kind::Duration, "alluxio.user.master.polling.timeout" = "30sec";
    /// How long the list of workers is used.
    USER_WORKER_LIST_INTERVAL: Kind::Duration, "alluxio.user.worker.list.refresh.interval" = "2min";
    /// Largest answer of a master.
    USER_RPC_MESSAGE_MAX: Kind::Bytes, "alluxio.user.network.rpc.max.inbound.message.size" = "100MB";
    /// HTTP/2 window of a master connection.
    USER_RPC_WINDOW: Kind::Bytes, "alluxio.user.network.rpc.flowcontrol.window" = "2MB";
    /// Idle time before a master connection is probed.
    USER_RPC_KEEPALIVE: Kind::Duration, "alluxio.user.network.rpc.keepalive.time" = "30sec";
    /// Longest wait for the answer to the probe.
    USER_RPC_KEEPALIVE_TIMEOUT: Kind::Duration, "alluxio.user.network.rpc.keepalive.timeout" = "30sec";
    /// Connections to a worker.
    USER_STREAMING_CONNECTIONS: Kind::Int(1, 65_536), "alluxio.user.network.streaming.max.connections" = "64";
    /// Largest message of a worker.
    USER_STREAMING_MESSAGE_MAX: Kind::Bytes, "alluxio.user.network.streaming.max.inbound.message.size" = "100MB"
        was "alluxio.user.network.max.inbound.message.size";
    /// HTTP/2 window of a worker connection.
    USER_STREAMING_WINDOW: Kind::Bytes, "alluxio.user.network.streaming.flowcontrol.window" = "2MB"
        was "alluxio.user.network.flowcontrol.window";
    /// Longest wait for the login at a server.
    NETWORK_AUTH_TIMEOUT: Kind::Duration, "alluxio.network.connection.auth.timeout" = "30sec";
    /// Reports metrics to the master.
    USER_METRICS: Kind::Flag, "alluxio.user.metrics.collection.enabled" = "true";
    /// Time between two reports.
    USER_METRICS_INTERVAL: Kind::Duration, "alluxio.user.metrics.heartbeat.interval" = "10sec";
    /// Measures the wait for each message of a block from a worker.
    USER_BLOCK_READ_METRICS: Kind::Flag, "alluxio.user.block.read.metrics.enabled" = "false";
    /// Time between two looks whether the cluster's settings changed.
    USER_CONF_SYNC_INTERVAL: Kind::Duration, "alluxio.user.conf.sync.interval" = "1min";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use std::path::Path;

    use super::*;

    #[test]
    fn names_and_aliases_are_unique() {
        let mut seen = HashSet::new();
        for key in all() {
            assert!(seen.insert(key.name), "{} twice", key.name);
            assert!(!key.about().is_empty());
            for alias in key.aliases {
                assert!(seen.insert(alias), "{alias} twice");
            }
        }
    }

    #[test]
    fn old_names_lead_to_the_key() {
        assert_eq!(find("alluxio.worker.fuse.mount.point"), Some(&FUSE_MOUNT_POINT));
        assert_eq!(find("alluxio.user.network.data.timeout.ms"), Some(&USER_DATA_READ_TIMEOUT));
        assert_eq!(find("alluxio.no.such.key"), None);
    }

    /// The source of the program, but for this file.
    fn source(dir: &Path) -> String {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let texts = entries.map(|path| match path.is_dir() {
            true => source(&path),
            false if path.ends_with("config/keys.rs") => String::new(),
            false => std::fs::read_to_string(path).unwrap(),
        });
        texts.collect()
    }

    #[test]
    fn every_key_is_read_by_somebody() {
        let (table, source) = (include_str!("keys.rs"), source(Path::new("src")));
        let names = table.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
        let names: Vec<&str> = names
            .map(|(name, _)| name)
            .filter(|name| name.bytes().all(|c| c.is_ascii_uppercase() || c == b'_'))
            .collect();
        assert!(names.len() > 90, "{names:?}");
        let words: HashSet<&str> = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let unread: Vec<_> = names.into_iter().filter(|name| !words.contains(name)).collect();
        assert!(unread.is_empty(), "listed and without effect: {unread:?}");
    }
}
