use std::cell::Cell;

use agentflow::State;

#[derive(Clone, State)]
struct Report {
    pages: Cell<u32>,
}

fn main() {}
