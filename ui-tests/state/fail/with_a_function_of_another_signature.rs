use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(with = longest)]
    summary: String,
}

fn longest(old: String, new: String) -> String {
    if new.len() > old.len() { new } else { old }
}

fn main() {}
