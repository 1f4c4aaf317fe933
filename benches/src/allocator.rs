//! An allocator that counts, when it is asked to.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator. While nobody counts, all that it adds is a look at a flag.
#[derive(Debug)]
struct Counting;

/// What was allocated in some time, in all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// How many allocations there were. One that was moved to grow is one more.
    pub count: u64,
    /// How many bytes more there are now, as they were asked for.
    pub bytes: i64,
}

impl Allocated {
    fn until_now() -> Self {
        Self { count: ALLOCATIONS.load(Ordering::Relaxed), bytes: live_bytes() }
    }
}

/// Counts from now on, for ever.
pub fn count() {
    IS_COUNTING.store(true, Ordering::Relaxed);
}

/// The bytes that live, of those that were allocated since [`count`] was called. Below zero if older ones were freed.
#[must_use]
pub fn live_bytes() -> i64 {
    LIVE_BYTES.load(Ordering::Relaxed)
}

/// What `work` allocates, and what it returns.
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

/// No allocation is larger than `isize::MAX`, and an allocator must not panic.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[allow(unsafe_code, reason = "an allocator is unsafe to implement; each call goes to the system's as it came")]
// SAFETY: every call is the system's own, with the same arguments, and what is counted beside it does not allocate.
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
