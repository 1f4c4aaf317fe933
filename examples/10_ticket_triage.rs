//! A complete service in one file: a state, a decision, a group, a fallback, a service, background work, events,
//! shutdown, and tests of a node and of the graph.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 10_ticket_triage
//!     HISTORY: the history is busy
//! Where is my order? => "parcels take three days; a customer since 2019; order 7 is on its way"
//!     HISTORY: the history is busy
//!     ORDER: no such order
//! It is broken => "Which order is it? (no such order)"
//! You won the lottery => ""
//! shut down in 45.3ms
//!   runs:  0 ended meanwhile, 0 unfinished, 0 still running
//!   tasks: closed in 45.3ms: 1 completed
//! ```

use std::time::Duration;

use agentflow::{
    BackgroundTaskManager, CompiledGraph, NodeError, NodeFailure, Provide, Route, RunConfig, State, graph, node,
    run::EventKind,
};

#[derive(Clone, Debug, Default, State)]
struct Ticket {
    text: String,
    answer: String,
    #[state(append)]
    facts: Vec<String>,
}

struct Orders;

impl Orders {
    async fn find(&self, ticket: &str) -> Result<String, NodeError> {
        tokio::time::sleep(Duration::from_millis(5)).await; // a database
        ticket.contains("order").then(|| "order 7 is on its way".to_owned()).ok_or_else(|| "no such order".into())
    }
}

struct Services {
    orders: Orders,
}

impl Provide<Orders> for Services {
    fn provide(&self) -> &Orders {
        &self.orders
    }
}

#[derive(Debug, PartialEq, Route)]
enum Kind {
    Question,
    Spam,
}

#[node]
async fn classify(state: &Ticket) -> Kind {
    if state.text.contains("lottery") { Kind::Spam } else { Kind::Question }
}

/// Reads the state and returns an update, so it may run in a group.
#[node]
async fn look_up_faq(_state: &Ticket) -> TicketUpdate {
    Ticket::update().facts(["parcels take three days"])
}

/// Fails in the first attempt and is retried.
#[node]
async fn look_up_history(_state: &Ticket, attempt: u32) -> Result<TicketUpdate, NodeError> {
    if attempt == 1 {
        return Err("the history is busy".into());
    }
    Ok(Ticket::update().facts(["a customer since 2019"]))
}

#[node]
async fn find_order(state: &mut Ticket, #[inject] orders: &Orders) -> Result<(), NodeError> {
    let order = orders.find(&state.text).await?;
    state.facts.push(order);
    Ok(())
}

/// Handles the failure of `find_order`.
#[node]
async fn ask_for_details(state: &mut Ticket, error: Option<&NodeFailure>) {
    state.answer = format!("Which order is it? ({})", error.map(|error| error.source.to_string()).unwrap_or_default());
}

#[node]
async fn answer(state: &mut Ticket, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    state.answer = state.facts.join("; ");
    let mail = async { tokio::time::sleep(Duration::from_millis(50)).await };
    task_manager.create_task(mail).name("mail").timeout(Duration::from_secs(5)).spawn()?;
    Ok(())
}

fn triage() -> CompiledGraph<Ticket, Services> {
    graph! {
        node HISTORY = look_up_history { retry: 2, timeout: 1s };
        node ORDER = find_order { on_error: ask_for_details };
        classify -> match {
            Kind::Question => { look_up_faq, HISTORY } -> ORDER -> answer -> END,
            Kind::Spam => END,
        };
        ask_for_details -> END;
        compile { shutdown_timeout: 10s, services: Services { orders: Orders } }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = triage();
    for text in ["Where is my order?", "It is broken", "You won the lottery"] {
        let mut run = app.stream(Ticket { text: text.to_owned(), ..Ticket::default() }, RunConfig::new());
        while let Some(event) = run.next().await {
            if let EventKind::NodeFailed { node, error, .. } = event.kind {
                println!("    {node}: {error}");
            }
        }
        println!("{text} => {:?}", run.finish().await?.answer);
    }
    println!("{}", app.aclose().await);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_is_a_function() {
        let ticket = Ticket { text: "You won the lottery".to_owned(), ..Ticket::default() };
        assert_eq!(classify(&ticket).await, Kind::Spam);
    }

    #[tokio::test]
    async fn a_question_is_answered_from_all_sources() -> anyhow::Result<()> {
        let app = triage();
        let ticket = Ticket { text: "Where is my order?".to_owned(), ..Ticket::default() };
        let ticket = app.invoke(ticket, RunConfig::new()).await?;
        assert_eq!(ticket.answer, "parcels take three days; a customer since 2019; order 7 is on its way");
        assert!(app.aclose().await.tasks.is_clean());
        Ok(())
    }
}
