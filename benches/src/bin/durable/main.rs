//! Prints the costs of threads: of a step beside the store's own commit, of a growing conversation, of many threads at
//! once, and of a recovery.
//!
//! ```text
//! cargo run --release -p agentflow-benches --bin durable
//! cargo run --release -p agentflow-benches --bin durable -- --filter recovery
//! ```

use std::{error::Error, fs, path::Path, thread::available_parallelism};

use comfy_table::{CellAlignment, Table, presets};
use lexopt::{
    Arg::{Long, Short},
    Parser, ValueExt as _,
};

use figure::Figure;

mod conversation;
mod figure;
mod many;
mod recovery;
mod step;
mod tasks;

const USAGE: &str = "\
Prints what threads cost on a store in SQLite, and in memory.

  --filter TEXT   only the parts that have TEXT in their names: step, conversation, many, recovery, tasks
  --folder PATH   where the files of the stores are made (the system's temporary folder)
  --quick         little work: shows that it runs, not what it costs
";

/// The amount of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// The steps of a sample, and the number of samples of each side.
    steps: u64,
    samples: usize,
    /// The messages of the conversation.
    messages: u64,
    /// The threads that run at once.
    threads: u64,
    /// The runs that are interrupted.
    interrupted: u64,
    /// The durable tasks.
    tasks: u64,
}

impl Scale {
    const FULL: Self =
        Self { steps: 2_000, samples: 15, messages: 10_000, threads: 1_000, interrupted: 10_000, tasks: 100_000 };
    const QUICK: Self = Self { steps: 50, samples: 1, messages: 50, threads: 20, interrupted: 50, tasks: 1_000 };
}

type Measured = Result<Vec<Figure>, Box<dyn Error>>;

/// A part of the table: its name, and the function that measures it.
type Part = (&'static str, fn(Scale, &Path) -> Measured);

const PARTS: [Part; 5] = [
    ("step", step::figures),
    ("conversation", conversation::figures),
    ("many", many::figures),
    ("recovery", recovery::figures),
    ("tasks", tasks::figures),
];

fn main() -> Result<(), Box<dyn Error>> {
    let (mut filter, mut folder, mut is_quick) = (String::new(), std::env::temp_dir(), false);
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("filter") => filter = arguments.value()?.string()?,
            Long("folder") => folder = arguments.value()?.into(),
            Long("quick") => is_quick = true,
            Long("help") | Short('h') => {
                print!("{USAGE}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let scale = if is_quick { Scale::QUICK } else { Scale::FULL };
    let folder = tempfile::Builder::new().prefix("agentflow-durable-").tempdir_in(folder)?;
    let mut figures = Vec::new();
    for (name, measure) in PARTS {
        if name.contains(&filter) {
            eprintln!("measuring: {name}");
            figures.extend(measure(scale, folder.path())?);
        }
    }
    println!("{}\n", table(&figures, !is_quick && !cfg!(debug_assertions)).trim_fmt());
    // The load of a machine is told by Linux alone.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown");
    println!("{} cores; load {load}", available_parallelism()?);
    Ok(())
}

fn table(figures: &[Figure], is_judged: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "ours", "beside", "beside is", "bar", "holds"]);
    for figure in figures {
        let holds = figure.holds().filter(|_| is_judged);
        table.add_row([
            figure.what.clone(),
            figure.show(),
            figure.show_beside(),
            figure.beside.as_ref().map(|(_, is)| (*is).to_owned()).unwrap_or_default(),
            figure.show_bar(),
            holds.map_or("", |holds| if holds { "yes" } else { "MISSED" }).to_owned(),
        ]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
