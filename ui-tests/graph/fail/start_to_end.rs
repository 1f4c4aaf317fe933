use agentflow::{graph};

fn main() {
    let _ = graph! { START -> END };
}
