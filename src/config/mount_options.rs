//! The words of `-o`: which are properties, which are mount options, and what these mean. They mean the same
//! whichever libfuse carries the mount.

use std::time::Duration;

use super::ConfigError;
use super::Origin;
use super::keys;
use super::nearest::nearest;

/// Variable by which Alluxio's container image sets the number of idle threads.
pub(super) const IDLE_VARIABLE: &str = "MAX_IDLE_THREADS";

/// Which libfuse may carry the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libfuse {
    /// libfuse 2 and no other.
    Only2,
    /// libfuse 3 and no other.
    Only3,
    /// libfuse 2, or 3 if there is no 2.
    Either,
}

/// What the kernel keeps of file data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageCache {
    /// Until the file is opened the next time.
    #[default]
    Default,
    /// Nothing.
    DirectIo,
    /// Everything, until somebody says that it is outdated.
    KernelCache,
    /// Until the file's size or modification time is seen to change.
    AutoCache,
}

/// The mount options, checked. Numbers that nobody gave are `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct MountOptions {
    /// What the kernel keeps of file data.
    pub page_cache: PageCache,
    /// How long the kernel trusts attributes.
    pub attr_timeout: Duration,
    /// How long attributes are trusted when an `auto_cache` mount looks for a change; as `attr_timeout` if unset.
    pub ac_attr_timeout: Option<Duration>,
    /// How long the kernel trusts that a name is there.
    pub entry_timeout: Duration,
    /// How long the kernel trusts that a name is not there.
    pub negative_timeout: Duration,
    /// Most bytes of one read request.
    pub max_read: Option<u32>,
    /// Most bytes of one write request.
    pub max_write: Option<u32>,
    /// Most bytes the kernel reads ahead.
    pub max_readahead: Option<u32>,
    /// Most requests that nobody waits for.
    pub max_background: Option<u16>,
    /// So many of them make the kernel slow down.
    pub congestion_threshold: Option<u16>,
    /// Worker threads that stay while there is nothing to do.
    pub max_idle_threads: u32,
    /// Worker threads at most.
    pub max_threads: Option<u32>,
    /// Each worker gets a descriptor of its own.
    pub clone_fd: bool,
    /// Requests come over io_uring, where the kernel offers it.
    pub io_uring: bool,
    /// libfuse's own loop serves instead of ours: only to compare them.
    pub libfuse_loop: bool,
    /// Every operation is logged.
    pub debug: bool,
    /// The mount point may have entries, which the mount hides.
    pub nonempty: bool,
    /// The first column of the list of mounts.
    pub fs_name: Option<String>,
    /// What follows `fuse.` in the type column.
    pub subtype: Option<String>,
    /// All files are shown as this user's.
    pub uid: Option<u32>,
    /// All files are shown as this group's.
    pub gid: Option<u32>,
    /// Permission bits that no file is shown with.
    pub umask: Option<u32>,
    /// Words for the kernel and fusermount, in their order, each once.
    pub kernel_words: Vec<String>,
    /// Words that were taken but change nothing here.
    pub without_effect: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            page_cache: PageCache::Default,
            attr_timeout: Duration::from_secs(1),
            ac_attr_timeout: None,
            entry_timeout: Duration::from_secs(1),
            negative_timeout: Duration::ZERO,
            max_read: None,
            max_write: None,
            max_readahead: None,
            max_background: None,
            congestion_threshold: None,
            max_idle_threads: 64,
            max_threads: None,
            clone_fd: false,
            io_uring: false,
            libfuse_loop: false,
            debug: false,
            nonempty: false,
            fs_name: None,
            subtype: None,
            uid: None,
            gid: None,
            umask: None,
            kernel_words: Vec::new(),
            without_effect: Vec::new(),
        }
    }
}

/// Words that the kernel, fusermount or libfuse act upon, and their opposites.
const KERNEL_WORDS: [&str; 18] = [
    "allow_other",
    "allow_root",
    "auto_unmount",
    "default_permissions",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "sync",
    "async",
    "dirsync",
    "sync_read",
];

