//! What the cluster wants its clients to use: its settings for paths, and settings that change while a mount serves.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use common::cluster::Cluster;
use common::mount::Spec;
use common::process;
use common::wait_until;

const LIMIT: Duration = Duration::from_secs(60);

const BLOCK_SIZE: &str = "alluxio.user.block.size.bytes.default";

/// Settings of a path, taken back when the test ends.
struct PathSettings<'a> {
    cluster: &'a Cluster,
    path: &'a str,
}

impl<'a> PathSettings<'a> {
    fn add(cluster: &'a Cluster, path: &'a str, property: &str) -> Self {
        cluster.admin(&["pathConf", "add", "--property", property, path]);
        Self { cluster, path }
    }

    fn change(&self, property: &str) {
        self.cluster.admin(&["pathConf", "add", "--property", property, self.path]);
    }
}

impl Drop for PathSettings<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.cluster.admin(&["pathConf", "remove", self.path]);
        }
    }
}

/// The size of the blocks of `path`, in bytes.
fn block_size(cluster: &Cluster, path: &str) -> u64 {
    let text = cluster.shell(&["stat", path]);
    let mut parts = text.split([',', '{', '}']).map(str::trim);
    let found = parts.find_map(|part| part.strip_prefix("blockSizeBytes=")?.parse().ok());
    found.unwrap_or_else(|| panic!("no size of blocks: {text}"))
}

fn write(path: &Path) {
    fs::write(path, b"some bytes").unwrap();
}

#[test]
fn the_settings_of_a_path_count_there_and_changes_while_files_are_open() {
    let cluster = Cluster::get();
    let dir = cluster.directory("settings");
    for name in ["small", "other"] {
        cluster.shell(&["mkdir", &dir.join(name)]);
    }
    let small = dir.join("small");
    let settings = PathSettings::add(&cluster, &small, &format!("{BLOCK_SIZE}=1MB"));
    let mount = Spec::alluxio(&cluster, &dir.path)
        // Weaker than what the cluster says for the path, as in Alluxio.
        .property(BLOCK_SIZE, "8MB")
        .property("alluxio.user.conf.sync.interval", "100ms")
        .start();
    let at = |name: &str| mount.path().join(name);
    for (name, expected) in [("small/1", 1 << 20), ("other/1", 8 << 20)] {
        write(&at(name));
        assert_eq!(block_size(&cluster, &dir.join(name)), expected, "{name}");
    }

    let mut open = File::create(at("small/open")).unwrap();
    open.write_all(b"begun before").unwrap();
    settings.change(&format!("{BLOCK_SIZE}=2MB"));
    let mut number = 1;
    wait_until("the change is seen", LIMIT, || {
        number += 1;
        write(&at(&format!("small/{number}")));
        block_size(&cluster, &dir.join(&format!("small/{number}"))) == 2 << 20
    });
    open.write_all(b" and after").unwrap();
    drop(open);
    assert_eq!(fs::read(at("small/open")).unwrap(), b"begun before and after");
    assert_eq!(block_size(&cluster, &dir.join("small/open")), 1 << 20, "it goes on as it was begun");
    assert!(mount.said().contains("the settings of the cluster have changed"), "{}", mount.said());
    mount.unmount();
}

#[test]
fn the_settings_of_the_cluster_are_shown_with_their_source() {
    let cluster = Cluster::get();
    let dir = cluster.directory("shown");
    let mount = Spec::alluxio(&cluster, &dir.path).start();
    let config = |words: &[&str]| process::succeed(mount.command().arg("config").args(words), LIMIT);
    // The master has it from the file that this client reads, too, so it is shown as the file's.
    let shown = config(&[BLOCK_SIZE]);
    assert!(shown.contains("alluxio-site.properties:"), "{shown}");
    let shown = config(&["alluxio.user.streaming.reader.chunk.size.bytes"]);
    assert!(shown.contains("(cluster default)"), "{shown}");
    let doctor = process::succeed(mount.command().arg("doctor"), LIMIT);
    for part in ["is the primary, Alluxio 2.9.4", "2 live", "within 1 s of the master's", "with the worker"] {
        assert!(doctor.contains(part), "{part}: {doctor}");
    }
    mount.unmount();
}
