//! Who the workers are, which of them are on this host, and which one to take.
//!
//! Workers are known by address. Their ids change when the master restarts, so nothing is keyed by them. Where the
//! master says a block is, is a hint: the worker may be gone, or the block.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use md5::Digest;
use md5::Md5;
use parking_lot::Mutex;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::Class;
use super::error::Failure;
use super::flight::Flight;
use super::master::Master;
use super::options::AlluxioOptions;
use super::options::HostPort;
use super::options::LocationPolicy;
use super::proto::grpc::BlockInfo;
use super::proto::grpc::WorkerNetAddress;
use super::retry::Backoff;
use super::retry::random;
use super::worker::Worker;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::Result;

/// The tier of a worker's identity that says its rack.
const RACK: &str = "rack";

/// How long a worker that failed is passed over: first time, and at most.
const SHUN_MIN: Duration = Duration::from_secs(1);
const SHUN_MAX: Duration = Duration::from_secs(30);

/// The same for one that does not answer at all. Everybody who tries it loses the time of a time-out.
const SHUN_SILENT_MIN: Duration = Duration::from_secs(30);
const SHUN_SILENT_MAX: Duration = Duration::from_secs(300);

/// A list this young is not asked for again, though nobody in it will do.
const LIST_FRESH: Duration = Duration::from_secs(1);

/// How long an old list is kept waiting for, and how long the place of a host is looked up: servers of names may be away.
const LIST_PATIENCE: Duration = Duration::from_secs(2);
const LOOK_UP_MAX: Duration = Duration::from_secs(2);

/// The live workers, their failures and the choice among them.
pub(super) struct Workers {
    options: Arc<AlluxioOptions>,
    master: Arc<Master>,
    list: ArcSwapOption<List>,
    asking: Flight,
    /// Somebody asks for a list, for others.
    refreshing: AtomicBool,
    /// What was listed before is not to be gone by.
    distrusted: Mutex<Option<Instant>>,
    /// Whether a host is this one, as it was looked up last.
    places: Mutex<HashMap<String, bool>>,
    shunned: Mutex<HashMap<HostPort, Shun>>,
    /// For taking turns.
    turn: AtomicU64,
}

struct List {
    asked: Instant,
    workers: Vec<Worker>,
}

/// A worker that failed.
#[derive(Clone, Copy)]
struct Shun {
    until: Instant,
    time: Duration,
}

/// What a block to be placed asks of a worker.
#[derive(Clone, Copy)]
struct Want {
    /// 0 where no block is known yet.
    block_id: i64,
    bytes: u64,
    turn: u64,
    random: u64,
}

impl Workers {
    /// None known yet.
    pub(super) fn new(options: Arc<AlluxioOptions>, master: Arc<Master>) -> Self {
        Self {
            options,
            master,
            list: ArcSwapOption::default(),
            asking: Flight::default(),
            refreshing: AtomicBool::new(false),
            distrusted: Mutex::default(),
            places: Mutex::default(),
            shunned: Mutex::default(),
            turn: AtomicU64::new(random()),
        }
    }

    /// Those who have `block`, the best first: on this host, in this rack, elsewhere; those that failed lately come last.
    pub(super) async fn holders(&self, block: &BlockInfo) -> Vec<Worker> {
        let mut workers = Vec::with_capacity(block.locations.len());
        for address in block.locations.iter().filter_map(|location| location.worker_address.as_ref()) {
            workers.push(self.worker(address).await);
        }
        workers.sort_by_cached_key(|worker| {
            (self.is_shunned(&worker.address), !worker.local, !worker.same_rack, random())
        });
        workers
    }

    /// How many of `holders`, from the first, have not failed lately.
    pub(super) fn trusted(&self, holders: &[Worker]) -> usize {
        holders.iter().take_while(|worker| !self.is_shunned(&worker.address)).count()
    }

