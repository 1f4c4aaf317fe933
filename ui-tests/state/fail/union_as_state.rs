use agentflow::State;

#[derive(Clone, Copy, State)]
union Report {
    title: u32,
}

fn main() {}
