//! The entries of a directory, which the master is asked for in parts.
//!
//! Each part begins after the last name of the one before, whatever was added or removed meanwhile: the master lists in
//! the order of names. So nothing is held at the master between two parts, no part is missed when it changes, and an
//! entry that is there all the time comes exactly once.

use std::sync::Arc;

use super::NAME_MAX;
use super::Shared;
use super::master::Listed;
use crate::fs::Ctx;
use crate::fs::DirEntry;
use crate::fs::Fault;
use crate::fs::FsPath;
use crate::fs::Listing;
use crate::fs::Result;

/// Entries of one part: about 300 KB of message, 4 ms, and one part for most directories.
const PART: i32 = 1000;

/// The entries that were not asked for yet.
pub(super) struct AlluxioListing {
    shared: Arc<Shared>,
    place: FsPath,
    /// The first part, until it is asked for: it came when the directory was opened.
    first: Vec<DirEntry>,
    rest: Rest,
}

/// What is still at the master.
enum Rest {
    After(String),
    Nothing,
}

impl AlluxioListing {
    /// Asks for the first part. [`Fault::NotDirectory`] if `place` is a file: the master then lists the file itself.
    pub(super) fn open(shared: &Arc<Shared>, ctx: &Ctx, place: FsPath) -> Result<Self> {
        let listed = shared.bridge.run(ctx, None, shared.master.list_status(&place, None, PART))?;
        if let [only] = &listed.entries[..]
            && !only.folder()
            && only.path() == place.as_str()
        {
            return Err(Fault::NotDirectory.into());
        }
        let mut listing = Self { shared: Arc::clone(shared), place, first: Vec::new(), rest: Rest::Nothing };
        listing.first = listing.take(listed);
        Ok(listing)
    }

    /// The entries of a part that can be shown; remembers where the next one begins.
    fn take(&mut self, listed: Listed) -> Vec<DirEntry> {
        self.rest = match listed.entries.last() {
            Some(last) if listed.more => Rest::After(last.name().to_owned()),
            _ => Rest::Nothing,
        };
        listed
            .entries
            .into_iter()
            .filter(|info| is_name(info.name()))
            .map(|info| DirEntry { attr: self.shared.attr(&info), name: info.name.unwrap_or_default() })
            .collect()
    }
}

impl Listing for AlluxioListing {
    fn next_batch(&mut self, ctx: &Ctx) -> Result<Vec<DirEntry>> {
        let mut batch = std::mem::take(&mut self.first);
        while batch.is_empty()
            && let Rest::After(name) = &self.rest
        {
            let shared = &self.shared;
            let part = shared.master.list_status(&self.place, Some(name), PART);
            let listed = shared.bridge.run(ctx, None, part)?;
            batch = self.take(listed);
        }
        Ok(batch)
    }

    fn renamed(&mut self, to: &FsPath) {
        self.place = to.under(&self.shared.options.root);
    }
}

/// Whether a kernel can show this name. Alluxio stores longer ones than that.
fn is_name(name: &str) -> bool {
    let shown = !name.is_empty() && name.len() <= NAME_MAX && !name.contains(['/', '\0']);
    if !shown {
        log::debug!("not listed, as it cannot be a name here: {name:?}");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_kernel_takes_are_left_out() {
        assert!(is_name(" a:%\n"));
        assert!(is_name(&"x".repeat(255)));
        for bad in ["", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
