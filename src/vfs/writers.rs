//! Files that are open for writing, and those that are still being completed after the last descriptor went: until that has
//! ended, these too are what their names stand for.
//!
//! Lock order: the map before a stream's state and the table of inodes.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::inodes::Ino;
use super::inodes::Inodes;
use super::stream::WriteStream;

/// A stream, and how many handles share it: none while it is completed in the background.
struct Writing {
    stream: Arc<WriteStream>,
    handles: usize,
    /// How often its inode was told that the stream has come to an end.
    ends: u64,
}

/// The streams by inode. Each inode is counted once more as long as it is here, so that its name leads to it.
pub(super) struct Writers {
    inodes: Arc<Inodes>,
    map: Mutex<HashMap<Ino, Writing>>,
}

impl Writers {
    pub(super) fn new(inodes: Arc<Inodes>) -> Self {
        Self { inodes, map: Mutex::default() }
    }

    /// The stream that writes `ino`.
    pub(super) fn stream(&self, ino: Ino) -> Option<Arc<WriteStream>> {
        Some(Arc::clone(&self.map.lock().get(&ino)?.stream))
    }

    /// All streams.
    pub(super) fn streams(&self) -> Vec<Arc<WriteStream>> {
        self.map.lock().values().map(|writing| Arc::clone(&writing.stream)).collect()
    }

    /// The stream of `ino`, if nobody has it open any more.
    pub(super) fn left(&self, ino: Ino) -> Option<Arc<WriteStream>> {
        let map = self.map.lock();
        let writing = map.get(&ino).filter(|writing| writing.handles == 0)?;
        Some(Arc::clone(&writing.stream))
    }

    /// Whether somebody has `ino` open by `stream`, and so will close it.
    pub(super) fn has_open(&self, ino: Ino, stream: &Arc<WriteStream>) -> bool {
        let map = self.map.lock();
        map.get(&ino).is_some_and(|writing| writing.handles > 0 && Arc::ptr_eq(&writing.stream, stream))
    }

    /// One more handle of `ino`, by `stream`, or by that of another thread if it was faster.
    pub(super) fn join(&self, ino: Ino, stream: Arc<WriteStream>) -> Arc<WriteStream> {
        let mut map = self.map.lock();
        let writing = map.entry(ino).or_insert_with(|| {
            self.inodes.hold(ino);
            Writing { ends: stream.ends(), stream, handles: 0 }
        });
        writing.handles += 1;
        Arc::clone(&writing.stream)
    }

    /// One handle of `ino` less. After the last one, what no close has completed is completed in the background.
    pub(super) fn leave(self: &Arc<Self>, ino: Ino) {
        let stream = {
            let mut map = self.map.lock();
            // Gone already if the mount is ending.
            let Some(writing) = map.get_mut(&ino) else { return };
            writing.handles -= 1;
            if writing.handles > 0 {
                return;
            }
            Arc::clone(&writing.stream)
        };
        let left = Left { writers: Arc::clone(self), ino, stream: Arc::clone(&stream) };
        stream.commit_later(left);
    }

    /// `stream` has come to an end: its inode stands for what there is now, and it goes from here if nobody has it open.
    pub(super) fn ended(&self, ino: Ino, stream: &Arc<WriteStream>) {
        let mut map = self.map.lock();
        let Some(writing) = map.get_mut(&ino).filter(|writing| Arc::ptr_eq(&writing.stream, stream)) else {
            return;
        };
        let ends = stream.ends();
        if std::mem::replace(&mut writing.ends, ends) != ends {
            self.inodes.touch(ino);
        }
        if stream.has_failed() {
            // Before the stream goes, which says so until then.
            self.inodes.spoil(ino);
        }
        if stream.is_lost() {
            self.inodes.lose_name(ino);
        } else if !stream.is_gone() {
            self.inodes.adopt(ino, &stream.attr());
        }
        // Unless somebody goes on with it.
        if writing.handles == 0 && !stream.is_open() {
            map.remove(&ino);
            self.inodes.forget(ino, 1);
        }
    }

    /// The mount ends: those that somebody has open, which are none any more.
    pub(super) fn take_open(&self) -> Vec<Arc<WriteStream>> {
        let taken = self.map.lock().extract_if(|_, writing| writing.handles > 0).collect::<Vec<_>>();
        taken
            .into_iter()
            .map(|(ino, writing)| {
                self.inodes.forget(ino, 1);
                writing.stream
            })
            .collect()
    }
}

/// A stream whose last handle is gone. Dropped when it has come to its end, also by a panic.
struct Left {
    writers: Arc<Writers>,
    ino: Ino,
    stream: Arc<WriteStream>,
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(error) = self.stream.take_untold() {
            log::warn!("{} was closed, and nobody waited for the error: {error}", self.stream.path());
        }
        self.writers.ended(self.ino, &self.stream);
    }
}
