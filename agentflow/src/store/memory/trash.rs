//! [`Trash`]: the values that a transaction has removed.

use super::super::{
    thread::{CheckpointRow, QuestionRow},
    value::Stored,
};
use crate::panics::catch_panic;

/// The values that a transaction has removed. They may be the user's own, whose destructors must not run under the lock.
#[derive(Debug, Default)]
pub(super) struct Trash(Vec<Stored>);

impl Trash {
    pub(super) fn put(&mut self, removed: impl Removed) {
        removed.move_into(self);
    }

    /// Drops all values. Each is dropped alone, so that a panic of one destructor does not meet that of another one.
    pub(super) fn empty(self) {
        for value in self.0 {
            catch_panic(|| drop(value));
        }
    }
}

/// Something that is removed and holds values of the user.
pub(super) trait Removed {
    fn move_into(self, trash: &mut Trash);
}

impl Removed for Stored {
    fn move_into(self, trash: &mut Trash) {
        if let Self::Shared(_) = self {
            trash.0.push(self);
        }
    }
}

impl Removed for CheckpointRow {
    fn move_into(self, trash: &mut Trash) {
        trash.put([self.values, self.position]);
    }
}

impl Removed for QuestionRow {
    fn move_into(self, trash: &mut Trash) {
        trash.put(self.asked.question);
        trash.put(self.answer);
    }
}

impl<T: Removed, I: IntoIterator<Item = T>> Removed for I {
    fn move_into(self, trash: &mut Trash) {
        self.into_iter().for_each(|removed| removed.move_into(trash));
    }
}
