//! [`Input`] and [`Slot`]: a value on its way along an edge to the next node. [`ItemList`]: the items of an `each`.

use std::{
    any::{Any, TypeId, type_name},
    collections::VecDeque,
    fmt,
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{DecodeError, EncodeError},
    json,
    panics::catch_panic,
    sync::Mutex,
};

/// A value that an edge carries, without its type. The type is checked when the graph is built.
pub(crate) type Carried = dyn Any + Send + Sync;

/// The value that an edge brought to a step, for all attempts of it. Clones share the value.
#[doc(hidden)]
#[derive(Clone)]
pub struct Input(Option<Arc<Carried>>);

impl Input {
    pub(crate) fn new<T: Send + Sync + 'static>(value: T) -> Self {
        Self(Some(Arc::new(value)))
    }

    pub(crate) fn value(&self) -> Option<&Carried> {
        self.0.as_deref()
    }
}

/// The destructor of the value is user code and may panic.
impl Drop for Input {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            catch_panic(|| drop(value));
        }
    }
}

/// The items of an `each`. An item is boxed when its branch begins, because the allocator is slower with many boxes at
/// once than with one after the other.
#[doc(hidden)]
pub struct ItemList(Box<dyn Items>);

impl Iterator for ItemList {
    type Item = Input;

    #[inline]
    fn next(&mut self) -> Option<Input> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.0.len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for ItemList {}

/// The object-safe form of [`TypedItems`].
trait Items: Send {
    fn next(&mut self) -> Option<Input>;

    fn len(&self) -> usize;
}

/// The items of an `each`, with their type.
#[doc(hidden)]
pub struct TypedItems<I>(VecDeque<I>);

impl<I> TypedItems<I> {
    /// Collects the items; `None` if there are more than `limit`.
    pub(crate) fn collect(mut items: impl Iterator<Item = I>, limit: usize) -> Option<Self> {
        let mut collected = Self(VecDeque::new());
        collected.0.extend(items.by_ref().take(limit));
        items.next().is_none().then_some(collected)
    }
}

impl<I: Send + Sync + 'static> TypedItems<I> {
    pub(crate) fn erase(self) -> ItemList {
        ItemList(Box::new(self))
    }
}

impl<I: Send + Sync + 'static> Items for TypedItems<I> {
    fn next(&mut self) -> Option<Input> {
        self.0.pop_front().map(Input::new)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// The destructor of an item is user code and may panic.
impl<I> Drop for TypedItems<I> {
    fn drop(&mut self) {
        while let Some(item) = self.0.pop_front() {
            catch_panic(|| drop(item));
        }
    }
}

/// The type of the value that a node takes as input.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct InputType {
    id: TypeId,
    pub(crate) name: &'static str,
    /// Writes and reads the value, in a graph with a store.
    pub(crate) codec: Option<InputCodec>,
}

/// The functions that write and read a value that an edge carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InputCodec {
    pub(crate) encode: fn(&Carried) -> Result<Vec<u8>, EncodeError>,
    pub(crate) decode: fn(&[u8]) -> Result<Input, DecodeError>,
}

impl InputCodec {
    fn of<I: Serialize + DeserializeOwned + Send + Sync + 'static>() -> Self {
        Self {
            // The checks of the graph exclude a value of another type.
            encode: |value| value.downcast_ref::<I>().map_or_else(|| json::encode(&()), json::encode),
            decode: |json| json::decode::<I>(json).map(Input::new),
        }
    }
}

impl InputType {
    pub(crate) fn of<I: 'static>() -> Self {
        Self { id: TypeId::of::<I>(), name: type_name::<I>(), codec: None }
    }

    /// Returns the type of a value that a store keeps.
    pub(crate) fn stored<I: Serialize + DeserializeOwned + Send + Sync + 'static>() -> Self {
        Self { codec: Some(InputCodec::of::<I>()), ..Self::of::<I>() }
    }

    /// Returns the name of the type without the paths in it, for pictures and events: `Vec<Call>`.
    pub(crate) fn short_name(&self) -> String {
        let mut short = String::new();
        for character in self.name.chars() {
            short.push(character);
            if short.ends_with("::") {
                // A path begins where a delimiter ends. The path of a type inside an async function has `{{closure}}` in it.
                let path = short.trim_end_matches(|last: char| !" <>()[],;&*=+".contains(last));
                short.truncate(path.len());
            }
        }
        short
    }

    /// Returns whether this is the type of a node that takes no value.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::of::<()>()
    }
}

impl PartialEq for InputType {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// The place where a decision puts the value that the chosen edge carries, for the walk that follows the edge.
#[doc(hidden)]
#[derive(Default)]
pub struct Slot(Mutex<Option<Input>>);

impl Slot {
    pub(crate) fn put(&self, value: Input) {
        // The value of an attempt whose decision failed is dropped outside the lock.
        let before = self.0.lock().replace(value);
        drop(before);
    }

    pub(crate) fn take(&self) -> Option<Input> {
        self.0.lock().take()
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Input").finish_non_exhaustive()
    }
}

impl fmt::Debug for ItemList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemList").field("len", &self.0.len()).finish()
    }
}

impl<I> fmt::Debug for TypedItems<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedItems").field("len", &self.0.len()).finish()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").finish_non_exhaustive()
    }
}

/// Returns the input of a node that takes an `I`: the carried value, or `()`. Returns `None` if the value has another
/// type, which the checks of the graph exclude.
pub(crate) fn input_of<I: 'static>(carried: Option<&Carried>) -> Option<&I> {
    if let Some(value) = carried {
        return value.downcast_ref();
    }
    let nothing: &'static Carried = &();
    nothing.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_has_no_paths() {
        assert_eq!(InputType::of::<Vec<Option<String>>>().short_name(), "Vec<Option<String>>");
        assert_eq!(InputType::of::<(u8, &'static str)>().short_name(), "(u8, &str)");
        assert_eq!(InputType::of::<Slot>().short_name(), "Slot");
        assert_eq!(InputType::of::<fn() -> [Slot; 2]>().short_name(), "fn() -> [Slot; 2]");
        let inside = || {
            struct Local;
            InputType::of::<Option<Local>>()
        };
        assert_eq!(inside().short_name(), "Option<Local>");
    }
}
