use agentflow::task;

#[task]
async fn deliver(args: &str) {
    drop(args.len());
}

fn main() {}
