//! The process that is killed.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use agentflow::{
    CompiledGraph, RunConfig,
    store::{RunFilter, RunStatus, ThreadFilter},
    task::TaskHandle,
    thread::{OnBusyThread, Outcome, Thread, ThreadStatus},
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    Failed,
    dice::Dice,
    graph::{self, Log},
    ledger::Ledger,
    store::StoreKind,
};

/// The number of tasks that send inputs at once, each to threads of its own.
const SENDERS: u64 = 8;

/// The number of threads of a sender.
const THREADS: u64 = 6;

/// The number of inputs that are sent to a thread at once, if it takes several.
const BURST: u32 = 3;

/// The arguments of a child.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) store: StoreKind,
    pub(crate) seed: u64,
    pub(crate) number: u32,
    /// Set if the child sends nothing, and ends when nothing is left to do.
    pub(crate) is_last: bool,
    pub(crate) folder: PathBuf,
}

/// Takes over what is left, and works until the process is killed; the last child until nothing is left to do.
pub(crate) async fn work(options: Options) -> Result<(), Failed> {
    let ledger = Ledger::open(&options.folder)?;
    let app = graph::app(options.store, &options.folder, ledger.clone())?;
    let report = app.recover().await?;
    ledger.up(options.number, report.taken.len());
    if let Some((run, reason)) = report.left.first() {
        return Err(format!("run {run} was left: {reason}").into());
    }
    if options.is_last {
        finish(&app, &ledger).await?;
        app.aclose().await;
        return Ok(());
    }
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let dice = Dice::new(options.seed ^ (u64::from(options.number) << 32) ^ (number << 16));
        let sender = Sender {
            app: app.clone(),
            ledger: ledger.clone(),
            dice,
            prefix: format!("{}-{number}", options.number),
            number,
            sent: 0,
            left: HashSet::new(),
        };
        senders.spawn(sender.run());
    }
    // A sender ends only by an error.
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    Ok(())
}

/// Sends inputs to its threads.
struct Sender {
    app: CompiledGraph<Log, Ledger>,
    ledger: Ledger,
    dice: Dice,
    prefix: String,
    number: u64,
    sent: u32,
    /// The threads whose questions are left to the next child.
    left: HashSet<u64>,
}

impl Sender {
    async fn run(mut self) -> Result<(), Failed> {
        loop {
            let at = self.dice.roll(THREADS);
            if self.left.contains(&at) {
                sleep(Duration::from_millis(1)).await;
                continue;
            }
            let name = format!("t{}-{at}", self.number);
            let thread = self.app.thread(&name);
            // A new input would drop the question that a run of the former child has asked.
            match status(&self.app, &thread).await? {
                Some(ThreadStatus::Busy) => sleep(Duration::from_millis(1)).await,
                Some(ThreadStatus::Paused) => answer(&thread, &self.ledger).await?,
                _ if at.is_multiple_of(2) => self.burst(&name, &thread).await?,
                _ => self.ask(at, &name, &thread).await?,
            }
        }
    }

    fn input(&mut self, suffix: &str) -> String {
        self.sent += 1;
        format!("{}-{}{suffix}", self.prefix, self.sent)
    }

    /// Sends several inputs, which wait for each other.
    async fn burst(&mut self, name: &str, thread: &Thread<Log, Ledger>) -> Result<(), Failed> {
        let mut runs = Vec::new();
        for _ in 0..BURST {
            let input = self.input("");
            runs.push(self.send(name, thread, &input).await?);
        }
        for run in runs {
            if run.await?.done().is_none() {
                return Err(format!("a run on {name} that does not ask waits").into());
            }
        }
        Ok(())
    }

    /// Sends an input that asks, and answers it or leaves that to the next child.
    async fn ask(&mut self, at: u64, name: &str, thread: &Thread<Log, Ledger>) -> Result<(), Failed> {
        let input = self.input("?");
        let outcome = self.send(name, thread, &input).await?.await?;
        if !matches!(outcome, Outcome::Waiting(_)) {
            return Err(format!("input {input} has not asked: {outcome:?}").into());
        }
        if self.dice.roll(3) == 0 {
            self.left.insert(at);
            return Ok(());
        }
        answer(thread, &self.ledger).await
    }

    async fn send(
        &self,
        name: &str,
        thread: &Thread<Log, Ledger>,
        input: &str,
    ) -> Result<TaskHandle<Outcome<Log>>, Failed> {
        self.ledger.sent(name, input);
        let update = Log::update().current(input).asks(graph::asks(input)).inputs([input.to_owned()]);
        let config = RunConfig::new().on_busy_thread(OnBusyThread::Queue);
        let run = thread.spawn(update, config).await?;
        self.ledger.accepted(name, input);
        Ok(run)
    }
}

/// Answers the open questions of a thread.
async fn answer(thread: &Thread<Log, Ledger>, ledger: &Ledger) -> Result<(), Failed> {
    for question in thread.questions().await? {
        let answer: String = question.decode()?;
        let outcome = thread.answer(question.id(), &answer).await?;
        ledger.answered(thread.id()?.as_str());
        if outcome.done().is_none() {
            return Err("an answered question was asked again".into());
        }
    }
    Ok(())
}

async fn status(
    app: &CompiledGraph<Log, Ledger>,
    thread: &Thread<Log, Ledger>,
) -> Result<Option<ThreadStatus>, Failed> {
    Ok(app.threads().get(thread.id()?).await?.map(|row| row.status))
}

/// Answers all questions, and waits until no run is unfinished.
async fn finish(app: &CompiledGraph<Log, Ledger>, ledger: &Ledger) -> Result<(), Failed> {
    loop {
        let mut is_done = true;
        for status in [RunStatus::Queued, RunStatus::Running] {
            let mut filter = RunFilter::default();
            filter.status = Some(status);
            filter.limit = Some(1);
            is_done &= app.threads().runs(filter).await?.is_empty();
        }
        for row in app.threads().list(ThreadFilter::default()).await?.threads {
            if row.status == ThreadStatus::Paused {
                answer(&app.thread(row.id.as_str()), ledger).await?;
                is_done = false;
            }
        }
        if is_done {
            return Ok(());
        }
        sleep(Duration::from_millis(5)).await;
    }
}
