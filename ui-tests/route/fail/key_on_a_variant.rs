use agentflow::Route;

#[derive(Route)]
enum Step {
    #[route(crate = ::agentflow)]
    Tools,
    Done,
}

fn main() {
    let _ = (Step::Tools, Step::Done);
}
