use agentflow::Route;

#[derive(Route)]
struct Step;

fn main() {
    let _ = Step;
}
