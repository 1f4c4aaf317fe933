//! Threads: conversations and cases that outlive a run, and, in a store, the process.
//!
//! A [`Thread`] is a named tree of checkpoints. Each run on it begins where the last one ended, and each step of a run is
//! committed before the next one begins. [`CompiledGraph::thread`](crate::CompiledGraph::thread) returns one. Without a store the threads are kept in
//! memory.
//!
//! ```
//! use agentflow::{AgentState, Message, RunConfig, graph, node};
//!
//! #[node]
//! async fn answer(state: &mut AgentState) {
//!     let count = state.context.len();
//!     state.context.push(Message::assistant(format!("I have {count} messages")));
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), agentflow::thread::ThreadError> {
//! let app = graph! { answer -> END };
//! let thread = app.thread("ada");
//! for text in ["hello", "and now?"] {
//!     let _ = thread.invoke(AgentState::update().context([Message::user(text)]), RunConfig::new()).await?;
//! }
//! let state = thread.state().await?.expect("the thread has a state");
//! assert_eq!(state.values.context[3].text(), "I have 3 messages");
//! # Ok(())
//! # }
//! ```

mod begin;
mod codec;
mod drive;
mod edit;
mod error;
mod handle;
mod input;
mod options;
mod outcome;
mod position;
mod progress;
mod recorder;
mod recovery;
mod snapshot;
mod threads;

pub use error::ThreadError;
pub use handle::Thread;
pub use input::{Input, IntoInput};
pub use outcome::{Outcome, Question};
pub use recovery::RecoveryReport;
pub use snapshot::ThreadState;
pub use threads::{LiveRun, Threads};

pub use crate::store::{CheckpointId, HistoryFilter, OnBusyThread, QuestionId, Source, ThreadId, ThreadStatus};

/// Returns the error for a position that this code does not know.
fn unreadable(error: String) -> ThreadError {
    ThreadError::Unreadable { error }
}
