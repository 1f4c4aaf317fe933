//! Nodes that ask, in every form, and without a warning.

#![deny(warnings, clippy::pedantic)]

use agentflow::{Ask, NodeError, Route, State, graph, node};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Clone, Default, State)]
struct Mail {
    draft: String,
}

#[derive(Serialize)]
struct Review {
    draft: String,
}

#[derive(Deserialize)]
enum Verdict {
    Send,
    Drop,
}

#[derive(Route)]
enum Next {
    Send,
    Drop,
}

type Asked<T> = Ask<Review, T>;
type Answer = Option<Verdict>;

#[node]
async fn decide(state: &mut Mail, answer: Option<Verdict>) -> Ask<Review, Next> {
    match answer {
        None => Ask::Question(Review { draft: state.draft.clone() }),
        Some(Verdict::Send) => Ask::Done(Next::Send),
        Some(Verdict::Drop) => Ask::Done(Next::Drop),
    }
}

#[node]
async fn aliases(state: &Mail, answer: Answer) -> Result<Asked<(MailUpdate, bool)>, NodeError> {
    let Some(answer) = answer else { return Ok(Ask::Question(Review { draft: state.draft.clone() })) };
    Ok(Ask::Done((Mail::update(), matches!(answer, Verdict::Send))))
}

#[node]
async fn unused(_answer: Option<String>) -> std::io::Result<Ask<&'static str>> {
    Ok(Ask::Done(()))
}

#[node]
async fn owned(state: Mail, answer: Option<()>) -> Ask<u8, Mail> {
    answer.map_or(Ask::Question(1), |()| Ask::Done(state))
}

#[node]
async fn generic<Q, A>(answer: Option<A>) -> Ask<Q>
where
    Q: Default + Serialize + Send,
    A: DeserializeOwned + Send + Sync,
{
    if answer.is_some() { Ask::Done(()) } else { Ask::Question(Q::default()) }
}

fn main() {
    let _ = graph! {
        node AGAIN = generic::<String, u8>;
        decide -> match { Next::Send => aliases, Next::Drop => END };
        aliases -> match { true => { unused, AGAIN } -> owned -> END, false => END }
    };
}
