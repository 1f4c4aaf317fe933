//! [`Contest`]: one piece of work done in several ways, and its measurement.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{Bar, Row, Unit};

/// One way to do the work of a contest.
pub struct Side {
    /// The name of the side.
    pub name: String,
    time: Box<dyn FnMut(u64) -> Duration>,
}

impl Side {
    /// Creates a side. `time` does the work this many times and returns the time taken, without its preparation.
    pub fn new(name: impl Into<String>, time: impl FnMut(u64) -> Duration + 'static) -> Self {
        Self { name: name.into(), time: Box::new(time) }
    }

    /// Returns the time that this many iterations of the work take.
    pub fn time(&mut self, iterations: u64) -> Duration {
        (self.time)(iterations)
    }
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Side").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One piece of work, done with agentflow and without it.
#[derive(Debug)]
pub struct Contest {
    /// The name of the work.
    pub name: String,
    /// The units in one piece of work, by which figures are divided: the steps of a chain, the tasks of a batch.
    pub per: u64,
    /// The side of agentflow.
    pub ours: Side,
    /// The baselines, each with the target beside it.
    pub floors: Vec<(Side, Option<Bar>)>,
}

/// The duration of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The least duration of a sample; the work is repeated to fill it. It is well below a scheduler's time slice, or
    /// every sample would include the other programs of a busy machine.
    pub sample: Duration,
    /// The duration of all samples of a contest, of which there are at least `min_rounds`.
    pub budget: Duration,
    /// The least number of rounds.
    pub min_rounds: usize,
}

impl Effort {
    /// The effort for meaningful figures.
    pub const FULL: Self = Self { sample: Duration::from_micros(300), budget: Duration::from_secs(3), min_rounds: 7 };
    /// The effort of a smoke test.
    pub const QUICK: Self = Self { sample: Duration::from_micros(100), budget: Duration::ZERO, min_rounds: 2 };
}

impl Contest {
    /// Returns a row for each baseline: medians of alternating samples, so that other load on the machine disturbs all
    /// sides alike.
    pub fn measure(&mut self, effort: Effort) -> Vec<Row> {
        let bars: Vec<_> = self.floors.iter().map(|(side, bar)| (side.name.clone(), *bar)).collect();
        let mut sides: Vec<_> = self.floors.iter_mut().map(|(side, _)| side).chain([&mut self.ours]).collect();
        let iterations: Vec<_> = sides.iter_mut().map(|side| iterations(side, effort.sample)).collect();
        let mut samples: Vec<Vec<f64>> = sides.iter().map(|_| Vec::new()).collect();
        let began = Instant::now();
        let mut round = 0;
        while round < effort.min_rounds || began.elapsed() < effort.budget {
            for turn in 0..sides.len() {
                // Each round starts with another side, so that no side always follows the same one.
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

/// Returns the number of iterations that fill a sample. Finding it also warms the code up.
fn iterations(side: &mut Side, sample: Duration) -> u64 {
    let mut iterations = 1;
    // Three samples must agree, because one may include a pause that the side did not cause.
    while !(0..3).all(|_| side.time(iterations) >= sample) {
        iterations *= 2;
    }
    iterations
}

#[allow(clippy::cast_precision_loss, reason = "a figure with 15 digits is exact enough")]
fn nanoseconds(elapsed: Duration, per: u64) -> f64 {
    elapsed.as_nanos() as f64 / per as f64
}

/// Returns the median: of an even number, the mean of the two in the middle.
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
