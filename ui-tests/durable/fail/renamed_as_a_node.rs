use agentflow::task;

#[task(DELIVER)]
async fn deliver(args: String) {
    drop(args);
}

fn main() {}
