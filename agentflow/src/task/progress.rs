//! [`TaskProgress`]: the progress that a task reports.

use std::fmt;

use serde::Serialize;

/// The progress that a task reports: see [`TaskContext::progress`](crate::TaskContext::progress).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TaskProgress {
    /// The fraction that is done, from 0 to 1.
    pub fraction: f64,
    /// A short description of the current activity.
    pub message: Box<str>,
}

impl TaskProgress {
    /// Creates a progress report; clamps `fraction` to 0..=1 and treats NaN as 0.
    pub(super) fn new(fraction: f64, message: String) -> Self {
        // Adding zero turns -0.0, which would print as `-0 %`, into 0.0.
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) + 0.0 };
        Self { fraction, message: message.into() }
    }
}

/// Writes a text such as `40 % uploading`.
impl fmt::Display for TaskProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} %", self.fraction * 100.0)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, " {}", self.message) }
    }
}
