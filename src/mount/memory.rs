//! How much memory the data of a mount may take: what the user says, else a share of what this process may have. And how
//! much the process has.

use std::fs::read_to_string;
use std::path::Path;

use crate::config::Config;
use crate::config::keys;

const MIB: u64 = 1 << 20;

/// The share of all memory, as its divisor. The rest is for the program itself, and for others.
const SHARE: u64 = 4;

/// With less, reading ahead would hardly begin.
const LEAST: u64 = 64 * MIB;

/// With more, nothing would be faster: it is enough for some eighty sequential readers of different files.
const MOST: u64 = 1024 * MIB;

/// The limit in bytes.
pub(super) fn limit(config: &Config) -> u64 {
    config.optional_bytes(&keys::FUSE_MEMORY_LIMIT).unwrap_or_else(|| default(available(Path::new("/"))))
}

fn default(available: Option<u64>) -> u64 {
    available.map_or(LEAST, |bytes| (bytes / SHARE).clamp(LEAST, MOST))
}

/// The memory of the machine, or what the control groups of this process leave of it, if that is less. `root` is the
/// directory that `/proc` and `/sys` are in.
fn available(root: &Path) -> Option<u64> {
    let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| group_limits(root, line));
    limits.chain(machine(root)).min()
}

fn machine(root: &Path) -> Option<u64> {
    field(&root.join("proc/meminfo"), "MemTotal:")
}

/// What the system says of the memory of this process, in bytes; `VmRSS:` is one of the names.
pub(super) fn of_process(name: &str) -> Option<u64> {
    field(Path::new("/proc/self/status"), name)
}

/// The value in bytes of a line like `MemTotal:  8388608 kB`.
fn field(file: &Path, name: &str) -> Option<u64> {
    let text = read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The limits of the group in one line of `/proc/self/cgroup`, and of those above it. Inside a container the path may be
/// that of the host, which is not there: then the group at the top is the container's.
fn group_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut parts = line.splitn(3, ':');
    let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (top, file) = if number == "0" && controllers.is_empty() {
        (root.join("sys/fs/cgroup"), "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        (root.join("sys/fs/cgroup/memory"), "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    // A group without a limit says "max", which is no number, or has a number beyond all memory.
    let limit = |dir: &Path| read_to_string(dir.join(file)).ok()?.trim().parse().ok();
    let group = top.join(path.trim_start_matches('/'));
    group.ancestors().take_while(|dir| dir.starts_with(&top)).filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GIB: u64 = 1 << 30;

    /// A machine of 8 GiB with these files besides.
    fn machine_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", "MemTotal:        8388608 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(files: &[(&str, &str)]) -> Option<u64> {
        available(machine_with(files).path())
    }

    #[test]
    fn without_groups_it_is_the_machine_that_counts() {
        assert_eq!(found(&[]), Some(8 * GIB));
        let unlimited = [("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max\n")];
        assert_eq!(found(&unlimited), Some(8 * GIB));
    }

    #[test]
    fn the_smallest_limit_of_all_groups_counts() {
        let version_2 = [
            ("proc/self/cgroup", "0::/pods/one\n"),
            ("sys/fs/cgroup/pods/one/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/pods/memory.max", "1073741824\n"),
        ];
        assert_eq!(found(&version_2), Some(GIB));
        let version_1 = [
            ("proc/self/cgroup", "3:cpu,cpuacct:/x\n2:memory:/x\n0::/\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(found(&version_1), Some(GIB / 2));
    }

    #[test]
    fn a_path_of_the_host_is_not_found_in_a_container_but_its_top_is() {
        let container =
            [("proc/self/cgroup", "0::/kubepods/pod7/c1\n"), ("sys/fs/cgroup/memory.max", "1073741824\n")];
        assert_eq!(found(&container), Some(GIB));
    }

    #[test]
    fn the_share_has_bounds() {
        assert_eq!(default(None), LEAST);
        assert_eq!(default(Some(100 * MIB)), LEAST);
        assert_eq!(default(Some(2 * GIB)), 512 * MIB);
        assert_eq!(default(Some(1024 * GIB)), MOST);
    }
}
