//! What the backend is told: plain values, with the defaults of Alluxio 2.9.4. Who reads the properties,
//! their units and their precedence is above; nothing here knows a property file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Result;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The port of a master if none is given.
pub const MASTER_RPC_PORT: u16 = 19998;

/// Where a server listens. The key of everything that is remembered about a server: ids change when a master
/// restarts, addresses do not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl HostPort {
    /// From parts.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl FromStr for HostPort {
    type Err = FsError;

    /// `host:port`, `[v6 address]:port`, or a host alone, which means the port of a master.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            FsError::because(
                Fault::InvalidArgument,
                format!("{text:?} is not an address, {why}: give host:port"),
            )
        };
        let text = text.trim();
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("the bracket is not closed"))?;
                (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some("")),
            },
        };
        let port = match port.ok_or_else(|| wrong("something follows the bracket"))? {
            "" if !text.ends_with(':') => MASTER_RPC_PORT,
            port => port.parse().map_err(|_| wrong("the port is not a number from 0 to 65535"))?,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/' || c == ',') {
            return Err(wrong("the host is missing or has a character that no host has"));
        }
        Ok(Self::new(host, port))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

/// How a client says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// By user name (SIMPLE, and CUSTOM, which looks the same from here).
    Simple,
    /// Not at all.
    NoSasl,
}

/// Where the bytes of a new file go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteType {
    /// To workers only.
    MustCache,
    /// To workers and, before the close returns, to the under file system.
    CacheThrough,
    /// To the under file system only.
    Through,
    /// To workers, and later, by the job service, to the under file system.
    AsyncThrough,
}

/// Whether workers keep what was read from the under file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadType {
    /// They do not.
    NoCache,
    /// They do.
    Cache,
    /// They do, and move blocks to their top tier.
    CachePromote,
}

/// When the master looks into the under file system for what it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataLoad {
    /// It does not.
    Never,
    /// The first time that a path is asked for.
    Once,
    /// Every time.
    Always,
}

/// Which worker is taken when any would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationPolicy {
    /// A worker on this host, else a random one.
    LocalFirst,
    /// A worker on this host while it has this many bytes to spare, else a random one that has.
    LocalFirstAvoidEviction {
        /// Bytes that must stay free after the block.
        reserved_bytes: u64,
    },
    /// The one with the most free space.
    MostAvailableFirst,
    /// One after the other.
    RoundRobin,
    /// By block id, so that every client, also Java's of 2.9.4, takes the same one of `shards` workers.
    DeterministicHash {
        /// Candidates for one block; a random one of them is taken.
        shards: usize,
    },
    /// The same, where workers that hold more have more blocks.
    CapacityBasedHash {
        /// Candidates for one block; a random one of them is taken.
        shards: usize,
    },
    /// A random one, by capacity.
    CapacityBasedRandom,
    /// The one on this host.
    SpecificHost(String),
}

/// Whose name files carry in this mount, and under which name new ones are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerPolicy {
    /// Everything belongs to the user who mounts, shown with these ids.
    LaunchUser {
        /// Of the user who mounts.
        uid: u32,
        /// Of the first group of that user.
        gid: u32,
    },
    /// Owner and group as Alluxio has them, looked up by name on this host.
    SystemUser,
    /// Everything is shown with these ids.
    Custom {
        /// Shown owner.
        uid: u32,
        /// Shown group.
        gid: u32,
    },
}

/// Everything that the backend can be told.
#[derive(Clone, Debug)]
pub struct AlluxioOptions {
    /// All masters; the primary is found among them. At least one.
    pub masters: Vec<HostPort>,
    /// The path in Alluxio that is the root of this file system.
    pub root: FsPath,

    /// What may differ from path to path; at first, as it can be changed.
    pub paths: PathTable,

    /// `alluxio.security.authentication.type`.
    pub authentication: Authentication,
    /// `alluxio.security.login.username`: who the servers take us for.
    pub user: String,
    /// How owners are shown.
    pub owner_policy: OwnerPolicy,
    /// `alluxio.network.connection.auth.timeout`.
    pub auth_timeout: Duration,

