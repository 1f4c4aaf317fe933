use agentflow::State;

#[derive(Clone, State)]
struct Report(String, Vec<String>);

fn run<S: State>(_: S) {}

fn main() {
    run(Report(String::new(), vec![]));
}
