//! Random programs: the manager's options, the steps of its users, the tasks that they spawn, and the end.

use agentflow::task::{OnClose, OnDuplicateKey, OnFull, OnRunEnd};
use proptest::prelude::*;

/// The names of tasks. The second one has a limit of its own.
pub(super) const NAMES: [&str; 3] = ["free", "limited", "other"];
pub(super) const LIMITED: usize = 1;

/// The longest grace period of a task or of a manager, in units of time.
pub(super) const MAX_GRACE: u64 = 60;

/// A program. Times are in units, whose length is a matter of the runtime.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) limits: Limits,
    /// The subscriber panics in each so many-th call, if at all.
    pub(super) panics_every: Option<u64>,
    /// The users of the manager, which act at the same time.
    pub(super) users: Vec<Vec<Step>>,
    /// Happens when the first user is done.
    pub(super) ending: Ending,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_tasks: Option<usize>,
    pub(super) on_full: OnFull,
    pub(super) max_running: Option<usize>,
    pub(super) max_limited: Option<usize>,
    pub(super) grace: u64,
    pub(super) queue_timeout: Option<u64>,
    pub(super) event_buffer: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Spawn(Job, How),
    Sleep(u64),
    Cancel(Target),
    CancelAll,
    Wait(u64),
    /// Awaits a handle for so long.
    Await(usize, u64),
    DropHandle(usize),
    /// Runs a graph whose node spawns these, and takes so long; the run is dropped after so long.
    Run {
        jobs: Vec<Job>,
        length: u64,
        dropped_after: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Handle(usize),
    Id(usize),
    Name(usize),
    Run(usize),
}

/// The way in which a task is spawned.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Spawn,
    /// With `spawn_wait`, for at most so long.
    Wait(u64),
    /// With `spawn_wait`, which is dropped after its first poll.
    PolledOnce,
}

/// The handle of a task that the spawner keeps, if it keeps one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keep {
    Handle,
    Nothing,
    AbortOnDrop,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) name: usize,
    pub(super) key: Option<(u8, OnDuplicateKey)>,
    pub(super) delay: Option<u64>,
    pub(super) on_close: OnClose,
    pub(super) timeout: Option<u64>,
    pub(super) queue_timeout: Option<u64>,
    pub(super) idle_timeout: Option<u64>,
    pub(super) grace: Option<u64>,
    pub(super) cancel_last: bool,
    pub(super) on_run_end: OnRunEnd,
    pub(super) keep: Keep,
    pub(super) acts: Vec<Act>,
    pub(super) end: End,
    pub(super) destructor_panics: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Plain,
    /// Ends by itself so long after its cancellation.
    Context {
        listens: Option<u64>,
    },
    Blocking,
    /// Fails so often before it does what a plain task does.
    Retrying {
        retries: u32,
        fails: u32,
        attempt_timeout: Option<u64>,
        backoff: u64,
    },
}

/// The actions of a task before it ends.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Sleep(u64),
    Yield,
    Progress,
    Heartbeat,
    Child(Box<Job>, How),
    Cancel(Target),
    CancelAll,
    Wait(u64),
    /// Only at the end of a program.
    Close(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Fail,
    /// With an error that panics when it is formatted.
    FailHostile,
    Panic,
    /// Never ends by itself; a blocking task completes.
    Never,
}

/// The end of the manager.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    Close(u64),
    /// Two at once; the first one is dropped after so long.
    CloseTwice {
        first: u64,
        second: u64,
        dropped_after: Option<u64>,
    },
    /// From within a task, and then from outside.
    CloseInTask(u64),
    CloseApp(u64),
    StopApp,
    DropManager,
    ShutDownRuntime,
}

impl Program {
    /// Returns whether a task of it blocks a thread, and so is a thread of its own.
    pub(super) fn blocks(&self) -> bool {
        self.users.clone().iter_mut().flatten().flat_map(Step::jobs).any(|job| job.blocks())
    }
}

