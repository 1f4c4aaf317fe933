//! Prints the compile-time cost of `#[node]` and `graph!`, beside the same functions called by hand.
//!
//! ```text
//! cargo run --release -p agentflow-benches --bin compile_time
//! ```

use std::{error::Error, time::Duration};

use agentflow_benches::measure::median;
use indicatif::ProgressBar;

use scratch::{Crate, NODES, Scratch};

mod cargo;
mod scratch;

const REPETITIONS: usize = 15;

/// Returns the seconds by hand and with a graph: medians of alternating checks.
fn measured(
    scratch: &Scratch,
    prepare: impl Fn(&Scratch, Crate) -> Result<(), Box<dyn Error>>,
) -> Result<[f64; 2], Box<dyn Error>> {
    let sides = [Crate::ByHand, Crate::WithGraph];
    let mut samples = [const { Vec::new() }; 2];
    for _ in 0..REPETITIONS {
        for (side, samples) in sides.into_iter().zip(&mut samples) {
            prepare(scratch, side)?;
            samples.push(cargo::check(scratch, side)?.as_secs_f64());
        }
    }
    Ok(samples.map(median))
}

fn print(what: &str, [by_hand, with_graph]: [f64; 2]) {
    let per_node = (with_graph - by_hand) / f64::from(NODES);
    println!(
        "{what:<24} by hand {:>6.0} ms   graph! {:>6.0} ms   {:.2}x   {:>6.2} ms per node",
        by_hand * 1e3,
        with_graph * 1e3,
        with_graph / by_hand,
        per_node * 1e3,
    );
}

fn print_macro_stats(scratch: &Scratch) -> Result<(), Box<dyn Error>> {
    let Some(stats) = cargo::macro_stats(scratch, Crate::WithGraph)? else {
        println!("what the macros expand to is counted by a nightly compiler, and `rustup` has none here");
        return Ok(());
    };
    println!("what the macros of {NODES} nodes expand to:\n");
    let mut lines_in_all = 0.0;
    for line in stats.lines().filter_map(|line| line.strip_prefix("macro-stats ")) {
        println!("  {line}");
        lines_in_all += lines_of(line).unwrap_or_default();
    }
    println!("\n{:.0} lines per node, derives included", lines_in_all / f64::from(NODES));
    Ok(())
}

/// Returns the second of the five numbers at the end: `#[node]   50   1_800   36.0   74_130   1_482.6`.
fn lines_of(line: &str) -> Option<f64> {
    line.split_whitespace().rev().nth(3)?.replace('_', "").parse().ok()
}

fn main() -> Result<(), Box<dyn Error>> {
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(100));
    progress.set_message("checking the dependencies");
    let scratch = Scratch::create()?;
    for side in [Crate::ByHand, Crate::WithGraph] {
        cargo::check(&scratch, side)?;
    }
    progress.set_message("checking both crates in turns");
    let touched = measured(&scratch, |scratch, side| Ok(scratch.touch(side)?))?;
    let cleaned = measured(&scratch, cargo::clean)?;
    progress.finish_and_clear();

    println!("`cargo check` of {NODES} functions, medians of {REPETITIONS}\n");
    print("the first time", cleaned);
    print("after a touch", touched);
    println!();
    print_macro_stats(&scratch)
}

#[cfg(test)]
mod tests {
    use super::lines_of;

    #[test]
    fn the_lines_are_the_second_number() {
        let line = "#[node]                              50      1_800       36.0     74_130    1_482.6";
        assert_eq!(lines_of(line), Some(1_800.0));
        assert_eq!(lines_of("Macro Name   Uses   Lines  Avg Lines      Bytes  Avg Bytes"), None);
        assert_eq!(lines_of("MACRO EXPANSION STATS: with_graph"), None);
    }
}
