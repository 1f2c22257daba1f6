//! Commands to the mount in the form of names that are looked up, such as `ls -l .alluxiocli.metadatacache.size`. They
//! work in every directory, are never listed, and the kernel keeps nothing of them.
//!
//! A command is carried out by the look-up of its name. What `ls` shows then is a file that cannot be opened, with the
//! answer for its size.

use std::time::Duration;

use super::Entry;
use super::Ino;
use super::Vfs;
use crate::fs::Attr;
use crate::fs::Fault;
use crate::fs::FileKind;
use crate::fs::FsError;
use crate::fs::Memory;
use crate::fs::Result;
use crate::fs::Timestamp;

/// What the names of commands begin with.
const PREFIX: &str = ".alluxiocli";

/// The cache that a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    Metadata,
    Data,
}

/// What is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Everything is forgotten.
    DropAll,
    /// What there is of the directory that the name is in and of all below it is forgotten; of metadata, all above it, too.
    Drop,
    /// The size is the number of entries, or of the bytes of data.
    Size,
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    cache: Cache,
    act: Act,
}

const CACHES: [Cache; 2] = [Cache::Metadata, Cache::Data];
const ACTS: [Act; 3] = [Act::DropAll, Act::Drop, Act::Size];

/// The numbers of the commands' inodes, from here on, are none of the table's, which counts from 2.
const INODES: u64 = 1 << 62;

impl Command {
    /// The command of this name; none if it is a name like others.
    fn parse(name: &str) -> Option<Result<Self>> {
        let mut parts = name.strip_prefix(PREFIX)?.split('.').skip(1);
        let refuse = |what: String| Some(Err(FsError::because(Fault::InvalidArgument, what)));
        match (parts.next().filter(|command| !command.is_empty()), parts.next()) {
            (None, _) => refuse("Command is needed in Fuse shell".to_owned()),
            (Some(name), word) => match CACHES.into_iter().find(|cache| cache.word() == name) {
                None => refuse(format!("{name} is an unknown command.")),
                Some(cache) => match word.filter(|word| !word.is_empty()) {
                    None => refuse("No sub-command is specified".to_owned()),
                    Some(word) => match ACTS.into_iter().find(|act| act.word() == word) {
                        Some(act) => Some(Ok(Self { cache, act })),
                        None => refuse(format!("Unknown sub-command: {word}")),
                    },
                },
            },
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        CACHES.into_iter().flat_map(|cache| ACTS.into_iter().map(move |act| Self { cache, act }))
    }

    fn ino(self) -> Ino {
        let place = Self::all().position(|command| command == self).expect("all are listed");
        Ino(INODES + place as u64)
    }

    /// The command that `ino` stands for.
    pub(super) fn of(ino: Ino) -> Option<Self> {
        Self::all().find(|command| command.ino() == ino)
    }
}

impl Cache {
    fn word(self) -> &'static str {
        match self {
            Self::Metadata => "metadatacache",
            Self::Data => "datacache",
        }
    }

    /// The property that switches it on, as the message names it.
    fn switch(self) -> &'static str {
        match self {
            Self::Metadata => "alluxio.user.metadata.cache.enabled",
            Self::Data => "alluxio.user.client.cache.enabled",
        }
    }
}

impl Act {
    fn word(self) -> &'static str {
        match self {
            Self::DropAll => "dropAll",
            Self::Drop => "drop",
            Self::Size => "size",
        }
    }
}

impl Vfs {
    /// Carries out the command `name` in the directory `dir`; none if it is no command, or there are none.
    pub(super) fn command(&self, dir: Ino, name: &str) -> Option<Result<Entry>> {
        if !self.options.commands {
            return None;
        }
        Some(Command::parse(name)?.and_then(|command| self.carry_out(command, dir)))
    }