    /// `alluxio.security.authorization.permission.umask`. For callers who give no mode; those of the kernel do.
    pub umask: u32,
    /// `alluxio.fuse.times.enabled`: times that an application sets are kept and shown.
    pub times: bool,
    /// `alluxio.user.file.include.operation.id`: the master then answers a repeated call without doing it again.
    pub include_operation_id: bool,
    /// `alluxio.fuse.stat.cache.refresh.interval`: how long the capacity of the cluster is remembered.
    pub capacity_refresh: Duration,

    /// Directory of this user alone, for the list of files that are being written; none: it is not kept.
    pub journal_dir: Option<PathBuf>,

    /// `alluxio.fuse.memory.limit`: bytes that data on its way may take, of all open files together.
    pub memory_limit: u64,
    /// How far is fetched ahead of one sequential reader, at most.
    pub read_ahead_max: u64,
    /// The usual length of a fetch. Shorter than what is fetched ahead, so that the next is under way while one is being
    /// consumed.
    pub fetch_max: u64,
    /// Threads that drive the connections to workers, beside one for masters; 0 for as many as there are processors, from 2 to 4.
    pub network_threads: usize,
    /// Connections to one worker beyond which there was nothing to gain.
    pub worker_connections: usize,
    /// `alluxio.user.streaming.reader.chunk.size.bytes`.
    pub reader_chunk: u64,
    /// `alluxio.user.streaming.reader.buffer.size.messages`.
    pub reader_buffer_messages: usize,
    /// `alluxio.user.streaming.writer.chunk.size.bytes`.
    pub writer_chunk: u64,
    /// `alluxio.user.streaming.writer.buffer.size.messages`.
    pub writer_buffer_messages: usize,
    /// `alluxio.user.local.reader.chunk.size.bytes`.
    pub local_reader_chunk: u64,
    /// `alluxio.user.local.writer.chunk.size.bytes`.
    pub local_writer_chunk: u64,
    /// `alluxio.user.streaming.data.read.timeout`: longest wait for one chunk.
    pub data_read_timeout: Duration,
    /// `alluxio.user.streaming.data.write.timeout`: longest wait to hand over one chunk.
    pub data_write_timeout: Duration,
    /// `alluxio.user.streaming.reader.close.timeout`.
    pub reader_close_timeout: Duration,
    /// `alluxio.user.streaming.writer.flush.timeout`.
    pub writer_flush_timeout: Duration,
    /// `alluxio.user.streaming.writer.close.timeout`.
    pub writer_close_timeout: Duration,
    /// `alluxio.user.file.sequential.pread.threshold`: shorter positioned reads are announced as such.
    pub pread_threshold: u64,
    /// `alluxio.user.file.in.stream.status.expiration.time`: how long block locations are believed.
    pub locations_expire: Duration,
    /// `alluxio.user.ufs.block.read.concurrency.max`.
    pub ufs_read_concurrency: i32,

    /// `alluxio.user.short.circuit.enabled`.
    pub short_circuit: bool,
    /// `alluxio.user.short.circuit.preferred`: also where the worker has a domain socket.
    pub short_circuit_preferred: bool,
    /// `alluxio.user.hostname`, `alluxio.locality.node`: workers of this host name are local, too.
    pub hostname: Option<String>,
    /// `alluxio.locality.rack`: workers of this rack come next.
    pub rack: Option<String>,
    /// `alluxio.worker.data.server.domain.socket.as.uuid`: a worker is local if its domain socket is here.
    pub domain_socket_as_uuid: bool,
    /// `alluxio.user.block.write.location.policy.class`.
    pub write_policy: LocationPolicy,
    /// `alluxio.user.ufs.block.read.location.policy`.
    pub ufs_read_policy: LocationPolicy,
    /// `alluxio.user.worker.list.refresh.interval`.
    pub worker_list_refresh: Duration,

    /// `alluxio.user.rpc.retry.*`.
    pub rpc_retry: RetryTimes,
    /// `alluxio.user.block.read.retry.*`.
    pub block_read_retry: RetryTimes,
    /// `alluxio.user.file.write.init.*`.
    pub write_init_retry: RetryTimes,
    /// Longest wait for one answer of a master that keeps its connection alive. Alluxio's client has no such bound.
    pub rpc_timeout: Duration,
    /// `alluxio.user.logging.threshold`: calls to a master that take as long are logged as warnings.
    pub logging_threshold: Duration,
    /// Whether the wait for each message of a block is measured.
    pub block_read_metrics: bool,
    /// `alluxio.user.master.polling.timeout`: for one master's answer whether it is the primary.
    pub polling_timeout: Duration,
    /// Longest wait for a TCP connection.
    pub connect_timeout: Duration,

