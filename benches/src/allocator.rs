//! An allocator that counts on demand.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator with counters. While counting is off, its only overhead is a load of a flag.
#[derive(Debug)]
struct Counting;

/// The allocations of all threads in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// The number of allocations. An allocation that grows by moving counts again.
    pub count: u64,
    /// The growth of live bytes, by requested size.
    pub bytes: i64,
}

impl Allocated {
    fn until_now() -> Self {
        Self { count: ALLOCATIONS.load(Ordering::Relaxed), bytes: live_bytes() }
    }
}

/// Starts counting, for the rest of the process.
pub fn count() {
    IS_COUNTING.store(true, Ordering::Relaxed);
}

/// Returns the live bytes allocated since [`count`] was called. Negative if older allocations were freed.
#[must_use]
pub fn live_bytes() -> i64 {
    LIVE_BYTES.load(Ordering::Relaxed)
}

/// Runs `work`; returns its allocations and its result.
pub fn counted<T>(work: impl FnOnce() -> T) -> (Allocated, T) {
    let was_counting = IS_COUNTING.swap(true, Ordering::Relaxed);
    let before = Allocated::until_now();
    let value = work();
    let after = Allocated::until_now();
    IS_COUNTING.store(was_counting, Ordering::Relaxed);
    (Allocated { count: after.count - before.count, bytes: after.bytes - before.bytes }, value)
}

fn grew(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    LIVE_BYTES.fetch_add(signed(bytes), Ordering::Relaxed);
}

fn shrank(bytes: usize) {
    LIVE_BYTES.fetch_sub(signed(bytes), Ordering::Relaxed);
}

/// Converts without a panic, which an allocator must not raise: no allocation is larger than `isize::MAX`.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[allow(unsafe_code, reason = "an allocator is unsafe to implement; each call goes to the system's as it came")]
// SAFETY: every call passes its arguments on to the system's allocator, and the counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_COUNTING.load(Ordering::Relaxed) {
            grew(layout.size());
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if IS_COUNTING.load(Ordering::Relaxed) {
            grew(layout.size());
        }
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if IS_COUNTING.load(Ordering::Relaxed) {
            shrank(layout.size());
        }
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if IS_COUNTING.load(Ordering::Relaxed) {
            shrank(layout.size());
            grew(new_size);
        }
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
