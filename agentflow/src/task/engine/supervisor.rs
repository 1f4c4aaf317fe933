//! [`Supervisor`]: the future that tokio runs for a task. It alone decides how the task ends.
//!
//! The supervisor polls the work, and drops it when a timeout is over or a stop is requested, so there is no second
//! task, and no timer but its own. Its destructor records the end if the runtime drops the task.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    super::{error::TaskError, options::TaskManagerOptions, outcome::TimeoutKind},
    current::CurrentTask,
    end::finish,
    log,
    sync::{Sleep, sleep_until},
    task::{StopRequest, TaskRecord},
    work::Work,
};
use crate::{
    panics::{catch_panic, panic_message},
    span::GuardedSpan,
};

pin_project! {
    /// One task as tokio runs it: the work, and what is needed to end it.
    pub(crate) struct Supervisor<W>
    where
        W: Work,
    {
        current: CurrentTask,
        span: GuardedSpan,
        #[pin]
        supervised: Supervised<W>,
    }

    impl<W> PinnedDrop for Supervisor<W>
    where
        W: Work,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let _entered = this.span.enter();
            match this.supervised.phase {
                TaskPhase::Ended => {}
                TaskPhase::New if this.current.task.refuse() => this.supervised.refused_by_runtime(this.current),
                _ => this.supervised.dropped_by_runtime(this.current),
            }
        }
    }
}

pin_project! {
    // This type is separate from `Supervisor`, so that its methods can borrow `current` as well.
    struct Supervised<W>
    where
        W: Work,
    {
        #[pin]
        work: Option<W>,
        // The current task of this thread while the work is polled.
        current: Option<CurrentTask>,
        phase: TaskPhase,
        has_waker: bool,
        // This is in a box because most tasks are never stopped.
        ending: Option<Box<Ending>>,
        // The timer is created when the work is first found waiting; it is in a box because most tasks are done by then.
        sleep: Option<Pin<Box<Sleep>>>,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskPhase {
    New,
    /// The task has no permit to run yet, because it is delayed or queued.
    Queued,
    Running,
    Ended,
}

/// The progress of a task's end, once a stop has been requested.
#[derive(Default)]
struct Ending {
    /// The moment at which the grace period is over.
    grace_over: Option<Instant>,
    /// The reason for stopping work that can't be dropped and was only informed.
    informed: Option<Stop>,
}

/// The reason for stopping a task.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Cancelled,
    Aborted,
    Evicted,
    TimedOut { limit: TimeoutKind, after: Duration },
}

/// The next moment at which the supervisor acts by itself.
#[derive(Clone, Copy, Debug)]
enum Due {
    DelayOver,
    Stop(Stop),
}

impl Stop {
    fn error(self) -> TaskError {
        match self {
            Self::Cancelled => TaskError::Cancelled,
            Self::Aborted => TaskError::Aborted,
            Self::Evicted => TaskError::Evicted,
            Self::TimedOut { limit, after } => TaskError::TimedOut { after, limit },
        }
    }
}

type WorkResult<W> = Result<<W as Work>::Value, TaskError>;

impl<W: Work> Supervisor<W> {
    /// Creates the future of an admitted task, and its span. From here on the destructor ends the task.
    pub(crate) fn new(current: CurrentTask, work: W) -> Self {
        let span = log::span(&current.task);
        let supervised = Supervised {
            work: Some(work),
            current: Some(current.clone()),
            phase: TaskPhase::New,
            has_waker: false,
            ending: None,
            sleep: None,
        };
        Self { current, span, supervised }
    }
}

impl<W: Work> Future for Supervisor<W> {
    /// The result is in the task's record, where the handle finds it.
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // The spawner reports the task as well; a poll may come first.
        this.current.registry.task_accepted(&this.current.task);
        let _entered = this.span.enter();
        this.supervised.poll(cx, this.current)
    }
}

impl<W: Work> Supervised<W> {
    /// Begins to run, now that the task has its permit.
    fn begin(self: Pin<&mut Self>, current: &CurrentTask) {
        let this = self.project();
        *this.phase = TaskPhase::Running;
        // The timer, if there is one, was for the queue timeout.
        *this.sleep = None;
        if !W::BEGINS_ITSELF {
            current.registry.task_started(&current.task);
        }
    }

    /// Returns whether the work has begun.
    fn has_begun(&self, task: &TaskRecord) -> bool {
        match self.phase {
            TaskPhase::New | TaskPhase::Queued => false,
            TaskPhase::Running => !W::BEGINS_ITSELF || task.attempt() > 0,
            TaskPhase::Ended => true,
        }
    }

    /// Returns the reason for which the work was informed, if it can't be dropped.
    fn informed(&self) -> Option<Stop> {
        self.ending.as_ref()?.informed
    }

    /// Returns the requested stop, if it is to happen now.
    fn requested(&self, task: &TaskRecord) -> Option<Stop> {
        match task.stop_request() {
            StopRequest::Cancel | StopRequest::EndGrace if !self.has_grace(task) => Some(Stop::Cancelled),
            // The work was polled since it was cancelled, and went on.
            StopRequest::EndGrace if self.ending.is_some() => Some(Stop::Aborted),
            StopRequest::None | StopRequest::Cancel | StopRequest::EndGrace => None,
            StopRequest::Abort => Some(Stop::Aborted),
            StopRequest::Evict => Some(Stop::Evicted),
        }
    }

