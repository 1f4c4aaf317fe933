//! [`State`]: the data that a run passes from node to node, and its updates.

#[doc(hidden)]
pub mod generated;
mod stored;

use std::error::Error;

/// The data that a run passes from node to node. Implement it with [`#[derive(State)]`](derive@crate::State).
///
/// A node mutates the state in place (`state: &mut S`), or reads it (`state: &S`) and returns an update. Nodes in a
/// parallel group can only do the latter. When all branches have succeeded, their updates are applied in the order in
/// which the branches are written, whichever branch ended first.
///
/// If two branches replace the same field, the run fails with
/// [`RunErrorKind::Conflict`](crate::run::RunErrorKind::Conflict) and nothing of the group is merged; mark the field
/// `append` or `with` to merge instead.
///
/// ```
/// use agentflow::State;
///
/// #[derive(Clone, Default, State)]
/// struct Report {
///     title: String,
///     #[state(append)]
///     notes: Vec<String>,
/// }
///
/// let mut report = Report::default();
/// report.apply(Report::update().title("Owls").notes(["nocturnal"]));
/// report.apply(Report::update().notes(["silent", "far-sighted"]));
///
/// assert_eq!(report.title, "Owls");
/// assert_eq!(report.notes, ["nocturnal", "silent", "far-sighted"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state",
    label = "not a state",
    note = "add `#[derive(Clone, State)]` to the struct"
)]
pub trait State: Clone + Send + Sync + 'static {
    /// The type of updates, which nodes with `state: &Self` return.
    type Update: Update<State = Self>;

    /// The version of the state's form in a store.
    #[doc(hidden)]
    const VERSION: u32 = 1;

    /// Turns the JSON of an older version into that of this one.
    #[doc(hidden)]
    fn migrate(state: serde_json::Value, _from: u32) -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> {
        Ok(state)
    }

    /// Merges one update.
    fn apply(&mut self, update: Self::Update);

    /// Returns the fields that `update` changes.
    ///
    /// Two branches of a group that replace the same field are in conflict, because one of the values would be lost.
    fn changes(update: &Self::Update) -> Vec<FieldChange>;

    /// Returns the bits of the fields that `update` replaces. Two updates without a common bit replace no common field;
    /// two with one may do so, because several fields can have the same bit.
    ///
    /// The derive needs no list for it, which every join of a group would allocate for every update.
    #[doc(hidden)]
    fn replaced(update: &Self::Update) -> u64 {
        u64::from(Self::changes(update).iter().any(|change| change.replaces))
    }
}

/// A change of one field by an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldChange {
    /// The field's name.
    pub field: &'static str,
    /// `true` if the update replaces the value, `false` if it appends to it or merges into it.
    pub replaces: bool,
}

impl FieldChange {
    /// Creates a change of `field`. `replaces` is `true` if the update replaces its value.
    #[must_use]
    pub const fn new(field: &'static str, replaces: bool) -> Self {
        Self { field, replaces }
    }
}

/// A set of changes to a state. The trait distinguishes updates from the other types that a node may return.
pub trait Update: Clone + Send + Sync + 'static {
    /// The state that the update changes. It has no bound, or rustc would report a type that is no state here as well.
    type State;
}
