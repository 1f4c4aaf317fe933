use agentflow::task;

struct Smtp;

impl Smtp {
    #[task]
    async fn deliver(&self, args: String) {
        drop(args);
    }
}

fn main() {}
