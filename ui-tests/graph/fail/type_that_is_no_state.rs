use agentflow::{graph, node};

#[node]
async fn log() {}

fn main() {
    let _ = graph! {
        type State = u32;
        log -> END;
    };
}
