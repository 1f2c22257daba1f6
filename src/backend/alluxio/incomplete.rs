//! A file that this client is writing, and the blocks that it has asked for. Asks nobody itself: `new_block` does.

use std::time::Duration;
use std::time::Instant;

use super::journal::Entry;
use super::proto::grpc::file::FileInfo;
use crate::fs::Fault;
use crate::fs::FsError;
use crate::fs::FsPath;
use crate::fs::Result;

/// How long the master's last answer is good for: what the path stands for can change behind our back.
const SEEN_FOR: Duration = Duration::from_secs(1);

/// A file that nobody but its owner here writes.
#[derive(Debug)]
pub(super) struct IncompleteFile {
    path: FsPath,
    file_id: i64,
    /// Its blocks so far, in order.
    block_ids: Vec<i64>,
    /// When the path was last seen to be this file.
    seen: Instant,
    /// A request for a block was sent and no block received, be it that the connection broke or that the caller was
    /// interrupted.
    asked: bool,
    /// In the journal of what is being written.
    entry: Option<Entry>,
}

impl IncompleteFile {
    /// The file that the master has just made.
    pub(super) fn created(path: FsPath, info: &FileInfo, entry: Option<Entry>) -> Self {
        Self {
            path,
            file_id: info.file_id(),
            block_ids: info.block_ids.clone(),
            seen: Instant::now(),
            asked: false,
            entry,
        }
    }

    /// It is complete, or removed: nothing is left to be cleaned up.
    pub(super) fn ended(&self) {
        self.entry.iter().for_each(Entry::done);
    }

    /// It is complete, and somebody else sees to it that nothing is left.
    pub(super) fn hand_over(&mut self) -> Option<Entry> {
        self.entry.take()
    }

    /// Where it is in Alluxio.
    pub(super) fn path(&self) -> &FsPath {
        &self.path
    }

    /// The master's number for it, which a rename does not change.
    pub(super) fn file_id(&self) -> i64 {
        self.file_id
    }

    /// It was renamed through this mount, or a directory above it was.
    pub(super) fn renamed(&mut self, to: FsPath) {
        self.path = to;
    }

    /// Whether the master has to be asked what the path stands for, before it is asked for a block or told that all is written.
    pub(super) fn is_uncertain(&self) -> bool {
        self.asked || self.seen.elapsed() > SEEN_FOR
    }

    /// A block is asked for now.
    pub(super) fn asking(&mut self) {
        self.asked = true;
    }

    /// The block that was asked for is `id`.
    pub(super) fn received(&mut self, id: i64) {
        self.asked = false;
        self.seen = Instant::now();
        self.block_ids.push(id);
    }

    /// Takes the file as the master shows it: the block that was asked for and not received, if there is one.
    pub(super) fn reconcile(&mut self, info: &FileInfo) -> Result<Option<i64>> {
        if info.file_id() != self.file_id || info.folder() || info.completed() {
            let detail = format!("{} is not the file that is being written here any more", self.path);
            return Err(FsError::because(Fault::Stale, detail));
        }
        self.seen = Instant::now();
        self.asked = false;
        match info.block_ids.strip_prefix(&self.block_ids[..]) {
            Some([]) => Ok(None),
            Some([id]) => {
                self.block_ids.push(*id);
                Ok(Some(*id))
            }
            Some(_) | None => {
                let detail = format!("{} has got blocks that this client did not ask for", self.path);
                Err(FsError::because(Fault::Io, detail))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(file_id: i64, block_ids: &[i64]) -> FileInfo {
        FileInfo { file_id: Some(file_id), block_ids: block_ids.to_vec(), ..FileInfo::default() }
    }

    fn file(block_ids: &[i64]) -> IncompleteFile {
        let mut file = IncompleteFile::created(FsPath::parse("/f").unwrap(), &info(7, block_ids), None);
        file.asked = true;
        file
    }

    #[test]
    fn a_block_whose_id_was_lost_on_the_way_is_taken_and_not_asked_for_again() {
        let mut file = file(&[100]);
        assert_eq!(file.reconcile(&info(7, &[100, 101])).unwrap(), Some(101));
        assert_eq!(file.block_ids, [100, 101]);
        assert!(!file.asked);
    }

    #[test]
    fn a_request_that_was_lost_on_the_way_leaves_nothing() {
        let mut file = file(&[100]);
        assert_eq!(file.reconcile(&info(7, &[100])).unwrap(), None);
        assert_eq!(file.block_ids, [100]);
    }

    #[test]
    fn what_took_the_place_of_the_file_gets_no_block() {
        let folder = FileInfo { folder: Some(true), ..info(7, &[]) };
        let complete = FileInfo { completed: Some(true), ..info(7, &[]) };
        for other in [info(8, &[]), folder, complete] {
            assert_eq!(file(&[]).reconcile(&other).unwrap_err().fault(), Fault::Stale);
        }
    }

    #[test]
    fn blocks_of_another_writer_are_an_error() {
        for strange in [&[100, 101, 102][..], &[99], &[]] {
            assert_eq!(file(&[100]).reconcile(&info(7, strange)).unwrap_err().fault(), Fault::Io);
        }
    }
}