    /// Returns whether the task has a grace period when it is cancelled, or is dropped at once.
    fn has_grace(&self, task: &TaskRecord) -> bool {
        let is_cancelled_last = task.spec.extras().cancel_last && task.is_unfinished() && !task.is_delayed();
        // A task that waited in a queue and has not begun has nothing to finish. One that is about to be polled for the
        // first time finds its token cancelled.
        let begins_now = self.phase == TaskPhase::New && !task.was_queued() && !W::BEGINS_ITSELF;
        is_cancelled_last || ((begins_now || self.has_begun(task)) && task.spec.token.is_some())
    }

    /// Drops the work, or informs it through its token if it can't be dropped.
    fn stop(mut self: Pin<&mut Self>, current: &CurrentTask, why: Stop) -> Poll<()> {
        let mut this = self.as_mut().project();
        if this.work.as_mut().as_pin_mut().is_none_or(Work::revoke) {
            // Code that the task handed its token to should stop as well.
            if let Some(token) = &current.task.spec.token {
                catch_panic(|| token.cancel());
            }
            self.end(current, Err(why.error()));
            return Poll::Ready(());
        }
        this.ending.get_or_insert_default().informed.get_or_insert(why);
        *this.sleep = None;
        current.task.request_stop(StopRequest::Cancel);
        Poll::Pending
    }

