//! Imports only point down, siblings do not import each other in a circle, and what a layer is to keep to
//! itself is named nowhere else. ARCHITECTURE.md has the map that this keeps true.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every layer, and the layers that it may name. Nothing else may be below `src`.
const LAYERS: [(&str, &[&str]); 12] = [
    (
        "cli",
        &[
            "mount", "session", "vfs", "cache", "backend", "fs", "config", "metrics", "threads", "waiting",
            "spans",
        ],
    ),
    (
        "mount",
        &["session", "vfs", "cache", "backend", "fs", "config", "metrics", "threads", "waiting", "spans"],
    ),
    ("session", &["vfs", "fs", "config", "metrics", "threads", "waiting", "spans"]),
    ("vfs", &["fs", "config", "metrics", "threads", "waiting", "spans"]),
    ("cache", &["fs", "config", "metrics", "threads", "waiting", "spans"]),
    ("backend", &["fs", "config", "metrics", "threads", "waiting", "spans"]),
    ("fs", &["config", "metrics", "threads", "waiting", "spans"]),
    ("config", &[]),
    ("metrics", &[]),
    ("waiting", &["spans"]),
    ("spans", &[]),
    ("threads", &[]),
];

/// What only some parts of the tree may name.
const PRIVATE: [(&str, &[&str]); 5] = [
    ("fuse_sys::", &["session"]),
    ("tokio::", &["backend::alluxio", "mount::web"]),
    ("tonic::", &["backend::alluxio"]),
    // Errors of connections are hyper's, and only it says which were time-outs.
    ("hyper::", &["mount::web", "backend::alluxio::error"]),
    ("clap::", &["cli"]),
];

#[test]
fn imports_point_down() {
    let sources = Sources::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    assert!(sources.0.len() > 9, "the sources were not found");
    let wrong = sources.imports_that_point_up();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn siblings_do_not_import_each_other_in_a_circle() {
    let sources = Sources::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    assert_eq!(sources.circles(), Vec::<String>::new());
}

#[test]
fn each_layer_keeps_its_tools_to_itself() {
    let sources = Sources::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path());
    let wrong = sources.strangers();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The text of each module, without its comments and tests, by its path: `vfs::inodes`.
struct Sources(BTreeMap<String, String>);

impl Sources {
    fn read(src: &Path) -> Sources {
        let mut files = Vec::new();
        collect(src, src, &mut files);
        Sources::of(&files)
    }

    fn of(files: &[(impl AsRef<str>, impl AsRef<str>)]) -> Sources {
        let mut sources = BTreeMap::new();
        for (file, text) in files {
            sources.insert(module_of(file.as_ref()), without_comments(text.as_ref()));
        }
        // Tests may reach anywhere, also those that have a file of their own.
        for (file, text) in files {
            for tests in test_modules(text.as_ref()) {
                sources.remove(&join(&module_of(file.as_ref()), tests));
            }
        }
        Sources(sources)
    }

    fn imports_that_point_up(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (module, text) in &self.0 {
            let layer = first(module);
            // The root only names what there is.
            if layer.is_empty() {
                continue;
            }
            let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
                wrong.push(format!("{module}: `{layer}` is not a layer"));
                continue;
            };
            for named in self.named_in(module, text) {
                let target = first(&named);
                if target != layer && !allowed.contains(&target) {
                    wrong.push(format!(
                        "{module} may not name {}",
                        if named.is_empty() { "the root" } else { &named }
                    ));
                }
            }
        }
        wrong
    }

    fn strangers(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (module, text) in &self.0 {
            for (tool, homes) in PRIVATE {
                let is_home = |home: &&str| module == *home || module.starts_with(&format!("{home}::"));
                if !homes.iter().any(is_home) && words_starting(text, tool).next().is_some() {
                    wrong.push(format!("{module} may not name {tool}, only {}", homes.join(" and ")));
                }
            }
        }
        wrong
    }

    /// Circles among modules of one parent. Between parent and child there is none: they are one noun.
    fn circles(&self) -> Vec<String> {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, text) in &self.0 {
            for named in self.named_in(module, text) {
                if let Some((from, to)) = where_they_part(module, &named) {
                    graph.entry(from).or_default().insert(to);
                }
            }
        }
        graph.keys().filter_map(|start| circle_from(&graph, start)).collect()
    }

    /// The modules that `module` names by `crate::` and `super::`.
    fn named_in(&self, module: &str, text: &str) -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        for path in words_starting(text, "crate::") {
            // In the binary the library goes by its own name, which is no different.
            named.extend(self.module_in(path.trim_start_matches("crate::")));
        }
        for path in words_starting(text, "alluxio_fuse::") {
            named.extend(self.module_in(path.trim_start_matches("alluxio_fuse::")));
        }
        for path in words_starting(text, "super::") {
            let mut base = module;
            let mut rest = path;
            while let Some(after) = rest.strip_prefix("super::") {
                base = base.rsplit_once("::").map_or("", |(parent, _)| parent);
                rest = after;
            }
            named.extend(self.module_in(&join(base, rest)));
        }
        named.remove(module);
        named
    }

    /// The longest beginning of `path` that is a module.
    fn module_in(&self, path: &str) -> Option<String> {
        let mut path = path.trim_end_matches(':');
        loop {
            if self.0.contains_key(path) {
                return Some(path.to_owned());
            }
            path = path.rsplit_once("::")?.0;
        }
    }
}

