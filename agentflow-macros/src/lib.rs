//! The macros of agentflow. Their documentation is on the re-exports in `agentflow`.

mod errors;
mod root;
mod suggest;
