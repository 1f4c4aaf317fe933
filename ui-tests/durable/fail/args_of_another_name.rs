use agentflow::task;

#[task]
async fn deliver(mail: String) {
    drop(mail);
}

fn main() {}
