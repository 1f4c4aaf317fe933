use agentflow::{Route, State, graph, node};
use serde::Deserialize;

#[derive(Clone, Default, State)]
struct Mail {
    draft: String,
}

#[derive(Deserialize)]
enum Verdict {
    Send,
}

#[derive(Route)]
enum Next {
    Send,
}

#[node]
async fn review(state: &mut Mail, answer: Option<Verdict>) -> Next {
    Next::Send
}

fn main() {
    graph! { review -> match { Next::Send => END } };
}
