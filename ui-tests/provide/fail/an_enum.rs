//! Services are the fields of a struct.

use agentflow::Provide;

#[derive(Provide)]
enum Services {
    Live,
    Test,
}

fn main() {}
