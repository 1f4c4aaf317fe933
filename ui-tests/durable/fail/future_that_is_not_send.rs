use std::rc::Rc;

use agentflow::task;

#[task]
async fn deliver(args: String) {
    let local = Rc::new(args);
    std::future::ready(()).await;
    drop(local);
}

fn main() {}
