#![deny(warnings, clippy::pedantic)]

use agentflow::{
    AgentState, BackgroundTaskManager, CancellationToken, NodeError, graph, node, task, task::DurableTaskContext,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct Outgoing {
    to: String,
}

pub struct Smtp;

/// Sends a mail.
#[task]
pub async fn deliver(args: Outgoing, #[inject] smtp: &Smtp, attempt: u32) -> Result<(), String> {
    let _ = (args.to, smtp);
    if attempt > 3 { Err("not sent".to_owned()) } else { Ok(()) }
}

#[task(name = "report.nightly")]
async fn report(_attempt: u32, task: &DurableTaskContext, cancel: &CancellationToken) -> Result<(), NodeError> {
    let _ = (task.id(), cancel);
    Ok(())
}

#[task]
async fn destructured(args: (String, u8)) {
    let (_text, _number) = args;
}

mod inner {
    #[agentflow::task(name = "inner.deliver", crate = agentflow)]
    pub(super) async fn deliver() {}
}

#[node]
async fn send(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    let outgoing = Outgoing { to: "ada".to_owned() };
    task_manager.create_durable_task::<deliver>(outgoing).retry(5).spawn()?;
    task_manager.create_durable_task::<report>(()).spawn()?;
    task_manager.create_durable_task::<crate::inner::deliver>(()).spawn()?;
    task_manager.create_durable_task::<destructured>((String::new(), 3)).spawn()?;
    Ok(())
}

// Paths that only the body knows are checked when the task is spawned.
#[node]
async fn with_local_names(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    use inner::deliver as local;
    task_manager.create_durable_task::<local>(()).spawn()?;
    Ok(())
}

#[node]
async fn with_local_items(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    #[task]
    async fn inside() {}
    task_manager.create_durable_task::<inside>(()).spawn()?;
    Ok(())
}

#[node]
async fn generic<T: agentflow::task::Task<Args = ()>>(
    _state: &mut AgentState,
    task_manager: &BackgroundTaskManager,
) -> Result<(), NodeError> {
    task_manager.create_durable_task::<T>(()).spawn()?;
    Ok(())
}

fn main() {
    let app = graph! {
        send -> with_local_names -> with_local_items -> generic::<report> -> tasks -> SUB -> END;
        node tasks = send;
        graph SUB { node AGAIN = send; AGAIN -> END }
        tasks { deliver, report, inner::deliver, }
        tasks { destructured }
        compile { services: Smtp }
    };
    let text = format!("{app:?}");
    assert!(text.contains("tasks: {\"deliver\", \"destructured\", \"inner.deliver\", \"report.nightly\"}"), "{text}");
}
