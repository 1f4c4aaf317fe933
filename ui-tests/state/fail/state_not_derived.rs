use agentflow::State;

#[derive(Clone)]
struct Report {
    title: String,
}

fn run<S: State>(_: S) {}

fn main() {
    run(Report { title: String::new() });
}
