//! The allocator counts allocations and live bytes.

use agentflow_benches::allocator::{Allocated, counted};

/// Runs without a test harness, because its threads allocate as well.
fn main() {
    let (allocated, kept) = counted(|| {
        drop(vec![0_u8; 1_000]);
        let mut kept = Vec::<u8>::with_capacity(10);
        kept.reserve_exact(20);
        kept
    });
    assert_eq!(allocated, Allocated { count: 3, bytes: 20 });
    drop(kept);
}
