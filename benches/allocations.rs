//! Counts heap allocations of each thread.
// A global allocator cannot be written without.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static OF_ALL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator; the counters neither allocate nor need to be dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        OF_ALL.fetch_add(1, Ordering::Relaxed);
        BYTES.set(BYTES.get() + layout.size() as i64);
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and reallocations of the calling thread since it began.
#[allow(dead_code, reason = "not every user of this file asks")]
pub fn of_this_thread() -> u64 {
    ALLOCATIONS.get()
}

/// Allocations and reallocations of all threads.
#[allow(dead_code, reason = "not every user of this file asks")]
pub fn of_all_threads() -> u64 {
    OF_ALL.load(Ordering::Relaxed)
}

/// Bytes that the calling thread has allocated and not freed.
#[allow(dead_code, reason = "not every user of this file asks")]
pub fn bytes_of_this_thread() -> i64 {
    BYTES.get()
}

/// Bytes of the largest allocation of the calling thread since it was last asked for.
#[allow(dead_code, reason = "not every user of this file asks")]
pub fn largest_of_this_thread() -> usize {
    LARGEST.replace(0)
}