    fn carry_out(&self, command: Command, dir: Ino) -> Result<Entry> {
        let path = self.path(dir)?;
        let memory = self.memory_for(command)?;
        let Command { cache, act } = command;
        match act {
            Act::Size => {}
            Act::DropAll => {
                memory.forget_all();
                log::info!("{}: all is forgotten, as asked", cache.word());
            }
            Act::Drop => {
                memory.forget_around(&path);
                log::info!("{}: what there is around {path} is forgotten, as asked", cache.word());
            }
        }
        if cache == Cache::Metadata && act != Act::Size {
            self.forget_in_kernel((act == Act::Drop).then_some(dir));
        }
        let none = Duration::ZERO;
        let attr = self.command_attr(command)?;
        Ok(Entry { ino: command.ino(), generation: 0, attr, attr_ttl: none, entry_ttl: none })
    }

    fn memory_for(&self, Command { cache, act }: Command) -> Result<&dyn Memory> {
        let memory = match cache {
            Cache::Metadata => &self.memory,
            Cache::Data => &self.data,
        };
        memory.as_deref().ok_or_else(|| {
            let detail = format!("{} command is not supported when {} is false", act.word(), cache.switch());
            FsError::because(Fault::NotSupported, detail)
        })
    }

    /// What `ls -l` shows of a command.
    pub(super) fn command_attr(&self, command: Command) -> Result<Attr> {
        let memory = self.memory_for(command)?;
        let size = match command {
            Command { act: Act::Size, cache: Cache::Metadata } => memory.len() as u64,
            Command { act: Act::Size, cache: Cache::Data } => memory.bytes(),
            Command { act: Act::DropAll | Act::Drop, .. } => 0,
        };
        let time = Timestamp::default();
        Ok(Attr {
            id: command.ino().0,
            kind: FileKind::Regular,
            size,
            mode: 0,
            nlink: 1,
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
            atime: time,
            mtime: time,
            ctime: time,
            complete: true,
        })
    }

    /// The kernel, too, is to forget what it knows of `dir`, of all above and all below it; of everything, if none.
    fn forget_in_kernel(&self, dir: Option<Ino>) {
        self.kernel.drop_names();
        for ino in self.inodes.around(dir) {
            self.kernel.drop_attributes(ino);
        }
    }
}

/// Why nothing can be done with the inode of a command.
pub(super) fn is_command() -> FsError {
    FsError::because(Fault::NotFound, "a command, which can only be looked at")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_names_and_from_mistakes() {
        let parse = |name| Command::parse(name).map(|parsed| parsed.map_err(|error| error.to_string()));
        assert_eq!(parse("a.alluxiocli.metadatacache.size"), None);
        assert_eq!(
            parse(".alluxiocli.metadatacache.size"),
            Some(Ok(Command { cache: Cache::Metadata, act: Act::Size }))
        );
        assert_eq!(
            parse(".alluxiocli.metadatacache.dropAll"),
            Some(Ok(Command { cache: Cache::Metadata, act: Act::DropAll }))
        );
        assert_eq!(
            parse(".alluxiocli.metadatacache.drop.more"),
            Some(Ok(Command { cache: Cache::Metadata, act: Act::Drop }))
        );
        let data = Command { cache: Cache::Data, act: Act::DropAll };
        assert_eq!(parse(".alluxiocli.datacache.dropAll"), Some(Ok(data)));
        for (name, problem) in [
            (".alluxiocli", "Command is needed in Fuse shell"),
            (".alluxiocli.", "Command is needed in Fuse shell"),
            (".alluxiocli.pagecache.size", "pagecache is an unknown command."),
            (".alluxiocli.metadatacache", "No sub-command is specified"),
            (".alluxiocli.metadatacache.Drop", "Unknown sub-command: Drop"),
        ] {
            assert_eq!(parse(name), Some(Err(problem.to_owned())), "{name}");
        }
    }

    #[test]
    fn inodes_of_commands_are_their_own() {
        for command in Command::all() {
            assert_eq!(Command::of(command.ino()), Some(command));
        }
        assert_eq!(Command::of(Ino::ROOT), None);
    }
}