    /// Polls the work; its panic is the task's end.
    fn poll_work(self: Pin<&mut Self>, cx: &mut Context<'_>, current: &CurrentTask) -> Poll<WorkResult<W>> {
        let informed = self.informed();
        let mut this = self.project();
        let Some(work) = this.work.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        match catch_unwind(AssertUnwindSafe(|| CurrentTask::scope(this.current, || work.poll(cx)))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Some(result))) => Poll::Ready(result),
            // The work found a stop request before it began.
            Ok(Poll::Ready(None)) => Poll::Ready(Err(match (informed, current.task.stop_request()) {
                (Some(why @ Stop::TimedOut { .. }), _) => why.error(),
                (None, StopRequest::None) => TaskError::Aborted,
                _ => TaskError::Cancelled,
            })),
            Err(payload) => Poll::Ready(Err(TaskError::panicked(payload))),
        }
    }

    /// Returns the next action that is due by itself, and its time.
    fn next_due(&self, task: &TaskRecord, options: &TaskManagerOptions) -> Option<(Instant, Due)> {
        if self.informed().is_some() {
            return None;
        }
        let extras = task.spec.extras();
        let timed_out = |limit, since: Instant, after: Option<Duration>| {
            let after = after?;
            Some((since.checked_add(after)?, Due::Stop(Stop::TimedOut { limit, after })))
        };
        let total = timed_out(TimeoutKind::Total, task.spawned, task.spec.timeout);
        let other = match (&self.ending, self.phase) {
            (Some(ending), _) => ending.grace_over.map(|over| (over, Due::Stop(Stop::Aborted))),
            (None, TaskPhase::Queued) if task.is_delayed() => {
                extras.delay.and_then(|delay| Some((task.spawned.checked_add(delay)?, Due::DelayOver)))
            }
            (None, TaskPhase::Queued | TaskPhase::Running) if !self.has_begun(task) => {
                let limit = extras.queue_timeout.or(options.queue_timeout);
                timed_out(TimeoutKind::Queue, task.queued_since(), limit)
            }
            (None, TaskPhase::Running) => extras.idle_timeout.and_then(|limit| {
                // The start of the task counts as its first heartbeat.
                timed_out(TimeoutKind::Idle, task.last_heartbeat()?, Some(limit))
            }),
            (None, TaskPhase::New | TaskPhase::Queued | TaskPhase::Ended) => None,
        };
        // `min_by_key` returns the first of equals: the total timeout wins if both are over at once.
        [total, other].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Waits until the next action is due, and returns it.
    fn poll_due(mut self: Pin<&mut Self>, cx: &mut Context<'_>, current: &CurrentTask) -> Poll<Due> {
        loop {
            let Some((at, due)) = self.next_due(&current.task, &current.registry.options) else {
                return Poll::Pending;
            };
            let sleep = self.as_mut().project().sleep;
            let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            // The timer is polled unconstrained: work that has used up its cooperative budget must not delay it.
            ready!(Pin::new(&mut tokio::task::unconstrained(sleep.as_mut())).poll(cx));
            // A heartbeat may have arrived since the timer was set: then the stop is later. A delay may have been ended.
            if self.next_due(&current.task, &current.registry.options).is_some_and(|(next, _)| next <= at) {
                return Poll::Ready(due);
            }
        }
    }

    /// Drops the work and records the end.
    fn end(self: Pin<&mut Self>, current: &CurrentTask, result: WorkResult<W>) {
        let mut this = self.project();
        *this.phase = TaskPhase::Ended;
        let result = match (result, drop_work(this.work.as_mut(), this.current)) {
            (result @ Err(TaskError::Panicked { .. }), _) | (result, Ok(())) => result,
            (result, Err(message)) => {
                // The result may have a destructor that panics as well.
                catch_panic(|| drop(result));
                Err(TaskError::Panicked { message })
            }
        };
        finish(current, result);
    }

    /// Records the end of a task that the runtime dropped because it shuts down.
    ///
    /// A closure that runs on a thread continues, so its task lives until the closure returns and records the end.
    fn dropped_by_runtime(mut self: Pin<&mut Self>, current: &CurrentTask) {
        let mut this = self.as_mut().project();
        match this.work.as_mut().as_pin_mut().map_or(Poll::Ready(None), Work::abandon) {
            Poll::Ready(Some(result)) => return self.end(current, result),
            Poll::Ready(None) => {}
            Poll::Pending => {
                *this.phase = TaskPhase::Ended;
                return current.task.request_stop(StopRequest::Cancel);
            }
        }
        let error = match current.task.stop_request() {
            StopRequest::Cancel | StopRequest::EndGrace => TaskError::Cancelled,
            _ => TaskError::Aborted,
        };
        self.end(current, Err(error));
    }

    /// Takes back a task that the runtime dropped at once, because it has shut down.
    fn refused_by_runtime(self: Pin<&mut Self>, current: &CurrentTask) {
        let mut this = self.project();
        *this.phase = TaskPhase::Ended;
        // The task was never accepted, so a panic of its destructor is not an outcome.
        let _ = drop_work(this.work.as_mut(), this.current);
        current.registry.task_refused(&current.task);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>, current: &CurrentTask) -> Poll<()> {
        let task = &*current.task;
        if self.phase == TaskPhase::New && task.spec.timeout == Some(Duration::ZERO) {
            return self.stop(current, Stop::TimedOut { limit: TimeoutKind::Total, after: Duration::ZERO });
        }
        let (request, knows) = loop {
            let request = task.stop_request();
            let knows = request != StopRequest::None && is_informed(task);
            let permit = task.permit();
            let may_run = task.may_run();
            if self.phase == TaskPhase::New && !may_run {
                *self.as_mut().project().phase = TaskPhase::Queued;
            }
            if self.informed().is_none()
                && let Some(why) = self.requested(task)
                && self.as_mut().stop(current, why).is_ready()
            {
                return Poll::Ready(());
            }
            // Mark the task started only after the stop request was checked: a task that is stopped before its first
            // poll must not count as started.
            if may_run && matches!(self.phase, TaskPhase::New | TaskPhase::Queued) {
                self.as_mut().begin(current);
            }
            // Poll the work before the timer: a task that is done when its time is over is done.
            if self.phase != TaskPhase::Queued
                && let Poll::Ready(result) = self.as_mut().poll_work(cx, current)
            {
                self.end(current, result);
                return Poll::Ready(());
            }
            let this = self.as_mut().project();
            if *this.has_waker {
                break (request, knows);
            }
            // The waker is set when the work first waits, because many tasks never do. It is set once, because tokio
            // gives a task the same waker in each poll.
            *this.has_waker = true;
            task.set_waker(cx.waker());
            if task.stop_request() == request && task.permit() == permit {
                break (request, knows);
            }
            // A request or a permit arrived between the check and `set_waker`; loop to handle it.
        };
        // The grace period counts from the first poll in which the work could find its cancellation. A request that
        // arrived during that poll has woken the task, and the next poll handles it.
        if knows && self.ending.is_none() {
            let grace = match request {
                StopRequest::Cancel => task.spec.grace(current.registry.options.grace_period),
                _ => Duration::ZERO,
            };
            let grace_over = Instant::now().checked_add(grace);
            *self.as_mut().project().ending = Some(Box::new(Ending { grace_over, informed: None }));
        }
        let due = catch_unwind(AssertUnwindSafe(|| self.as_mut().poll_due(cx, current)));
        match due {
            Ok(due) => match ready!(due) {
                Due::Stop(why) => self.stop(current, why),
                Due::DelayOver => {
                    current.registry.delay_over(task);
                    self.poll(cx, current)
                }
            },
            // tokio panics if the runtime's timer is not enabled: that is the task's error.
            Err(payload) => {
                self.end(current, Err(TaskError::panicked(payload)));
                Poll::Ready(())
            }
        }
    }
}

/// Returns whether the task was informed of the request: its token is cancelled a moment after the request is marked.
fn is_informed(task: &TaskRecord) -> bool {
    task.spec.token.as_ref().is_none_or(CancellationToken::is_cancelled)
}

/// Drops the work now, as the current task; returns the message of its destructor's panic as `Err`.
fn drop_work<W>(mut work: Pin<&mut Option<W>>, current: &mut Option<CurrentTask>) -> Result<(), String> {
    let drop = || CurrentTask::scope(current, || work.set(None));
    catch_unwind(AssertUnwindSafe(drop)).map_err(|payload| panic_message(payload).into())
}
