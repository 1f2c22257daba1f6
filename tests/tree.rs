//! A tree of files copied in with ordinary tools is the same through every door: this mount, the Alluxio
//! shell, the Java client's mount; and what the others write is the same through this mount.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use common::cluster::Cluster;
use common::cluster::RemoteDir;
use common::mount::Mount;
use common::mount::Spec;
use common::process;
use common::tree::Tree;

/// The block size of the files that these tests write through this mount: small, so that files of several
/// blocks are.
const BLOCK: u64 = 16 << 20;

/// Long enough for a big tree on a busy machine; a hang is noticed all the same.
const COPY_LIMIT: Duration = Duration::from_secs(600);

/// How files are kept in the kernel: by the default options, or by a word of `-o`.
const CACHE_MODES: [Option<&str>; 4] = [None, Some("direct_io"), Some("kernel_cache"), Some("auto_cache")];

#[test]
fn a_large_tree_copied_in_is_the_same_everywhere() {
    let way = Way { libfuse: 3, short_circuit: true, cache_mode: None };
    large_tree_copied_in(&way);
}

#[test]
fn a_large_tree_copied_in_over_the_network_is_the_same_everywhere() {
    let way = Way { libfuse: 2, short_circuit: false, cache_mode: Some("direct_io") };
    large_tree_copied_in(&way);
}

#[test]
fn a_large_tree_from_the_shell_reads_back() {
    let cluster = Cluster::get();
    let tree = Tree::large(30, BLOCK);
    let source = source_of(&tree);
    let dir = cluster.directory("tree-shell");
    cluster.shell(&["copyFromLocal", source.path().to_str().unwrap(), &dir.join("copy")]);

    let way = Way { libfuse: 3, short_circuit: false, cache_mode: Some("kernel_cache") };
    let mount = way.mount(&cluster, &dir);
    tree.check("what the shell wrote", &mount.path().join("copy"));
    mount.unmount();
}

#[test]
fn a_large_tree_from_the_java_client_reads_back() {
    let cluster = Cluster::get();
    let tree = Tree::large(40, BLOCK);
    let source = source_of(&tree);
    let dir = cluster.directory("tree-java");
    {
        let java = cluster.mount_java(&dir.path, "direct_io", &[]);
        copy(source.path(), &java.path().join("copy"));
    }

    let way = Way { libfuse: 2, short_circuit: true, cache_mode: Some("auto_cache") };
    let mount = way.mount(&cluster, &dir);
    tree.check("what the Java client wrote", &mount.path().join("copy"));
    mount.unmount();
}

#[test]
fn every_combination_of_options_keeps_a_small_tree() {
    let cluster = Cluster::get();
    let tree = Tree::small(50, BLOCK);
    let source = source_of(&tree);
    for libfuse in [2, 3] {
        for short_circuit in [true, false] {
            for cache_mode in CACHE_MODES {
                let way = Way { libfuse, short_circuit, cache_mode };
                small_tree_copied_in(&cluster, &way, &tree, source.path());
            }
        }
    }
}

/// A combination of what may not make a difference.
#[derive(Debug)]
struct Way {
    libfuse: u32,
    short_circuit: bool,
    cache_mode: Option<&'static str>,
}

impl Way {
    fn mount(&self, cluster: &Cluster, dir: &RemoteDir) -> Mount {
        let mut spec = Spec::alluxio(cluster, &dir.path)
            .libfuse(self.libfuse)
            .property("alluxio.user.short.circuit.enabled", &self.short_circuit.to_string())
            .property("alluxio.user.block.size.bytes.default", &BLOCK.to_string());
        if let Some(mode) = self.cache_mode {
            spec = spec.option(mode);
        }
        let mount = spec.start();
        assert!(mount.uses_libfuse(self.libfuse), "not by libfuse {}:\n{}", self.libfuse, mount.said());
        mount
    }
}

fn large_tree_copied_in(way: &Way) {
    let cluster = Cluster::get();
    let tree = Tree::large(10, BLOCK);
    assert!(tree.len() >= 500);
    let source = source_of(&tree);
    let dir = cluster.directory("tree");
    let mount = way.mount(&cluster, &dir);
    copy(source.path(), &mount.path().join("copy"));
    drop(source);

    tree.check("through the mount that wrote", &mount.path().join("copy"));
    mount.unmount();
    let mount = way.mount(&cluster, &dir);
    tree.check("through a new mount", &mount.path().join("copy"));
    mount.unmount();
    check_by_shell(&cluster, &tree, &dir);
    let java = cluster.mount_java(&dir.path, "direct_io", &[]);
    tree.check("through the Java client", &java.path().join("copy"));
}

fn small_tree_copied_in(cluster: &Cluster, way: &Way, tree: &Tree, source: &Path) {
    let dir = cluster.directory("small-tree");
    let mount = way.mount(cluster, &dir);
    copy(source, &mount.path().join("copy"));
    // Twice: the second time out of whatever the kernel keeps.
    tree.check(&format!("{way:?}"), &mount.path().join("copy"));
    tree.check(&format!("{way:?}, again"), &mount.path().join("copy"));
    mount.unmount();
    check_by_shell(cluster, tree, &dir);
}

fn check_by_shell(cluster: &Cluster, tree: &Tree, dir: &RemoteDir) {
    let local = tempfile::tempdir().unwrap();
    let target = local.path().join("copy");
    cluster.shell(&["copyToLocal", &dir.join("copy"), target.to_str().unwrap()]);
    tree.check("through the Alluxio shell", &target);
}

fn source_of(tree: &Tree) -> TempDir {
    let source = tempfile::tempdir().unwrap();
    tree.write(source.path());
    source
}

fn copy(from: &Path, to: &Path) {
    process::succeed(Command::new("cp").arg("-r").arg(from).arg(to), COPY_LIMIT);
}
