use agentflow::task;

#[task]
async fn deliver(args: String, attempt: usize) {
    drop((args, attempt));
}

fn main() {}