    /// The one of `holders` whose block files are looked for on this host. None that failed lately: nobody is to wait for it again
    /// while another has the block.
    pub(super) fn near<'a>(&self, holders: &'a [Worker]) -> Option<&'a Worker> {
        holders.iter().find(|worker| worker.short_circuit(&self.options) && !self.is_shunned(&worker.address))
    }

    /// A worker to write a block of `block_size` to, none of `excluded`.
    pub(super) async fn for_write(&self, block_size: u64, excluded: &[HostPort]) -> Result<Worker, Failure> {
        self.choose(&self.options.write_policy, 0, block_size, excluded).await
    }

    /// A worker to read a block through that no worker has, none of `excluded`.
    pub(super) async fn for_ufs_read(
        &self,
        block_id: i64,
        length: u64,
        excluded: &[HostPort],
    ) -> Result<Worker> {
        Ok(self.choose(&self.options.ufs_read_policy, block_id, length, excluded).await?)
    }

    /// All live workers, as of now.
    pub(super) async fn all(&self) -> Result<Vec<Worker>> {
        Ok(self.list(Duration::ZERO).await?.workers.clone())
    }

    /// A live worker on this host, by the list that is known, however old.
    pub(super) async fn local(&self) -> Option<Worker> {
        let list = match self.known() {
            Some(list) => list,
            None => timeout(LIST_PATIENCE, self.list(self.options.worker_list_refresh)).await.ok()?.ok()?,
        };
        list.workers.iter().find(|worker| worker.local).cloned()
    }

    /// Whether the list is so old that it is to be asked for anew, by [`Self::refresh`]: who is told so has to call that.
    pub(super) fn is_due(&self) -> bool {
        let age = self.options.worker_list_refresh;
        self.known().is_some_and(|list| list.asked.elapsed() >= age)
            && !self.refreshing.swap(true, Ordering::Relaxed)
    }

    /// Asks for the list, for all who go by the one that is known.
    pub(super) async fn refresh(&self) {
        if let Err(error) = self.list(self.options.worker_list_refresh).await {
            log::debug!("the list of workers stays as it is: {error}");
        }
        self.refreshing.store(false, Ordering::Relaxed);
    }

    /// A worker did not answer or broke off: others are taken for a while.
    pub(super) fn failed(&self, address: &HostPort, failure: &Failure) {
        let (least, most) = match failure.error.fault() {
            Fault::TimedOut => (SHUN_SILENT_MIN, SHUN_SILENT_MAX),
            _ => (SHUN_MIN, SHUN_MAX),
        };
        let now = Instant::now();
        let mut shunned = self.shunned.lock();
        let time = match shunned.get(address) {
            // Many calls fail at once when a worker goes; that is one failure.
            Some(shun) if now < shun.until => return,
            Some(shun) => (shun.time * 2).clamp(least, most),
            None => least,
        };
        shunned.insert(address.clone(), Shun { until: now + time, time });
    }

    /// The master does not know a worker that is listed: it has restarted since, and its list is another one.
    pub(super) fn distrust_list(&self) {
        *self.distrusted.lock() = Some(Instant::now());
    }

    /// Waits until the master knows the worker at `address`, as long as the retry properties allow. What a worker tells a master that
    /// has just restarted before it has told it of itself, such as a block's commit, fails, and the block is stuck: the worker
    /// has it, and the master never hears of it.
    pub(super) async fn wait_until_known(&self, address: &HostPort) -> Result<()> {
        self.master.reached().await?;
        let mut backoff = Backoff::new(self.options.rpc_retry);
        let knows = |list: &List| list.workers.iter().any(|worker| worker.address == *address);
        while let Some(since) = self.master.primary().new_since() {
            let told = self.list.load_full().is_some_and(|list| list.asked > since && knows(&list));
            if told || knows(&*self.list(Duration::ZERO).await?) || !backoff.wait().await {
                break;
            }
        }
        Ok(())
    }

    /// A worker did what it was asked.
    pub(super) fn worked(&self, address: &HostPort) {
        self.shunned.lock().remove(address);
    }

    fn is_shunned(&self, address: &HostPort) -> bool {
        self.shunned.lock().get(address).is_some_and(|shun| Instant::now() < shun.until)
    }

    async fn choose(
        &self,
        policy: &LocationPolicy,
        block_id: i64,
        bytes: u64,
        excluded: &[HostPort],
    ) -> Result<Worker, Failure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let want = Want { block_id, bytes, turn, random: random() };
        let known = self.known();
        let asked = self.list(self.options.worker_list_refresh);
        // Rather by an old list than late.
        let mut list = match known {
            Some(known) => timeout(LIST_PATIENCE, asked).await.unwrap_or(Ok(known))?,
            None => asked.await?,
        };
        if !list.workers.iter().any(|worker| self.is_open(worker, excluded)) {
            list = self.list(LIST_FRESH).await?;
        }
        let open: Vec<&Worker> =
            list.workers.iter().filter(|worker| self.is_open(worker, excluded)).collect();
        let any: Vec<&Worker> =
            list.workers.iter().filter(|worker| !excluded.contains(&worker.address)).collect();
        // Rather one that failed lately than none.
        let chosen = pick(policy, &open, want).or_else(|| pick(policy, &any, want));
        chosen.cloned().ok_or_else(|| self.nobody(policy, &list.workers, bytes, excluded))
    }

    fn is_open(&self, worker: &Worker, excluded: &[HostPort]) -> bool {
        !excluded.contains(&worker.address) && !self.is_shunned(&worker.address)
    }

    fn nobody(
        &self,
        policy: &LocationPolicy,
        workers: &[Worker],
        bytes: u64,
        excluded: &[HostPort],
    ) -> Failure {
        let detail = match (workers.len(), excluded.len()) {
            (0, _) => "no Alluxio worker is registered at the master, try again when one is up".to_owned(),
            (live, 0) => format!("none of {live} workers will do for a block of {bytes} bytes by {policy:?}"),
            (live, tried) => format!("{tried} workers failed, and no other of {live} will do by {policy:?}"),
        };
        let class = if workers.is_empty() { Class::Unregistered } else { Class::Final };
        Failure { class, error: FsError::because(Fault::Unavailable, detail), unsent: true }
    }

    /// The list as it is known. An empty one is not: the cluster is just starting up.
    fn known(&self) -> Option<Arc<List>> {
        self.list.load_full().filter(|list| !list.workers.is_empty())
    }

    /// The live workers, asked for not longer than `age` ago. If the master does not answer, an older list is better
    /// than none.
    async fn list(&self, age: Duration) -> Result<Arc<List>> {
        let known = self.list.load_full();
        let since = *self.distrusted.lock();
        let fresh = |list: &List| list.asked.elapsed() < age && since.is_none_or(|since| list.asked > since);
        let ready = || self.known().filter(|list| fresh(list));
        match self.asking.run(ready, async { Ok(self.ask().await?) }).await {
            Ok(list) => Ok(list),
            Err(failure) => known.ok_or(failure.error),
        }
    }

    async fn ask(&self) -> Result<Arc<List>> {
        let infos = self.master.worker_infos().await?;
        let hosts = infos.iter().filter_map(|info| Some(info.address.as_ref()?.host().to_owned()));
        self.look_up_all(hosts.collect()).await;
        let mut workers = Vec::with_capacity(infos.len());
        for info in &infos {
            let Some(address) = &info.address else {
                continue;
            };
            let worker = self.worker(address).await;
            let capacity = info.capacity_bytes().max(0).cast_unsigned();
            workers.push(Worker { capacity, used: info.used_bytes().max(0).cast_unsigned(), ..worker });
        }
        // A fixed order, so that choices by hash and by turn mean the same every time, and for every client.
        workers.sort_by(|one, other| one.order.cmp(&other.order));
        let list = Arc::new(List { asked: Instant::now(), workers });
        self.list.store(Some(Arc::clone(&list)));
        Ok(list)
    }

    async fn worker(&self, address: &WorkerNetAddress) -> Worker {
        let host = address.host();
        let dial = if address.container_host().is_empty() { host } else { address.container_host() };
        let port = u16::try_from(address.data_port()).unwrap_or(0);
        let socket = PathBuf::from(address.domain_socket_path());
        let domain_socket = (!socket.as_os_str().is_empty() && socket.exists()).then_some(socket);
        let local = self.options.hostname.as_deref() == Some(host)
            || (self.options.domain_socket_as_uuid && domain_socket.is_some())
            || self.is_here(host).await;
        let in_rack = |rack: &String| {
            let tiers = address.tiered_identity.iter().flat_map(|identity| &identity.tiers);
            tiers.filter(|tier| tier.tier_name() == RACK).any(|tier| tier.value() == rack)
        };
        Worker {
            host: host.to_owned(),
            address: HostPort::new(dial, port),
            order: java_order(address),
            same_rack: self.options.rack.as_ref().is_some_and(in_rack),
            domain_socket: domain_socket.filter(|_| local),
            local,
            capacity: 0,
            used: 0,
        }
    }

    /// Whether `host` is an address of this host.
    async fn is_here(&self, host: &str) -> bool {
        if let Some(here) = self.places.lock().get(host) {
            return *here;
        }
        let here = look_up(host).await.unwrap_or(false);
        self.places.lock().insert(host.to_owned(), here);
        here
    }

    /// Looks `hosts` up, and those that were looked up before, all at once. Where that fails, what was found before counts.
    async fn look_up_all(&self, mut hosts: HashSet<String>) {
        hosts.extend(self.places.lock().keys().cloned());
        let mut under_way = JoinSet::new();
        for host in hosts {
            under_way.spawn(async move { (look_up(&host).await, host) });
        }
        while let Some(found) = under_way.join_next().await {
            if let Ok((Some(here), host)) = found {
                self.places.lock().insert(host, here);
            }
        }
    }
}

