mod report {
    #[derive(Clone, agentflow::State)]
    pub struct Report {
        pub title: String,
        secret: String,
    }
}

fn main() {
    let _ = report::Report::update().title("Owls").secret("no");
}
