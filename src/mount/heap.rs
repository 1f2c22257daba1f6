//! The C library's allocator, as it suits one who fetches data into pieces of memory and lets go of many at a time.

use std::time::Instant;

use super::memory;

/// So much free memory at the end of each arena stays with the process, also at rest. glibc gives back what is over 128 KiB, and
/// one reader of a large file would have its pages zeroed again for each window. It comes to the same by itself once pieces of
/// half this size have been freed.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 8 << 20;

/// Larger pieces are mappings of their own, given back one by one. As the most that glibc would come to by itself.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = 32 << 20;

/// With less than this to be had it is not worth a look at each free piece.
const WORTH: u64 = 8 << 20;

/// After so much was given back there may be more a moment later.
const MORE: u64 = 1 << 20;

/// Before there are threads that fetch data.
pub(super) fn set_up() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD), (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD)]
    {
        // SAFETY: it takes numbers, and says 0 of those that it does not like.
        if unsafe { libc::mallopt(parameter, value) } == 0 {
            log::debug!("the allocator does not take {value} for parameter {parameter}");
        }
    }
}

/// Gives memory back that the allocator keeps: one piece in use keeps all that lies before it in its arena, some hundred megabytes
/// after many readers.
#[derive(Default)]
pub(super) struct Heap {
    /// Data was held since there was nothing more to be had.
    used: bool,
    /// What the process had after the last time, or less.
    least: u64,
}

impl Heap {
    /// To be called now and then, with the bytes of data that are held just now. Does something when none are, if some were, until
    /// there is nothing more to be had, as what is behind a call that was given up goes a little later; and if other memory has
    /// grown much.
    pub(super) fn rest(&mut self, held: u64) {
        let Some(now) = private() else { return };
        self.used |= held > 0;
        self.least = self.least.min(now);
        if held > 0 || !self.used && now < self.least + WORTH {
            return;
        }
        let begun = Instant::now();
        #[cfg(target_env = "gnu")]
        // SAFETY: it only looks at what is free.
        unsafe {
            libc::malloc_trim(0);
        }
        let took = begun.elapsed();
        self.least = private().unwrap_or(now);
        let given = now.saturating_sub(self.least);
        self.used = given >= MORE;
        log::debug!("{given} bytes of memory were given back in {took:?}, {} are in use", self.least);
    }
}

/// The resident memory that is no file's, in bytes.
fn private() -> Option<u64> {
    memory::of_process("RssAnon:")
}