/// Whether `host` is an address of this host; none if that cannot be told in time.
async fn look_up(host: &str) -> Option<bool> {
    let mut addresses = timeout(LOOK_UP_MAX, lookup_host((host, 0))).await.ok()?.ok()?;
    Some(addresses.any(|address| is_own(address.ip())))
}

/// Whether an interface of this host has the address: the kernel lets only those be bound.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// As Java's `WorkerNetAddress.toString()`, by which its client sorts workers without regard to case, as far as addresses differ.
fn java_order(address: &WorkerNetAddress) -> String {
    let (host, container) = (address.host(), address.container_host());
    let (rpc_port, data_port) = (address.rpc_port(), address.data_port());
    format!("{host}, containerHost={container}, rpcPort={rpc_port}, dataPort={data_port}").to_lowercase()
}

/// The worker that `policy` takes from `workers`.
fn pick<'a>(policy: &LocationPolicy, workers: &[&'a Worker], want: Want) -> Option<&'a Worker> {
    let fits = |worker: &&Worker| worker.capacity >= want.bytes;
    match policy {
        LocationPolicy::LocalFirst => local_or_any(workers, fits, want.random),
        LocationPolicy::LocalFirstAvoidEviction { reserved_bytes } => {
            let roomy = |worker: &&Worker| worker.free() >= want.bytes.saturating_add(*reserved_bytes);
            // Where nobody has room, somebody must evict.
            local_or_any(workers, roomy, want.random).or_else(|| local_or_any(workers, fits, want.random))
        }
        LocationPolicy::MostAvailableFirst => workers
            .iter()
            .copied()
            .filter(fits)
            .max_by_key(|worker| (worker.free(), Reverse(&worker.address))),
        LocationPolicy::RoundRobin => nth(&fitting(workers, fits), want.turn),
        LocationPolicy::DeterministicHash { shards } => by_hash(workers, fits, *shards, want),
        LocationPolicy::CapacityBasedHash { shards } => {
            by_hash_and_capacity(&fitting(workers, fits), *shards, want)
        }
        LocationPolicy::CapacityBasedRandom => by_capacity(&fitting(workers, fits), want.random),
        LocationPolicy::SpecificHost(host) => workers.iter().copied().find(|worker| worker.host == *host),
    }
}

