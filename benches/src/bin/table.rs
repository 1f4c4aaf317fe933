//! Prints what agentflow costs beside the same work written by hand, and whether the bars hold.
//!
//! ```text
//! cargo run --release -p benches
//! cargo run --release -p benches -- --filter group
//! ```

use std::{error::Error, thread::available_parallelism};

use benches::{Effort, Row, Scale, contests, memory};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::ProgressBar;
use lexopt::{
    Arg::{Long, Short},
    Parser, ValueExt as _,
};

const USAGE: &str = "\
Prints what agentflow costs beside the same work written by hand.

  --filter TEXT   only what has TEXT in its name
  --quick         little work and few repetitions: shows that it runs, not what it costs
";

#[derive(Debug, Default)]
struct Options {
    filter: String,
    is_quick: bool,
}

impl Options {
    /// `None`: somebody asked for help.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self::default();
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("filter") => options.filter = arguments.value()?.string()?,
                Long("quick") => options.is_quick = true,
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }

    fn wants(&self, what: &str) -> bool {
        what.contains(&self.filter)
    }
}

fn measured(options: &Options) -> Vec<Row> {
    let (scale, effort) = if options.is_quick { (Scale::QUICK, Effort::QUICK) } else { (Scale::FULL, Effort::FULL) };
    // Counted while nothing else is there to allocate.
    let counted = memory::rows().into_iter().filter(|row| options.wants(&row.what));
    let counted: Vec<_> = counted.collect();
    let contests: Vec<_> = contests(scale).into_iter().filter(|contest| options.wants(&contest.name)).collect();
    // Shown on a terminal only.
    let progress = ProgressBar::new(contests.len() as u64);
    let mut rows = Vec::new();
    for mut contest in contests {
        progress.set_message(contest.name.clone());
        progress.inc(1);
        rows.extend(contest.measure(effort));
    }
    progress.finish_and_clear();
    rows.extend(counted);
    rows
}

fn table(rows: &[Row]) -> Table {
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
            row.holds().map_or("", |holds| if holds { "yes" } else { "MISSED" }).to_owned(),
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
    let cores = available_parallelism()?;
    println!("{cores} cores; medians of samples that were taken in turns\n");
    let rows = measured(&options);
    println!("{}\n", table(&rows).trim_fmt());
    let with_bar = rows.iter().filter(|row| row.bar.is_some()).count();
    let missed: Vec<_> = rows.iter().filter(|row| row.holds() == Some(false)).collect();
    println!("{} of {with_bar} bars hold", with_bar - missed.len());
    for row in missed {
        println!("  MISSED: {row}; the bar is {}", row.show_bar());
    }
    if options.is_quick || cfg!(debug_assertions) {
        println!("a quick run, or one without optimisation, shows nothing of what anything costs");
    }
    Ok(())
}
