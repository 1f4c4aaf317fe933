//! [`Contest`]: one piece of work done in several ways, and how it is timed.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{Bar, Row, Unit};

/// One way to do the work of a contest.
pub struct Side {
    /// What it is called.
    pub name: String,
    time: Box<dyn FnMut(u64) -> Duration>,
}

impl Side {
    /// `time` does the work so many times, and says how long that took, without what it had to prepare.
    pub fn new(name: impl Into<String>, time: impl FnMut(u64) -> Duration + 'static) -> Self {
        Self { name: name.into(), time: Box::new(time) }
    }

    /// How long the work takes, so many times.
    pub fn time(&mut self, iterations: u64) -> Duration {
        (self.time)(iterations)
    }
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Side").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One piece of work, done by us and by others.
#[derive(Debug)]
pub struct Contest {
    /// What the work is.
    pub name: String,
    /// How many of what the figures are per are in one piece of work: the steps of a chain, the tasks of a batch.
    pub per: u64,
    /// Us.
    pub ours: Side,
    /// The others, each with what is asked of us beside it.
    pub floors: Vec<(Side, Option<Bar>)>,
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// What one sample takes at least: the work is repeated to fill it. Well below what a scheduler gives to a thread at
    /// once, or the other programs of a busy machine would be in every sample.
    pub sample: Duration,
    /// What all samples of a contest take, at least `min_rounds` of them.
    pub budget: Duration,
    /// The fewest rounds.
    pub min_rounds: usize,
}

impl Effort {
    /// For figures that count.
    pub const FULL: Self = Self { sample: Duration::from_micros(300), budget: Duration::from_secs(3), min_rounds: 7 };
    /// Enough to see that it runs.
    pub const QUICK: Self = Self { sample: Duration::from_micros(100), budget: Duration::ZERO, min_rounds: 2 };
}

impl Contest {
    /// A row for each floor: medians of samples that were taken in turns, so that whatever else the machine does disturbs
    /// all sides alike.
    pub fn measure(&mut self, effort: Effort) -> Vec<Row> {
        let bars: Vec<_> = self.floors.iter().map(|(side, bar)| (side.name.clone(), *bar)).collect();
        let mut sides: Vec<_> = self.floors.iter_mut().map(|(side, _)| side).chain([&mut self.ours]).collect();
        let iterations: Vec<_> = sides.iter_mut().map(|side| iterations(side, effort.sample)).collect();
        let mut samples: Vec<Vec<f64>> = sides.iter().map(|_| Vec::new()).collect();
        let began = Instant::now();
        let mut round = 0;
        while round < effort.min_rounds || began.elapsed() < effort.budget {
            for turn in 0..sides.len() {
                // Each round begins with another one, so that none always finds what the same one left behind.
                let at = (round + turn) % sides.len();
                let elapsed = sides[at].time(iterations[at]);
                samples[at].push(nanoseconds(elapsed, iterations[at] * self.per));
            }
            round += 1;
        }
        let mut medians: Vec<_> = samples.into_iter().map(median).collect();
        let ours = medians.pop().unwrap_or_default();
        let row =
            |((floor_is, bar), floor)| Row { what: self.name.clone(), floor_is, unit: Unit::Time, floor, ours, bar };
        bars.into_iter().zip(medians).map(row).collect()
    }
}

/// How often the work must be done to fill a sample. Finding out warms it up.
fn iterations(side: &mut Side, sample: Duration) -> u64 {
    let mut iterations = 1;
    // More than once, because one sample may hold a pause that isn't the side's.
    while !(0..3).all(|_| side.time(iterations) >= sample) {
        iterations *= 2;
    }
    iterations
}

#[allow(clippy::cast_precision_loss, reason = "a figure with 15 digits is exact enough")]
fn nanoseconds(elapsed: Duration, per: u64) -> f64 {
    elapsed.as_nanos() as f64 / per as f64
}

/// The middle one; of an even number, the mean of both in the middle.
#[must_use]
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match samples.len() {
        0 => 0.0,
        len if len % 2 == 1 => samples[middle],
        _ => f64::midpoint(samples[middle - 1], samples[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taking(name: &str, time: Duration) -> Side {
        Side::new(name, move |iterations| time * u32::try_from(iterations).expect("few"))
    }

    #[test]
    fn a_row_has_the_time_of_one_of_what_it_is_per() {
        let mut contest = Contest {
            name: "race".into(),
            per: 10,
            ours: taking("ours", Duration::from_micros(30)),
            floors: vec![(taking("floor", Duration::from_micros(20)), Some(Bar::Times(1.4)))],
        };
        let rows = contest.measure(Effort::QUICK);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].floor, rows[0].ours), (2_000.0, 3_000.0));
        assert_eq!((rows[0].ratio(), rows[0].holds()), (Some(1.5), Some(false)));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(vec![9.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
    }
}
