//! Who may let other users see a mount, as fusermount(1) decides it: root, and all if `/etc/fuse.conf` says so.

use std::fs;
use std::path::Path;

use nix::unistd::getuid;

use super::Failure;

const FILE: &str = "/etc/fuse.conf";

/// The word that lets all users, and the words that they then may use.
const PERMIT: &str = "user_allow_other";
const NEED_PERMIT: [&str; 2] = ["allow_other", "allow_root"];

/// Refuses the mount options `words` that the user of this process may not use. fusermount would, too, but says so
/// after everything else was done.
pub(super) fn check(words: &[String]) -> Result<(), Failure> {
    if getuid().is_root() { Ok(()) } else { check_for_user(words, Path::new(FILE)) }
}

fn check_for_user(words: &[String], file: &Path) -> Result<(), Failure> {
    let Some(word) = words.iter().find(|word| NEED_PERMIT.contains(&word.as_str())) else {
        return Ok(());
    };
    if fs::read_to_string(file).is_ok_and(|text| permits(&text)) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "mount option {word}: only root may use it, unless {} has the line {PERMIT}",
        file.display()
    )))
}

/// Whether a line says so, beside comments.
fn permits(text: &str) -> bool {
    text.lines().any(|line| line.split('#').next().is_some_and(|line| line.trim() == PERMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_of_its_own_permits() {
        assert!(permits("mount_max = 5\n  user_allow_other # for all\n"));
        assert!(!permits("#user_allow_other\nno user_allow_other\n"));
    }

    #[test]
    fn a_user_needs_the_permit_for_what_shows_the_mount_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fuse.conf");
        let check = |word: &str| check_for_user(&["ro".to_owned(), word.to_owned()], &file);
        for word in NEED_PERMIT {
            let problem = check(word).unwrap_err().to_string();
            assert!(problem.starts_with(&format!("mount option {word}: only root")), "{problem}");
            assert!(problem.ends_with("fuse.conf has the line user_allow_other"), "{problem}");
        }
        assert!(check("default_permissions").is_ok());
        fs::write(&file, "user_allow_other\n").unwrap();
        assert!(check("allow_other").is_ok());
    }
}
