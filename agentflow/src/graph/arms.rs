//! [`Arms`]: the arms of a decision, for graphs that are built call by call.

use std::{fmt, sync::Arc};

use super::endpoint::EdgeTarget;
use crate::{
    carried::{Input, InputType, Slot},
    error::{NoRoute, NodeError},
};

/// The arms of a decision on a route of type `R`. The first arm that accepts the route is taken.
///
/// A list of pairs converts into arms for routes that can be compared: `[(true, "AGAIN".into()), (false, END.into())]`.
///
/// ```
/// use agentflow::{END, Route, graph::Arms};
///
/// #[derive(Debug, Route)]
/// enum Step {
///     Tools(Vec<String>),
///     Done,
/// }
///
/// let arms: Arms<Step> = Arms::new()
///     // The run continues at `TOOLS`, whose `input` is the list.
///     .carry("Step::Tools", "TOOLS", |step| match step {
///         Step::Tools(calls) => Ok(calls),
///         other => Err(other),
///     })
///     .to("Step::Done", END, |step| matches!(step, Step::Done));
/// # let _ = arms;
/// ```
#[must_use = "arms do nothing until they are added to a graph"]
pub struct Arms<R> {
    list: Vec<Arm<R>>,
    /// Formats a route that no arm accepts.
    text: fn(&R) -> String,
    duplicates: Vec<Arc<str>>,
}

/// The label, the target and the value of an arm.
pub(crate) struct ArmDeclaration {
    pub(crate) label: Arc<str>,
    pub(crate) to: EdgeTarget,
    /// The type of the value that the arm carries, if it carries one.
    pub(crate) carries: Option<InputType>,
}

struct Arm<R> {
    declaration: ArmDeclaration,
    accept: Accept<R>,
}

/// Accepts a route, with the value that the edge carries, or returns it for the next arm.
type Accept<R> = Box<dyn Fn(R) -> Result<Option<Input>, R> + Send + Sync>;

impl<R: 'static> Arms<R> {
    /// Creates a decision without arms.
    #[allow(
        clippy::new_without_default,
        reason = "a decision without arms does not compile, so it is no useful default"
    )]
    pub fn new() -> Self {
        Self { list: Vec::new(), text: |_| std::any::type_name::<R>().to_owned(), duplicates: Vec::new() }
    }

    /// Adds an arm for the routes that `accepts` returns `true` for. The label names it in events and pictures.
    pub fn to(
        self,
        label: impl Into<Arc<str>>,
        to: impl Into<EdgeTarget>,
        accepts: impl Fn(&R) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.arm(
            label.into(),
            to.into(),
            None,
            Box::new(move |route| if accepts(&route) { Ok(None) } else { Err(route) }),
        )
    }

    /// Adds an arm whose edge carries a value: the `input` of the node that it leads to. `accept` returns the value, or the
    /// route if the arm is for others.
    pub fn carry<T: Send + Sync + 'static>(
        self,
        label: impl Into<Arc<str>>,
        to: impl Into<EdgeTarget>,
        accept: impl Fn(R) -> Result<T, R> + Send + Sync + 'static,
    ) -> Self {
        let accept = Box::new(move |route| accept(route).map(|value| Some(Input::new(value))));
        self.arm(label.into(), to.into(), Some(InputType::of::<T>()), accept)
    }

    fn arm(mut self, label: Arc<str>, to: EdgeTarget, carries: Option<InputType>, accept: Accept<R>) -> Self {
        self.list.push(Arm { declaration: ArmDeclaration { label, to, carries }, accept });
        self
    }

    /// Splits the arms into the choice between them, their declarations, and the labels of the arms that are never taken.
    pub(super) fn into_parts(self) -> (Choice<R>, Vec<ArmDeclaration>, Vec<Arc<str>>) {
        let (declared, accept) = self.list.into_iter().map(|arm| (arm.declaration, arm.accept)).unzip();
        (Choice { accept, text: self.text }, declared, self.duplicates)
    }
}

/// The choice of an arm by a route.
pub(super) struct Choice<R> {
    accept: Vec<Accept<R>>,
    text: fn(&R) -> String,
}

impl<R> Choice<R> {
    /// Returns the index of the first arm that accepts the route. The value that it carries goes into the slot.
    pub(super) fn choose(&self, mut route: R, slot: &Slot) -> Result<usize, NodeError> {
        for (index, accept) in self.accept.iter().enumerate() {
            match accept(route) {
                Ok(value) => {
                    if let Some(value) = value {
                        slot.put(value);
                    }
                    return Ok(index);
                }
                Err(other) => route = other,
            }
        }
        Err(NoRoute { route: (self.text)(&route).into() }.into())
    }
}

impl<R, L> From<L> for Arms<R>
where
    R: PartialEq + fmt::Debug + Send + Sync + 'static,
    L: IntoIterator<Item = (R, EdgeTarget)>,
{
    fn from(pairs: L) -> Self {
        let mut arms = Self { text: |route| format!("{route:?}"), ..Self::new() };
        let mut routes: Vec<Arc<R>> = Vec::new();
        for (route, to) in pairs {
            let label: Arc<str> = format!("{route:?}").into();
            let route = Arc::new(route);
            if routes.contains(&route) {
                arms.duplicates.push(Arc::clone(&label));
            }
            routes.push(Arc::clone(&route));
            arms = arms.to(label, to, move |other| *other == *route);
        }
        arms
    }
}

impl<R> fmt::Debug for Arms<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|arm| &arm.declaration.label)).finish()
    }
}