fn collect(src: &Path, dir: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(src, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let file = path.strip_prefix(src).unwrap().to_str().unwrap();
            files.push((file.to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// `vfs/inodes.rs` and `vfs/inodes/mod.rs` are `vfs::inodes`; `lib.rs` is the root, which has no name.
fn module_of(file: &str) -> String {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
    match path.as_str() {
        "lib" => String::new(),
        "main" => "cli".to_owned(),
        _ => path,
    }
}

/// The code of `text` alone. Unit tests, the last thing of a file, are left out: they may reach anywhere.
fn without_comments(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules that `text` declares for tests, each in a file of its own.
fn test_modules(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[cfg(test)]\n").skip(1).filter_map(|rest| {
        let line = rest.lines().next()?.trim_start_matches("pub(crate) ");
        line.strip_prefix("mod ")?.strip_suffix(';')
    })
}

/// The paths in `text` that start with `start`, as whole words.
fn words_starting<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    text.match_indices(start).filter_map(move |(at, _)| {
        if text[..at].ends_with(is_word) {
            return None;
        }
        let rest = &text[at..];
        Some(rest.split(|c| !is_word(c)).next().unwrap_or_default())
    })
}

fn first(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

fn join(base: &str, rest: &str) -> String {
    if base.is_empty() { rest.to_owned() } else { format!("{base}::{rest}") }
}

/// The two siblings above which `from` and `to` are the same; nothing if one is above the other.
fn where_they_part(from: &str, to: &str) -> Option<(String, String)> {
    let (from, to): (Vec<&str>, Vec<&str>) = (from.split("::").collect(), to.split("::").collect());
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    if same == from.len() || same == to.len() {
        return None;
    }
    Some((from[..=same].join("::"), to[..=same].join("::")))
}

/// A way from `start` back to it, if `start` is the first by name of those on it.
fn circle_from(graph: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![start]];
    while let Some(way) = ways.pop() {
        for next in graph.get(*way.last()?).into_iter().flatten() {
            if next == start {
                return Some(format!("{} -> {start}", way.join(" -> ")));
            }
            if next.as_str() > start && seen.insert(next) {
                ways.push(way.iter().copied().chain([next.as_str()]).collect());
            }
        }
    }
    None
}

#[test]
fn the_check_sees_an_import_that_points_up() {
    let sources = Sources::of(&[
        ("lib.rs", "pub mod fs; pub mod vfs;"),
        ("fs/mod.rs", "use crate::vfs::Handle;"),
        ("vfs/mod.rs", "use crate::fs::Attr;\nfn f() { crate::metrics::count(); }"),
        ("cache/mod.rs", "use crate::fs::Attr; // not crate::vfs"),
        ("backend/local/mod.rs", "use super::super::cache::Pages;"),
        ("metrics/mod.rs", "//! Used by [`crate::vfs`].\n#[cfg(test)]\nmod tests;\n"),
        ("metrics/tests.rs", "use crate::vfs::Vfs;"),
    ]);
    assert_eq!(
        sources.imports_that_point_up(),
        ["backend::local may not name cache", "fs may not name vfs"].map(str::to_owned)
    );
}

#[test]
fn the_check_sees_a_directory_that_is_no_layer() {
    let sources = Sources::of(&[("util/mod.rs", "")]);
    assert_eq!(sources.imports_that_point_up(), ["util: `util` is not a layer"]);
}

#[test]
fn the_check_sees_a_circle_of_siblings() {
    let sources = Sources::of(&[
        ("vfs/mod.rs", "mod a; mod b; mod c;"),
        ("vfs/a.rs", "use super::b::B;"),
        ("vfs/b.rs", "use crate::vfs::c::C;"),
        ("vfs/c/mod.rs", "mod deep;"),
        ("vfs/c/deep.rs", "use super::super::a::A; use crate::vfs::Vfs;"),
        ("fs/mod.rs", "mod x; mod y;"),
        ("fs/x.rs", "use super::y::Y;"),
        ("fs/y.rs", "#[cfg(test)]\nmod tests { use super::super::x::X; }\n"),
    ]);
    assert_eq!(sources.circles(), ["vfs::a -> vfs::b -> vfs::c -> vfs::a"]);
}

#[test]
fn the_check_sees_a_tool_in_the_wrong_hands() {
    let sources = Sources::of(&[
        ("vfs/mod.rs", "use tokio::sync::Mutex;"),
        ("backend/alluxio/bridge.rs", "use tokio::sync::Mutex;"),
        ("backend/alluxio_like/mod.rs", "use not_tokio::sync::Mutex;"),
    ]);
    assert_eq!(sources.strangers(), ["vfs may not name tokio::, only backend::alluxio and mount::web"]);
}