/// Words that have a meaning for libfuse but none here: this program does it anyhow or never.
const WITHOUT_EFFECT: [&str; 29] = [
    "big_writes",
    "hard_remove",
    "use_ino",
    "readdir_ino",
    "async_read",
    "async_dio",
    "atomic_o_trunc",
    "splice_read",
    "splice_write",
    "splice_move",
    "no_splice_read",
    "no_splice_write",
    "no_splice_move",
    "intr",
    "intr_signal=",
    "noforget",
    "remember=",
    "nopath",
    "nullpath_ok",
    "no_remote_lock",
    "no_remote_flock",
    "no_remote_posix_lock",
    "auto_inval_data",
    "no_auto_inval_data",
    "readdirplus=",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
];

/// Words that this program acts upon.
const OWN_WORDS: [&str; 26] = [
    "direct_io",
    "kernel_cache",
    "auto_cache",
    "noauto_cache",
    "attr_timeout=",
    "ac_attr_timeout=",
    "entry_timeout=",
    "negative_timeout=",
    "max_read=",
    "max_write=",
    "max_readahead=",
    "max_background=",
    "congestion_threshold=",
    "max_idle_threads=",
    "max_threads=",
    "clone_fd",
    "io_uring",
    "libfuse_loop",
    "debug",
    "nonempty",
    "fsname=",
    "subtype=",
    "uid=",
    "gid=",
    "umask=",
    "defaults",
];

impl MountOptions {
    /// Reads the comma separated `text` that was set at `origin`. `idle_variable` is the value of
    /// MAX_IDLE_THREADS, which the word `max_idle_threads` overrides.
    pub(super) fn parse(
        text: &str,
        origin: &Origin,
        idle_variable: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let mut options = Self::default();
        if let Some(text) = idle_variable {
            options.max_idle_threads = whole(text, 1, u32::MAX).map_err(|problem| {
                ConfigError::new(format!("environment variable {IDLE_VARIABLE}={text}: {problem}"))
            })?;
        }
        for word in split_words(text) {
            options
                .take(&word)
                .map_err(|problem| ConfigError::new(format!("mount option {word} ({origin}): {problem}")))?;
        }
        options.check_together(origin)?;
        Ok(options)
    }

    /// Refuses words that contradict each other: one library would not mount, the other choose one of them.
    fn check_together(&self, origin: &Origin) -> Result<(), ConfigError> {
        let (all, root) = ("allow_other", "allow_root");
        let has = |word: &str| self.kernel_words.iter().any(|known| known == word);
        if has(all) && has(root) {
            return Err(ConfigError::new(format!(
                "mount options {all} and {root} ({origin}): give one of them, {all} lets root in as well"
            )));
        }
        Ok(())
    }

    fn take(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let known = if value.is_some() { format!("{name}=") } else { name.to_owned() };
        if OWN_WORDS.contains(&known.as_str()) {
            return self.take_own(name, value.unwrap_or_default());
        }
        let list = if KERNEL_WORDS.contains(&known.as_str()) {
            &mut self.kernel_words
        } else if WITHOUT_EFFECT.contains(&known.as_str()) {
            &mut self.without_effect
        } else {
            return Err(refuse(name, value.is_some()));
        };
        list.retain(|earlier| earlier != word);
        list.push(word.to_owned());
        Ok(())
    }

