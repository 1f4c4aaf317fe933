//! Kills a process that works on threads of a store, again and again, and checks that nothing is lost or doubled.
//!
//! ```text
//! cargo run --release -p agentflow-benches --bin kill -- --store sqlite --kills 100
//! ```
//!
//! The process starts itself as a child, which takes over what its predecessor left behind, answers open questions, and
//! sends new inputs. The parent kills it with SIGKILL at a random moment, and starts the next one. The last child is left
//! alone, and sends nothing new. After it every input that the store has accepted must be in the state of its thread exactly once, with
//! each of its steps, and no run may be unfinished.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use lexopt::{
    Arg::{Long, Short},
    Parser, ValueExt as _,
};
use tokio::runtime::Builder;

use check::Verdict;
use dice::Dice;
use ledger::Ledger;
use store::StoreKind;

mod check;
mod child;
mod dice;
mod graph;
mod ledger;
mod store;

const USAGE: &str = "\
Kills a process that works on threads of a store, again and again, and checks that nothing is lost or doubled.

  --store sqlite  the store
  --kills N       how many times (100)
  --seed N        the seed of the random moments (from the clock)
  --keep          leaves the store's files, and prints their folder
  --quick         5 kills in a few seconds: shows that it works

Exits with 1 if an input or a step is lost or doubled, or a run is left unfinished.
";

/// An error that ends the program.
pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// The time in which the last child must end what is left.
const LAST: Duration = Duration::from_mins(2);

/// The time in which a child must have taken over what it found.
const START: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug)]
struct Options {
    store: StoreKind,
    kills: u32,
    seed: u64,
    is_kept: bool,
    /// The longest life of a child, once it has taken over what it found.
    life: Duration,
}

/// The two roles of this program.
#[derive(Debug)]
enum Role {
    Parent(Options),
    Child(child::Options),
}

impl Role {
    /// Parses the arguments; returns `None` if they ask for the help text.
    fn parse() -> Result<Option<Self>, Failed> {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut options = Options {
            store: StoreKind::Sqlite,
            kills: 100,
            seed: u64::from(clock.subsec_nanos()) ^ clock.as_secs(),
            is_kept: false,
            life: Duration::from_millis(400),
        };
        let (mut child, mut is_last, mut folder) = (None, false, PathBuf::new());
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("store") => options.store = arguments.value()?.parse()?,
                Long("kills") => options.kills = arguments.value()?.parse()?,
                Long("seed") => options.seed = arguments.value()?.parse()?,
                Long("keep") => options.is_kept = true,
                Long("quick") => options.kills = 5,
                // The arguments of a child, which no user passes.
                Long("child") => child = Some(arguments.value()?.parse()?),
                Long("last") => is_last = true,
                Long("folder") => folder = arguments.value()?.into(),
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        let Options { store, seed, .. } = options;
        Ok(Some(match child {
            Some(number) => Self::Child(child::Options { store, seed, number, is_last, folder }),
            None => Self::Parent(options),
        }))
    }
}

/// The children of a run of this program.
struct Children<'a> {
    options: Options,
    folder: &'a Path,
    ledger: Ledger,
    dice: Dice,
}

impl Children<'_> {
    fn start(&self, number: u32, is_last: bool) -> Result<Child, Failed> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("--store").arg(self.options.store.name());
        command.arg("--seed").arg(self.options.seed.to_string());
        command.arg("--child").arg(number.to_string()).arg("--folder").arg(self.folder);
        if is_last {
            command.arg("--last");
        }
        Ok(command.spawn()?)
    }

    /// Starts a child, and kills it at a random moment.
    fn kill_one(&mut self, number: u32) -> Result<(), Failed> {
        let length = self.ledger.length()?;
        let mut child = self.start(number, false)?;
        // One of ten is killed while it starts or takes over, the others while they work.
        let is_early = self.dice.roll(10) == 0;
        if !is_early {
            let began = Instant::now();
            while !self.ledger.is_up(number, length)? {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("child {number} has ended by itself: {status}").into());
                }
                if began.elapsed() > START {
                    child.kill()?;
                    return Err(format!("child {number} has not started within {START:?}").into());
                }
                sleep(Duration::from_millis(1));
            }
        }
        let life = u64::try_from(self.options.life.as_micros())?;
        sleep(Duration::from_micros(self.dice.roll(if is_early { life / 8 } else { life })));
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts a child that works off what is left, and waits for its end.
    fn last(&self) -> Result<(), Failed> {
        let mut child = self.start(self.options.kills + 1, true)?;
        let began = Instant::now();
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("the last child has failed: {status}").into()),
                None if began.elapsed() > LAST => {
                    child.kill()?;
                    child.wait()?;
                    println!("the last child has not ended within {LAST:?}");
                    return Ok(());
                }
                None => sleep(Duration::from_millis(5)),
            }
        }
    }
}

fn parent(options: Options, folder: &Path) -> Result<Verdict, Failed> {
    println!("store: {}, kills: {}, seed: {}", options.store.name(), options.kills, options.seed);
    // The bar is shown on a terminal only.
    let progress = ProgressBar::new(options.kills.into())
        .with_style(ProgressStyle::with_template("{elapsed} {wide_bar} {pos} of {len} kills, {eta} left")?);
    let ledger = Ledger::open(folder)?;
    let mut children = Children { options, folder, ledger, dice: Dice::new(options.seed) };
    for number in 1..=options.kills {
        children.kill_one(number)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    children.last()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(check::check(options.store, folder, &children.ledger))
}

fn print(options: Options, verdict: &Verdict, elapsed: Duration) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.add_row(["kills".to_owned(), options.kills.to_string()]);
    for (what, count) in verdict.rows() {
        table.add_row([what.to_owned(), count.to_string()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{}\n\n{:.1} s", table.trim_fmt(), elapsed.as_secs_f64());
}

fn main() -> Result<ExitCode, Failed> {
    let options = match Role::parse()? {
        None => {
            print!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        Some(Role::Child(options)) => {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(child::work(options))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Role::Parent(options)) => options,
    };
    let mut folder = tempfile::Builder::new().prefix("agentflow-kill-").tempdir()?;
    folder.disable_cleanup(options.is_kept);
    let began = Instant::now();
    let verdict = parent(options, folder.path())?;
    print(options, &verdict, began.elapsed());
    if options.is_kept {
        println!("the files are in {}", fs::canonicalize(folder.path())?.display());
    }
    if verdict.mistakes.is_empty() {
        println!("every accepted input is in the state exactly once, and no run is stuck");
        return Ok(ExitCode::SUCCESS);
    }
    for mistake in verdict.mistakes.iter().take(20) {
        println!("FAILED: {mistake}");
    }
    Ok(ExitCode::FAILURE)
}
