//! [`Check`]: one check, and the list of those of a module.

use super::{
    fixture::FixtureFuture,
    harness::{Checked, Harness},
};

/// A check, with its name.
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) run: for<'a> fn(&'a mut Harness<'_>) -> FixtureFuture<'a, Checked>,
}

/// Lists checks, each an async function whose name says what it checks.
macro_rules! list_checks {
    ($($check:ident),* $(,)?) => {
        /// The checks of this module.
        pub(super) const CHECKS: &[super::check::Check] = &[$(super::check::Check {
            name: stringify!($check),
            run: |harness| Box::pin($check(harness)),
        }),*];
    };
}
pub(super) use list_checks;
