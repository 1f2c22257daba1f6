//! The figures that the parts of a mount know by themselves: what is open, how much memory data takes, what went over the
//! network, and what is in the caches.

use std::sync::Arc;

use crate::backend::alluxio::AlluxioFs;
use crate::cache::data::DataCache;
use crate::cache::data::DataFigures;
use crate::metrics;
use crate::metrics::Registration;
use crate::metrics::Snapshot;
use crate::metrics::Value;
use crate::vfs::Vfs;

/// The parts of one mount.
pub(super) struct Parts {
    pub(super) vfs: Arc<Vfs>,
    pub(super) data: Option<Arc<DataCache>>,
    pub(super) cluster: Option<Arc<AlluxioFs>>,
}

/// Has them asked at each snapshot.
pub(super) fn register(parts: Parts) -> Registration {
    metrics::register(move |all| {
        add_vfs(all, &parts.vfs);
        if let Some(data) = &parts.data {
            add_data(all, &data.figures());
        }
        if let Some(cluster) = &parts.cluster {
            add_cluster(all, cluster);
        }
    })
}

fn add_vfs(all: &mut Snapshot, vfs: &Vfs) {
    let (files, handles, inodes) = (vfs.open_files(), vfs.open_handles(), vfs.known_inodes());
    all.java_gauge("Fuse.ReadWriteFileCount", files as f64);
    all.java_gauge("Fuse.CachedPathCount", inodes as f64);
    let help = "What the kernel has open.";
    for (kind, count) in [("file", files), ("directory", handles.saturating_sub(files))] {
        let labels = vec![("kind", kind.to_owned())];
        all.sample("alluxio_fuse_open_handles", help, labels, Value::Gauge(count as f64));
    }
    all.gauge("alluxio_fuse_inodes", "Files and directories that the kernel knows.", inodes as f64);
    let Some(memory) = vfs.memory() else { return };
    all.java_gauge("MetadataCacheSize", memory.len() as f64);
    all.gauge("alluxio_fuse_metadata_cache_entries", "Entries of the metadata cache.", memory.len() as f64);
    all.gauge(
        "alluxio_fuse_metadata_cache_bytes",
        "Memory that the metadata cache takes.",
        memory.bytes() as f64,
    );
}

fn add_cluster(all: &mut Snapshot, cluster: &AlluxioFs) {
    let memory = cluster.memory();
    let help = "Memory for data on its way, by what it is for.";
    for (user, bytes) in [("read", memory.read), ("read_ahead", memory.read_ahead), ("write", memory.write)] {
        let labels = vec![("user", user.to_owned())];
        all.sample("alluxio_fuse_memory_bytes", help, labels, Value::Gauge(bytes as f64));
    }
    all.gauge("alluxio_fuse_memory_limit_bytes", "How much memory data may take.", memory.limit as f64);
    all.gauge("alluxio_fuse_mapped_bytes", "Bytes of mapped block files.", memory.mapped as f64);
    let traffic = cluster.traffic();
    all.counter(
        "alluxio_fuse_received_bytes_total",
        "Bytes of blocks that workers sent, wanted or not.",
        traffic.received,
    );
    all.counter("alluxio_fuse_sent_bytes_total", "Bytes of blocks sent to workers.", traffic.sent);
    all.counter("alluxio_fuse_block_streams_total", "Streams that read ranges of blocks.", traffic.streams);
    all.counter("alluxio_fuse_mapped_blocks_total", "Block files that were mapped.", traffic.mapped);
    all.counter(
        "alluxio_fuse_master_calls_total",
        "Calls to masters, each attempt by itself.",
        traffic.master_calls,
    );
    all.counter("alluxio_fuse_worker_calls_total", "Calls to workers.", traffic.worker_calls);
    // One connection each, shared by all who call.
    all.java_counter("FileSystemMasterClientCount", 1);
    all.java_counter("BlockMasterClientCount", 1);
    all.java_counter("BlockWorkerClientCount", cluster.worker_connections() as u64);
}

/// What a Java client's data cache counts and ours has no case of: always 0.
const CACHE_NEVER: [&str; 17] = [
    "CacheBytesDiscarded",
    "CacheCleanupGetErrors",
    "CacheCleanupPutErrors",
    "CacheDeleteErrors",
    "CacheDeleteFromStoreErrors",
    "CacheDeleteNonExistingPageErrors",
    "CacheDeleteNotReadyErrors",
    "CacheGetNotReadyErrors",
    "CacheGetStoreReadErrors",
    "CachePagesDiscarded",
    "CachePutAsyncRejectionErrors",
    "CachePutBenignRacingErrors",
    "CachePutEvictionErrors",
    "CachePutNotReadyErrors",
    "CachePutStoreDeleteErrors",
    "CachePutStoreWriteErrors",
    "CachePutStoreWriteNoSpaceErrors",
];

fn add_data(all: &mut Snapshot, data: &DataFigures) {
    let wanted = data.hit_bytes + data.missed_bytes;
    let rate = if wanted == 0 { 0.0 } else { data.hit_bytes as f64 / wanted as f64 };
    let free = data.limit_bytes.saturating_sub(data.used_bytes);
    all.java_gauge("CacheHitRate", rate);
    all.java_gauge("CachePages", data.pages as f64);
    all.java_gauge("CacheSpaceAvailable", free as f64);
    all.java_gauge("CacheSpaceUsed", data.used_bytes as f64);
    all.java_counter("CacheSpaceUsedCount", data.used_bytes);
    all.java_counter("CacheHitRequests", data.hits);
    all.java_counter("CacheExternalRequests", data.misses);
    all.java_counter("CachePutInsufficientSpaceErrors", data.refused);
    all.java_counter("CachePutErrors", data.refused + data.failed);
    all.java_counter("CacheGetErrors", data.damaged);
    // Alluxio's number for "read and written".
    all.java_counter("CacheState", 2);
    CACHE_NEVER.iter().for_each(|name| all.java_counter(name, 0));
    all.java_meter("CacheBytesReadCache", data.hit_bytes);
    all.java_meter("CacheBytesRequestedExternal", data.missed_bytes);
    all.java_meter("CacheBytesReadExternal", data.loaded_bytes);
    all.java_meter("CacheBytesWrittenCache", data.written_bytes);
    all.java_meter("CacheBytesEvicted", data.evicted_bytes);
    all.java_meter("CachePagesEvicted", data.evicted);
    all.gauge("alluxio_fuse_data_cache_bytes", "Bytes in the data cache.", data.used_bytes as f64);
    all.gauge(
        "alluxio_fuse_data_cache_limit_bytes",
        "Bytes that the data cache may take.",
        data.limit_bytes as f64,
    );
    all.gauge("alluxio_fuse_data_cache_pages", "Pages in the data cache.", data.pages as f64);
    let help = "Reads of pages of the data cache, by whether they were there.";
    for (result, count) in [("hit", data.hits), ("miss", data.misses)] {
        let labels = vec![("result", result.to_owned())];
        all.sample("alluxio_fuse_data_cache_reads_total", help, labels, Value::Counter(count as f64));
    }
    let help = "Pages that the data cache has lost or has not taken, by why.";
    for (reason, count) in [
        ("evicted", data.evicted),
        ("expired", data.expired),
        ("damaged", data.damaged),
        ("no_room", data.refused),
        ("not_written", data.failed),
    ] {
        let labels = vec![("reason", reason.to_owned())];
        all.sample("alluxio_fuse_data_cache_pages_lost_total", help, labels, Value::Counter(count as f64));
    }
}
