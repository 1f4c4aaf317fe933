//! What memory the process takes.

use std::fs;

use agentflow_benches::allocator;

/// Live bytes may grow by a twentieth and this between the second tenth and the last: idle threads come and go.
const SLACK: i64 = 256 * 1024;

/// Memory at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What was allocated and not freed.
    pub(crate) live: i64,
    /// What the kernel has given, in bytes; `None` where it doesn't say.
    pub(crate) resident: Option<u64>,
}

impl Memory {
    pub(crate) fn now() -> Self {
        Self { live: allocator::live_bytes(), resident: resident() }
    }

    /// Whether no more lives than did `earlier`.
    pub(crate) fn is_flat_since(self, earlier: Self) -> bool {
        self.live <= earlier.live + earlier.live / 20 + SLACK
    }
}

/// Linux says it in pages, which have 4 KB unless the machine is an odd one.
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
