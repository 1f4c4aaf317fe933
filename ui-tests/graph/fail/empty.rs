use agentflow::{graph};

fn main() {
    let _ = graph! {};
}
