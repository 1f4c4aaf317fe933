use agentflow::task;

#[task]
async fn deliver(args: String, atempt: u32) {
    drop((args, atempt));
}

fn main() {}
