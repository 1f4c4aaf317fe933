use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        node N0 = a;
        node N1 = a;
        node N2 = a;
        node N3 = a;
        node N4 = a;
        node N5 = a;
        node N6 = a;
        node N7 = a;
        node N8 = a;
        node N9 = a;
        node N10 = a;
        node N11 = a;
        a -> END;
    };
}
