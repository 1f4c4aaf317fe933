#![deny(unused_must_use)]

use agentflow::State;

#[derive(Clone, State)]
struct Report {
    title: String,
}

fn main() {
    Report::update().title("Owls");
}
