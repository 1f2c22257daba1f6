//! The copies of one block while it is written: one, or several at different workers, so that the block outlives the loss
//! of a worker before it is persisted. All get the same bytes; the block is there when all are.

use std::sync::Arc;

use super::Shared;
use super::block_write::Target;
use super::block_write::Writing;
use super::chunk::Chunk;
use super::options::HostPort;
use super::options::PathOptions;
use super::options::WriteType;
use crate::fs::Result;

/// The copies, at least one.
pub(super) struct Copies(Vec<Writing>);

/// How many copies are written at first, by the options `at`: as Alluxio's client decides.
pub(super) fn wanted(at: &PathOptions) -> usize {
    let durable = if at.write_type == WriteType::AsyncThrough { at.replication_durable } else { 0 };
    usize::try_from(durable.max(at.replication_min)).unwrap_or(0).max(1)
}

impl Copies {
    /// As many as `at` wants of the block `target`.
    pub(super) fn new(shared: &Arc<Shared>, at: &Arc<PathOptions>, target: &Target) -> Self {
        let one = || Writing::new(Arc::clone(shared), Arc::clone(at), target.clone());
        Self((0..wanted(at)).map(|_| one()).collect())
    }

    /// Bytes of the block.
    pub(super) fn written(&self) -> u64 {
        self.0[0].written()
    }

    /// Who has them, or had them last.
    pub(super) fn workers(&self) -> impl Iterator<Item = HostPort> {
        self.0.iter().filter_map(Writing::worker)
    }

    /// Adds `data` to each.
    pub(super) async fn write(&mut self, data: Chunk) -> Result<()> {
        for n in 0..self.0.len() {
            self.keep_apart(n);
            self.0[n].write(data.clone()).await?;
        }
        Ok(())
    }

    /// Waits until the workers have everything.
    pub(super) async fn flush(&mut self) -> Result<()> {
        for n in 0..self.0.len() {
            self.keep_apart(n);
            self.0[n].flush().await?;
        }
        Ok(())
    }

    /// Waits until the workers have room for everything and have got it.
    pub(super) async fn arrive(&mut self) -> Result<()> {
        for n in 0..self.0.len() {
            self.keep_apart(n);
            self.0[n].arrive().await?;
        }
        Ok(())
    }

    /// Lets go of what was kept to be sent again.
    pub(super) fn forget_kept(&mut self) {
        self.0.iter_mut().for_each(Writing::forget_kept);
    }

    /// Commits all.
    pub(super) async fn commit(mut self) -> Result<()> {
        for n in 0..self.0.len() {
            self.keep_apart(n);
        }
        for copy in &mut self.0 {
            copy.commit().await?;
        }
        Ok(())
    }

    /// Copy `n` is not to go where another one is.
    fn keep_apart(&mut self, n: usize) {
        if self.0.len() == 1 {
            return;
        }
        let others: Vec<HostPort> = self
            .0
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != n)
            .filter_map(|(_, copy)| copy.worker())
            .collect();
        self.0[n].keep_from(others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_wanted_for_what_is_persisted_later_and_for_the_least_number() {
        let at = |write_type, durable, least| PathOptions {
            write_type,
            replication_durable: durable,
            replication_min: least,
            ..PathOptions::default()
        };
        for (options, expected) in [
            (at(WriteType::AsyncThrough, 1, 0), 1),
            (at(WriteType::AsyncThrough, 3, 0), 3),
            (at(WriteType::AsyncThrough, 2, 3), 3),
            (at(WriteType::MustCache, 3, 0), 1),
            (at(WriteType::CacheThrough, 0, 2), 2),
        ] {
            assert_eq!(wanted(&options), expected, "{options:?}");
        }
    }
}
