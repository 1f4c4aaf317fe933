use agentflow::{NodeError, State, graph, node};
use serde::Deserialize;

#[derive(Clone, Default, State)]
struct Mail {
    draft: String,
}

#[derive(Deserialize)]
enum Verdict {
    Send,
}

#[node]
async fn review(_state: &Mail, answer: Option<Verdict>) -> Result<MailUpdate, NodeError> {
    Ok(Mail::update())
}

fn main() {
    graph! { START -> { review } -> END };
}
