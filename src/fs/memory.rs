//! What a layer remembers of the metadata or the data below it, as others see it who know nothing of the layer: to be looked at, and
//! to be forgotten.

use super::FsPath;

/// A memory of metadata, or of data.
pub trait Memory: Send + Sync {
    /// Forgets everything. What is being asked for at the moment is not remembered either.
    fn forget_all(&self);

    /// Forgets the directory `dir` and all that is below it; metadata of the directories above it, too.
    fn forget_around(&self, dir: &FsPath);

    /// How many entries there are that still count.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the entries take, in memory or on disk.
    fn bytes(&self) -> u64;
}
