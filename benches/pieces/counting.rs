//! How often the calling thread allocates: through Rust's allocator, and all in all with what C libraries take from
//! malloc(3). Neither number depends on how busy the machine is.

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;

/// Allocations of this thread since it began.
#[derive(Clone, Copy)]
pub(crate) struct Allocations {
    /// By Rust code.
    pub(crate) rust: u64,
    /// By all code.
    pub(crate) all: u64,
}

thread_local! {
    static RUST: Cell<u64> = const { Cell::new(0) };
    static ALL: Cell<u64> = const { Cell::new(0) };
}

pub(crate) fn allocations() -> Allocations {
    Allocations { rust: RUST.get(), all: ALL.get() }
}

/// The system's allocator, which counts.
struct Counting;

// SAFETY: every call is passed on as it is; the count is a number of this thread that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        RUST.set(RUST.get() + 1);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        RUST.set(RUST.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The names by which C libraries, and Rust's `System`, find the allocator. glibc lets a program put its own in their
/// place, and keeps its own under other names.
#[cfg(target_env = "gnu")]
mod of_c {
    use std::ffi::c_void;

    use super::ALL;

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(at: *mut c_void, size: usize) -> *mut c_void;
    }

    fn count() {
        ALL.set(ALL.get() + 1);
    }

    // SAFETY: it is malloc(3), as it does nothing else that its callers could see.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
        count();
        // SAFETY: the caller's promises are those that glibc asks for.
        unsafe { __libc_malloc(size) }
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn calloc(count_of: usize, size: usize) -> *mut c_void {
        count();
        // SAFETY: as above.
        unsafe { __libc_calloc(count_of, size) }
    }

    // SAFETY: as above.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(at: *mut c_void, size: usize) -> *mut c_void {
        count();
        // SAFETY: as above.
        unsafe { __libc_realloc(at, size) }
    }
}
