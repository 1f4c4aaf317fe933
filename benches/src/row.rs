//! [`Row`]: a line of the table, and [`Bar`]: its target.

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// Bytes.
    Bytes,
    /// Allocations.
    Allocations,
}

impl Unit {
    /// Formats the figure with its unit, such as `1.25 ms`.
    #[must_use]
    pub fn show(self, figure: f64) -> String {
        match self {
            Self::Time if figure < 1e3 => format!("{figure:.1} ns"),
            Self::Time if figure < 1e6 => format!("{:.2} µs", figure / 1e3),
            Self::Time => format!("{:.2} ms", figure / 1e6),
            Self::Bytes => format!("{figure:.0} B"),
            Self::Allocations => format!("{figure:.2}"),
        }
    }
}

/// The target of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// At most this many times the baseline.
    Times(f64),
    /// At most this much more than the baseline.
    Above(f64),
    /// At most this much, whatever the baseline.
    AtMost(f64),
}

/// Two figures, compared.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name of the measured work.
    pub what: String,
    /// The name of the baseline.
    pub floor_is: String,
    /// The unit of both figures.
    pub unit: Unit,
    /// The baseline's figure.
    pub floor: f64,
    /// The figure of agentflow.
    pub ours: f64,
    /// The target, if there is one.
    pub bar: Option<Bar>,
}

impl Row {
    /// Returns the ratio to the baseline, or `None` where the baseline is zero.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.floor > 0.0).then(|| self.ours / self.floor)
    }

    /// Returns true if the target is met, or `None` where there is none.
    #[must_use]
    pub fn holds(&self) -> Option<bool> {
        self.bar.map(|bar| match bar {
            Bar::Times(times) => self.ours <= times * self.floor,
            Bar::Above(more) => self.ours <= self.floor + more,
            Bar::AtMost(most) => self.ours <= most,
        })
    }

    /// Formats the target; empty where there is none.
    #[must_use]
    pub fn show_bar(&self) -> String {
        match self.bar {
            None => String::new(),
            Some(Bar::Times(times)) => format!("<= {times}x"),
            Some(Bar::Above(more)) => format!("<= {} more", self.unit.show(more)),
            Some(Bar::AtMost(most)) => format!("<= {}", self.unit.show(most)),
        }
    }
}

/// Formats a round number in short: `10k` for 10,000.
pub(crate) fn thousands(number: u64) -> String {
    if number.is_multiple_of(1_000) { format!("{}k", number / 1_000) } else { number.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bar_is_held_to_what_it_says() {
        let row = |bar| Row {
            what: String::new(),
            floor_is: String::new(),
            unit: Unit::Time,
            floor: 100.0,
            ours: 150.0,
            bar: Some(bar),
        };
        for (bar, holds) in [
            (Bar::Times(1.5), true),
            (Bar::Times(1.4), false),
            (Bar::Above(50.0), true),
            (Bar::Above(49.0), false),
            (Bar::AtMost(150.0), true),
            (Bar::AtMost(149.0), false),
        ] {
            assert_eq!(row(bar).holds(), Some(holds), "{bar:?}");
        }
    }
}
