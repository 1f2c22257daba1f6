//! The pieces in which a file that is written is sent, each with its memory, and how many of a file there are.
//! Lock order: the loans of a stream alone, for memory only.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::budget::Permit;

/// The chunks of one file that are in memory.
#[derive(Default)]
pub(super) struct Own {
    chunks: AtomicUsize,
    none: Notify,
}

impl Own {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.chunks.load(Ordering::SeqCst)
    }

    /// Waits until there are none.
    pub(super) async fn gone(&self) {
        loop {
            let mut none = pin!(self.none.notified());
            none.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            none.await;
        }
    }
}

/// Bytes of a file, with their memory and their place in the count of the file as long as somebody needs them: they were
/// not sent, or may have to be sent again.
#[derive(Clone)]
pub(super) struct Chunk {
    bytes: Bytes,
    hold: Arc<Hold>,
}

struct Hold {
    _memory: Option<Permit>,
    own: Arc<Own>,
}

impl Chunk {
    /// `bytes` of the file `own`, which take `memory`.
    pub(super) fn new(bytes: Bytes, memory: Option<Permit>, own: &Arc<Own>) -> Self {
        own.chunks.fetch_add(1, Ordering::SeqCst);
        Self { bytes, hold: Arc::new(Hold { _memory: memory, own: Arc::clone(own) }) }
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Cuts the first `length` bytes off.
    pub(super) fn split_to(&mut self, length: usize) -> Self {
        Self { bytes: self.bytes.split_to(length), hold: Arc::clone(&self.hold) }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.own.chunks.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.own.none.notify_waiters();
        }
    }
}

/// What of a file's chunks the connection has in hand for one stream. It mostly lets go of a chunk when that is sent. But
/// a stream that its worker has ended may leave one behind until the connection ends, which nobody should wait for.
#[derive(Default)]
pub(super) struct Loans(Mutex<Loaned>);

#[derive(Default)]
struct Loaned {
    next: u64,
    ended: bool,
    holds: Vec<(u64, Arc<Hold>)>,
}

/// Bytes that the connection has.
struct Lent {
    bytes: Bytes,
    number: u64,
    loans: Arc<Loans>,
}

impl Loans {
    /// The bytes of `chunk`, whose memory counts as used until they are dropped or the stream has ended.
    pub(super) fn lend(self: &Arc<Self>, chunk: Chunk) -> Bytes {
        let number = {
            let mut loaned = self.0.lock();
            loaned.next += 1;
            let number = loaned.next;
            if !loaned.ended {
                loaned.holds.push((number, chunk.hold));
            }
            number
        };
        Bytes::from_owner(Lent { bytes: chunk.bytes, number, loans: Arc::clone(self) })
    }

    /// The stream has ended.
    pub(super) fn end(&self) {
        let holds = {
            let mut loaned = self.0.lock();
            loaned.ended = true;
            std::mem::take(&mut loaned.holds)
        };
        // Without the lock, as others are told of it.
        drop(holds);
    }

    fn back(&self, number: u64) {
        let hold = {
            let mut loaned = self.0.lock();
            let at = loaned.holds.iter().position(|(lent, _)| *lent == number);
            at.map(|at| loaned.holds.swap_remove(at))
        };
        drop(hold);
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.loans.back(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;
    use std::task::Waker;

    use super::super::budget::Budget;
    use super::super::budget::Use;
    use super::*;

    impl Own {
        /// Whether there are none.
        pub(in super::super) fn is_gone(&self) -> bool {
            self.count() == 0
        }
    }

    #[test]
    fn the_memory_comes_back_and_the_file_is_told_when_the_last_part_goes() {
        let (budget, own) = (Budget::new(100), Arc::new(Own::default()));
        let memory = Some(budget.charge(Use::Write, 5));
        let mut chunk = Chunk::new(Bytes::from_static(b"12345"), memory, &own);
        let part = chunk.split_to(2);
        let mut gone = pin!(own.gone());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!((part.as_ref(), chunk.as_ref(), chunk.len()), (&b"12"[..], &b"345"[..], 3));
        drop(chunk);
        assert!(gone.as_mut().poll(&mut cx).is_pending());
        assert_eq!(budget.left(), 95);
        drop(part);
        assert!(gone.as_mut().poll(&mut cx).is_ready());
        assert_eq!(budget.left(), 100);
    }

    #[test]
    fn what_is_lent_comes_back_with_the_bytes_or_the_end_of_the_stream() {
        let (budget, own, loans) = (Budget::new(100), Arc::default(), Arc::new(Loans::default()));
        let chunk = || Chunk::new(Bytes::from_static(b"12345"), Some(budget.charge(Use::Write, 5)), &own);
        let (sent, stuck) = (loans.lend(chunk()), loans.lend(chunk()));
        assert_eq!((&sent[..], budget.left()), (&b"12345"[..], 90));
        drop(sent.clone());
        assert_eq!(budget.left(), 90);
        drop(sent);
        assert_eq!(budget.left(), 95);
        loans.end();
        assert!(own.is_gone());
        assert_eq!((&stuck[..], budget.left()), (&b"12345"[..], 100));
        let late = loans.lend(chunk());
        assert_eq!((&late[..], budget.left()), (&b"12345"[..], 100));
    }
}
