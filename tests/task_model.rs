//! Random programs against a simple model, on the paused clock.
//!
//! Everything in the model happens at a multiple of ten milliseconds, except what follows from a bound, and those end
//! in five: so the model needs no rule for ties but the one that is promised (the body wins against its deadline).

use std::{collections::BTreeMap, future::pending, time::Duration};

use agentflow::{BackgroundTaskManager, SpawnError, TaskContext, TaskHandle, TaskManagerOptions, TaskOutcome};
use proptest::prelude::*;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::settle;

const GRACE: u64 = 200;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// Ends by itself, one way or another.
    Ends { after: u64, with: TaskOutcome },
    /// Runs until it is cancelled, and ends so much later; or never does.
    Listens { reacts_in: Option<u64> },
}

#[derive(Clone, Debug)]
enum Step {
    Spawn(Work, Option<u64>),
    Sleep(u64),
    Cancel(usize),
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
    let ends = (tens(300), with).prop_map(|(after, with)| Work::Ends { after, with });
    let listens = prop::option::of(tens(GRACE - 10)).prop_map(|reacts_in| Work::Listens { reacts_in });
    let step = prop_oneof![
        8 => (prop_oneof![3 => ends, 2 => listens], prop::option::of(tens(300)))
            .prop_map(|(work, timeout)| Step::Spawn(work, timeout)),
        4 => tens(150).prop_map(Step::Sleep),
        3 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::DropHandle),
        1 => Just(Step::CancelAll),
        2 => tens(200).prop_map(|bound| Step::Wait(bound + 5)),
        1 => tens(200).prop_map(|bound| Step::Close(bound + 5)),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Clone, Copy, Debug)]
struct Model {
    work: Work,
    spawned: u64,
    deadline: Option<u64>,
    cancelled: Option<u64>,
}