    /// `alluxio.user.network.streaming.max.connections`: upper bound for connections to one worker.
    pub streaming_connections_max: usize,
    /// `alluxio.user.network.rpc.flowcontrol.window`.
    pub rpc_window: u64,
    /// `alluxio.user.network.streaming.flowcontrol.window`.
    pub streaming_window: u64,
    /// `alluxio.user.network.rpc.max.inbound.message.size`.
    pub rpc_message_max: u64,
    /// `alluxio.user.network.streaming.max.inbound.message.size`.
    pub streaming_message_max: u64,
    /// `alluxio.user.network.rpc.keepalive.time`. Servers end connections that ping more often than every 30 s, so
    /// less than 35 s is taken for 35 s.
    pub keepalive: Duration,
    /// `alluxio.user.network.rpc.keepalive.timeout`.
    pub keepalive_timeout: Duration,
    /// `alluxio.user.network.streaming.keepalive.time`, with the same bound; `None` for never.
    pub streaming_keepalive: Option<Duration>,
    /// `alluxio.user.network.streaming.keepalive.timeout`.
    pub streaming_keepalive_timeout: Duration,
}

/// What may differ from path to path, and be changed while the mount serves. Files that are open go on with what was
/// so when they were opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathOptions {
    /// `alluxio.user.file.metadata.load.type`.
    pub metadata_load: MetadataLoad,
    /// `alluxio.user.file.metadata.sync.interval`, if the user set it. Left out, the master goes by its own rules.
    pub sync_interval: Option<SyncInterval>,
    /// `alluxio.user.update.file.accesstime.disabled`.
    pub access_time_disabled: bool,
    /// `alluxio.master.file.access.time.update.precision`: the master leaves a younger access time alone.
    pub access_time_precision: Duration,
    /// `alluxio.user.file.delete.unchecked`.
    pub delete_unchecked: bool,
    /// `alluxio.user.file.persist.on.rename`.
    pub persist_on_rename: bool,
    /// `alluxio.user.file.writetype.default`.
    pub write_type: WriteType,
    /// `alluxio.user.file.readtype.default`.
    pub read_type: ReadType,
    /// `alluxio.user.block.size.bytes.default`.
    pub block_size: u64,
    /// `alluxio.user.file.replication.min`.
    pub replication_min: i32,
    /// `alluxio.user.file.replication.max`, -1 for no limit.
    pub replication_max: i32,
    /// `alluxio.user.file.replication.durable`.
    pub replication_durable: i32,
    /// `alluxio.user.file.persistence.initial.wait.time`; `None` is -1: files are not persisted on their own.
    pub persistence_wait: Option<Duration>,
    /// `alluxio.user.file.create.ttl`: of what is made, and of what the master loads for this client.
    pub lifetime: Lifetime,
    /// `alluxio.user.file.write.tier.default`.
    pub write_tier: i32,
    /// `alluxio.user.file.passive.cache.enabled`.
    pub passive_cache: bool,
}

/// The options of each path.
#[derive(Clone, Debug)]
pub struct PathTable {
    /// Where nothing else is said.
    base: Choice,
    /// For everything at and below a path, the longest paths first.
    below: Vec<(FsPath, Choice)>,
    /// Which paths are accessed directly.
    direct: Option<Regex>,
}

/// The options of one place.
#[derive(Clone, Debug)]
struct Choice {
    usual: Arc<PathOptions>,
    direct: Arc<PathOptions>,
}

impl From<PathOptions> for Choice {
    fn from(options: PathOptions) -> Self {
        let direct = Arc::new(PathOptions {
            sync_interval: Some(SyncInterval::AtMost(Duration::ZERO)),
            read_type: ReadType::NoCache,
            write_type: WriteType::Through,
            ..options
        });
        Self { usual: Arc::new(options), direct }
    }
}

impl PathTable {
    /// `base` everywhere but at and below the paths of `below`.
    pub fn new(base: PathOptions, below: Vec<(FsPath, PathOptions)>) -> Self {
        let mut below: Vec<_> = below.into_iter().map(|(path, options)| (path, options.into())).collect();
        below.sort_by_key(|(path, _): &(FsPath, Choice)| std::cmp::Reverse(path.as_str().len()));
        Self { base: base.into(), below, direct: None }
    }

