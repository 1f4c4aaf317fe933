//! A node finds a service by its type: two of one type cannot be distinguished.

use agentflow::Provide;

struct Db;

#[derive(Provide)]
struct Services {
    primary: Db,
    replica: Db,
}

fn main() {}
