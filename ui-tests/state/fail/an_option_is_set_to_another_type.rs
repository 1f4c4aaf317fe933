//! The setter of an `Option<String>` takes a string or an `Option<String>`.

use agentflow::State;

#[derive(Clone, State)]
struct Report {
    title: Option<String>,
}

fn main() {
    let _ = Report::update().title(7);
}
