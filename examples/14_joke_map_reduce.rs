//! One branch per item: LangGraph's map-reduce of jokes. A node finds the subjects of a topic, another one writes a joke
//! about each of them, and a third one selects the best.
//!
//! The number of subjects is known only when the run is under way. `each subjects { JOKE }` runs JOKE once for each, with
//! the subject as its `input`, and merges the jokes in the order of the subjects, not in that of their ends.
//!
//! The original is <https://docs.langchain.com/oss/python/langgraph/graph-api-send-command>.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 14_joke_map_reduce
//! 3 items: JOKE
//! JOKE[2] is done
//! JOKE[0] is done
//! JOKE[1] is done
//! joined, new: jokes
//!
//! animals:
//! * A lion never boasts. It has its pride.
//! * An elephant packs in a minute: it only has one trunk.
//! * Penguins are always dressed for the party.
//! the best: A lion never boasts. It has its pride.
//! ```

use std::time::Duration;

use agentflow::{NodeError, RunConfig, State, graph, node, run::EventKind};
use tokio::time::sleep;

#[derive(Clone, Debug, Default, State)]
struct Evening {
    topic: String,
    subjects: Vec<String>,
    /// Each branch adds its own joke.
    #[state(append)]
    jokes: Vec<String>,
    best: String,
}

/// Returns the items of the `each`.
fn subjects(evening: &Evening) -> Vec<String> {
    evening.subjects.clone()
}

#[node(SUBJECTS)]
async fn find_subjects(state: &mut Evening) {
    let subjects = match state.topic.as_str() {
        "animals" => ["lions", "elephants", "penguins"],
        _ => ["rain", "Mondays", "trains"],
    };
    state.subjects = subjects.map(str::to_owned).to_vec();
}

/// Writes a joke about one subject. It borrows the item; `input: String` would copy it.
#[node(JOKE)]
async fn write_joke(_state: &Evening, input: &String) -> Result<EveningUpdate, NodeError> {
    let (milliseconds, joke) = match input.as_str() {
        "lions" => (20, "A lion never boasts. It has its pride."),
        "elephants" => (30, "An elephant packs in a minute: it only has one trunk."),
        "penguins" => (10, "Penguins are always dressed for the party."),
        other => return Err(format!("nothing is funny about {other}").into()),
    };
    sleep(Duration::from_millis(milliseconds)).await; // a model
    Ok(Evening::update().jokes([joke]))
}

#[node(BEST)]
async fn select_best(state: &mut Evening) -> Result<(), NodeError> {
    // A model would judge; brevity stands in for it.
    let best = state.jokes.iter().min_by_key(|joke| joke.len());
    state.best = best.ok_or("there are no jokes")?.clone();
    Ok(())
}

// The clock is paused: the order of the ends, and so the output, is the same on every machine.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), agentflow::RunError> {
    let app = graph! { SUBJECTS -> each subjects { JOKE } -> BEST -> END };

    let evening = Evening { topic: "animals".to_owned(), ..Evening::default() };
    let mut run = app.stream(evening, RunConfig::new());
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::GroupStarted { nodes, items: Some(items), .. } => {
                println!("{items} items: {}", nodes.join(", "));
            }
            EventKind::NodeEnded { node, .. } if node.starts_with("JOKE") => println!("{node} is done"),
            EventKind::GroupJoined { fields, .. } => println!("joined, new: {}", fields.join(", ")),
            _ => {}
        }
    }
    let evening = run.finish().await?;
    println!("\n{}:", evening.topic);
    evening.jokes.iter().for_each(|joke| println!("* {joke}"));
    println!("the best: {}", evening.best);
    Ok(())
}
