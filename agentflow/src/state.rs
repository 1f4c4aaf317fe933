//! [`State`]: what a run carries from node to node, and how updates change it.

/// What a run carries from node to node. Implement it with [`#[derive(State)]`](derive@crate::State).
///
/// A node changes the state in place (`state: &mut S`), or reads it (`state: &S`) and returns an update. Nodes that
/// run side by side can only do the latter: each update is then applied in the order in which the nodes are written,
/// whichever was done first.
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
    /// Changes to the state, as a node that takes `&Self` returns them.
    type Update: Update<State = Self>;

    /// Merges one update.
    fn apply(&mut self, update: Self::Update);

    /// The fields that `update` changes, and how.
    ///
    /// Two nodes that run side by side and replace one field are in conflict: one of the values would be lost.
    fn changes(update: &Self::Update) -> Vec<FieldChange>;
}

/// One field that an update changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldChange {
    /// The field's name.
    pub field: &'static str,
    /// Whether the value is replaced, as against appended to or merged into.
    pub replaces: bool,
}

impl FieldChange {
    /// A change to `field`; `replaces` says whether it takes the place of the value.
    #[must_use]
    pub const fn new(field: &'static str, replaces: bool) -> Self {
        Self { field, replaces }
    }
}

/// Changes to a state: what tells an update from the other things that a node may return.
pub trait Update: Clone + Send + Sync + 'static {
    /// The state that it changes. It has no bound: a state that lacks one would be complained about once more here.
    type State;
}

/// What the code that `#[derive(State)]` makes is built from.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "an update names the fields that it changes, not their values")]
pub mod generated {
    use std::fmt;

    pub use super::FieldChange;
    use crate::message::{Message, merge_by_id};

    /// A new value, if there is one.
    #[derive(Clone)]
    pub struct Replace<T>(Option<T>);

    /// Items to append, if there are any.
    #[derive(Clone)]
    pub struct Append<T>(Option<T>);

    /// Values to merge one by one, so that nothing is asked of the function that merges them.
    #[derive(Clone)]
    pub struct With<T>(Vec<T>);

    /// What a state asks of a field's type: it is cloned for the branches of a group, and moves from thread to
    /// thread.
    pub trait Field: Clone + Send + Sync + 'static {}

    #[diagnostic::do_not_recommend]
    impl<T: Clone + Send + Sync + 'static> Field for T {}

