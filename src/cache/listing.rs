//! Listings of the metadata cache: one that was remembered, and one that comes from below and is to be. What is longer
//! than the cache may hold passes through.

use std::vec;

use super::remembered::Question;
use crate::fs::Attr;
use crate::fs::Ctx;
use crate::fs::DirEntry;
use crate::fs::FsPath;
use crate::fs::Listing;
use crate::fs::Result;

/// Entries of one part.
const PART: usize = 1000;

/// A listing that was remembered.
pub(super) struct Held(vec::IntoIter<DirEntry>);

impl Held {
    pub(super) fn new(entries: Vec<DirEntry>) -> Self {
        Self(entries.into_iter())
    }
}

impl Listing for Held {
    fn next_batch(&mut self, ctx: &Ctx) -> Result<Vec<DirEntry>> {
        ctx.check()?;
        Ok(self.0.by_ref().take(PART).collect())
    }

    fn renamed(&mut self, _to: &FsPath) {}

    fn is_snapshot(&self) -> bool {
        true
    }
}

/// A listing from below.
pub(super) struct Learning {
    below: Box<dyn Listing>,
    /// What has come, unless it is too much.
    learnt: Option<Learnt>,
}

struct Learnt {
    question: Question,
    entries: Vec<(String, Attr)>,
    /// Their bytes, which are accounted for until they are remembered or not.
    reserved: u64,
}

impl Drop for Learnt {
    fn drop(&mut self) {
        self.question.give_back(self.reserved);
    }
}

impl Learnt {
    /// Takes `batch` as well, if there is room for it.
    fn take(&mut self, batch: &[DirEntry]) -> bool {
        let bytes = |entry: &DirEntry| (size_of::<(String, Attr)>() + entry.name.len()) as u64;
        let more = batch.iter().map(bytes).sum();
        if self.entries.len() + batch.len() > self.question.names_max() || !self.question.reserve(more) {
            return false;
        }
        self.reserved += more;
        self.entries.extend(batch.iter().map(|entry| (entry.name.clone(), entry.attr.clone())));
        true
    }
}

impl Learning {
    pub(super) fn new(below: Box<dyn Listing>, question: Question) -> Self {
        Self { below, learnt: Some(Learnt { question, entries: Vec::new(), reserved: 0 }) }
    }
}

impl Listing for Learning {
    fn next_batch(&mut self, ctx: &Ctx) -> Result<Vec<DirEntry>> {
        let batch = self.below.next_batch(ctx)?;
        let Some(mut learnt) = self.learnt.take() else { return Ok(batch) };
        if batch.is_empty() {
            let entries = std::mem::take(&mut learnt.entries);
            learnt.question.listed(entries);
        } else if learnt.take(&batch) {
            self.learnt = Some(learnt);
        }
        Ok(batch)
    }

    fn renamed(&mut self, to: &FsPath) {
        // The rename is a change of the directory: what was learnt will not be kept.
        self.below.renamed(to);
    }
}