    /// Acts upon a word of [`OWN_WORDS`]; its value is empty if it has none.
    fn take_own(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "direct_io" => self.page_cache = PageCache::DirectIo,
            // direct_io leaves nothing for the other two to keep, and kernel_cache nothing to look after.
            "kernel_cache" if self.page_cache != PageCache::DirectIo => {
                self.page_cache = PageCache::KernelCache;
            }
            "auto_cache" if self.page_cache == PageCache::Default => self.page_cache = PageCache::AutoCache,
            "noauto_cache" if self.page_cache == PageCache::AutoCache => self.page_cache = PageCache::Default,
            "attr_timeout" => self.attr_timeout = seconds(value)?,
            "ac_attr_timeout" => self.ac_attr_timeout = Some(seconds(value)?),
            "entry_timeout" => self.entry_timeout = seconds(value)?,
            "negative_timeout" => self.negative_timeout = seconds(value)?,
            "max_read" => self.max_read = Some(whole(value, 4096, u32::MAX)?),
            "max_write" => self.max_write = Some(whole(value, 4096, u32::MAX)?),
            "max_readahead" => self.max_readahead = Some(whole(value, 0, u32::MAX)?),
            "max_background" => self.max_background = Some(whole(value, 1, u16::MAX)?),
            "congestion_threshold" => self.congestion_threshold = Some(whole(value, 1, u16::MAX)?),
            "max_idle_threads" => self.max_idle_threads = whole(value, 1, u32::MAX)?,
            "max_threads" => self.max_threads = Some(whole(value, 1, u32::MAX)?),
            "clone_fd" => self.clone_fd = true,
            "io_uring" => self.io_uring = true,
            "libfuse_loop" => self.libfuse_loop = true,
            "debug" => self.debug = true,
            "nonempty" => self.nonempty = true,
            "fsname" => self.fs_name = Some(filled(value)?),
            "subtype" => self.subtype = Some(filled(value)?),
            "uid" => self.uid = Some(whole(value, 0, u32::MAX - 1)?),
            "gid" => self.gid = Some(whole(value, 0, u32::MAX - 1)?),
            "umask" => self.umask = Some(octal(value)?),
            // `defaults`, which fstab writes for "nothing", and cache words that a stronger one overrules.
            _ => {}
        }
        Ok(())
    }
}

/// The words of one `-o` list, as libfuse splits them: at commas, unless a backslash keeps them.
fn split_words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        match (character, words.last_mut()) {
            (',', _) => words.push(String::new()),
            ('\\', Some(word)) => word.extend(chars.next()),
            (_, Some(word)) => word.push(character),
            (_, None) => {}
        }
    }
    words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The reverse of [`split_words`].
fn join_words(words: &[String]) -> String {
    let escaped: Vec<String> =
        words.iter().map(|word| word.replace('\\', "\\\\").replace(',', "\\,")).collect();
    escaped.join(",")
}

fn refuse(name: &str, has_value: bool) -> String {
    let known = || OWN_WORDS.iter().chain(&KERNEL_WORDS).chain(&WITHOUT_EFFECT).copied();
    let other_form = if has_value { name.to_owned() } else { format!("{name}=") };
    if known().any(|word| word == other_form) {
        return if has_value { format!("{name} takes no value") } else { format!("{name} needs a value") };
    }
    if name.starts_with("alluxio.") {
        return "a property cannot stand here, give it by its own `-o` or in alluxio-site.properties"
            .to_owned();
    }
    match nearest(name, known().map(|word| word.trim_end_matches('=')), (name.len() / 3).clamp(1, 3)) {
        Some(word) => format!("unknown, did you mean {word}?"),
        None => "unknown".to_owned(),
    }
}

/// Seconds with decimals, as libfuse takes them.
fn seconds(text: &str) -> Result<Duration, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|_| plain);
    number
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .ok_or_else(|| "expected seconds, such as 600 or 0.5".to_owned())
}

fn whole<N>(text: &str, low: N, high: N) -> Result<N, String>
where
    N: Copy + PartialOrd + std::fmt::Display + std::str::FromStr,
{
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<N>().ok().filter(|number| plain && low <= *number && *number <= high);
    number.ok_or_else(|| format!("expected a whole number from {low} to {high}"))
}

fn octal(text: &str) -> Result<u32, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let mask = u32::from_str_radix(text, 8).ok().filter(|mask| plain && *mask <= 0o777);
    mask.ok_or_else(|| "expected octal permission bits, such as 022".to_owned())
}

fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected a name".to_owned()) } else { Ok(text.to_owned()) }
}

