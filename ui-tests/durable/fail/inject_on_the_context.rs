use agentflow::{task, task::DurableTaskContext};

#[task]
async fn deliver(#[inject] task: &DurableTaskContext) {
    let _ = task.id();
}

fn main() {}
