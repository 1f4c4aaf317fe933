use agentflow::{NodeError, task};

#[task]
async fn deliver(args: String) -> Result<usize, NodeError> {
    Ok(args.len())
}

fn main() {}
