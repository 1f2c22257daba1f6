//! The pieces in which a file that is written is sent, each with its memory, and how many of a file there are.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::Notify;

use super::budget::Permit;

/// The chunks of one file that are in memory.
#[derive(Default)]
pub(super) struct Own {
    chunks: AtomicUsize,
    none: Notify,
}

impl Own {
    /// Waits until there are none.
    pub(super) async fn gone(&self) {
        loop {
            let mut none = pin!(self.none.notified());
            none.as_mut().enable();
            if self.chunks.load(Ordering::SeqCst) == 0 {
                return;
            }
            none.await;
        }
    }
}

/// `bytes` of the file `own`, which take `memory`.
pub(super) fn chunk(bytes: Bytes, memory: Option<Permit>, own: &Arc<Own>) -> Bytes {
    own.chunks.fetch_add(1, Ordering::SeqCst);
    Bytes::from_owner(Chunk { bytes, _memory: memory, own: Arc::clone(own) })
}

/// A chunk with its memory, which is given back when nobody holds the bytes any more: they were sent and need not be sent
/// again.
struct Chunk {
    bytes: Bytes,
    _memory: Option<Permit>,
    own: Arc<Own>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.own.chunks.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.own.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;
    use std::task::Waker;

    use super::super::budget::Budget;
    use super::super::budget::Use;
    use super::*;

    #[test]
    fn the_memory_comes_back_and_the_file_is_told_when_the_last_slice_goes() {
        let (budget, own) = (Budget::new(100), Arc::new(Own::default()));
        let bytes = chunk(Bytes::from_static(b"12345"), Some(budget.charge(Use::Write, 5)), &own);
        let slice = bytes.slice(1..3);
        let mut gone = pin!(own.gone());
        let mut cx = Context::from_waker(Waker::noop());
        drop(bytes);
        assert!(gone.as_mut().poll(&mut cx).is_pending());
        assert_eq!((budget.left(), &slice[..]), (95, &b"23"[..]));
        drop(slice);
        assert!(gone.as_mut().poll(&mut cx).is_ready());
        assert_eq!(budget.left(), 100);
    }
}