fn fitting<'a>(workers: &[&'a Worker], fits: impl Fn(&&'a Worker) -> bool) -> Vec<&'a Worker> {
    workers.iter().copied().filter(fits).collect()
}

fn nth<'a>(workers: &[&'a Worker], number: u64) -> Option<&'a Worker> {
    let count = workers.len() as u64;
    (count > 0).then(|| workers[(number % count) as usize])
}

fn local_or_any<'a>(
    workers: &[&'a Worker],
    fits: impl Fn(&&'a Worker) -> bool,
    random: u64,
) -> Option<&'a Worker> {
    let fitting = fitting(workers, fits);
    let local = fitting.iter().copied().find(|worker| worker.local);
    let in_rack =
        || nth(&fitting.iter().copied().filter(|worker| worker.same_rack).collect::<Vec<_>>(), random);
    local.or_else(in_rack).or_else(|| nth(&fitting, random))
}

/// One of the `shards` workers that follow the block's place in the list, so that all clients put the load of a block on the
/// same few: as `DeterministicHashPolicy` of Alluxio 2.9.4, which takes the first 32 bits of an MD5.
fn by_hash<'a>(
    workers: &[&'a Worker],
    fits: impl Fn(&&'a Worker) -> bool,
    shards: usize,
    want: Want,
) -> Option<&'a Worker> {
    let digest = Md5::digest(want.block_id.to_le_bytes());
    let hash = i32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let start = hash.unsigned_abs() as usize % workers.len().max(1);
    let (before, after) = workers.split_at(start);
    let candidates: Vec<&Worker> =
        after.iter().chain(before).copied().filter(fits).take(shards.max(1)).collect();
    nth(&candidates, want.random)
}

