use std::rc::Rc;

use agentflow::Route;

#[derive(Route)]
enum Step {
    Tools(Rc<str>),
    Done,
}

fn main() {
    let _ = Step::Done;
}