    /// The same, but the under file system is accessed directly for paths all of whose text `pattern` matches: nothing
    /// is cached or left for later, and the master looks at it again each time. `alluxio.user.file.direct.access`.
    pub fn with_direct(self, pattern: Option<&str>) -> Result<Self, regex::Error> {
        let direct = pattern.map(|pattern| Regex::new(&format!("^(?s:{pattern})$"))).transpose()?;
        Ok(Self { direct, ..self })
    }

    /// Those of `path`, a path in Alluxio.
    pub fn at(&self, path: &FsPath) -> &Arc<PathOptions> {
        let found = self.below.iter().find(|(above, _)| path.starts_with(above));
        let choice = found.map_or(&self.base, |(_, choice)| choice);
        match &self.direct {
            Some(pattern) if pattern.is_match(path.as_str()) => &choice.direct,
            _ => &choice.usual,
        }
    }
}

impl Default for PathTable {
    fn default() -> Self {
        PathOptions::default().into()
    }
}

impl From<PathOptions> for PathTable {
    /// The same everywhere.
    fn from(options: PathOptions) -> Self {
        Self::new(options, Vec::new())
    }
}

/// `alluxio.user.file.metadata.sync.interval` as a number that is sent: how old the master's knowledge of the under
/// file system may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncInterval {
    /// -1: however old.
    Never,
    /// At most this old; zero is always fresh.
    AtMost(Duration),
}

/// How long files live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// From their creation; `None` for ever.
    pub limit: Option<Duration>,
    /// What comes then.
    pub end: EndOfLife,
}

/// `alluxio.user.file.create.ttl.action`: what the master does with a file whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfLife {
    /// Its blocks leave the workers; a persisted file can still be read.
    Free,
    /// It leaves Alluxio, and stays in the under file system.
    DeleteAlluxio,
    /// It is removed everywhere.
    Delete,
}

/// A back-off: sleeps that double from `base` to `max`, until `total` has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryTimes {
    /// First sleep.
    pub base: Duration,
    /// Longest sleep.
    pub max: Duration,
    /// No attempt begins later than this after the first.
    pub total: Duration,
}

impl Default for PathOptions {
    fn default() -> Self {
        Self {
            metadata_load: MetadataLoad::Once,
            sync_interval: None,
            access_time_disabled: false,
            access_time_precision: Duration::from_secs(24 * 60 * 60),
            delete_unchecked: false,
            persist_on_rename: false,
            write_type: WriteType::AsyncThrough,
            read_type: ReadType::Cache,
            block_size: 64 * MIB,
            replication_min: 0,
            replication_max: -1,
            replication_durable: 1,
            persistence_wait: Some(Duration::ZERO),
            lifetime: Lifetime { limit: None, end: EndOfLife::Free },
            write_tier: 0,
            passive_cache: true,
        }
    }
}

