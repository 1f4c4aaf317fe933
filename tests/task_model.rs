//! Random programs against a simple model of the life of single tasks, on the paused clock.
//!
//! The steps of a program happen at multiples of ten milliseconds. Bounds end in five, and times that could otherwise
//! coincide with a grace period or an attempt's timeout end in one to three. The model therefore needs no rule for ties
//! but the documented one: the body wins against its deadline.

use std::{collections::BTreeMap, future::pending, time::Duration};

use agentflow::{
    BackgroundTaskManager, RetryPolicy, TaskContext,
    task::{SpawnError, TaskHandle, TaskManagerOptions, TaskOutcome, TaskState, TimeoutKind},
};
use proptest::prelude::*;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::settle;

const GRACE: u64 = 200;
const ATTEMPTS: u32 = 3;
/// The names of the tasks, used alternately.
const NAMES: [&str; 2] = ["even", "odd"];

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// Ends by itself after this time, with this outcome.
    Ends { after: u64, with: TaskOutcome },
    /// Runs until it is cancelled and ends this much later, or never.
    Listens { reacts_in: Option<u64> },
    /// Fails this many times, each time after `each` milliseconds.
    Retries { fails: u32, each: u64, limit: Option<u64>, pause: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    work: Work,
    timeout: Option<u64>,
    grace: Option<u64>,
    cancel_last: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Spawn(Plan),
    Sleep(u64),
    Cancel(usize),
    CancelNamed(&'static str),
    DropHandle(usize),
    CancelAll,
    Wait(u64),
    Close(u64),
}

fn tens(max: u64) -> impl Strategy<Value = u64> {
    (0..=max / 10).prop_map(|tens| tens * 10)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let with = prop::sample::select(vec![TaskOutcome::Completed, TaskOutcome::Failed, TaskOutcome::Panicked]);
    let after = (tens(300), prop::sample::select(vec![0, 3])).prop_map(|(tens, more)| tens + more);
    let ends = (after, with).prop_map(|(after, with)| Work::Ends { after, with });
    let reacts_in = prop_oneof![Just(0), tens(GRACE - 20).prop_map(|tens| tens + 1)];
    let listens = prop::option::of(reacts_in).prop_map(|reacts_in| Work::Listens { reacts_in });
    let limit = prop::option::of(tens(90).prop_map(|tens| tens + 10));
    let retries = (0..=ATTEMPTS, tens(100), limit, tens(50)).prop_map(|(fails, each, limit, pause)| Work::Retries {
        fails,
        each: each + 1,
        limit,
        // Without a pause the task's timeout could coincide with that of an attempt.
        pause: pause + 10,
    });
    let grace = prop::option::weighted(0.3, tens(290).prop_map(|tens| tens + 10));
    let plan = (prop_oneof![3 => ends, 2 => listens, 2 => retries], prop::option::of(tens(300)), grace, any::<bool>())
        .prop_map(|(work, timeout, grace, cancel_last)| {
            // A task that ends at a multiple of ten could coincide with the end of a grace period.
            let cancel_last = cancel_last && !matches!(work, Work::Ends { after, .. } if after % 10 == 0);
            Plan { work, timeout, grace, cancel_last }
        });
    let step = prop_oneof![
        8 => plan.prop_map(Step::Spawn),
        4 => tens(150).prop_map(Step::Sleep),
        3 => any::<usize>().prop_map(Step::Cancel),
        1 => prop::sample::select(&NAMES[..]).prop_map(Step::CancelNamed),
        1 => any::<usize>().prop_map(Step::DropHandle),
        1 => Just(Step::CancelAll),
        2 => tens(200).prop_map(|bound| Step::Wait(bound + 5)),
        1 => tens(200).prop_map(|bound| Step::Close(bound + 5)),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Clone, Copy, Debug)]
struct Model {
    plan: Plan,
    spawned: u64,
    deadline: Option<u64>,
    cancelled: Option<u64>,
    /// A close reached its bound, after which a `cancel_last` task runs on for its grace period.
    is_cut_off: bool,
}

/// The attempts of a retrying task that is not stopped.
#[derive(Debug, Default)]
struct Attempts {
    began: Vec<u64>,
    end: Option<(u64, TaskOutcome)>,
}

impl Model {
    fn attempts(&self) -> Attempts {
        let mut attempts = Attempts::default();
        let Work::Retries { fails, each, limit, pause } = self.plan.work else {
            attempts.began.push(self.spawned);
            return attempts;
        };
        let mut now = self.spawned;
        for number in 1..=ATTEMPTS {
            attempts.began.push(now);
            let outcome = match limit {
                Some(limit) if limit < each => TaskOutcome::TimedOut,
                _ if number <= fails => TaskOutcome::Failed,
                _ => TaskOutcome::Completed,
            };
            now += limit.map_or(each, |limit| limit.min(each));
            if outcome == TaskOutcome::Completed || number == ATTEMPTS {
                attempts.end = Some((now, outcome));
                break;
            }
            now += pause;
        }
        attempts
    }

    /// Returns the time and the outcome if the task is not stopped; `None` if it never ends.
    fn own_end(&self) -> Option<(u64, TaskOutcome)> {
        match self.plan.work {
            Work::Ends { after, with } => Some((self.spawned + after, with)),
            Work::Listens { reacts_in } => Some((self.cancelled? + reacts_in?, TaskOutcome::Completed)),
            Work::Retries { .. } => self.attempts().end,
        }
    }

    /// Returns the time and the outcome if nothing else happens; `None` if the task never ends.
    fn end(&self) -> Option<(u64, TaskOutcome)> {
        if self.deadline == Some(self.spawned) {
            return Some((self.spawned, TaskOutcome::TimedOut));
        }
        let listens = matches!(self.plan.work, Work::Listens { .. });
        let has_grace = listens || (self.plan.cancel_last && self.is_cut_off);
        let aborted = |at| (at + self.plan.grace.unwrap_or(GRACE), TaskOutcome::Aborted);
        let stopped = self.cancelled.map(|at| if has_grace { aborted(at) } else { (at, TaskOutcome::Cancelled) });
        let timed_out = self.deadline.map(|deadline| (deadline, TaskOutcome::TimedOut));
        // `min_by_key` takes the first of several ends at one moment. A body dropped at its own end has not ended.
        let ends = if has_grace { [self.own_end(), timed_out, stopped] } else { [stopped, self.own_end(), timed_out] };
        ends.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn limit(&self) -> Option<TimeoutKind> {
        let end = self.end()?;
        let limit = if self.own_end() == Some(end) { TimeoutKind::Attempt } else { TimeoutKind::Total };
        (end.1 == TaskOutcome::TimedOut).then_some(limit)
    }

    /// Returns the number of attempts that have started.
    fn begun(&self, now: u64) -> u32 {
        if self.deadline == Some(self.spawned) {
            return 0;
        }
        let until = self.end().map_or(now, |(at, _)| at.min(now));
        u32::try_from(self.attempts().began.iter().filter(|at| **at <= until).count()).unwrap()
    }

    fn lives(&self, now: u64) -> bool {
        self.end().is_none_or(|(at, _)| at > now)
    }

    fn cancel(&mut self, now: u64) {
        if self.lives(now) && self.cancelled.is_none() {
            self.cancelled = Some(now);
        }
    }
}

/// A close acts on a task at the very moment of the task's end: the order of the two is not defined.
struct Tie;

struct Program {
    tasks: BackgroundTaskManager,
    began: Instant,
    models: Vec<Model>,
    handles: BTreeMap<usize, TaskHandle<()>>,
    closed: bool,
    rejected: u64,
}

impl Program {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// Returns the time at which all tasks that are live now have ended.
    fn drained(&self, now: u64) -> Option<u64> {
        let live = self.models.iter().filter(|model| model.lives(now));
        live.map(|model| model.end().map(|(at, _)| at)).try_fold(now, |last, end| end.map(|end| last.max(end)))
    }

    fn spawn(&mut self, plan: Plan) {
        let tasks = self.tasks.clone();
        let name = NAMES[self.models.len() % 2];
        macro_rules! spawn {
            ($builder:expr) => {{
                let mut builder = $builder.name(name);
                if let Some(timeout) = plan.timeout {
                    builder = builder.timeout(millis(timeout));
                }
                if let Some(grace) = plan.grace {
                    builder = builder.grace_period(millis(grace));
                }
                if plan.cancel_last {
                    builder = builder.cancel_last();
                }
                builder.spawn()
            }};
        }
        let spawned = match plan.work {
            Work::Ends { after, with } => spawn!(tasks.create_task(async move {
                if after > 0 {
                    sleep(millis(after)).await;
                }
                match with {
                    TaskOutcome::Failed => Err("failed"),
                    TaskOutcome::Panicked => panic!("panicked"),
                    _ => Ok(()),
                }
            })),
            Work::Listens { reacts_in } => {
                spawn!(tasks.create_task_with_context(move |task: TaskContext| async move {
                    task.cancelled().await;
                    match reacts_in {
                        Some(0) => {}
                        Some(reacts_in) => sleep(millis(reacts_in)).await,
                        None => pending().await,
                    }
                }))
            }
            Work::Retries { fails, each, limit, pause } => {
                let attempt = move |number| async move {
                    sleep(millis(each)).await;
                    if number <= fails { Err("failed") } else { Ok(()) }
                };
                let policy = RetryPolicy::new(ATTEMPTS - 1).backoff(millis(pause)).factor(1.0);
                let builder = tasks.create_retrying_task(attempt).retry(policy);
                spawn!(if let Some(limit) = limit { builder.attempt_timeout(millis(limit)) } else { builder })
            }
        };
        match spawned {
            Ok(handle) => {
                assert!(!self.closed);
                let spawned = self.now();
                let deadline = plan.timeout.map(|timeout| spawned + timeout);
                self.handles.insert(self.models.len(), handle);
                self.models.push(Model { plan, spawned, deadline, cancelled: None, is_cut_off: false });
            }
            Err(error) => {
                assert_eq!((error, self.closed), (SpawnError::Closed, true));
                self.rejected += 1;
            }
        }
    }

    /// Cancels the live tasks at the bound of a close; returns the time at which it cancels the `cancel_last` tasks.
    fn unfinished(&mut self, until: u64) -> Result<u64, Tie> {
        let mut last_turn = until;
        for model in self.models.iter_mut().filter(|model| !model.plan.cancel_last && model.lives(until)) {
            model.cancel(until);
            last_turn = last_turn.max(model.end().unwrap().0);
        }
        for model in self.models.iter_mut().filter(|model| model.plan.cancel_last && model.lives(until)) {
            if model.end().is_some_and(|(at, _)| at == last_turn) {
                return Err(Tie);
            }
            if model.lives(last_turn) && model.cancelled.is_none() {
                model.is_cut_off = true;
                model.cancel(last_turn);
                let aborted = Some(last_turn + model.plan.grace.unwrap_or(GRACE));
                if [model.deadline, model.own_end().map(|(at, _)| at)].contains(&aborted) {
                    return Err(Tie);
                }
            }
        }
        Ok(last_turn)
    }

    async fn step(&mut self, step: Step) -> Result<(), Tie> {
        match step {
            Step::Spawn(plan) => self.spawn(plan),
            Step::Sleep(time) => sleep(millis(time)).await,
            Step::Cancel(_) | Step::DropHandle(_) if self.handles.is_empty() => {}
            Step::Cancel(any) => {
                let now = self.now();
                let (index, handle) = self.handles.iter().nth(any % self.handles.len()).unwrap();
                handle.cancel();
                self.models[*index].cancel(now);
            }
            Step::DropHandle(any) => {
                let index = *self.handles.keys().nth(any % self.handles.len()).unwrap();
                self.handles.remove(&index);
            }
            Step::CancelNamed(name) => {
                let now = self.now();
                let named = self.models.iter_mut().enumerate().filter(|(index, _)| NAMES[index % 2] == name);
                let live: Vec<_> = named.map(|(_, model)| model).filter(|model| model.lives(now)).collect();
                assert_eq!(self.tasks.cancel_named(name), live.len());
                for model in live {
                    model.cancel(now);
                }
            }
            Step::CancelAll => {
                let now = self.now();
                self.models.iter_mut().for_each(|model| model.cancel(now));
                // Tasks that were cancelled earlier are further in their grace period than those cancelled now.
                let drained = self.drained(now).unwrap();
                let report = self.tasks.cancel_all().await;
                assert_eq!((self.now(), report.still_running.len()), (drained, 0));
            }
            Step::Wait(bound) => {
                let until = self.now() + bound;
                let expected = self.drained(self.now()).filter(|drained| *drained <= until);
                let waited = self.tasks.wait_for_all(Some(millis(bound))).await;
                assert_eq!(self.now(), expected.unwrap_or(until));
                assert_eq!(waited.is_ok(), expected.is_some());
            }
            Step::Close(bound) => {
                let until = self.now() + bound;
                let in_time = self.drained(self.now()).filter(|drained| *drained <= until);
                let last_turn = if in_time.is_none() { self.unfinished(until)? } else { until };
                let ends = in_time.or_else(|| self.drained(until)).unwrap();
                let report = self.tasks.close(Some(millis(bound))).await;
                assert_eq!((self.now(), report.still_running.len()), (ends, 0));
                let unfinished = self.models.iter().filter(|model| {
                    let (at, outcome) = model.end().unwrap();
                    let turn = if model.plan.cancel_last { last_turn } else { until };
                    at >= turn && matches!(outcome, TaskOutcome::Cancelled | TaskOutcome::Aborted)
                });
                if !self.closed {
                    assert_eq!(report.unfinished.len(), unfinished.count());
                }
                self.closed = true;
            }
        }
        // All events of one moment happen before the next step.
        settle().await;
        let now = self.now();
        sleep_until(self.began + millis(now.next_multiple_of(10))).await;
        settle().await;
        Ok(())
    }

    fn check(&self) {
        let now = self.now();
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for model in self.models.iter().filter(|model| !model.lives(now)) {
            *expected.entry(model.end().unwrap().1.as_str()).or_default() += 1;
        }
        let count = |outcome: TaskOutcome| expected.get(outcome.as_str()).copied().unwrap_or_default();
        let stats = self.tasks.stats();
        assert_eq!(stats.outcomes.completed, count(TaskOutcome::Completed));
        assert_eq!(stats.outcomes.failed, count(TaskOutcome::Failed));
        assert_eq!(stats.outcomes.panicked, count(TaskOutcome::Panicked));
        assert_eq!(stats.outcomes.timed_out, count(TaskOutcome::TimedOut));
        assert_eq!(stats.outcomes.cancelled, count(TaskOutcome::Cancelled));
        assert_eq!(stats.outcomes.aborted, count(TaskOutcome::Aborted));
        assert_eq!((stats.spawned, stats.rejected), (self.models.len() as u64, self.rejected));
        let retries = |model: &Model| u64::from(model.begun(now).saturating_sub(1));
        assert_eq!(stats.retries, self.models.iter().map(retries).sum::<u64>());

        let live = self.models.iter().enumerate().filter(|(_, model)| model.lives(now));
        let live: Vec<_> = live
            .map(|(index, model)| {
                let is_at = if model.cancelled.is_some() { TaskState::Cancelling } else { TaskState::Running };
                (index as u64 + 1, millis(now - model.spawned), is_at, model.begun(now))
            })
            .collect();
        let infos = self.tasks.task_info();
        let infos: Vec<_> =
            infos.iter().map(|info| (info.id().get(), info.age(), info.state(), info.attempt())).collect();
        assert_eq!(infos, live);
        assert_eq!(self.tasks.task_count(), live.len());

        for end in self.tasks.recently_finished() {
            let model = &self.models[usize::try_from(end.id().get()).unwrap() - 1];
            let (at, outcome) = model.end().unwrap();
            assert_eq!((end.outcome(), end.age()), (outcome, millis(at - model.spawned)));
            assert_eq!((end.limit(), end.attempts()), (model.limit(), model.begun(now)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_program_behaves_like_the_model(steps in steps()) {
        let hook = std::panic::take_hook();
        // The tasks panic on purpose, and proptest prints a failure by itself.
        std::panic::set_hook(Box::new(|_| {}));
        let result = std::panic::catch_unwind(|| run(steps));
        std::panic::set_hook(hook);
        if let Err(payload) = result {
            std::panic::resume_unwind(payload);
        }
    }
}

fn run(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let options = TaskManagerOptions::new().grace_period(millis(GRACE)).history(1_000);
        let mut program = Program {
            tasks: BackgroundTaskManager::with_options(options),
            began: Instant::now(),
            models: Vec::new(),
            handles: BTreeMap::new(),
            closed: false,
            rejected: 0,
        };
        for step in steps {
            if program.step(step).await.is_err() {
                return;
            }
            program.check();
        }
    });
}
