use std::borrow::Cow;

use agentflow::{graph, node};

#[node]
async fn greet(state: &mut Cow<'_, str>) {
    let _ = state;
}

fn main() {
    let _ = graph! { greet -> END };
}
