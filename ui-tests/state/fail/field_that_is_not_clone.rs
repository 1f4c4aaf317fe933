use agentflow::State;

struct Database;

#[derive(Clone, State)]
struct Report {
    database: Database,
}

fn main() {}
