use agentflow::task;

struct Failed;

#[task]
async fn deliver(args: String) -> Result<(), Failed> {
    drop(args);
    Err(Failed)
}

fn main() {}
