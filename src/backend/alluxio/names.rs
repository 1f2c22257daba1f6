//! Users and groups of this host, by name and by number: calls of the name service, remembered for a while. Knows
//! nothing of files.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use std::time::Instant;

use nix::unistd::Gid;
use nix::unistd::Group;
use nix::unistd::Uid;
use nix::unistd::User;
use parking_lot::Mutex;

/// How long an answer is believed: the name service may be a directory on the network.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// Entries after which a table starts anew; a file system with more owners pays with look-ups.
const ENTRIES_MAX: usize = 4096;

/// What the name service has said.
#[derive(Default)]
pub(super) struct Names {
    users: Table<String, Option<u32>>,
    groups: Table<String, Option<u32>>,
    uids: Table<u32, Option<String>>,
    gids: Table<u32, Option<String>>,
}

impl Names {
    /// The number of a user, if this host knows the name.
    pub(super) fn uid(&self, name: &str) -> Option<u32> {
        self.users.look_up(name.to_owned(), |name| Some(User::from_name(name).ok()??.uid.as_raw()))
    }

    /// The number of a group.
    pub(super) fn gid(&self, name: &str) -> Option<u32> {
        self.groups.look_up(name.to_owned(), |name| Some(Group::from_name(name).ok()??.gid.as_raw()))
    }

    /// The name of a user.
    pub(super) fn user(&self, uid: u32) -> Option<String> {
        self.uids.look_up(uid, |uid| Some(User::from_uid(Uid::from_raw(*uid)).ok()??.name))
    }

    /// The name of a group.
    pub(super) fn group(&self, gid: u32) -> Option<String> {
        self.gids.look_up(gid, |gid| Some(Group::from_gid(Gid::from_raw(*gid)).ok()??.name))
    }
}

/// Answers and when they came.
struct Table<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Table<K, V> {
    /// The lock is not held while `ask` runs: two threads may ask the same.
    fn look_up(&self, key: K, ask: impl FnOnce(&K) -> V) -> V {
        if let Some((asked, answer)) = self.0.lock().get(&key)
            && asked.elapsed() < FRESH
        {
            return answer.clone();
        }
        let answer = ask(&key);
        let mut table = self.0.lock();
        if table.len() >= ENTRIES_MAX {
            table.clear();
        }
        table.insert(key, (Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_fit() {
        let names = Names::default();
        assert_eq!(names.uid("root"), Some(0));
        assert_eq!(names.user(0).as_deref(), Some("root"));
        assert_eq!(names.group(0).and_then(|name| names.gid(&name)), Some(0));
        assert_eq!(names.uid("no such user"), None);
        assert_eq!(names.user(u32::MAX - 7), None);
    }

    #[test]
    fn an_answer_is_remembered_and_the_table_is_bounded() {
        let table: Table<usize, usize> = Table::default();
        assert_eq!(table.look_up(1, |_| 10), 10);
        assert_eq!(table.look_up(1, |_| panic!("asked again")), 10);
        for key in 0..2 * ENTRIES_MAX {
            table.look_up(key, |key| *key);
        }
        assert!(table.0.lock().len() <= ENTRIES_MAX);
    }
}