impl Model {
    /// When and how it ends, if nothing else happens; `None` is never.
    fn end(&self) -> Option<(u64, TaskOutcome)> {
        if self.deadline == Some(self.spawned) {
            return Some((self.spawned, TaskOutcome::TimedOut));
        }
        let own = match (self.work, self.cancelled) {
            (Work::Ends { after, with }, None) => Some((self.spawned + after, with)),
            (Work::Ends { .. }, Some(at)) => Some((at, TaskOutcome::Cancelled)),
            (Work::Listens { .. }, None) => None,
            (Work::Listens { reacts_in: Some(reacts_in) }, Some(at)) => Some((at + reacts_in, TaskOutcome::Completed)),
            (Work::Listens { reacts_in: None }, Some(at)) => Some((at + GRACE, TaskOutcome::Aborted)),
        };
        match (own, self.deadline) {
            // An abort is the manager's own: there the timeout comes first.
            (Some((at, TaskOutcome::Aborted)), Some(deadline)) if deadline <= at => {
                Some((deadline, TaskOutcome::TimedOut))
            }
            (Some((at, _)), Some(deadline)) if deadline < at => Some((deadline, TaskOutcome::TimedOut)),
            (None, Some(deadline)) => Some((deadline, TaskOutcome::TimedOut)),
            (own, _) => own,
        }
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

    /// When all that lives now has ended.
    fn drained(&self, now: u64) -> Option<u64> {
        let live = self.models.iter().filter(|model| model.lives(now));
        live.map(|model| model.end().map(|(at, _)| at)).try_fold(now, |last, end| end.map(|end| last.max(end)))
    }

    fn spawn(&mut self, work: Work, timeout: Option<u64>) {
        let spawned = match work {
            Work::Ends { after, with } => {
                let future = async move {
                    if after > 0 {
                        sleep(millis(after)).await;
                    }
                    match with {
                        TaskOutcome::Failed => Err("failed"),
                        TaskOutcome::Panicked => panic!("panicked"),
                        _ => Ok(()),
                    }
                };
                let builder = self.tasks.create_task(future);
                match timeout {
                    Some(timeout) => builder.timeout(millis(timeout)).spawn(),
                    None => builder.spawn(),
                }
            }
            Work::Listens { reacts_in } => {
                let future = move |task: TaskContext| async move {
                    task.cancelled().await;
                    match reacts_in {
                        Some(0) => {}
                        Some(reacts_in) => sleep(millis(reacts_in)).await,
                        None => pending().await,
                    }
                };
                let builder = self.tasks.create_task_with(future);
                match timeout {
                    Some(timeout) => builder.timeout(millis(timeout)).spawn(),
                    None => builder.spawn(),
                }
            }
        };
        match spawned {
            Ok(handle) => {
                assert!(!self.closed);
                let now = self.now();
                let deadline = timeout.map(|timeout| now + timeout);
                self.handles.insert(self.models.len(), handle);
                self.models.push(Model { work, spawned: now, deadline, cancelled: None });
            }
            Err(error) => {
                assert_eq!((error, self.closed), (SpawnError::Closed, true));
                self.rejected += 1;
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Spawn(work, timeout) => self.spawn(work, timeout),
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
            Step::CancelAll => {
                let now = self.now();
                self.models.iter_mut().for_each(|model| model.cancel(now));
                // Those that were cancelled before are further on than those that are cancelled now.
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
                if in_time.is_none() {
                    self.models.iter_mut().for_each(|model| model.cancel(until));
                }
                let ends = in_time.or_else(|| self.drained(until)).unwrap();
                let report = self.tasks.close(Some(millis(bound))).await;
                assert_eq!((self.now(), report.still_running.len()), (ends, 0));
                let cut_off = self.models.iter().filter(|model| {
                    let (at, outcome) = model.end().unwrap();
                    at >= until && matches!(outcome, TaskOutcome::Cancelled | TaskOutcome::Aborted)
                });
                if !self.closed {
                    assert_eq!(report.cut_off.len(), cut_off.count());
                }
                self.closed = true;
            }
        }
        // What happens at one moment happens before the next step.
        settle().await;
        let now = self.now();
        sleep_until(self.began + millis(now.next_multiple_of(10))).await;
        settle().await;
    }

    fn check(&self) {
        let now = self.now();
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for model in self.models.iter().filter(|model| !model.lives(now)) {
            *expected.entry(model.end().unwrap().1.as_str()).or_default() += 1;
        }
        let count = |outcome: TaskOutcome| expected.get(outcome.as_str()).copied().unwrap_or_default();
        let stats = self.tasks.stats();
        assert_eq!(stats.completed, count(TaskOutcome::Completed));
        assert_eq!(stats.failed, count(TaskOutcome::Failed));
        assert_eq!(stats.panicked, count(TaskOutcome::Panicked));
        assert_eq!(stats.timed_out, count(TaskOutcome::TimedOut));
        assert_eq!(stats.cancelled, count(TaskOutcome::Cancelled));
        assert_eq!(stats.aborted, count(TaskOutcome::Aborted));
        assert_eq!((stats.spawned, stats.rejected), (self.models.len() as u64, self.rejected));

        let live = self.models.iter().enumerate().filter(|(_, model)| model.lives(now));
        let live: Vec<_> = live.map(|(index, model)| (index as u64 + 1, millis(now - model.spawned))).collect();
        let infos: Vec<_> = self.tasks.task_info().iter().map(|info| (info.id().get(), info.age())).collect();
        assert_eq!(infos, live);
        assert_eq!(self.tasks.task_count(), live.len());

        for end in self.tasks.recent() {
            let model = &self.models[usize::try_from(end.id().get()).unwrap() - 1];
            let (at, outcome) = model.end().unwrap();
            assert_eq!((end.outcome(), end.age()), (outcome, millis(at - model.spawned)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_program_does_what_the_model_says(steps in steps()) {
        let hook = std::panic::take_hook();
        // The tasks that panic do so on purpose; what fails here is shown by proptest.
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
        let options = TaskManagerOptions::new().grace(millis(GRACE)).history(1_000);
        let mut program = Program {
            tasks: BackgroundTaskManager::with_options(options),
            began: Instant::now(),
            models: Vec::new(),
            handles: BTreeMap::new(),
            closed: false,
            rejected: 0,
        };
        for step in steps {
            program.step(step).await;
            program.check();
        }
    });
}
