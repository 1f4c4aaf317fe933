//! Tuple structs, skipped fields and services behind an `Arc`.

use std::sync::Arc;

use agentflow::{AgentState, Provide, graph, node};

trait Mailer: Send + Sync {}
struct Smtp;
impl Mailer for Smtp {}

#[derive(Provide)]
struct Services(u32, Arc<dyn Mailer>, #[provide(skip)] u32, #[provide(as = dyn Mailer)] Box<dyn Mailer>);

#[node]
async fn send(state: &mut AgentState, #[inject] port: &u32, #[inject] mailer: &Arc<dyn Mailer>, #[inject] backup: &dyn Mailer) {
    let _ = (state, port, Arc::clone(mailer), backup);
}

fn main() {
    let _ = graph! { send -> END; compile { services: Services(25, Arc::new(Smtp), 1, Box::new(Smtp)) } };
}
