use agentflow::State;

#[derive(Clone, Default, State)]
#[state(krate = agentflow)]
struct Report<T: Clone> {
    #[state(apend)]
    notes: Vec<String>,
    #[state(with)]
    summary: String,
    #[state(append, append)]
    pages: Vec<T>,
}

// The mistakes are above; the uses of the state add none.
fn run<S: State>(_: S, _: S::Update) {}

fn main() {
    let update = Report::update().notes(["a"]).summary("b").pages([1, 2]);
    run(Report::<u32>::default(), update.clone());
}