impl Default for AlluxioOptions {
    fn default() -> Self {
        Self {
            masters: vec![HostPort::new("localhost", MASTER_RPC_PORT)],
            root: FsPath::root(),

            paths: PathTable::default(),

            authentication: Authentication::Simple,
            user: launch_user(),
            owner_policy: OwnerPolicy::LaunchUser {
                uid: nix::unistd::getuid().as_raw(),
                gid: nix::unistd::getgid().as_raw(),
            },
            auth_timeout: Duration::from_secs(30),

            umask: 0o022,
            times: true,
            include_operation_id: true,
            capacity_refresh: Duration::from_secs(5 * 60),

            journal_dir: None,

            memory_limit: 1024 * MIB,
            read_ahead_max: 8 * MIB,
            fetch_max: 4 * MIB,
            network_threads: 0,
            worker_connections: 4,
            reader_chunk: MIB,
            reader_buffer_messages: 16,
            writer_chunk: MIB,
            writer_buffer_messages: 16,
            local_reader_chunk: 8 * MIB,
            local_writer_chunk: 64 * KIB,
            data_read_timeout: Duration::from_secs(3 * 60),
            data_write_timeout: Duration::from_secs(3 * 60),
            reader_close_timeout: Duration::from_secs(5),
            writer_flush_timeout: Duration::from_secs(30 * 60),
            writer_close_timeout: Duration::from_secs(30 * 60),
            pread_threshold: 2 * MIB,
            locations_expire: Duration::from_secs(5 * 60),
            ufs_read_concurrency: i32::MAX,

            short_circuit: true,
            short_circuit_preferred: false,
            hostname: None,
            rack: None,
            domain_socket_as_uuid: false,
            write_policy: LocationPolicy::LocalFirst,
            ufs_read_policy: LocationPolicy::LocalFirst,
            worker_list_refresh: Duration::from_secs(2 * 60),

            rpc_retry: RetryTimes {
                base: Duration::from_millis(50),
                max: Duration::from_secs(3),
                total: Duration::from_secs(2 * 60),
            },
            block_read_retry: RetryTimes {
                base: Duration::from_millis(250),
                max: Duration::from_secs(2),
                total: Duration::from_secs(5 * 60),
            },
            write_init_retry: RetryTimes {
                base: Duration::from_secs(1),
                max: Duration::from_secs(5),
                total: Duration::from_secs(2 * 60),
            },
            rpc_timeout: Duration::from_secs(10 * 60),
            logging_threshold: Duration::from_secs(10),
            block_read_metrics: false,
            polling_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),

            streaming_connections_max: 64,
            rpc_window: 2 * MIB,
            streaming_window: 2 * MIB,
            rpc_message_max: 100 * MIB,
            streaming_message_max: 100 * MIB,
            keepalive: Duration::from_secs(35),
            keepalive_timeout: Duration::from_secs(30),
            streaming_keepalive: Some(Duration::from_secs(35)),
            streaming_keepalive_timeout: Duration::from_secs(30),
        }
    }
}

/// The name of the user of this process, or the number if it has no name.
fn launch_user() -> String {
    let uid = nix::unistd::getuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_decides() {
        let path = |text| FsPath::parse(text).unwrap();
        let sized = |block_size| PathOptions { block_size, ..PathOptions::default() };
        let table = PathTable::new(sized(1), vec![(path("/a"), sized(2)), (path("/a/b"), sized(3))]);
        for (place, block_size) in [("/", 1), ("/ab", 1), ("/a", 2), ("/a/bc", 2), ("/a/b", 3), ("/a/b/c", 3)]
        {
            assert_eq!(table.at(&path(place)).block_size, block_size, "{place}");
        }
    }

    #[test]
    fn a_path_that_the_pattern_matches_as_a_whole_is_accessed_directly() {
        let path = |text| FsPath::parse(text).unwrap();
        let cached = PathOptions { write_type: WriteType::MustCache, ..PathOptions::default() };
        let table = PathTable::new(PathOptions::default(), vec![(path("/a"), cached)]);
        let table = table.with_direct(Some("/a/x.*|/b")).unwrap();
        for (place, write_type) in [
            ("/a/xy/z", WriteType::Through),
            ("/b", WriteType::Through),
            ("/a/y", WriteType::MustCache),
            ("/b/c", WriteType::AsyncThrough),
            ("/c/b", WriteType::AsyncThrough),
        ] {
            let found = table.at(&path(place));
            let direct = write_type == WriteType::Through;
            assert_eq!(found.write_type, write_type, "{place}");
            assert_eq!(found.read_type == ReadType::NoCache, direct, "{place}");
            assert_eq!(found.sync_interval == Some(SyncInterval::AtMost(Duration::ZERO)), direct, "{place}");
        }
        assert!(table.with_direct(Some("/(a")).is_err());
    }

    #[test]
    fn addresses_are_read_as_users_write_them() {
        for (text, host, port) in [
            ("localhost:20000", "localhost", 20000),
            (" master-1 ", "master-1", MASTER_RPC_PORT),
            ("[::1]:7", "::1", 7),
            ("[fe80::1]", "fe80::1", MASTER_RPC_PORT),
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap(), HostPort::new(host, port), "{text}");
        }
        assert_eq!(HostPort::new("::1", 7).to_string(), "[::1]:7");
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_text() {
        for text in ["", ":1", "host:", "host:x", "host:70000", "[::1", "[::1]x", "a b:1", "a/b:1"] {
            let err = text.parse::<HostPort>().unwrap_err();
            assert_eq!(err.fault(), Fault::InvalidArgument, "{text}");
            assert!(err.to_string().contains(&format!("{text:?}")), "{err}");
        }
    }
}
