//! [`Figure`]: a line of the table.

/// The unit of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Microseconds,
    Seconds,
    Bytes,
    PerSecond,
    Count,
}

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Self::Microseconds => format!("{figure:.1} µs"),
            Self::Seconds => format!("{figure:.2} s"),
            Self::Bytes => format!("{figure:.0} B"),
            Self::PerSecond => format!("{figure:.0} /s"),
            Self::Count => format!("{figure:.0}"),
        }
    }
}

/// The target of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// At most this much more than what is beside it.
    Above(f64),
    AtMost(f64),
    NoLessThan(f64),
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) ours: f64,
    /// A figure to compare with, and its name.
    pub(crate) beside: Option<(f64, &'static str)>,
    pub(crate) bar: Option<Bar>,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, unit: Unit, ours: f64) -> Self {
        Self { what: what.into(), unit, ours, beside: None, bar: None }
    }

    pub(crate) fn beside(self, figure: f64, is: &'static str) -> Self {
        Self { beside: Some((figure, is)), ..self }
    }

    pub(crate) fn bar(self, bar: Bar) -> Self {
        Self { bar: Some(bar), ..self }
    }

    pub(crate) fn show(&self) -> String {
        self.unit.show(self.ours)
    }

    pub(crate) fn show_beside(&self) -> String {
        self.beside.map(|(figure, _)| self.unit.show(figure)).unwrap_or_default()
    }

    pub(crate) fn show_bar(&self) -> String {
        match self.bar {
            None => String::new(),
            Some(Bar::Above(more)) => format!("<= {} more", self.unit.show(more)),
            Some(Bar::AtMost(most)) => format!("<= {}", self.unit.show(most)),
            Some(Bar::NoLessThan(least)) => format!(">= {}", self.unit.show(least)),
        }
    }

    /// Returns whether the target is met; `None` without one.
    pub(crate) fn holds(&self) -> Option<bool> {
        self.bar.map(|bar| match bar {
            Bar::Above(more) => self.ours <= self.beside.map_or(0.0, |(figure, _)| figure) + more,
            Bar::AtMost(most) => self.ours <= most,
            Bar::NoLessThan(least) => self.ours >= least,
        })
    }
}
