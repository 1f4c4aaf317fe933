use std::rc::Rc;

use agentflow::State;

#[derive(Clone, State)]
struct Report {
    title: Rc<str>,
}

fn main() {}
