//! What a layer remembers of the metadata below it, as others see it who know nothing of the layer: to be looked at, and
//! to be forgotten.

use super::FsPath;

/// A memory of metadata.
pub trait Memory: Send + Sync {
    /// Forgets everything. What is being asked for at the moment is not remembered either.
    fn forget_all(&self);

    /// Forgets the directory `dir`, all that is below it, and the directories above it.
    fn forget_around(&self, dir: &FsPath);

    /// How many entries there are that still count.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the entries take.
    fn bytes(&self) -> u64;
}
