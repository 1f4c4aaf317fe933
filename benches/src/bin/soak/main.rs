//! Spawns very many tasks with every outcome, and checks that each is accounted for and that none leaks memory.
//!
//! ```text
//! cargo run --release -p agentflow-benches --bin soak -- --tasks 1000000
//! ```

use std::{
    collections::VecDeque,
    error::Error,
    panic,
    process::ExitCode,
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use agentflow::{
    BackgroundTaskManager,
    task::{SpawnError, TaskHandle, TaskManagerOptions, TaskStats},
};
use agentflow_benches::allocator;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use lexopt::{
    Arg::{Long, Short},
    Parser, ValueExt as _,
};
use tokio::{
    runtime::{Builder, Handle},
    sync::Semaphore,
    time::sleep,
};

use kind::Kind;
use ledger::Ledger;
use memory::Memory;
use watch::{Seen, Watcher};

mod kind;
mod ledger;
mod memory;
mod watch;

const USAGE: &str = "\
Spawns very many tasks that end in every way there is, and checks that each is accounted for.

  --tasks N       how many (1000000)
  --in-flight N   how many at once (10000)
  --workers N     worker threads (as many as there are cores)

Exits with 1 if a task is unaccounted for, or memory grows.
";

/// The grace period of a cancelled task.
const GRACE: Duration = Duration::from_millis(20);

/// The time in which the runtime must free tasks that have ended.
const LET_GO: Duration = Duration::from_secs(10);

/// The number of parts of a soak. After each part all spawned tasks have ended, and memory is measured.
const PARTS: u64 = 10;

#[derive(Clone, Copy, Debug)]
struct Options {
    tasks: u64,
    in_flight: usize,
    workers: usize,
}

impl Options {
    /// Parses the arguments; returns `None` after printing the help text.
    fn parse() -> Result<Option<Self>, Box<dyn Error>> {
        let mut options = Self { tasks: 1_000_000, in_flight: 10_000, workers: available_parallelism()?.get() };
        let mut arguments = Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("tasks") => options.tasks = arguments.value()?.parse()?,
                Long("in-flight") => options.in_flight = arguments.value()?.parse()?,
                Long("workers") => options.workers = arguments.value()?.parse()?,
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected().into()),
            }
        }
        if options.tasks < PARTS || options.in_flight == 0 || options.workers == 0 {
            return Err(format!("at least {PARTS} tasks, one in flight and one worker are needed").into());
        }
        Ok(Some(options))
    }
}

/// Spawns tasks, with a bound on those in flight.
struct Producer {
    tasks: BackgroundTaskManager,
    deck: Vec<Kind>,
    next: usize,
    permits: Arc<Semaphore>,
    ledger: Ledger,
    /// The latest handles. Some tasks are cancelled when their handle leaves this queue.
    held: VecDeque<(Kind, TaskHandle<()>)>,
    hold: usize,
}

impl Producer {
    fn new(in_flight: usize) -> Self {
        let (name, at_once) = kind::TAKES_TURNS;
        let options = TaskManagerOptions::new().grace_period(GRACE).max_running_named(name, at_once);
        Self {
            tasks: BackgroundTaskManager::with_options(options),
            deck: kind::deck(),
            next: 0,
            permits: Arc::new(Semaphore::new(in_flight)),
            ledger: Ledger::default(),
            held: VecDeque::new(),
            // This is less than the bound, or all tasks in flight could be waiting for their cancellation.
            hold: (in_flight / 2).min(100),
        }
    }

    /// Spawns until this many tasks were spawned in all, and waits until all have ended.
    async fn spawn_until(&mut self, total: u64) -> Result<(), Box<dyn Error>> {
        while self.ledger.spawned() < total {
            let permit = Arc::clone(&self.permits).acquire_owned().await?;
            let kind = self.deck[self.next];
            self.next = (self.next + 1) % self.deck.len();
            let handle = kind.spawn(&self.tasks, permit)?;
            self.ledger.add(kind);
            self.held.push_back((kind, handle));
            self.let_go(self.hold);
        }
        self.let_go(0);
        self.tasks.wait_for_all(None).await?;
        Ok(())
    }

    /// Releases all handles but the latest.
    fn let_go(&mut self, keep: usize) {
        while self.held.len() > keep
            && let Some((kind, handle)) = self.held.pop_front()
        {
            kind.let_go(handle);
        }
    }
}

/// The result of a soak.
struct Soaked {
    ledger: Ledger,
    stats: TaskStats,
    seen: Seen,
    /// The memory before the first task and after each part.
    memory: Vec<Memory>,
    elapsed: Duration,
    mistakes: Vec<String>,
}

