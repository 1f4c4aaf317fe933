use agentflow::node;

#[node]
struct Greeter {
    greeting: String,
}

fn main() {
    let _ = Greeter { greeting: String::new() }.greeting;
}
