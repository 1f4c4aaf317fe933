use agentflow::Route;

#[derive(Route)]
union Step {
    one: u8,
    two: i8,
}

fn main() {
    let _ = Step { one: 1 };
}
