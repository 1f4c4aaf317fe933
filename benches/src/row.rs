//! [`Row`]: a line of the table, and the [`Bar`] that it is held to.

/// What a figure is counted in.
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
    /// The figure with its unit, such as `1.25 ms`.
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

/// What is asked of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// At most so many times the floor.
    Times(f64),
    /// At most so much more than the floor.
    Above(f64),
    /// At most so much, whatever the floor.
    AtMost(f64),
}

/// Two figures side by side.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What the floor is.
    pub floor_is: String,
    /// The unit of both figures.
    pub unit: Unit,
    /// The floor.
    pub floor: f64,
    /// Ours.
    pub ours: f64,
    /// What is asked of it, if anything is.
    pub bar: Option<Bar>,
}

impl Row {
    /// Ours over the floor; `None` where the floor is nothing.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.floor > 0.0).then(|| self.ours / self.floor)
    }

    /// Whether the bar holds; `None` where there is none.
    #[must_use]
    pub fn holds(&self) -> Option<bool> {
        self.bar.map(|bar| match bar {
            Bar::Times(times) => self.ours <= times * self.floor,
            Bar::Above(more) => self.ours <= self.floor + more,
            Bar::AtMost(most) => self.ours <= most,
        })
    }

    /// The bar in words; empty where there is none.
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

/// A round number in short: `10k` for 10,000.
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
