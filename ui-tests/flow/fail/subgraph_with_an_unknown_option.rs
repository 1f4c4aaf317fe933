use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        graph RESEARCH {
            node B = b { retyr: 3 };
            B -> END;
        }
        a -> RESEARCH -> END;
    };
}
