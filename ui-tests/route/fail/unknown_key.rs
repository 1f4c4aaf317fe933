use agentflow::Route;

#[derive(Route)]
#[route(krate = ::agentflow)]
enum Step {
    Tools,
    Done,
}

fn main() {
    let _ = (Step::Tools, Step::Done);
}
