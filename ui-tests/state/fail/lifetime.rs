use agentflow::State;

#[derive(Clone, State)]
struct Report<'a> {
    title: &'a str,
}

fn run<S: State>(_: S) {}

fn main() {
    run(Report { title: "Owls" });
    let _ = Report::update().title("Owls");
}
