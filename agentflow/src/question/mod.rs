//! Questions: a node ends its run with a question, and runs again with the answer.
//!
//! A node with the parameter `answer: Option<A>` returns [`Ask<Q, T>`](Ask): its question, or what it would return
//! otherwise. A question commits nothing of its node, and is no failure: it is neither retried nor recovered by `on_error`.
//! The node runs again with the answer, from its beginning.
//!
//! ```
//! use agentflow::{Ask, State, node};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Default, State)]
//! struct Mail {
//!     draft: String,
//!     is_approved: bool,
//! }
//!
//! #[derive(Debug, PartialEq, Serialize)]
//! struct Review {
//!     draft: String,
//! }
//!
//! #[derive(Deserialize)]
//! enum Verdict {
//!     Send,
//!     Drop,
//! }
//!
//! #[node]
//! async fn review(state: &mut Mail, answer: Option<Verdict>) -> Ask<Review> {
//!     match answer {
//!         None => return Ask::Question(Review { draft: state.draft.clone() }),
//!         Some(Verdict::Send) => state.is_approved = true,
//!         Some(Verdict::Drop) => state.draft.clear(),
//!     }
//!     Ask::Done(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // The function can be called directly.
//! let mut mail = Mail { draft: "Hello".into(), ..Mail::default() };
//! assert_eq!(review(&mut mail, None).await, Ask::Question(Review { draft: "Hello".into() }));
//! assert_eq!(review(&mut mail, Some(Verdict::Send)).await, Ask::Done(()));
//! # }
//! ```
//!
//! With the feature `schema`, the types that implement `schemars::JsonSchema` have a JSON Schema, for user interfaces.
//!
//! [`ApprovalRequest`] and [`Approval`] are a ready-made question and its answer: whether a model's tool calls may be made.

mod approval;
mod types;

use serde_json::value::RawValue;

pub use approval::{
    ActionRequest, Approval, ApprovalRequest, DecidedCall, Decision, DecisionKind, EditedAction, ReviewConfig,
    WrongApproval,
};
#[doc(hidden)]
pub use types::{Answer, AnswerType, QuestionType};
pub use types::{AnswerValue, QuestionValue};

#[cfg(feature = "schema")]
pub(crate) use types::{schema_of_read, schema_of_written};

use crate::{error::NodeError, json};

/// The result of a node that may ask: a question, or the result that it would return otherwise.
///
/// See the [module](self) for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a question is asked only if the node returns it"]
pub enum Ask<Q, T = ()> {
    /// Ends the run with a question. Nothing that the node did to the state is kept, and the node runs again with the
    /// answer.
    Question(Q),
    /// Goes on with the node's result.
    Done(T),
}

impl<Q: QuestionValue, T> Ask<Q, T> {
    /// Returns the result, or the question in the form in which a node that implements [`Node`](crate::graph::Node) by hand
    /// returns it. Such a node says in its [`INFO`](crate::graph::Node::INFO) that it asks.
    ///
    /// ```
    /// use agentflow::{AgentState, Ask, Message, NodeError, graph::{Node, NodeContext, NodeInfo}};
    ///
    /// struct Greet;
    ///
    /// impl<C: Send + Sync + 'static> Node<AgentState, C> for Greet {
    ///     type Output = ();
    ///     const INFO: NodeInfo = NodeInfo::new().asks::<&str, String>();
    ///
    ///     async fn run(&self, cx: NodeContext<'_, AgentState, C>) -> Result<(), NodeError> {
    ///         let asked = match cx.answer::<String>()? {
    ///             None => Ask::Question("What is your name?"),
    ///             Some(name) => Ask::Done(name),
    ///         };
    ///         let name = asked.into_result()?;
    ///         cx.state.context.push(Message::assistant(format!("Hello, {name}!")));
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The question, which the node passes on with `?`; or the error of a question that cannot be written as JSON without a loss.
    pub fn into_result(self) -> Result<T, NodeError> {
        match self {
            Self::Done(result) => Ok(result),
            Self::Question(question) => {
                let question = json::encode(&question)?;
                Err(AskedQuestion { question: serde_json::from_slice(&question)? }.into())
            }
        }
    }
}

/// A question on its way out of its node, as the node's error.
#[derive(Debug, thiserror::Error)]
#[error("a question, which is no failure: pass it on")]
pub(crate) struct AskedQuestion {
    pub(crate) question: Box<RawValue>,
}

/// The error of a node that asks, and whose [`INFO`](crate::graph::Node::INFO) does not say so, so that no answer could be
/// read for it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the node asked a question, and its `Node::INFO` does not say so: a node that wraps another one forwards it, \
     `const INFO: NodeInfo = N::INFO;`, and one that is written by hand has `NodeInfo::new().asks::<Q, A>()`"
)]
pub(crate) struct UndeclaredQuestion;
