use agentflow::Route;

#[derive(Route)]
enum Step<'a> {
    Tools(&'a str),
    Done,
}

fn main() {
    let _ = Step::Done;
}
