use agentflow::{AgentState, graph, node};

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn b(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        START -> a -> END;
        node N0 = b;
        node N1 = b;
        node N2 = b;
        node N3 = b;
        node N4 = b;
        node N5 = b;
        node N6 = b;
        node N7 = b;
        node N8 = b;
        node N9 = b;
        node N10 = b;
        node N11 = b;
        N0 -> END;
        N1 -> END;
        N2 -> END;
        N3 -> END;
        N4 -> END;
        N5 -> END;
        N6 -> END;
        N7 -> END;
        N8 -> END;
        N9 -> END;
        N10 -> END;
        N11 -> END;
    };
}
