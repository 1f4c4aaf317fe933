use agentflow::{graph};

fn main() {
    let _ = graph! {
        node FIRST = ;
        FIRST -> END;
    };
}
