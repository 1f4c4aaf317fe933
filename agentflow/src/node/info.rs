//! [`NodeInfo`]: the properties of a node that a graph knows before it runs the node.

use crate::question::{AnswerType, AnswerValue, QuestionType, QuestionValue};

/// The properties of a node that a graph knows before it runs the node: whether it asks questions, whether it starts
/// background tasks, and the durable tasks that it spawns.
///
/// `#[node]` writes them. A node that is written by hand sets those that it has, and one that wraps another node forwards
/// them, or the node inside could not ask.
///
/// ```
/// use agentflow::{NodeError, State, graph::{Node, NodeContext, NodeInfo}};
///
/// struct Logged<N>(N);
///
/// impl<S: State, C: Send + Sync + 'static, N: Node<S, C>> Node<S, C> for Logged<N> {
///     type Output = N::Output;
///     const INFO: NodeInfo = N::INFO;
///
///     async fn run(&self, cx: NodeContext<'_, S, C>) -> Result<N::Output, NodeError> {
///         println!("{} runs", cx.node_name());
///         self.0.run(cx).await
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "the properties have an effect only as the `INFO` of a node"]
pub struct NodeInfo {
    pub(crate) starts_tasks: bool,
    pub(crate) asks: Option<Asks>,
    pub(crate) durable_tasks: &'static [&'static str],
}

/// The types of a node's question and answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asks {
    pub(crate) question: QuestionType,
    pub(crate) answer: AnswerType,
}

impl NodeInfo {
    /// Creates the properties of a node that neither asks nor starts tasks.
    #[allow(clippy::new_without_default, reason = "`Default::default` is no constant")]
    pub const fn new() -> Self {
        Self { starts_tasks: false, asks: None, durable_tasks: &[] }
    }

    /// States that the node starts background tasks. Pictures of the graph show it.
    pub const fn starts_tasks(self) -> Self {
        Self { starts_tasks: true, ..self }
    }

    /// States that the node spawns the durable tasks of these names, [`Task::NAME`](crate::task::Task::NAME). The graph must
    /// register them: [`compile`](crate::StateGraph::compile) reports those that it does not.
    ///
    /// `#[node]` lists the tasks that the body of the function names.
    pub const fn durable_tasks(self, names: &'static [&'static str]) -> Self {
        Self { durable_tasks: names, ..self }
    }

    /// States that the node asks questions of type `Q`, with answers of type `A`. See [`Ask::into_result`](crate::Ask::into_result).
    pub const fn asks<Q: QuestionValue, A: AnswerValue>(self) -> Self {
        self.asking(QuestionType::of::<Q>(None), AnswerType::of::<A>(None))
    }

    /// The same as [`asks`](Self::asks), with the JSON Schemas of both types.
    #[cfg(feature = "schema")]
    pub const fn asks_with_schemas<Q, A>(self) -> Self
    where
        Q: QuestionValue + schemars::JsonSchema,
        A: AnswerValue + schemars::JsonSchema,
    {
        self.asking(
            QuestionType::of::<Q>(Some(crate::question::schema_of_written::<Q>)),
            AnswerType::of::<A>(Some(crate::question::schema_of_read::<A>)),
        )
    }

    pub(crate) const fn asking(self, question: QuestionType, answer: AnswerType) -> Self {
        Self { asks: Some(Asks { question, answer }), ..self }
    }

    /// Returns the type of the question, if the node asks.
    #[doc(hidden)]
    #[must_use]
    pub const fn question(&self) -> Option<QuestionType> {
        match self.asks {
            Some(asks) => Some(asks.question),
            None => None,
        }
    }

    /// Returns the type of the answer, if the node asks.
    #[doc(hidden)]
    #[must_use]
    pub const fn answer(&self) -> Option<AnswerType> {
        match self.asks {
            Some(asks) => Some(asks.answer),
            None => None,
        }
    }
}