/// One of `shards` workers at the block's places in the capacity of all: as `CapacityBasedDeterministicHashPolicy` of Alluxio 2.9.4.
fn by_hash_and_capacity<'a>(workers: &[&'a Worker], shards: usize, want: Want) -> Option<&'a Worker> {
    let total: u64 = workers.iter().map(|worker| worker.capacity).sum();
    if total == 0 {
        return None;
    }
    let mut workers = workers.to_vec();
    workers.sort_by(|one, other| one.host.cmp(&other.host));
    let mut hash = want.block_id;
    let mut place = || {
        hash = murmur3(hash);
        at_capacity(&workers, u128::from(hash.unsigned_abs() % total))
    };
    let shards = shards.clamp(1, workers.len());
    let candidates: Vec<&Worker> = (0..shards).filter_map(|_| place()).collect();
    nth(&candidates, want.random)
}

/// `MurmurHash3.hash64` of Apache Commons Codec, of one number.
fn murmur3(number: i64) -> i64 {
    const SEED: u64 = 104_729;
    let key = number.swap_bytes().cast_unsigned().wrapping_mul(0x87c3_7b91_1142_53d5);
    let key = key.rotate_left(31).wrapping_mul(0x4cf5_ad43_2745_937f);
    let hash = (SEED ^ key).rotate_left(27).wrapping_mul(5).wrapping_add(0x52dc_e729) ^ 8;
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)).cast_signed()
}

