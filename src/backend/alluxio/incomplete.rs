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

/// The numbers of a file and of its blocks differ in their lowest bits.
const SEQUENCE_BITS: u32 = 24;

/// A file that nobody but its owner here writes.
#[derive(Debug)]
pub(super) struct IncompleteFile {
    path: FsPath,
    file_id: i64,
    /// Its blocks so far, in order.
    block_ids: Vec<i64>,
    /// When the path was last seen to be this file; none if something was done to the path since.
    seen: Option<Instant>,
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
            seen: Some(Instant::now()),
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
        self.asked || self.seen.is_none_or(|seen| seen.elapsed() > SEEN_FOR)
    }

    /// The path may stand for something else by now.
    pub(super) fn doubt(&mut self) {
        self.seen = None;
    }

    /// A block is asked for now.
    pub(super) fn asking(&mut self) {
        self.asked = true;
    }

    /// The master has given the block `id`. Fails with [`Fault::Stale`] if it belongs to another file.
    pub(super) fn received(&mut self, id: i64) -> Result<()> {
        if id >> SEQUENCE_BITS != self.file_id >> SEQUENCE_BITS {
            let detail = format!("block {id} is not one of {}, which is file {}", self.path, self.file_id);
            return Err(FsError::because(Fault::Stale, detail));
        }
        self.asked = false;
        self.seen = Some(Instant::now());
        self.block_ids.push(id);
        Ok(())
    }

    /// Takes the file as the master shows it: the block that was asked for and not received, if there is one.
    pub(super) fn reconcile(&mut self, info: &FileInfo) -> Result<Option<i64>> {
        if info.file_id() != self.file_id || info.folder() || info.completed() {
            let detail = format!("{} is not the file that is being written here any more", self.path);
            return Err(FsError::because(Fault::Stale, detail));
        }
        self.seen = Some(Instant::now());
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
    fn a_block_of_another_file_is_refused() {
        let mut ours = file(&[]);
        ours.file_id = (5 << SEQUENCE_BITS) | 0xff_ffff;
        assert_eq!(ours.received(6 << SEQUENCE_BITS).unwrap_err().fault(), Fault::Stale);
        assert!(ours.is_uncertain());
        ours.received(5 << SEQUENCE_BITS).unwrap();
        assert!(!ours.is_uncertain());
        ours.doubt();
        assert!(ours.is_uncertain());
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
