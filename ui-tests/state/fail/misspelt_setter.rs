use agentflow::State;

#[derive(Clone, State)]
struct Report {
    title: String,
}

fn main() {
    let _ = Report::update().titel("Owls");
}
