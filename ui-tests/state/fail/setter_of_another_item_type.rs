use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(append)]
    notes: Vec<String>,
}

fn main() {
    let _ = Report::update().notes([1, 2]);
}
