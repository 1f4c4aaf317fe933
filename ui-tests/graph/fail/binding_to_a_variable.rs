use agentflow::{graph};

fn main() {
    let value = 1;
    let _ = graph! {
        node FIRST = value;
        FIRST -> END;
    };
}
