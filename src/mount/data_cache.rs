//! What the properties mean for the cache of file data, which knows none.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use super::Failure;
use crate::cache::data::DataCache;
use crate::cache::data::DataOptions;
use crate::cache::data::Policy;
use crate::config::Config;
use crate::config::keys;
use crate::config::keys::Key;
use crate::fs::Allowance;
use crate::fs::FileSystem;

/// What a file system takes for itself, in percent of the data, as Alluxio counts it for its store in directories.
const OVERHEAD_PERCENT: u64 = 5;

/// The smallest piece that a file system gives out.
const ALLOCATION: u64 = 4096;

/// What `config` asks for over the backend called `origin`; nothing if the cache is off.
pub(super) fn from_config(config: &Config, origin: String) -> Result<Option<DataOptions>, Failure> {
    if !config.flag(&keys::USER_CLIENT_CACHE) {
        return Ok(None);
    }
    let page_size = config.bytes(&keys::USER_CLIENT_CACHE_PAGE);
    if page_size == 0 || !page_size.is_multiple_of(ALLOCATION) || page_size > 1 << 30 {
        let key = &keys::USER_CLIENT_CACHE_PAGE;
        return Err(refuse(config, key, "expected a multiple of 4KB, at most 1GB"));
    }
    Ok(Some(DataOptions {
        directories: directories(config, page_size)?,
        page_size,
        policy: policy(config)?,
        ttl: config
            .flag(&keys::USER_CLIENT_CACHE_TTL)
            .then(|| seconds(config, &keys::USER_CLIENT_CACHE_TTL_SECONDS)),
        ttl_interval: Duration::from_secs(seconds(config, &keys::USER_CLIENT_CACHE_TTL_INTERVAL)),
        below_is_local: origin.starts_with("file:"),
        origin,
        clock: Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()),
        memory: None,
        faults: None,
    }))
}

/// A file system, and its cache if it has one.
type Cached = (Arc<dyn FileSystem>, Option<Arc<DataCache>>);

/// `fs` with the cache that `options` ask for, which draws on `memory`.
pub(super) fn over(
    fs: Arc<dyn FileSystem>,
    options: Option<DataOptions>,
    memory: Option<Arc<dyn Allowance>>,
) -> Result<Cached, Failure> {
    let Some(mut options) = options else { return Ok((fs, None)) };
    options.memory = memory;
    let cache = DataCache::open(fs, &options).map_err(|err| {
        let cure = "give each mount directories of its own, where it can write";
        Failure::new(format!("{} cannot be used, {err}; {cure}", keys::USER_CLIENT_CACHE_DIRS.name))
    })?;
    for (dir, size) in &options.directories {
        log::info!("Data cache: up to {} MiB of pages in {}", size >> 20, dir.display());
    }
    let cache = Arc::new(cache);
    Ok((Arc::clone(&cache) as Arc<dyn FileSystem>, Some(cache)))
}

fn seconds(config: &Config, key: &'static Key) -> u64 {
    u64::try_from(config.int(key)).unwrap_or(0)
}

/// The directories and the bytes of pages for each.
fn directories(config: &Config, page_size: u64) -> Result<Vec<(PathBuf, u64)>, Failure> {
    let (dirs, sizes) =
        (config.list(&keys::USER_CLIENT_CACHE_DIRS), config.sizes(&keys::USER_CLIENT_CACHE_SIZE));
    if dirs.len() != sizes.len() || dirs.is_empty() {
        let reason = format!(
            "there are {} sizes for the {} directories of {}, give one for each",
            sizes.len(),
            dirs.len(),
            keys::USER_CLIENT_CACHE_DIRS.name
        );
        return Err(refuse(config, &keys::USER_CLIENT_CACHE_SIZE, &reason));
    }
    if dirs.iter().collect::<HashSet<_>>().len() < dirs.len() {
        return Err(refuse(config, &keys::USER_CLIENT_CACHE_DIRS, "a directory is named twice"));
    }
    let mut found = Vec::with_capacity(dirs.len());
    for (dir, size) in dirs.iter().zip(sizes) {
        let dir = PathBuf::from(dir);
        if !dir.is_absolute() {
            return Err(refuse(config, &keys::USER_CLIENT_CACHE_DIRS, "expected absolute paths"));
        }
        let usable = size / (100 + OVERHEAD_PERCENT) * 100;
        if usable < 2 * page_size {
            let reason = format!("a directory has to hold two pages, {} bytes", 2 * page_size);
            return Err(refuse(config, &keys::USER_CLIENT_CACHE_SIZE, &reason));
        }
        found.push((dir, usable));
    }
    Ok(found)
}

