//! The memory use of the process.

use std::fs;

use agentflow_benches::allocator;

/// The bytes that may be added, besides a twentieth, between the second part and the last: idle threads come and go.
const SLACK: i64 = 256 * 1024;

/// Memory at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// The bytes that are allocated and not freed.
    pub(crate) live: i64,
    /// The resident bytes, or `None` where the system does not report them.
    pub(crate) resident: Option<u64>,
}

impl Memory {
    pub(crate) fn now() -> Self {
        Self { live: allocator::live_bytes(), resident: resident() }
    }

    /// Returns true if the live bytes have not grown since `earlier`.
    pub(crate) fn is_flat_since(self, earlier: Self) -> bool {
        self.live <= earlier.live + earlier.live / 20 + SLACK
    }
}

/// Reads the resident bytes from Linux, which reports pages. Nearly all machines have pages of 4 KB.
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
