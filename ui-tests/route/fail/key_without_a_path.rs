use agentflow::Route;

#[derive(Route)]
#[route(crate)]
enum Step {
    Tools,
    Done,
}

fn main() {
    let _ = (Step::Tools, Step::Done);
}