    /// What `#[state(append)]` asks of a field's type.
    #[diagnostic::on_unimplemented(
        message = "nothing can be appended to `{Self}`",
        label = "not a collection",
        note = "`#[state(append)]` is for collections: types that are `IntoIterator + Extend + Default`"
    )]
    pub trait Collection: IntoIterator + Extend<<Self as IntoIterator>::Item> + Default {}

    #[diagnostic::do_not_recommend]
    impl<T: IntoIterator + Extend<T::Item> + Default> Collection for T {}

    /// The bound of `#[state(messages)]` on a field's type.
    #[diagnostic::on_unimplemented(
        message = "messages cannot be merged into `{Self}`",
        label = "not a `Vec<Message>`",
        note = "`#[state(messages)]` is for fields of type `Vec<Message>`"
    )]
    pub trait Messages: Sized {
        fn merge(&mut self, new: Self);
    }

    #[diagnostic::do_not_recommend]
    impl Messages for Vec<Message> {
        fn merge(&mut self, new: Self) {
            merge_by_id(self, new);
        }
    }

    /// A value for a field of type `Option<T>`: what converts into a `T`, or an `Option<T>`. `Given` tells the two
    /// apart and is inferred.
    #[diagnostic::on_unimplemented(
        message = "a field of type `Option<{T}>` cannot be set to `{Self}`",
        label = "neither a `{T}` nor an `Option<{T}>`"
    )]
    pub trait IntoOption<T, Given> {
        fn into_option(self) -> Option<T>;
    }

    /// Marks a value that converts into the `T` of an `Option<T>`.
    #[derive(Debug)]
    pub struct GivenValue;

    /// Marks an `Option<T>`.
    #[derive(Debug)]
    pub struct GivenOption;

    #[diagnostic::do_not_recommend]
    impl<T, U: Into<T>> IntoOption<T, GivenValue> for U {
        fn into_option(self) -> Option<T> {
            Some(self.into())
        }
    }

    #[diagnostic::do_not_recommend]
    impl<T> IntoOption<T, GivenOption> for Option<T> {
        fn into_option(self) -> Option<T> {
            self
        }
    }

    impl<T> Replace<Option<T>> {
        pub fn set_option<Given>(&mut self, value: impl IntoOption<T, Given>) {
            self.0 = Some(value.into_option());
        }
    }

    impl<T> With<Option<T>> {
        pub fn set_option<Given>(&mut self, value: impl IntoOption<T, Given>) {
            self.0.push(value.into_option());
        }
    }

    impl<T: IntoIterator + FromIterator<T::Item>> Replace<T> {
        pub fn set_items(&mut self, items: impl IntoIterator<Item: Into<T::Item>>) {
            self.0 = Some(items.into_iter().map(Into::into).collect());
        }
    }

    impl<T: IntoIterator + FromIterator<T::Item>> With<T> {
        pub fn set_items(&mut self, items: impl IntoIterator<Item: Into<T::Item>>) {
            self.0.push(items.into_iter().map(Into::into).collect());
        }
    }

    impl<T> Default for Replace<T> {
        fn default() -> Self {
            Self(None)
        }
    }

    impl<T> Default for Append<T> {
        fn default() -> Self {
            Self(None)
        }
    }

    impl<T> Default for With<T> {
        fn default() -> Self {
            Self(Vec::new())
        }
    }

    impl<T> Replace<T> {
        pub fn set(&mut self, value: impl Into<T>) {
            self.0 = Some(value.into());
        }

        pub fn apply(self, field: &mut T) {
            if let Some(value) = self.0 {
                *field = value;
            }
        }

        #[must_use]
        pub fn is_set(&self) -> bool {
            self.0.is_some()
        }
    }

    impl<T> Append<T> {
        pub fn set(&mut self, items: impl IntoIterator<Item: Into<T::Item>>)
        where
            T: Collection,
        {
            self.0.get_or_insert_default().extend(items.into_iter().map(Into::into));
        }

        pub fn apply(self, field: &mut T)
        where
            T: Collection,
        {
            if let Some(items) = self.0 {
                field.extend(items);
            }
        }

        #[must_use]
        pub fn is_set(&self) -> bool {
            self.0.is_some()
        }
    }

    impl<T> With<T> {
        pub fn set(&mut self, value: impl Into<T>) {
            self.0.push(value.into());
        }

        pub fn apply(self, field: &mut T, merge: fn(&mut T, T)) {
            for value in self.0 {
                merge(field, value);
            }
        }

        #[must_use]
        pub fn is_set(&self) -> bool {
            !self.0.is_empty()
        }
    }

    /// The fields that are set.
    #[must_use]
    pub fn changes(fields: &[(FieldChange, bool)]) -> Vec<FieldChange> {
        let mut changes = Vec::new();
        for (FieldChange { field, replaces }, is_set) in fields {
            if *is_set {
                changes.push(FieldChange { field, replaces: *replaces });
            }
        }
        changes
    }

    /// `ReportUpdate { title: .., notes: .. }`: the values need not be `Debug`.
    pub fn debug(f: &mut fmt::Formatter<'_>, update: &str, fields: &[(&'static str, bool)]) -> fmt::Result {
        let mut debug = f.debug_struct(update);
        for (name, _) in fields.iter().filter(|(_, is_set)| *is_set) {
            debug.field(name, &format_args!(".."));
        }
        debug.finish()
    }
}
