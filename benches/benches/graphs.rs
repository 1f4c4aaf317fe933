//! Chains, loops and groups beside the same work written by hand.

use agentflow_benches::{chain, group};

mod contest;

fn main() {
    contest::bench(chain::contests().into_iter().chain(group::contests()));
}
