//! The conversation whose steps are counted.

use std::{path::Path, time::Duration};

use agentflow::{Ask, CompiledGraph, NodeError, Route, State, graph, node, store::StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{ledger::Ledger, store::StoreKind};

/// The state of a thread.
#[derive(Clone, Debug, Default, State, Serialize, Deserialize)]
pub(crate) struct Log {
    /// The input that is worked on.
    pub(crate) current: String,
    /// Set if the input asks a question.
    pub(crate) asks: bool,
    /// All inputs.
    #[state(append)]
    pub(crate) inputs: Vec<String>,
    /// The steps of all inputs: each node appends the input's id and its own name.
    #[state(append)]
    pub(crate) marks: Vec<String>,
    /// The number of steps, counted in place.
    pub(crate) steps: u64,
}

/// Returns the marks that an input leaves in the state, in their order.
pub(crate) fn steps_of(input: &str) -> Vec<String> {
    let nodes: &[&str] = if asks(input) { &["begin", "left", "confirm", "end"] } else { &["begin", "left", "end"] };
    nodes.iter().map(|node| format!("{input}/{node}")).collect()
}

/// Returns whether an input asks, which its id tells.
pub(crate) fn asks(input: &str) -> bool {
    input.ends_with('?')
}

#[derive(Route)]
enum Next {
    Confirm,
    End,
}

impl Log {
    fn mark(&self, node: &str) -> String {
        format!("{}/{node}", self.current)
    }

    /// Notes a step in the state, and the execution of the node in the ledger.
    async fn step(&mut self, node: &str, ledger: &Ledger) {
        let mark = self.mark(node);
        ledger.executed(&mark);
        self.marks.push(mark);
        // A kill finds the node with its changes half made.
        sleep(Duration::from_micros(500)).await;
        self.steps += 1;
    }
}

#[node]
async fn begin(state: &mut Log, #[inject] ledger: &Ledger) {
    state.step("begin", ledger).await;
}

/// A node that returns an update.
#[node]
async fn left(state: &Log, #[inject] ledger: &Ledger) -> (LogUpdate, Next) {
    let mark = state.mark("left");
    ledger.executed(&mark);
    let update = Log::update().marks([mark]).steps(state.steps + 1);
    (update, if state.asks { Next::Confirm } else { Next::End })
}

#[node]
async fn confirm(state: &mut Log, answer: Option<String>, #[inject] ledger: &Ledger) -> Result<Ask<String>, NodeError> {
    match answer {
        None => Ok(Ask::Question(state.current.clone())),
        Some(answer) if answer == state.current => {
            state.step("confirm", ledger).await;
            Ok(Ask::Done(()))
        }
        Some(other) => Err(format!("the answer to `{}` is that of `{other}`", state.current).into()),
    }
}

#[node]
async fn end(state: &mut Log, #[inject] ledger: &Ledger) {
    state.step("end", ledger).await;
}

/// Opens the store, and compiles the graph with it.
pub(crate) fn app(kind: StoreKind, folder: &Path, ledger: Ledger) -> Result<CompiledGraph<Log, Ledger>, StoreError> {
    let store = kind.open(folder)?;
    Ok(graph! {
        name = "kill";
        begin -> left -> match { Next::Confirm => confirm -> end, Next::End => end };
        end -> END;
        compile { store: store, services: ledger }
    })
}
