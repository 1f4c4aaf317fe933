//! [`ApprovalRequest`] and [`Approval`]: a question whether tool calls may be made, in the form for which user interfaces
//! have buttons.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::{ToolCall, ToolResult};

/// A question whether a model's tool calls may be made. Its JSON is the one for which user interfaces of agents draw
/// buttons.
///
/// ```
/// use agentflow::{
///     AgentState, Ask, Message, NodeError, message::{Content, Role, ToolCall}, node,
///     question::{Approval, ApprovalRequest, DecidedCall, Decision, DecisionKind},
/// };
/// use serde_json::json;
///
/// #[node]
/// async fn approve(state: &mut AgentState, answer: Option<Approval>) -> Result<Ask<ApprovalRequest>, NodeError> {
///     let Some(last) = state.context.last() else { return Ok(Ask::Done(())) };
///     let calls: Vec<ToolCall> = last.tool_calls().cloned().collect();
///     // A transfer is made as it was asked for, or not at all.
///     let request = ApprovalRequest::of_calls(&calls).allow("transfer", [DecisionKind::Approve, DecisionKind::Reject]);
///     let Some(approval) = answer else { return Ok(Ask::Question(request)) };
///     for decided in request.decide(calls, approval)? {
///         match decided {
///             DecidedCall::Approved(call) => println!("calling {}", call.name),
///             DecidedCall::Rejected(result) => {
///                 state.context.push(Message::new(Role::Tool, [Content::ToolResult(result)]));
///             }
///         }
///     }
///     Ok(Ask::Done(()))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), NodeError> {
/// let call = ToolCall::new("call-1", "transfer", json!({ "amount": 100 }));
/// let mut state = AgentState::default();
/// state.context.push(Message::assistant("").with_content(call));
/// let Ask::Question(asked) = approve(&mut state, None).await? else { panic!("no question") };
/// assert_eq!(asked.action_requests[0].args["amount"], 100);
///
/// let rejected = Approval::from([Decision::Reject { message: Some("too much".into()) }]);
/// approve(&mut state, Some(rejected)).await?;
/// assert_eq!(state.context.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ApprovalRequest {
    /// The actions, each of which gets a decision.
    pub action_requests: Vec<ActionRequest>,
    /// The decisions that each kind of action may get.
    #[serde(default)]
    pub review_configs: Vec<ReviewConfig>,
}

/// An action that needs a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ActionRequest {
    /// The name of the action, such as that of a tool.
    pub name: String,
    /// The arguments.
    #[serde(default)]
    pub args: Value,
    /// A text for the person who decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// The decisions that a kind of action may get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ReviewConfig {
    /// The name of the action.
    pub action_name: String,
    /// The decisions that are allowed.
    pub allowed_decisions: Vec<DecisionKind>,
    /// The JSON Schema of the arguments, for an editor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args_schema: Option<Value>,
}

/// A kind of decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DecisionKind {
    /// See [`Decision::Approve`].
    Approve,
    /// See [`Decision::Edit`].
    Edit,
    /// See [`Decision::Reject`].
    Reject,
}

/// The answer to an [`ApprovalRequest`]: one decision for each action, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Approval {
    /// The decisions.
    pub decisions: Vec<Decision>,
}

impl<D: IntoIterator<Item = Decision>> From<D> for Approval {
    fn from(decisions: D) -> Self {
        Self { decisions: decisions.into_iter().collect() }
    }
}

/// The decision on one action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decision {
    /// The action is done as it was requested.
    Approve,
    /// The action is done with another name or other arguments.
    Edit {
        /// The action to do instead.
        edited_action: EditedAction,
    },
    /// The action is not done.
    Reject {
        /// The reason, for the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

/// The action that a person wrote in the place of the requested one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EditedAction {
    /// The name of the action.
    pub name: String,
    /// The arguments.
    #[serde(default)]
    pub args: Value,
}

/// A tool call with the decision on it.
#[derive(Clone, Debug, PartialEq)]
pub enum DecidedCall {
    /// The call may be made. Its name and arguments are those of the person, if the call was edited.
    Approved(ToolCall),
    /// The call may not be made. The result tells the model so.
    Rejected(ToolResult),
}