/// A policy by its Java class.
fn policy(config: &Config) -> Result<Policy, Failure> {
    let key = &keys::USER_CLIENT_CACHE_EVICTOR;
    Ok(match config.text(key).rsplit('.').next().unwrap_or_default() {
        // Alluxio's others are cheaper ways to something like it.
        "LRUCacheEvictor" | "NondeterministicLRUCacheEvictor" | "TwoChoiceRandomEvictor" => Policy::Lru,
        "LFUCacheEvictor" => Policy::Lfu,
        "FIFOCacheEvictor" => Policy::Fifo,
        "UnevictableCacheEvictor" => Policy::Unevictable,
        _ => {
            let reason = "there is no such evictor, the usual one is alluxio.client.file.cache.evictor.LRUCacheEvictor";
            return Err(refuse(config, key, reason));
        }
    })
}

fn refuse(config: &Config, key: &'static Key, reason: &str) -> Failure {
    Failure::new(format!("{} ({}): {reason}", key.name, config.origin(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(properties: &[(&str, &str)]) -> Result<Option<DataOptions>, String> {
        let properties = [&[("alluxio.user.client.cache.enabled", "true")][..], properties].concat();
        let config = Config::given(&properties).map_err(|err| err.to_string())?;
        from_config(&config, "here".to_owned()).map_err(|err| err.to_string())
    }

    #[test]
    fn sizes_belong_to_directories() {
        let dirs = ("alluxio.user.client.cache.dirs", "/a,/b");
        let sizes = |text: &'static str| ("alluxio.user.client.cache.size", text);
        let found = options(&[dirs, sizes("105MB,210MB")]).unwrap().unwrap();
        assert_eq!(found.directories, [("/a".into(), 100 << 20), ("/b".into(), 200 << 20)]);
        let bad = options(&[dirs, sizes("1GB")]).err().unwrap();
        assert!(
            bad.contains("alluxio.user.client.cache.size (command line)")
                && bad.contains("1 sizes for the 2"),
            "{bad}"
        );
        assert!(options(&[dirs, sizes("1GB,much")]).is_err());
        assert!(options(&[dirs, sizes("1GB,1MB")]).err().unwrap().contains("hold two pages"));
        assert!(options(&[("alluxio.user.client.cache.dirs", "a")]).err().unwrap().contains("absolute"));
    }

    #[test]
    fn evictors_are_known_by_their_java_classes() {
        let policy = |class| {
            let class = ("alluxio.user.client.cache.evictor.class", class);
            options(&[class]).map(|options| options.unwrap().policy)
        };
        assert_eq!(policy("alluxio.client.file.cache.evictor.LFUCacheEvictor"), Ok(Policy::Lfu));
        assert_eq!(policy("alluxio.client.file.cache.evictor.TwoChoiceRandomEvictor"), Ok(Policy::Lru));
        assert!(policy("x.Y").unwrap_err().contains("there is no such evictor"));
        assert_eq!(options(&[]).unwrap().unwrap().policy, Policy::Lru);
    }

    #[test]
    fn pages_are_of_a_size_that_disks_have() {
        let page = |text| options(&[("alluxio.user.client.cache.page.size", text)]);
        assert_eq!(page("4KB").unwrap().unwrap().page_size, 4096);
        for bad in ["0", "1000", "2GB"] {
            assert!(page(bad).err().unwrap().contains("multiple of 4KB"), "{bad}");
        }
        assert!(options(&[("alluxio.user.client.cache.enabled", "false")]).unwrap().is_none());
    }
}
