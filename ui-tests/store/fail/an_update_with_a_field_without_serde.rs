use agentflow::State;

#[derive(Clone)]
struct Socket;

#[derive(Clone, State)]
struct Mail {
    to: String,
    socket: Socket,
}

fn main() {
    let _ = serde_json::to_string(&Mail::update().to("ada"));
}
