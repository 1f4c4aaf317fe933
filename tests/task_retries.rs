//! Retrying tasks.

use std::{
    error::Error,
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, RetryPolicy, TaskContext,
    error::{AttemptTimedOut, Panicked},
    task::{TaskError, TaskEvent, TaskManagerOptions, TaskOutcome, TimeoutKind},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::Level;

use crate::{
    steps::Counter,
    support::{OnDrop, capture, settle},
};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("no answer to attempt {0}")]
struct NoAnswer(u32);

/// A shared list of observations, in order.
#[derive(Clone)]
struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Seen<T> {
    fn add(&self, item: T) {
        self.0.lock().unwrap().push(item);
    }

    fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }
}

/// Runs a task that always fails; returns the time from its spawn to the start of each attempt.
async fn begins(policy: impl Into<RetryPolicy>) -> Vec<Duration> {
    let (tasks, seen, began) = (BackgroundTaskManager::new(), Seen::default(), Instant::now());
    let note = seen.clone();
    let attempt = move |number| {
        note.add(began.elapsed());
        async move { Err::<(), _>(NoAnswer(number)) }
    };
    let handle = tasks.create_retrying_task(attempt).retry(policy).spawn().unwrap();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Failed);
    seen.all()
}

#[tokio::test(start_paused = true)]
async fn attempts_are_numbered_from_one_until_one_succeeds() {
    let (tasks, seen) = (BackgroundTaskManager::new(), Seen::default());
    let note = seen.clone();
    let attempt = move |number| {
        note.add(number);
        async move { if number < 3 { Err(NoAnswer(number)) } else { Ok(number * 10) } }
    };
    let handle = tasks.create_retrying_task(attempt).retry(5).spawn().unwrap();
    assert_eq!(handle.await.unwrap(), 30);
    assert_eq!(seen.all(), [1, 2, 3]);
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.outcomes.completed, stats.outcomes.failed, stats.retries), (1, 1, 0, 2));
    assert_eq!(tasks.recently_finished()[0].attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_the_tasks_error() {
    let tasks = BackgroundTaskManager::new();
    let attempt = |number| async move { Err::<(), _>(NoAnswer(number)) };
    let error = tasks.create_retrying_task(attempt).retry(2).spawn().unwrap().await.unwrap_err();
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&NoAnswer(3)));
    let end = tasks.recently_finished().remove(0);
    assert_eq!((end.outcome(), end.attempts()), (TaskOutcome::Failed, 3));
    assert_eq!(end.error(), Some("no answer to attempt 3"));
    assert_eq!((tasks.stats().outcomes.failed, tasks.stats().retries), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn zero_retries_are_one_attempt() {
    assert_eq!(begins(0).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_default_is_three_retries_with_growing_and_jittered_pauses() {
    let (tasks, seen) = (BackgroundTaskManager::new(), Seen::default());
    let note = seen.clone();
    let attempt = move |number| {
        note.add(Instant::now());
        async move { Err::<(), _>(NoAnswer(number)) }
    };
    tasks.create_retrying_task(attempt).spawn().unwrap().await.unwrap_err();
    let begins = seen.all();
    assert_eq!(begins.len(), 4);
    for (pair, least) in begins.windows(2).zip([100, 200, 400].map(Duration::from_millis)) {
        let pause = pair[1] - pair[0];
        // Timers have a resolution of a millisecond.
        assert!(pause >= least && pause <= 2 * least + Duration::from_millis(1), "{pause:?} for {least:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_by_the_factor_up_to_the_maximum() {
    let policy = RetryPolicy::new(4).backoff(SECOND).max_delay(5 * SECOND);
    assert_eq!(begins(policy.clone()).await, [0, 1, 3, 7, 12].map(Duration::from_secs));
    assert_eq!(begins(policy.factor(3.0)).await, [0, 1, 4, 9, 14].map(Duration::from_secs));
}

#[tokio::test(start_paused = true)]
async fn jitter_adds_no_more_than_the_pause_and_keeps_to_the_maximum() {
    let policy = RetryPolicy::new(20).backoff(SECOND).factor(1.0).jitter().max_delay(SECOND + SECOND / 2);
    let begins = begins(policy).await;
    let pauses: Vec<_> = begins.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    let most = SECOND + SECOND / 2 + Duration::from_millis(1);
    assert!(pauses.iter().all(|pause| (SECOND..=most).contains(pause)), "{pauses:?}");
    assert!(pauses.iter().any(|pause| *pause != pauses[0]), "they all pause as long: {pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_max_total() {
    let policy = RetryPolicy::new(10).backoff(SECOND).max_total(7 * SECOND);
    assert_eq!(begins(policy).await, [0, 1, 3, 7].map(Duration::from_secs), "the one at 15 s would be too late");
    let just_less = RetryPolicy::new(10).backoff(SECOND).max_total(Duration::from_millis(6_999));
    assert_eq!(begins(just_less).await, [0, 1, 3].map(Duration::from_secs));
}

#[tokio::test(start_paused = true)]
async fn max_total_counts_from_the_first_attempt_and_interrupts_none() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    tasks.create_task(sleep(60 * SECOND)).spawn().unwrap();
    let attempt = |number| async move {
        sleep(3 * SECOND).await;
        if number == 2 { Ok(()) } else { Err(NoAnswer(number)) }
    };
    let policy = RetryPolicy::new(10).max_total(4 * SECOND);
    let handle = tasks.create_retrying_task(attempt).retry(policy).spawn().unwrap();
    // The task is queued for a minute; its second attempt starts after three seconds and takes three.
    handle.await.unwrap();
    assert_eq!(tasks.recently_finished()[1].age(), 66 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_policy_sees_the_typed_error() {
    let (tasks, judged) = (BackgroundTaskManager::new(), Seen::default());
    let note = judged.clone();
    let policy = RetryPolicy::new(10).when(move |error| {
        note.add(error.to_string());
        error.downcast_ref::<NoAnswer>().is_some_and(|error| error.0 < 2)
            || error.is::<Panicked>()
            || error.downcast_ref::<AttemptTimedOut>().is_some_and(|error| error.after == SECOND)
    });
    let attempt = |number| async move {
        match number {
            2 => panic!("attempt {number} burst"),
            3 => pending().await,
            _ => Err::<(), _>(NoAnswer(number)),
        }
    };
    let handle = tasks.create_retrying_task(attempt).retry(policy).attempt_timeout(SECOND).spawn().unwrap();
    let error = handle.await.unwrap_err();
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&NoAnswer(4)), "the policy said no to it");
    let timed_out = "timed out after 1s";
    let judged = judged.all();
    assert_eq!(judged.len(), 4);
    assert_eq!(
        (&*judged[0], &*judged[2], &*judged[3]),
        ("no answer to attempt 1", timed_out, "no answer to attempt 4")
    );
    assert!(judged[1].contains("attempt 2 burst"), "{judged:?}");
}

#[tokio::test(start_paused = true)]
async fn the_policy_sees_texts_and_anyhow_errors() {
    let (tasks, judged) = (BackgroundTaskManager::new(), Seen::default());
    let note = judged.clone();
    let policy = RetryPolicy::new(1).when(move |error| {
        note.add(error.to_string());
        true
    });
    let attempt = |number| async move {
        Err::<(), _>(if number == 1 { anyhow::anyhow!("as text") } else { anyhow::Error::new(NoAnswer(number)) })
    };
    let error = tasks.create_retrying_task(attempt).retry(policy).spawn().unwrap().await.unwrap_err();
    assert_eq!(judged.all(), ["as text", "no answer to attempt 2"]);
    assert_eq!(error.source().unwrap().to_string(), "no answer to attempt 2");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_is_the_tasks_panic() {
    let tasks = BackgroundTaskManager::new();
    let attempt = |number| async move { Err::<(), _>(NoAnswer(number)) };
    let policy = RetryPolicy::new(1).when(|_| panic!("cannot decide"));
    let handle = tasks.create_retrying_task(attempt).retry(policy).spawn().unwrap();
    let Err(TaskError::Panicked { message, .. }) = handle.await else { panic!("expected a panic") };
    assert_eq!(message, "cannot decide");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_attempt_or_in_its_closure_is_retried() {
    let tasks = BackgroundTaskManager::new();
    let attempt = |number| {
        assert_ne!(number, 1, "in the closure");
        async move {
            assert_ne!(number, 2, "in the future");
            Ok::<_, NoAnswer>(number)
        }
    };
    assert_eq!(tasks.create_retrying_task(attempt).retry(2).spawn().unwrap().await.unwrap(), 3);
    assert_eq!((tasks.stats().outcomes.panicked, tasks.stats().outcomes.completed), (0, 1));
    let handle = tasks.create_retrying_task(attempt).retry(1).spawn().unwrap();
    let Err(TaskError::Panicked { message, .. }) = handle.await else { panic!("expected a panic") };
    assert!(message.contains("in the future"), "the last attempt's: {message}");
    assert_eq!(tasks.stats().outcomes.panicked, 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_times_out_is_dropped_and_retried() {
    let (tasks, dropped, began) = (BackgroundTaskManager::new(), Counter::default(), Instant::now());
    let counter = dropped.clone();
    let attempt = move |number| {
        let on_drop = counter.on_drop();
        let others_gone = counter.get() == number as usize - 1;
        async move {
            let _on_drop = on_drop;
            assert!(others_gone, "attempt {number} began before the one before it was gone");
            if number < 3 {
                pending::<()>().await;
            }
            Ok::<_, NoAnswer>(number)
        }
    };
    let builder = tasks.create_retrying_task(attempt).retry(RetryPolicy::new(5).backoff(SECOND));
    assert_eq!(builder.attempt_timeout(5 * SECOND).spawn().unwrap().await.unwrap(), 3);
    assert_eq!((began.elapsed(), dropped.get()), (13 * SECOND, 3), "5 + 1 + 5 + 2");
}

#[tokio::test(start_paused = true)]
async fn the_last_attempts_timeout_is_the_tasks_with_its_kind() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let builder = tasks.create_retrying_task(|_| pending::<()>()).retry(1).attempt_timeout(2 * SECOND);
    let handle = builder.timeout(60 * SECOND).spawn().unwrap();
    let error = handle.await.unwrap_err();
    assert_eq!(error.to_string(), "the background task timed out: its last attempt took longer than 2s");
    let TaskError::TimedOut { after, limit, .. } = error else { panic!("{error:?}") };
    assert_eq!((after, limit), (2 * SECOND, TimeoutKind::Attempt));
    let end = tasks.recently_finished().remove(0);
    assert_eq!(
        (end.outcome(), end.limit(), end.age()),
        (TaskOutcome::TimedOut, Some(TimeoutKind::Attempt), 4 * SECOND)
    );
    let line = log.event("background task timed out");
    assert_eq!(line.level, Level::WARN);
    assert_eq!((line.field("limit"), line.field("attempts"), line.field("timeout")), ("attempt", "2", "60s"));
}

#[tokio::test(start_paused = true)]
async fn a_zero_attempt_timeout_fails_each_attempt_without_a_poll() {
    let tasks = BackgroundTaskManager::new();
    let made = Counter::default();
    let counter = made.clone();
    let attempt = move |_| {
        counter.add();
        async {}
    };
    let handle = tasks.create_retrying_task(attempt).retry(3).attempt_timeout(Duration::ZERO).spawn().unwrap();
    let TaskError::TimedOut { after, limit, .. } = handle.await.unwrap_err() else { panic!("expected a timeout") };
    assert_eq!((after, limit, made.get()), (Duration::ZERO, TimeoutKind::Attempt, 0));
    assert_eq!(tasks.recently_finished()[0].attempts(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_ready_at_its_deadline_succeeds() {
    let tasks = BackgroundTaskManager::new();
    let builder = tasks.create_retrying_task(|_| sleep(SECOND)).retry(0).attempt_timeout(SECOND);
    builder.spawn().unwrap().await.unwrap();
    let forever = tasks.create_retrying_task(|_| sleep(SECOND)).attempt_timeout(Duration::MAX);
    forever.spawn().unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_timeout_covers_all_attempts_and_the_pauses() {
    let (tasks, dropped) = (BackgroundTaskManager::new(), Counter::default());
    let counter = dropped.clone();
    let in_an_attempt = move |number| {
        let on_drop = counter.on_drop();
        async move {
            let _on_drop = on_drop;
            sleep(2 * SECOND).await;
            Err::<(), _>(NoAnswer(number))
        }
    };
    let handle = tasks.create_retrying_task(in_an_attempt).retry(10).timeout(5 * SECOND).spawn().unwrap();
    let TaskError::TimedOut { after, limit, .. } = handle.await.unwrap_err() else { panic!("expected a timeout") };
    assert_eq!((after, limit), (5 * SECOND, TimeoutKind::Total));
    assert_eq!(
        (tasks.recently_finished()[0].attempts(), tasks.recently_finished()[0].age(), dropped.get()),
        (3, 5 * SECOND, 3)
    );

    let in_a_pause = |number| async move { Err::<(), _>(NoAnswer(number)) };
    let policy = RetryPolicy::new(10).backoff(3 * SECOND);
    let handle = tasks.create_retrying_task(in_a_pause).retry(policy).timeout(5 * SECOND).spawn().unwrap();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
    assert_eq!((tasks.recently_finished()[1].attempts(), tasks.recently_finished()[1].age()), (2, 5 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_timeout_and_attempt_timeout_is_reported() {
    let tasks = BackgroundTaskManager::new();
    let builder = tasks.create_retrying_task(|_| pending::<()>()).attempt_timeout(10 * SECOND).timeout(5 * SECOND);
    let TaskError::TimedOut { limit, .. } = builder.spawn().unwrap().await.unwrap_err() else {
        panic!("expected a timeout")
    };
    assert_eq!(limit, TimeoutKind::Total);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_is_dropped_during_its_attempt() {
    let (tasks, dropped) = (BackgroundTaskManager::new(), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&dropped);
    let attempt = move |_| {
        let flag = Arc::clone(&flag);
        async move {
            let _on_drop = OnDrop(|| flag.store(true, Ordering::SeqCst));
            pending::<()>().await;
        }
    };
    let handle = tasks.create_retrying_task(attempt).retry(10).spawn().unwrap();
    settle().await;
    handle.cancel();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!((tasks.stats().retries, tasks.recently_finished()[0].attempts()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_task_cancelled_in_its_pause_is_not_retried() {
    let (tasks, made) = (BackgroundTaskManager::new(), Counter::default());
    let counter = made.clone();
    let attempt = move |number| {
        counter.add();
        async move { Err::<(), _>(NoAnswer(number)) }
    };
    let handle = tasks.create_retrying_task(attempt).retry(RetryPolicy::new(10).backoff(SECOND)).spawn().unwrap();
    sleep(SECOND / 2).await;
    handle.cancel();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    sleep(10 * SECOND).await;
    assert_eq!(made.get(), 1);
    assert_eq!(tasks.recently_finished()[0].attempts(), 1);
    assert_eq!(tasks.stats().retries, 0, "the attempt that was to come never did");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_without_awaiting_can_be_cancelled() {
    let tasks = BackgroundTaskManager::new();
    let attempt = |number| async move { Err::<(), _>(NoAnswer(number)) };
    let handle = tasks.create_retrying_task(attempt).retry(u32::MAX).spawn().unwrap();
    settle().await;
    handle.cancel();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_timed_out_attempt_is_dropped_is_the_attempts_panic() {
    let tasks = BackgroundTaskManager::new();
    let attempt = |number| async move {
        if number == 1 {
            let _bomb = OnDrop(|| panic!("in the destructor"));
            pending::<()>().await;
        }
        Ok::<_, NoAnswer>(number)
    };
    let judged = Seen::default();
    let note = judged.clone();
    let policy = RetryPolicy::new(1).when(move |error| {
        note.add(error.to_string());
        error.is::<Panicked>()
    });
    let handle = tasks.create_retrying_task(attempt).retry(policy).attempt_timeout(SECOND).spawn().unwrap();
    assert_eq!(handle.await.unwrap(), 2);
    assert!(judged.all()[0].contains("in the destructor"), "{:?}", judged.all());
}

#[tokio::test(start_paused = true)]
async fn info_reports_the_current_attempt() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    let (go, mut wait) = mpsc::unbounded_channel::<()>();
    tasks.create_task(async move { wait.recv().await.ok_or("nobody said go") }).spawn().unwrap();
    let attempt = |number| async move {
        assert_eq!(TaskContext::current().unwrap().attempt(), number);
        sleep(SECOND).await;
        Err::<(), _>(NoAnswer(number))
    };
    tasks.create_retrying_task(attempt).retry(RetryPolicy::new(1).backoff(SECOND)).spawn().unwrap();
    settle().await;
    let at = || tasks.task_info().pop().unwrap().attempt();
    assert_eq!(at(), 0, "it has not begun");
    go.send(()).unwrap();
    settle().await;
    assert_eq!(at(), 1);
    sleep(SECOND + SECOND / 2).await;
    assert_eq!(at(), 1, "in the pause");
    sleep(SECOND).await;
    assert_eq!(at(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_task_without_retries_has_one_attempt_and_one_that_never_ran_none() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    tasks.create_task(async {}).timeout(Duration::ZERO).spawn().unwrap().await.unwrap_err();
    let cancelled = tasks.create_task(async {}).spawn().unwrap();
    cancelled.cancel();
    cancelled.await.unwrap_err();
    let attempts: Vec<_> = tasks.recently_finished().iter().map(agentflow::task::FinishedTask::attempts).collect();
    assert_eq!(attempts, [1, 0, 0]);
    assert!(log.ends().iter().all(|line| !line.fields.contains_key("attempts")));
}

#[tokio::test(start_paused = true)]
async fn each_failed_attempt_but_the_last_is_a_warning_and_the_end_counts_them() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let attempt = |number| async move {
        match number {
            1 => Err::<(), _>(anyhow::Error::new(NoAnswer(1)).context("sending")),
            2 => panic!("burst"),
            3 => pending().await,
            _ => Err(anyhow::Error::new(NoAnswer(number))),
        }
    };
    let builder = tasks.create_retrying_task(attempt).retry(RetryPolicy::new(3).backoff(SECOND));
    let builder = builder.attempt_timeout(SECOND).name("webhook").context("user", "ada");
    builder.spawn().unwrap().await.unwrap_err();
    let lines = log.ends();
    let warned: Vec<_> = lines[..3]
        .iter()
        .map(|line| {
            assert_eq!((line.level, line.field("name"), line.field("id")), (Level::WARN, "webhook", "1"));
            assert_eq!(line.field("context"), r#"{"user":"ada"}"#);
            (line.field("attempt"), line.field("retry_in"), line.field("error"))
        })
        .collect();
    let timed_out = "timed out after 1s";
    assert_eq!(warned, [("1", "1s", "sending: no answer to attempt 1"), ("2", "2s", "burst"), ("3", "4s", timed_out)]);
    assert_eq!(lines.len(), 4);
    assert_eq!((lines[3].level, lines[3].field("outcome"), lines[3].field("attempts")), (Level::ERROR, "failed", "4"));
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_display_panics_is_retried() {
    #[derive(Debug)]
    struct Unspeakable;
    impl fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("cannot be shown")
        }
    }
    impl Error for Unspeakable {}

    let (_log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let attempt = |number| async move { if number == 1 { Err(Unspeakable) } else { Ok(()) } };
    tasks.create_retrying_task(attempt).retry(1).spawn().unwrap().await.unwrap();
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().retries), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn tasks_spawned_by_attempts_are_children_of_the_task() {
    let tasks = BackgroundTaskManager::new();
    let app = tasks.clone();
    let attempt = move |number| {
        let app = app.clone();
        async move {
            app.create_task(sleep(SECOND)).name("child").spawn()?;
            // The wait would never return if it included the waiting task itself.
            app.wait_for_all(None).await?;
            if number < 3 { Err(NoAnswer(number).into()) } else { Ok::<_, Box<dyn Error + Send + Sync>>(()) }
        }
    };
    let handle = tasks.create_retrying_task(attempt).name("parent").retry(5).spawn().unwrap();
    settle().await;
    // A draining manager accepts the child of a running task.
    let report = tasks.close(None).await;
    handle.await.unwrap();
    assert_eq!((report.outcomes.completed, tasks.stats().retries), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_queued_task_has_no_attempt_and_a_retrying_one_keeps_its_slot() {
    let tasks = BackgroundTaskManager::new();
    let mut events = tasks.events();
    let attempt = |number| async move {
        sleep(SECOND).await;
        if number == 1 { Err(NoAnswer(number)) } else { Ok(()) }
    };
    for _ in 0..2 {
        let builder = tasks.create_retrying_task(attempt).retry(1).key("one", agentflow::task::OnDuplicateKey::Queue);
        builder.spawn().unwrap();
    }
    let began = Instant::now();
    tasks.close(None).await;
    // A task keeps its slot through its attempts and its pauses.
    assert_eq!(began.elapsed(), 4 * SECOND);
    let mut order = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            TaskEvent::Started(task) => order.push((task.id().get(), task.attempt())),
            TaskEvent::AttemptFailed { task, attempt, .. } => {
                assert_eq!(task.attempt(), attempt);
                order.push((task.id().get(), attempt + 10));
            }
            _ => {}
        }
    }
    assert_eq!(order, [(1, 1), (1, 11), (2, 1), (2, 11)]);
}