/// The error of an [`Approval`] that does not fit its request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrongApproval {
    /// The number of decisions is not that of the actions.
    #[error("there are {decisions} decisions on {actions} actions")]
    #[non_exhaustive]
    Count {
        /// The number of actions.
        actions: usize,
        /// The number of decisions.
        decisions: usize,
    },
    /// The action may not get this kind of decision.
    #[error("the action `{action}` may not get the decision {decision:?}")]
    #[non_exhaustive]
    NotAllowed {
        /// The name of the action.
        action: String,
        /// The decision.
        decision: DecisionKind,
    },
}

impl Decision {
    /// Returns the kind of the decision.
    #[must_use]
    pub fn kind(&self) -> DecisionKind {
        match self {
            Self::Approve => DecisionKind::Approve,
            Self::Edit { .. } => DecisionKind::Edit,
            Self::Reject { .. } => DecisionKind::Reject,
        }
    }
}

impl ApprovalRequest {
    /// Creates the question whether these calls may be made. Every decision is allowed on each.
    pub fn of_calls<'c>(calls: impl IntoIterator<Item = &'c ToolCall>) -> Self {
        let request = |call: &ToolCall| ActionRequest {
            name: call.name.clone(),
            args: call.arguments.clone(),
            description: None,
        };
        let action_requests: Vec<_> = calls.into_iter().map(request).collect();
        let mut seen = HashSet::new();
        let names = action_requests.iter().map(|action| &action.name).filter(|name| seen.insert(*name));
        let config = |name: &String| ReviewConfig {
            action_name: name.clone(),
            allowed_decisions: vec![DecisionKind::Approve, DecisionKind::Edit, DecisionKind::Reject],
            args_schema: None,
        };
        let review_configs = names.map(config).collect();
        Self { action_requests, review_configs }
    }

    /// Allows only these decisions on the actions of this name.
    #[must_use]
    pub fn allow(mut self, action: &str, decisions: impl IntoIterator<Item = DecisionKind>) -> Self {
        if let Some(config) = self.review_configs.iter_mut().find(|config| config.action_name == action) {
            config.allowed_decisions = decisions.into_iter().collect();
        }
        self
    }

    /// Sets the text that describes the actions of this name to the person who decides.
    #[must_use]
    pub fn describe(mut self, action: &str, description: impl Into<String>) -> Self {
        let description = description.into();
        for request in self.action_requests.iter_mut().filter(|request| request.name == action) {
            request.description = Some(description.clone());
        }
        self
    }

    /// Takes the decisions on the calls that the request was made of.
    ///
    /// # Errors
    ///
    /// If the number of decisions is another than that of the actions, or a decision is not allowed. An edit that gives a
    /// call the name of another tool needs that tool's permission for an edit too.
    pub fn decide(
        &self,
        calls: impl IntoIterator<Item = ToolCall>,
        approval: Approval,
    ) -> Result<Vec<DecidedCall>, WrongApproval> {
        let calls: Vec<_> = calls.into_iter().collect();
        let (actions, decisions) = (calls.len(), approval.decisions.len());
        if actions != decisions {
            return Err(WrongApproval::Count { actions, decisions });
        }
        calls.into_iter().zip(approval.decisions).map(|(call, decision)| self.decide_call(call, decision)).collect()
    }

    fn decide_call(&self, call: ToolCall, decision: Decision) -> Result<DecidedCall, WrongApproval> {
        self.check(&call.name, decision.kind())?;
        Ok(match decision {
            Decision::Approve => DecidedCall::Approved(call),
            Decision::Edit { edited_action: EditedAction { name, args } } => {
                self.check(&name, DecisionKind::Edit)?;
                DecidedCall::Approved(ToolCall { id: call.id, name, arguments: args })
            }
            Decision::Reject { message } => {
                let message = message.unwrap_or_else(|| format!("a person rejected the call of `{}`", call.name));
                DecidedCall::Rejected(ToolResult { is_error: true, ..ToolResult::new(call.id, message) })
            }
        })
    }

    /// Fails if the action may not get the decision. An action that is not in the request may get none.
    fn check(&self, action: &str, decision: DecisionKind) -> Result<(), WrongApproval> {
        let config = self.review_configs.iter().find(|config| config.action_name == action);
        if config.is_some_and(|config| config.allowed_decisions.contains(&decision)) {
            return Ok(());
        }
        Err(WrongApproval::NotAllowed { action: action.to_owned(), decision })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    fn calls() -> Vec<ToolCall> {
        vec![
            ToolCall::new("1", "mail", json!({ "to": "ada" })),
            ToolCall::new("2", "mail", json!({ "to": "bob" })),
            ToolCall::new("3", "pay", json!({ "amount": 5 })),
        ]
    }

    fn edit(name: &str, args: Value) -> Decision {
        Decision::Edit { edited_action: EditedAction { name: name.to_owned(), args } }
    }

    #[test]
    fn a_request_has_the_form_that_user_interfaces_know() {
        let request = ApprovalRequest::of_calls(&calls())
            .allow("pay", [DecisionKind::Approve, DecisionKind::Reject])
            .describe("pay", "Pays from the shared account.");
        let json = json!({
            "action_requests": [
                { "name": "mail", "args": { "to": "ada" } },
                { "name": "mail", "args": { "to": "bob" } },
                { "name": "pay", "args": { "amount": 5 }, "description": "Pays from the shared account." },
            ],
            "review_configs": [
                { "action_name": "mail", "allowed_decisions": ["approve", "edit", "reject"] },
                { "action_name": "pay", "allowed_decisions": ["approve", "reject"] },
            ],
        });
        assert_eq!(to_value(&request).expect("JSON"), json);
        assert_eq!(from_value::<ApprovalRequest>(json).expect("a request"), request);
    }

    #[test]
    fn an_answer_has_the_form_that_user_interfaces_send() {
        let json = json!({ "decisions": [
            { "type": "approve" },
            { "type": "edit", "edited_action": { "name": "mail", "args": { "to": "eve" } } },
            { "type": "reject", "message": "too much" },
            { "type": "reject" },
        ] });
        let approval = Approval::from([
            Decision::Approve,
            edit("mail", json!({ "to": "eve" })),
            Decision::Reject { message: Some("too much".to_owned()) },
            Decision::Reject { message: None },
        ]);
        assert_eq!(to_value(&approval).expect("JSON"), json);
        assert_eq!(from_value::<Approval>(json).expect("an approval"), approval);
        assert!(from_value::<Approval>(json!({ "decisions": [{ "type": "ignore" }] })).is_err());
    }

    #[test]
    fn each_call_gets_its_decision() {
        let approval = Approval::from([
            Decision::Approve,
            edit("mail", json!({ "to": "eve" })),
            Decision::Reject { message: None },
        ]);
        let decided = ApprovalRequest::of_calls(&calls()).decide(calls(), approval).expect("the decisions fit");
        let text = "a person rejected the call of `pay`";
        assert_eq!(
            decided,
            [
                DecidedCall::Approved(calls()[0].clone()),
                DecidedCall::Approved(ToolCall::new("2", "mail", json!({ "to": "eve" }))),
                DecidedCall::Rejected(ToolResult { is_error: true, ..ToolResult::new("3", text) }),
            ]
        );
    }

    #[test]
    fn a_decision_that_was_not_offered_is_refused() {
        let request = ApprovalRequest::of_calls(&calls()).allow("pay", [DecisionKind::Approve]);
        let decide = |decision: Decision| {
            let approval = Approval::from([Decision::Approve, decision, Decision::Approve]);
            request.decide(calls(), approval).map_err(|error| error.to_string())
        };
        assert_eq!(decide(edit("pay", json!({}))), Err("the action `pay` may not get the decision Edit".to_owned()));
        assert_eq!(decide(edit("sh", json!({}))), Err("the action `sh` may not get the decision Edit".to_owned()));
        assert!(decide(Decision::Reject { message: None }).is_ok());
        let few = request.decide(calls(), Approval::from([Decision::Approve]));
        assert_eq!(few, Err(WrongApproval::Count { actions: 3, decisions: 1 }));
    }
}