/// The properties (name, value) that the lists given with each `-o` say. Words that are no properties become one:
/// together they replace the mount options that are set elsewhere.
pub fn command_line_properties(lists: &[String]) -> Result<Vec<(String, String)>, ConfigError> {
    let mut properties = Vec::new();
    let mut words = Vec::new();
    for word in lists.iter().flat_map(|list| split_words(list)) {
        match word.split_once('=') {
            Some((name, value)) if name.starts_with("alluxio.") => {
                properties.push((name.to_owned(), value.to_owned()));
            }
            Some((name, value)) if shorthand(name, value, &mut properties) => {}
            None if word.starts_with("alluxio.") => {
                return Err(ConfigError::new(format!("property {word} (command line) needs a value")));
            }
            Some(_) | None => words.push(word),
        }
    }
    if !words.is_empty() {
        properties.push((keys::FUSE_MOUNT_OPTIONS.name.to_owned(), join_words(&words)));
    }
    Ok(properties)
}

/// Alluxio's four words for its caches, as the properties that they stand for.
fn shorthand(name: &str, value: &str, properties: &mut Vec<(String, String)>) -> bool {
    let mut put = |key: &keys::Key, value: &str| properties.push((key.name.to_owned(), value.to_owned()));
    match name {
        "data_cache" => {
            put(&keys::USER_CLIENT_CACHE, "true");
            put(&keys::USER_CLIENT_CACHE_DIRS, value);
        }
        "data_cache_size" => put(&keys::USER_CLIENT_CACHE_SIZE, value),
        "metadata_cache_size" if value == "0" => {}
        "metadata_cache_size" => {
            put(&keys::USER_METADATA_CACHE, "true");
            put(&keys::USER_METADATA_CACHE_SIZE, value);
        }
        "metadata_cache_expire" => put(&keys::USER_METADATA_CACHE_EXPIRATION, value),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountOptions, String> {
        MountOptions::parse(text, &Origin::CommandLine, None).map_err(|problem| problem.to_string())
    }

    fn lists(lists: &[&str]) -> Vec<(String, String)> {
        let lists: Vec<String> = lists.iter().map(|list| (*list).to_owned()).collect();
        command_line_properties(&lists).unwrap()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn others_are_let_in_all_or_only_root() {
        let problem = parse("allow_root,ro,allow_other").unwrap_err();
        assert!(
            problem.starts_with("mount options allow_other and allow_root (command line): "),
            "{problem}"
        );
        assert_eq!(parse("allow_root,ro").unwrap().kernel_words, ["allow_root", "ro"]);
    }

    #[test]
    fn numbers_and_times_are_read() {
        let options = parse(
            "attr_timeout=600,entry_timeout=0.5,negative_timeout=2,ac_attr_timeout=3,max_read=131072,\
             max_write=1048576,max_readahead=0,max_background=64,congestion_threshold=48,max_idle_threads=5,\
             max_threads=9,clone_fd,io_uring,debug,nonempty,fsname=a,subtype=b,uid=1000,gid=1001,umask=022",
        );
        assert_eq!(
            options,
            Ok(MountOptions {
                attr_timeout: Duration::from_secs(600),
                entry_timeout: Duration::from_millis(500),
                negative_timeout: Duration::from_secs(2),
                ac_attr_timeout: Some(Duration::from_secs(3)),
                max_read: Some(131_072),
                max_write: Some(1_048_576),
                max_readahead: Some(0),
                max_background: Some(64),
                congestion_threshold: Some(48),
                max_idle_threads: 5,
                max_threads: Some(9),
                clone_fd: true,
                io_uring: true,
                debug: true,
                nonempty: true,
                fs_name: Some("a".to_owned()),
                subtype: Some("b".to_owned()),
                uid: Some(1000),
                gid: Some(1001),
                umask: Some(0o022),
                ..MountOptions::default()
            })
        );
    }

    #[test]
    fn the_strongest_cache_word_wins_in_any_order() {
        assert_eq!(parse("auto_cache").unwrap().page_cache, PageCache::AutoCache);
        assert_eq!(parse("auto_cache,noauto_cache").unwrap().page_cache, PageCache::Default);
        assert_eq!(parse("auto_cache,kernel_cache").unwrap().page_cache, PageCache::KernelCache);
        assert_eq!(parse("kernel_cache,auto_cache").unwrap().page_cache, PageCache::KernelCache);
        assert_eq!(parse("direct_io,kernel_cache,auto_cache").unwrap().page_cache, PageCache::DirectIo);
    }

    #[test]
    fn kernel_words_keep_their_order_and_come_once() {
        let options =
            parse(" allow_other,nosuid , ro,allow_other,big_writes,splice_move,remember=9,").unwrap();
        assert_eq!(options.kernel_words, ["nosuid", "ro", "allow_other"]);
        assert_eq!(options.without_effect, ["big_writes", "splice_move", "remember=9"]);
    }

    #[test]
    fn bad_words_are_refused_with_the_reason() {
        let cases = [
            ("allow_ohter", "mount option allow_ohter (command line): unknown, did you mean allow_other?"),
            ("compress=lz4", "unknown"),
            ("attr_timout=3", "did you mean attr_timeout?"),
            ("attr_timeout", "needs a value"),
            ("direct_io=1", "takes no value"),
            ("attr_timeout=-1", "expected seconds"),
            ("attr_timeout=1s", "expected seconds"),
            ("entry_timeout=inf", "expected seconds"),
            ("max_read=1", "from 4096"),
            ("max_write=1MB", "from 4096"),
            ("max_background=70000", "to 65535"),
            ("max_idle_threads=0", "from 1"),
            ("umask=888", "octal"),
            ("fsname=", "expected a name"),
            ("alluxio.user.x=1", "a property cannot stand here"),
        ];
        for (text, part) in cases {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }

    #[test]
    fn the_variable_sets_idle_threads_and_the_word_overrides_it() {
        let parse = |text, idle| MountOptions::parse(text, &Origin::BuiltIn, Some(idle));
        assert_eq!(parse("", "7").unwrap().max_idle_threads, 7);
        assert_eq!(parse("max_idle_threads=8", "7").unwrap().max_idle_threads, 8);
        assert!(parse("", "many").unwrap_err().to_string().contains("MAX_IDLE_THREADS=many"));
    }

    #[test]
    fn properties_are_split_off_and_words_replace_the_options() {
        assert_eq!(
            lists(&["alluxio.a=b=c,ro", "allow_other, attr_timeout=5 ,alluxio.d="]),
            [
                pair("alluxio.a", "b=c"),
                pair("alluxio.d", ""),
                pair("alluxio.fuse.mount.options", "ro,allow_other,attr_timeout=5"),
            ]
        );
        assert_eq!(lists(&["alluxio.a=1"]), [pair("alluxio.a", "1")]);
        assert_eq!(lists(&[]), []);
    }

    #[test]
    fn a_backslash_keeps_a_comma() {
        assert_eq!(
            lists(&[r"alluxio.m=h1:1\,h2:2,fsname=a\,b"]),
            [pair("alluxio.m", "h1:1,h2:2"), pair("alluxio.fuse.mount.options", r"fsname=a\,b"),]
        );
        assert_eq!(parse(r"fsname=a\,b").unwrap().fs_name, Some("a,b".to_owned()));
    }

    #[test]
    fn a_property_without_a_value_is_refused() {
        let problem = command_line_properties(&["alluxio.user.x".to_owned()]).unwrap_err();
        assert_eq!(problem.to_string(), "property alluxio.user.x (command line) needs a value");
    }

    #[test]
    fn cache_shorthands_become_properties() {
        assert_eq!(
            lists(&["data_cache=/c,data_cache_size=1GB,metadata_cache_size=10,metadata_cache_expire=1min"]),
            [
                pair("alluxio.user.client.cache.enabled", "true"),
                pair("alluxio.user.client.cache.dirs", "/c"),
                pair("alluxio.user.client.cache.size", "1GB"),
                pair("alluxio.user.metadata.cache.enabled", "true"),
                pair("alluxio.user.metadata.cache.max.size", "10"),
                pair("alluxio.user.metadata.cache.expiration.time", "1min"),
            ]
        );
        assert_eq!(lists(&["metadata_cache_size=0"]), []);
    }
}
