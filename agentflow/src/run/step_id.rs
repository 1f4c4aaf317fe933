//! [`StepId`]: the identity of one step of a run.

use std::{fmt, sync::Arc};

use crate::run_id::RunId;

/// The identity of one step of a run: the same in every execution of the step, also after a failed attempt, a crash, an
/// answer or a resume. It is an idempotency key for the APIs that a node calls.
///
/// It is displayed as `RUN/NUMBER/NODE`: the run that first reached the step, the number of the step in that run, and the
/// node's name, in a branch with the number of the visit: `SEARCH[17]#1`.
///
/// ```
/// use agentflow::{AgentState, Message, RunConfig, graph, graph::{Node, NodeContext}, NodeError};
///
/// struct Charge;
///
/// impl<C: Send + Sync + 'static> Node<AgentState, C> for Charge {
///     type Output = ();
///
///     async fn run(&self, cx: NodeContext<'_, AgentState, C>) -> Result<(), NodeError> {
///         let key = cx.step().to_string();
///         cx.state.context.push(Message::assistant(key));
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), agentflow::RunError> {
/// let app = graph! { node CHARGE = (Charge); CHARGE -> END };
/// let state = app.invoke(AgentState::default(), RunConfig::new()).await?;
/// assert!(state.context[0].text().ends_with("/1/CHARGE"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StepId {
    run: RunId,
    number: u64,
    path: Arc<str>,
    epoch: u64,
}

impl StepId {
    pub(crate) fn new(run: RunId, number: u64, path: Arc<str>, epoch: u64) -> Self {
        Self { run, number, path, epoch }
    }

    /// Returns the run that first reached the step.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Returns the number of the step in that run, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the number of owners that the run has had, from 1: a token that fences off a former owner, for APIs that
    /// take one. It is zero without a thread.
    ///
    /// It is not a part of the identity that is displayed.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, number, path, .. } = self;
        write!(f, "{run}/{number}/{path}")
    }
}
