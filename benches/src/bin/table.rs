//! Prints the costs of agentflow beside the same work written by hand, and marks the targets that it misses.
//!
//! ```text
//! cargo run --release -p agentflow-benches
//! cargo run --release -p agentflow-benches -- --filter group
//! ```

use std::{error::Error, thread::available_parallelism};

use agentflow_benches::{Contest, Effort, Row, Scale, contests, memory};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use lexopt::{
    Arg::{Long, Short},
    Parser, ValueExt as _,
};

const USAGE: &str = "\
Prints what agentflow costs beside the same work written by hand.

  --filter TEXT   only what has TEXT in its name
  --bars          only what has a bar to hold
  --quick         little work and few repetitions: shows that it runs, not what it costs
";

#[derive(Debug, Default)]
struct Options {
    filter: String,
    only_bars: bool,
    is_quick: bool,
}

impl Options {
    /// Parses the arguments; returns `None` after printing the help text.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self::default();
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("filter") => options.filter = arguments.value()?.string()?,
                Long("bars") => options.only_bars = true,
                Long("quick") => options.is_quick = true,
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }

    /// Returns true if the figures are meaningful enough to judge.
    fn is_judged(&self) -> bool {
        !self.is_quick && !cfg!(debug_assertions)
    }

    fn wants(&self, what: &str, has_bar: bool) -> bool {
        what.contains(&self.filter) && (has_bar || !self.only_bars)
    }
}

fn measured(options: &Options) -> Result<Vec<Row>, Box<dyn Error>> {
    let (scale, effort) = if options.is_quick { (Scale::QUICK, Effort::QUICK) } else { (Scale::FULL, Effort::FULL) };
    // No other thread allocates yet, so the counts are exact.
    let counted = memory::rows();
    let wanted = |contest: &Contest| options.wants(&contest.name, contest.floors.iter().any(|(_, bar)| bar.is_some()));
    let contests: Vec<_> = contests(scale).into_iter().filter(wanted).collect();
    // The bar is shown on a terminal only.
    let progress = ProgressBar::new(contests.len() as u64)
        .with_style(ProgressStyle::with_template("{pos} of {len} measured; now {wide_msg}")?);
    let mut rows = Vec::new();
    for mut contest in contests {
        progress.set_message(contest.name.clone());
        rows.extend(contest.measure(effort));
        progress.inc(1);
    }
    progress.finish_and_clear();
    rows.extend(counted);
    rows.retain(|row| options.wants(&row.what, row.bar.is_some()));
    Ok(rows)
}

fn table(rows: &[Row], is_judged: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "floor", "floor is", "ours", "ratio", "bar", "holds"]);
    for row in rows {
        table.add_row([
            row.what.clone(),
            row.unit.show(row.floor),
            row.floor_is.clone(),
            row.unit.show(row.ours),
            row.ratio().map(|ratio| format!("{ratio:.2}x")).unwrap_or_default(),
            row.show_bar(),
            row.holds().filter(|_| is_judged).map_or("", |holds| if holds { "yes" } else { "MISSED" }).to_owned(),
        ]);
    }
    for figure in [1, 3, 4] {
        if let Some(column) = table.column_mut(figure) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = Options::parse()? else {
        print!("{USAGE}");
        return Ok(());
    };
    let rows = measured(&options)?;
    println!("{}\n", table(&rows, options.is_judged()).trim_fmt());
    let bars = rows.iter().filter_map(Row::holds).count();
    let held = rows.iter().filter_map(Row::holds).filter(|holds| *holds).count();
    if options.is_judged() {
        println!("{held} of {bars} bars hold, {} are MISSED", bars - held);
    } else {
        println!("not judged: a quick run, or one without optimisation, does not show what anything costs");
    }
    println!("{} cores; medians of samples taken in turns; times per step, group or task", available_parallelism()?);
    Ok(())
}
