use agentflow::State;

#[derive(Clone, State)]
enum Report {
    Draft,
    Done,
}

fn run<S: State>(_: S) {}

fn main() {
    run(Report::Draft); run(Report::Done);
}