async fn soak(options: Options) -> Result<Soaked, Box<dyn Error>> {
    let mut mistakes = Vec::new();
    let mut memory = vec![Memory::now()];
    // The bar is shown on a terminal only; elsewhere a line per part shows the progress.
    let progress = ProgressBar::new(options.tasks).with_style(ProgressStyle::with_template(
        "{elapsed} {wide_bar} {human_pos} of {human_len} tasks, {per_sec}, {eta} left",
    )?);
    let mut producer = Producer::new(options.in_flight);
    let watcher = Watcher::start(producer.tasks.clone(), progress.clone());
    let began = Instant::now();
    for part in 1..=PARTS {
        producer.spawn_until(options.tasks * part / PARTS).await?;
        mistakes.extend(runtime_let_go().await.err());
        let now = Memory::now();
        progress.suspend(|| println!("{:>4} %  {}", part * 100 / PARTS, show(now)));
        memory.push(now);
    }
    let elapsed = began.elapsed();

    let report = producer.tasks.close(None).await;
    if !report.is_clean() {
        mistakes.push(format!("the close was to find nothing: {report}"));
    }
    let late = producer.tasks.create_task(async {}).spawn();
    if !matches!(late, Err(SpawnError::Closed)) {
        mistakes.push("a closed manager accepts a task".to_owned());
    }
    let seen = watcher.stop();
    progress.finish_and_clear();
    Ok(Soaked { ledger: producer.ledger, stats: producer.tasks.stats(), seen, memory, elapsed, mistakes })
}

/// Waits until the runtime has freed the ended tasks, which happens just after they are counted.
async fn runtime_let_go() -> Result<(), String> {
    let runtime = Handle::current().metrics();
    let began = Instant::now();
    while runtime.num_alive_tasks() > 0 {
        if began.elapsed() > LET_GO {
            return Err(format!("the runtime still has {} tasks that the manager has not", runtime.num_alive_tasks()));
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

impl Soaked {
    /// Returns everything that is wrong.
    fn mistakes(&self) -> Vec<String> {
        let Self { ledger, stats, seen, memory, mistakes, .. } = self;
        let mut mistakes = mistakes.clone();
        for (outcome, due, counted) in ledger.beside(stats) {
            if due != counted {
                mistakes.push(format!("{counted} tasks are counted as {outcome}, and {due} were to be"));
            }
        }
        if stats.spawned != ledger.spawned() {
            mistakes.push(format!("{} tasks are counted as spawned, and {} were", stats.spawned, ledger.spawned()));
        }
        if stats.active != 0 || !ledger::is_consistent(stats) {
            mistakes.push(format!("the numbers at the end don't agree: {stats:?}"));
        }
        if stats.rejected != 1 {
            mistakes.push(format!("{} tasks are counted as rejected, and 1 was", stats.rejected));
        }
        if let Some(stats) = seen.inconsistent {
            mistakes.push(format!("at some moment the numbers didn't agree: {stats:?}"));
        }
        if let [_, _, second, .., last] = memory[..]
            && !last.is_flat_since(second)
        {
            mistakes.push(format!(
                "memory grows: {} after the second tenth, {} after the last",
                show(second),
                show(last)
            ));
        }
        mistakes
    }

    fn print(&self, options: Options) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["", "expected", "counted"]);
        for (outcome, due, counted) in self.ledger.beside(&self.stats) {
            table.add_row([outcome.to_string(), due.to_string(), counted.to_string()]);
        }
        table.add_row(["spawned".to_owned(), self.ledger.spawned().to_string(), self.stats.spawned.to_string()]);
        table.add_row(["in flight".to_owned(), "0".to_owned(), self.stats.active.to_string()]);
        table.add_row(["rejected".to_owned(), "1".to_owned(), self.stats.rejected.to_string()]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("\n{}\n", table.trim_fmt());
        let seconds = self.elapsed.as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "a rate needs few digits")]
        let rate = self.stats.spawned as f64 / seconds;
        println!("{seconds:.1} s, {rate:.0} tasks/s, worker threads: {}", options.workers);
        let Seen { looks, most_active, inconsistent } = self.seen;
        let agreed = if inconsistent.is_none() { "agreed" } else { "did not always agree" };
        println!("stats() {agreed} with itself in {looks} looks; at most {most_active} tasks were in flight");
    }
}

fn show(memory: Memory) -> String {
    let live = memory.live / 1024;
    memory.resident.map_or_else(
        || format!("{live} KB live"),
        |resident| format!("{live} KB live, {} MB resident", resident / 1024 / 1024),
    )
}

/// Silences the panics that tasks raise on purpose. Others are printed as usual.
fn quiet_panics() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some(kind::PANIC) {
            others(info);
        }
    }));
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(options) = Options::parse()? else {
        print!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    quiet_panics();
    allocator::count();
    let runtime = Builder::new_multi_thread().worker_threads(options.workers).enable_all().build()?;
    println!("start  {}", show(Memory::now()));
    let soaked = runtime.block_on(soak(options))?;
    soaked.print(options);
    let mistakes = soaked.mistakes();
    if mistakes.is_empty() {
        println!("every task is accounted for, and memory is flat");
        return Ok(ExitCode::SUCCESS);
    }
    for mistake in mistakes {
        println!("FAILED: {mistake}");
    }
    Ok(ExitCode::FAILURE)
}
