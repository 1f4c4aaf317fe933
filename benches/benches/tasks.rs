//! Background tasks beside tokio's own: spawned, looked at, cancelled.

use agentflow_benches::{Scale, cancel, inspect, spawn};

mod contest;

fn main() {
    let contests = [spawn::contests, inspect::contests, cancel::contests];
    contest::bench(contests.into_iter().flat_map(|contests| contests(Scale::FULL)));
}
