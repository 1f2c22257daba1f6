//! A tree of files with known names, sizes and bytes, to be copied around and compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use super::content;
use super::content::Random;

/// The files of a tree; their directories follow from the paths.
pub(crate) struct Tree {
    files: BTreeMap<PathBuf, Expected>,
}

struct Expected {
    size: u64,
    seed: u64,
}

impl Tree {
    /// 523 files from nothing to 300 MB, in 30 directories: odd sizes, sizes around `block` and several blocks.
    pub(crate) fn large(seed: u64, block: u64) -> Tree {
        let mut sizes = odd_sizes();
        sizes.extend([block - 1, block, block + 1, 2 * block - 1, 2 * block + 1, 3 * block + 12_345]);
        sizes.push(300_000_000);
        sizes.extend(random_sizes(seed, 60, 1 << 20));
        sizes.extend(random_sizes(seed + 1, 523 - sizes.len(), 1 << 16));
        Tree::of_sizes(seed, &sizes, 30)
    }

    /// 60 files from nothing to 20 MB, in 6 directories: odd sizes, and sizes around `block`.
    pub(crate) fn small(seed: u64, block: u64) -> Tree {
        let mut sizes = odd_sizes();
        sizes.extend([block - 1, block + 1, 20_000_000]);
        sizes.extend(random_sizes(seed, 60 - sizes.len(), 1 << 18));
        Tree::of_sizes(seed, &sizes, 6)
    }

    fn of_sizes(seed: u64, sizes: &[u64], directories: usize) -> Tree {
        let mut files = BTreeMap::new();
        for (n, &size) in sizes.iter().enumerate() {
            let path = directory(n % directories).join(file_name(n));
            let seed = seed.wrapping_mul(1_000_003) + n as u64;
            assert!(files.insert(path, Expected { size, seed }).is_none(), "two files have the same name");
        }
        Tree { files }
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Makes the tree in the empty directory `root`.
    pub(crate) fn write(&self, root: &Path) {
        for (path, file) in &self.files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("the root is above it")).unwrap();
            content::write_file(&path, file.seed, file.size).unwrap();
        }
    }

    /// Reads all of `root`; panics with every difference from this tree, up to twenty.
    pub(crate) fn check(&self, what: &str, root: &Path) {
        let mut found = BTreeMap::new();
        walk(root, Path::new(""), &mut found);
        let mut wrong = Vec::new();
        for path in found.keys().filter(|path| !self.files.contains_key(*path)) {
            wrong.push(format!("{}: should not be there", path.display()));
        }
        for (path, file) in &self.files {
            match found.get(path) {
                None => wrong.push(format!("{}: missing", path.display())),
                Some(&size) if size != file.size => {
                    wrong.push(format!(
                        "{}: listed with {size} bytes, expected {}",
                        path.display(),
                        file.size
                    ));
                }
                Some(_) => {
                    wrong.extend(content::check_file(&root.join(path), file.seed, file.size).err());
                }
            }
        }
        wrong.truncate(20);
        assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    }
}

/// The sizes at which something in a file system changes, and their neighbours.
fn odd_sizes() -> Vec<u64> {
    let mut sizes = vec![0, 0, 1, 2, 3];
    for border in [512, 4096, 1 << 16, 1 << 17, 1 << 18, 1 << 20, 1 << 21] {
        sizes.extend([border - 1, border, border + 1]);
    }
    sizes.extend([999_983, 3_333_333, 5_000_011, 8_388_607, 10_000_019]);
    sizes
}

fn random_sizes(seed: u64, count: usize, bound: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.below(bound)).collect()
}

/// Directories of one to four levels; some have no files of their own.
fn directory(n: usize) -> PathBuf {
    let mut path = PathBuf::from(format!("directory {}", n % 7));
    for level in 0..n % 4 {
        path.push(format!("sub.{level}"));
    }
    path.join(format!("d{n}"))
}

/// Names as people give them, all different.
fn file_name(n: usize) -> String {
    match n % 8 {
        0 => format!("file {n} with spaces.txt"),
        1 => format!(".hidden{n}"),
        2 => format!("ümläut-文件-{n}"),
        3 => format!("a+b=c,d#{n}"),
        4 => format!("{n}-{}", "long".repeat(50)),
        5 => format!("'quoted' (copy {n})"),
        _ => format!("f{n}"),
    }
}

/// The size of every file below `root`, by its path.
fn walk(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, u64>) {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let entry = entry.unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let path = below.join(entry.file_name());
        let meta = entry.metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, found);
        } else {
            assert!(meta.is_file(), "{}: neither file nor directory", path.display());
            found.insert(path, meta.len());
        }
    }
}