/// A random one, twice as likely if it is twice as big.
fn by_capacity<'a>(workers: &[&'a Worker], random: u64) -> Option<&'a Worker> {
    let total: u128 = workers.iter().map(|worker| u128::from(worker.capacity)).sum();
    if total == 0 {
        return nth(workers, random);
    }
    at_capacity(workers, u128::from(random) % total)
}

/// The worker at `point` of the capacity of all.
fn at_capacity<'a>(workers: &[&'a Worker], mut point: u128) -> Option<&'a Worker> {
    workers.iter().copied().find(|worker| {
        let here = point < u128::from(worker.capacity);
        point = point.saturating_sub(u128::from(worker.capacity));
        here
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(host: &str, local: bool, capacity: u64, used: u64) -> Worker {
        let address = HostPort::new(host, 29999);
        let order =
            java_order(&WorkerNetAddress { host: Some(host.to_owned()), ..WorkerNetAddress::default() });
        let (host, domain_socket, same_rack) = (host.to_owned(), None, false);
        Worker { host, address, domain_socket, order, same_rack, local, capacity, used }
    }

    fn picked(policy: &LocationPolicy, workers: &[Worker], bytes: u64, turn: u64) -> Option<String> {
        let workers: Vec<&Worker> = workers.iter().collect();
        let want = Want { block_id: 7 << 24, bytes, turn, random: turn };
        pick(policy, &workers, want).map(|worker| worker.host.clone())
    }

    fn three() -> Vec<Worker> {
        vec![worker("a", false, 100, 90), worker("b", true, 100, 99), worker("c", false, 50, 0)]
    }

    #[test]
    fn the_local_worker_comes_first_unless_the_block_never_fits() {
        let policy = LocationPolicy::LocalFirst;
        assert_eq!(picked(&policy, &three(), 10, 0).unwrap(), "b");
        let small = [worker("a", false, 100, 0), worker("b", true, 5, 0)];
        assert_eq!(picked(&policy, &small, 10, 0).unwrap(), "a");
        assert_eq!(picked(&policy, &small, 1000, 0), None);
    }

    #[test]
    fn evictions_are_avoided_while_somebody_has_room() {
        let policy = LocationPolicy::LocalFirstAvoidEviction { reserved_bytes: 5 };
        assert_eq!(picked(&policy, &three(), 10, 0).unwrap(), "c");
        assert_eq!(picked(&policy, &three(), 60, 0).unwrap(), "b");
    }

    #[test]
    fn the_emptiest_is_taken() {
        assert_eq!(picked(&LocationPolicy::MostAvailableFirst, &three(), 10, 0).unwrap(), "c");
        assert_eq!(picked(&LocationPolicy::MostAvailableFirst, &three(), 80, 0).unwrap(), "a");
    }

    #[test]
    fn turns_go_round() {
        let hosts: Vec<String> =
            (0..4).filter_map(|turn| picked(&LocationPolicy::RoundRobin, &three(), 10, turn)).collect();
        assert_eq!(hosts, ["a", "b", "c", "a"]);
    }

    #[test]
    fn a_block_has_its_place_in_the_list() {
        let policy = LocationPolicy::DeterministicHash { shards: 1 };
        let first = picked(&policy, &three(), 10, 0).unwrap();
        assert!((1..9).all(|random| picked(&policy, &three(), 10, random).unwrap() == first));
        let two = LocationPolicy::DeterministicHash { shards: 2 };
        let mut hosts: Vec<String> = (0..9).filter_map(|random| picked(&two, &three(), 10, random)).collect();
        hosts.sort();
        hosts.dedup();
        assert_eq!(hosts.len(), 2);
    }

    /// What Java's own classes of 2.9.4 have chosen, for blocks of 15 bytes or one in turns.
    #[test]
    fn blocks_are_where_java_clients_look_for_them() {
        let (hosts, capacities) =
            (["node-10", "Node-2", "node-1", "node-1.x", "node-3"], [50, 10, 30, 20, 40]);
        let worker = |(host, capacity): (&str, u64)| worker(host, false, capacity, 0);
        let mut workers: Vec<Worker> = hosts.into_iter().zip(capacities).map(worker).collect();
        workers.sort_by(|one, other| one.order.cmp(&other.order));
        let workers: Vec<&Worker> = workers.iter().collect();
        let chosen = |policy: LocationPolicy| {
            let hosts = (0..12).map(|number| {
                let (block_id, bytes) = ((number * 37 + 5) << 24, if number % 3 == 0 { 15 } else { 1 });
                pick(&policy, &workers, Want { block_id, bytes, turn: 0, random: 0 }).unwrap().host.clone()
            });
            hosts.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            chosen(LocationPolicy::DeterministicHash { shards: 1 }),
            "node-1 node-1 node-3 node-10 node-10 node-1 node-3 node-10 node-3 node-3 node-1.x Node-2"
        );
        assert_eq!(
            chosen(LocationPolicy::CapacityBasedHash { shards: 1 }),
            "node-3 Node-2 node-3 node-1.x node-10 node-10 node-3 node-10 node-3 node-3 node-10 node-1.x"
        );
        assert_eq!(
            [0, 1, -1].map(murmur3),
            [-8_620_514_229_188_030_809, 6_840_239_832_827_182_823, -6_995_933_311_723_732_776]
        );
    }

    #[test]
    fn a_worker_of_the_same_rack_is_nearer_than_others() {
        let mut workers =
            vec![worker("a", false, 100, 0), worker("b", false, 100, 0), worker("c", false, 5, 0)];
        workers[1].same_rack = true;
        workers[2].same_rack = true;
        let hosts = (0..9).map(|random| picked(&LocationPolicy::LocalFirst, &workers, 10, random).unwrap());
        assert!(hosts.clone().all(|host| host == "b"));
        workers[0].local = true;
        assert_eq!(picked(&LocationPolicy::LocalFirst, &workers, 10, 1).unwrap(), "a");
    }

    #[test]
    fn bigger_workers_get_more() {
        let hosts: Vec<String> = (0..250)
            .filter_map(|random| picked(&LocationPolicy::CapacityBasedRandom, &three(), 10, random))
            .collect();
        assert_eq!(hosts.iter().filter(|host| *host == "a").count(), 100);
        assert_eq!(hosts.iter().filter(|host| *host == "c").count(), 50);
    }

    #[test]
    fn a_specific_host_is_the_only_one() {
        let policy = LocationPolicy::SpecificHost("c".to_owned());
        assert_eq!(picked(&policy, &three(), 10, 0).unwrap(), "c");
        assert_eq!(picked(&LocationPolicy::SpecificHost("d".to_owned()), &three(), 10, 0), None);
    }

    #[test]
    fn no_workers_no_choice() {
        for policy in [
            LocationPolicy::LocalFirst,
            LocationPolicy::RoundRobin,
            LocationPolicy::MostAvailableFirst,
            LocationPolicy::CapacityBasedRandom,
            LocationPolicy::DeterministicHash { shards: 1 },
        ] {
            assert_eq!(picked(&policy, &[], 1, 0), None, "{policy:?}");
        }
    }

    #[test]
    fn only_addresses_of_this_host_are_its_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("192.0.2.77".parse().unwrap()));
    }

    #[test]
    fn short_circuit_needs_a_local_worker_and_no_better_way() {
        let options = AlluxioOptions::default();
        let here = worker("a", true, 0, 0);
        assert!(here.short_circuit(&options));
        assert!(!worker("a", false, 0, 0).short_circuit(&options));
        let socket = Worker { domain_socket: Some(PathBuf::from("/s")), ..here };
        assert!(!socket.short_circuit(&options));
        assert!(socket.short_circuit(&AlluxioOptions { short_circuit_preferred: true, ..options.clone() }));
        assert!(!socket.short_circuit(&AlluxioOptions { short_circuit: false, ..options }));
    }
}