impl Step {
    fn jobs(&mut self) -> impl Iterator<Item = &mut Job> {
        match self {
            Self::Spawn(job, _) => std::slice::from_mut(job).iter_mut(),
            Self::Run { jobs, .. } => jobs.iter_mut(),
            _ => [].iter_mut(),
        }
    }
}

impl Job {
    fn blocks(&self) -> bool {
        let child_blocks = |act: &Act| matches!(act, Act::Child(job, _) if job.blocks());
        matches!(self.kind, Kind::Blocking) || self.acts.iter().any(child_blocks)
    }

    /// Makes plain tasks of those that block.
    fn unblock(&mut self) {
        if matches!(self.kind, Kind::Blocking) {
            self.kind = Kind::Plain;
        }
        for act in &mut self.acts {
            if let Act::Child(job, _) = act {
                job.unblock();
            }
        }
    }

    /// A task without options.
    pub(super) fn plain(acts: Vec<Act>) -> Self {
        Self {
            kind: Kind::Plain,
            name: 0,
            key: None,
            delay: None,
            on_close: OnClose::Run,
            timeout: None,
            queue_timeout: None,
            idle_timeout: None,
            grace: None,
            cancel_last: false,
            on_run_end: OnRunEnd::Detach,
            keep: Keep::Handle,
            acts,
            end: End::Complete,
            destructor_panics: false,
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let on_full = prop::sample::select(vec![OnFull::Reject, OnFull::DropOldest]);
    let buffer = prop::sample::select(vec![1 << 12, 1 << 12, 8]);
    let limit = |weight, max: usize| prop::option::weighted(weight, 1..=max);
    let queue_timeout = prop::option::weighted(0.2, 0..60_u64);
    (limit(0.6, 8), on_full, limit(0.6, 3), limit(0.5, 2), 0..MAX_GRACE, queue_timeout, buffer).prop_map(
        |(max_tasks, on_full, max_running, max_limited, grace, queue_timeout, event_buffer)| Limits {
            max_tasks,
            on_full,
            max_running,
            max_limited,
            grace,
            queue_timeout,
            event_buffer,
        },
    )
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        3 => any::<usize>().prop_map(Target::Handle),
        3 => any::<usize>().prop_map(Target::Id),
        1 => (0..NAMES.len()).prop_map(Target::Name),
        1 => any::<usize>().prop_map(Target::Run),
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        3 => Just(How::Spawn),
        2 => (1..80_u64).prop_map(How::Wait),
        1 => Just(How::PolledOnce),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    let listens = prop::option::weighted(0.6, prop_oneof![Just(0), 1..2 * MAX_GRACE]);
    let retrying = (0..3_u32, 0..4_u32, prop::option::of(1..30_u64), prop_oneof![Just(0), 1..20_u64]).prop_map(
        |(retries, fails, attempt_timeout, backoff)| Kind::Retrying { retries, fails, attempt_timeout, backoff },
    );
    prop_oneof![
        4 => Just(Kind::Plain),
        3 => listens.prop_map(|listens| Kind::Context { listens }),
        1 => Just(Kind::Blocking),
        2 => retrying,
    ]
}

fn act(children: impl Strategy<Value = Act> + 'static) -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..60_u64).prop_map(Act::Sleep),
        2 => Just(Act::Yield),
        2 => Just(Act::Progress),
        1 => Just(Act::Heartbeat),
        2 => children,
        1 => target().prop_map(Act::Cancel),
        1 => (1..50_u64).prop_map(Act::Wait),
    ]
}

fn job_with(acts: impl Strategy<Value = Vec<Act>> + 'static) -> impl Strategy<Value = Job> {
    let on_duplicate = prop::sample::select(vec![OnDuplicateKey::Replace, OnDuplicateKey::Skip, OnDuplicateKey::Queue]);
    let on_run_end = prop::sample::select(vec![OnRunEnd::Detach, OnRunEnd::Cancel, OnRunEnd::Wait]);
    let on_close = prop::sample::select(vec![OnClose::Run, OnClose::Drop]);
    let end = prop_oneof![
        5 => Just(End::Complete),
        2 => Just(End::Fail),
        1 => Just(End::FailHostile),
        1 => Just(End::Panic),
        2 => Just(End::Never),
    ];
    let keep = prop_oneof![4 => Just(Keep::Handle), 2 => Just(Keep::Nothing), 1 => Just(Keep::AbortOnDrop)];
    let some = |max: u64| prop::option::weighted(0.2, 0..max);
    (
        (kind(), 0..NAMES.len(), prop::option::weighted(0.4, (0..2_u8, on_duplicate))),
        (some(150), some(60), some(40), some(MAX_GRACE), prop::bool::weighted(0.15)),
        (on_run_end, keep, acts, end, prop::bool::weighted(0.1)),
        (some(100), on_close),
    )
        .prop_map(
            |(
                (kind, name, key),
                (timeout, queue_timeout, idle_timeout, grace, cancel_last),
                (on_run_end, keep, acts, end, destructor_panics),
                (delay, on_close),
            )| Job {
                kind,
                name,
                key,
                delay,
                on_close,
                timeout,
                queue_timeout,
                idle_timeout,
                grace,
                cancel_last,
                on_run_end,
                keep,
                acts,
                end,
                destructor_panics,
            },
        )
        // A job has jobs, and a strategy that holds others by value outgrows the stack.
        .boxed()
}

fn job() -> impl Strategy<Value = Job> {
    let grandchild = job_with(prop::collection::vec(act(Just(Act::Yield)), 0..3));
    let child = (grandchild, how()).prop_map(|(job, how)| Act::Child(Box::new(job), how));
    let child = (job_with(prop::collection::vec(act(child), 0..3)), how());
    let child = child.prop_map(|(job, how)| Act::Child(Box::new(job), how));
    let acts = prop_oneof![15 => act(child), 1 => Just(Act::CancelAll)];
    job_with(prop::collection::vec(acts, 0..4))
}

fn step() -> impl Strategy<Value = Step> {
    let run = (prop::collection::vec(job(), 1..3), 0..40_u64, prop::option::weighted(0.2, 0..60_u64));
    prop_oneof![
        12 => (job(), how()).prop_map(|(job, how)| Step::Spawn(job, how)),
        5 => (0..40_u64).prop_map(Step::Sleep),
        3 => target().prop_map(Step::Cancel),
        1 => Just(Step::CancelAll),
        1 => (1..60_u64).prop_map(Step::Wait),
        2 => (any::<usize>(), 0..40_u64).prop_map(|(handle, time)| Step::Await(handle, time)),
        2 => any::<usize>().prop_map(Step::DropHandle),
        2 => run.prop_map(|(jobs, length, dropped_after)| Step::Run { jobs, length, dropped_after }),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    let bound = || 0..200_u64;
    let twice = (bound(), bound(), prop::option::of(0..100_u64));
    prop_oneof![
        4 => bound().prop_map(Ending::Close),
        2 => twice.prop_map(|(first, second, dropped_after)| Ending::CloseTwice { first, second, dropped_after }),
        1 => bound().prop_map(Ending::CloseInTask),
        2 => bound().prop_map(Ending::CloseApp),
        1 => Just(Ending::StopApp),
        2 => Just(Ending::DropManager),
        2 => Just(Ending::ShutDownRuntime),
    ]
}

pub(super) fn program(users: usize, steps: usize) -> impl Strategy<Value = Program> {
    let users = prop::collection::vec(prop::collection::vec(step(), 1..steps), 1..=users);
    let blocks = prop::bool::weighted(0.3);
    (limits(), prop::option::weighted(0.3, 1..12_u64), users, ending(), blocks).prop_map(
        |(limits, panics_every, mut users, ending, blocks)| {
            if !blocks {
                // More can be checked of a program that has no threads of its own.
                users.iter_mut().flatten().flat_map(Step::jobs).for_each(Job::unblock);
            }
            Program { limits, panics_every, users, ending }
        },
    )
}
