//! Where the bytes of reads come from, and how many that are.

use super::Counter;

/// Where the bytes of a read come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A block file of a worker on this machine, mapped.
    Local,
    /// A worker that had the bytes, by the network or its domain socket.
    Remote,
    /// The under file system, by a worker.
    Ufs,
    /// The data cache on local disks.
    DataCache,
    /// This process: read ahead, or brought for another reader.
    Memory,
    /// The directory of this machine that is mounted in the place of a cluster.
    Store,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Local, Self::Remote, Self::Ufs, Self::DataCache, Self::Memory, Self::Store];

    /// The word for it in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Ufs => "ufs",
            Self::DataCache => "data_cache",
            Self::Memory => "memory",
            Self::Store => "store",
        }
    }
}

/// How many bytes of one read come from where. At most 4 GiB from each are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources([u32; Source::ALL.len()]);

impl Sources {
    /// `bytes` from `source` and none from elsewhere.
    pub fn only(source: Source, bytes: usize) -> Self {
        let mut sources = Self::default();
        sources.0[source as usize] = u32::try_from(bytes).unwrap_or(u32::MAX);
        sources
    }

    /// Those of `other` as well.
    pub fn add(&mut self, other: Self) {
        for (sum, bytes) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// How many come from `source`.
    pub fn bytes(&self, source: Source) -> u64 {
        u64::from(self.0[source as usize])
    }

    /// The one that most of them come from; none if there are none.
    pub fn main(&self) -> Option<Source> {
        let source = Source::ALL.into_iter().max_by_key(|source| self.bytes(*source))?;
        (self.bytes(source) > 0).then_some(source)
    }
}

static READ: [Counter; Source::ALL.len()] = [const { Counter::new() }; Source::ALL.len()];

/// Counts `bytes` that a read was answered with, by where they come from. What nobody has accounted for was here.
pub fn read(bytes: usize, sources: &Sources) {
    let mut rest = bytes as u64;
    for source in Source::ALL {
        let part = sources.bytes(source).min(rest);
        if part > 0 {
            READ[source as usize].add(part);
            rest -= part;
        }
    }
    if rest > 0 {
        READ[Source::Memory as usize].add(rest);
    }
}

/// All bytes that reads were answered with from `source`.
pub fn read_from(source: Source) -> u64 {
    READ[source as usize].value()
}
