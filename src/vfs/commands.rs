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

/// The switch of the cache that these commands are for, as the message names it.
const CACHE_SWITCH: &str = "alluxio.user.metadata.cache.enabled";

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Everything that is remembered is forgotten.
    DropAll,
    /// What is remembered of the directory that the name is in, of all above it and of all below it, is forgotten.
    Drop,
    /// The size is the number of entries.
    Size,
}

const COMMANDS: [Command; 3] = [Command::DropAll, Command::Drop, Command::Size];

/// The numbers of the commands' inodes, from here on, are none of the table's, which counts from 2.
const INODES: u64 = 1 << 62;

impl Command {
    /// The command of this name; none if it is a name like others.
    fn parse(name: &str) -> Option<Result<Self>> {
        let mut parts = name.strip_prefix(PREFIX)?.split('.').skip(1);
        let refuse = |what: String| Some(Err(FsError::because(Fault::InvalidArgument, what)));
        match (parts.next().filter(|command| !command.is_empty()), parts.next()) {
            (None, _) => refuse("Command is needed in Fuse shell".to_owned()),
            (Some("metadatacache"), None | Some("")) => refuse("No sub-command is specified".to_owned()),
            (Some("metadatacache"), Some(word)) => {
                match COMMANDS.into_iter().find(|command| command.word() == word) {
                    Some(command) => Some(Ok(command)),
                    None => refuse(format!("Unknown sub-command: {word}")),
                }
            }
            (Some(command), _) => refuse(format!("{command} is an unknown command.")),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::DropAll => "dropAll",
            Self::Drop => "drop",
            Self::Size => "size",
        }
    }

    fn ino(self) -> Ino {
        let place = COMMANDS.iter().position(|command| *command == self).expect("all are listed");
        Ino(INODES + place as u64)
    }

    /// The command that `ino` stands for.
    pub(super) fn of(ino: Ino) -> Option<Self> {
        COMMANDS.into_iter().find(|command| command.ino() == ino)
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
        match command {
            Command::Size => {}
            Command::DropAll => {
                memory.forget_all();
                self.forget_in_kernel(None);
                log::info!("all metadata is forgotten, as asked");
            }
            Command::Drop => {
                memory.forget_around(&path);
                self.forget_in_kernel(Some(dir));
                log::info!("the metadata of {path}, of all above and all below it is forgotten, as asked");
            }
        }
        let none = Duration::ZERO;
        let attr = self.command_attr(command)?;
        Ok(Entry { ino: command.ino(), generation: 0, attr, attr_ttl: none, entry_ttl: none })
    }

    fn memory_for(&self, command: Command) -> Result<&dyn Memory> {
        self.memory().ok_or_else(|| {
            let word = command.word();
            let detail = format!("{word} command is not supported when {CACHE_SWITCH} is false");
            FsError::because(Fault::NotSupported, detail)
        })
    }

    /// What `ls -l` shows of a command.
    pub(super) fn command_attr(&self, command: Command) -> Result<Attr> {
        let size = match command {
            Command::Size => self.memory_for(command)?.len() as u64,
            Command::DropAll | Command::Drop => 0,
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
        assert_eq!(parse(".alluxiocli.metadatacache.size"), Some(Ok(Command::Size)));
        assert_eq!(parse(".alluxiocli.metadatacache.dropAll"), Some(Ok(Command::DropAll)));
        assert_eq!(parse(".alluxiocli.metadatacache.drop.more"), Some(Ok(Command::Drop)));
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
        for command in COMMANDS {
            assert_eq!(Command::of(command.ino()), Some(command));
        }
        assert_eq!(Command::of(Ino::ROOT), None);
    }
}
