use agentflow::task;

#[task(name = "")]
async fn deliver(args: String) {
    drop(args);
}

fn main() {}
