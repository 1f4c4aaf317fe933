//! Node options: retries, a timeout, a fallback.

use std::{
    error::Error,
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use agentflow::{
    CancellationToken, CompiledGraph, NodeError, NodeFailure, RetryPolicy, RunConfig,
    error::{AttemptTimedOut, Panicked},
    graph,
    graph::{Node, NodeContext},
    node,
    run::{LastState, RunErrorKind},
};
use futures::FutureExt;
use tokio::time::{Instant, advance, error::Elapsed, sleep, timeout};

use crate::support::{OnDrop, Say, Trip, TripUpdate, cancelled_midway, committed, failure, steps};

const SECOND: Duration = Duration::from_secs(1);

/// Writes each attempt into the state, and fails before the attempt with this number.
struct FailsBefore(u32);

impl Node<Trip> for FailsBefore {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, Trip>) -> Result<(), NodeError> {
        let attempt = cx.attempt();
        cx.state.steps.push(format!("{} {attempt}", cx.node_name()));
        cx.state.count += 1;
        if attempt < self.0 {
            return Err(io::Error::other(format!("attempt {attempt}")).into());
        }
        Ok(())
    }
}

/// Writes the failure that led here into the state.
#[node]
async fn recover(state: &mut Trip, error: Option<&NodeFailure>) {
    state.title = error.map_or_else(|| "no error".to_owned(), ToString::to_string);
}

async fn run(app: &CompiledGraph<Trip>) -> Trip {
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap()
}

#[tokio::test]
async fn a_retried_attempt_starts_from_the_state_before_the_first() {
    let app = graph! {
        node A = (Say);
        node FLAKY = (FailsBefore(3)) { retry: 2 };
        A -> FLAKY -> END
    };
    let state = run(&app).await;
    assert_eq!((state.steps, state.count), (vec!["A".to_owned(), "FLAKY 3".into()], 1));
}

#[tokio::test]
async fn the_last_attempts_error_is_the_runs_and_its_changes_are_rolled_back() {
    let app = graph! {
        node A = (Say);
        node FLAKY = (FailsBefore(4)) { retry: 2 };
        A -> FLAKY -> END
    };
    let mut error = failure(&app).await;
    let RunErrorKind::Node(failed) = error.kind() else { panic!("{error}") };
    assert_eq!((&*failed.node, failed.attempt), ("FLAKY", 3));
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().to_string(), "attempt 3");
    assert_eq!(committed(&mut error).steps, ["A"]);
}

#[tokio::test]
async fn without_a_retry_the_state_of_a_failed_node_is_uncommitted() {
    let app = graph! {
        node FLAKY = (FailsBefore(2));
        FLAKY -> END
    };
    let mut error = failure(&app).await;
    let Some(LastState::Uncommitted(state)) = error.take_state::<Trip>() else { panic!("{error}") };
    assert_eq!(state.steps, ["FLAKY 1"]);
}

#[tokio::test]
async fn a_number_retries_without_a_pause_and_zero_never() {
    let app = graph! {
        node FLAKY = (FailsBefore(2)) { retry: 0 };
        FLAKY -> END
    };
    let mut error = failure(&app).await;
    assert_eq!(committed(&mut error), Trip::default());
}

async fn time_of(policy: RetryPolicy) -> Duration {
    let app = graph! {
        node FLAKY = (FailsBefore(5)) { retry: policy };
        FLAKY -> END
    };
    let began = Instant::now();
    run(&app).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_by_the_factor_up_to_the_maximum() {
    let policy = RetryPolicy::new(4);
    assert_eq!(time_of(policy.clone()).await, Duration::ZERO);
    let policy = policy.backoff(SECOND);
    assert_eq!(time_of(policy.clone()).await, (1 + 2 + 4 + 8) * SECOND);
    assert_eq!(time_of(policy.clone().factor(3.0)).await, (1 + 3 + 9 + 27) * SECOND);
    assert_eq!(time_of(policy.clone().max_delay(3 * SECOND)).await, (1 + 2 + 3 + 3) * SECOND);
    // A factor below one must not shrink the pauses.
    for factor in [0.5, -1.0, f32::NAN] {
        assert_eq!(time_of(policy.clone().factor(factor)).await, 4 * SECOND);
    }
    // The maximum also limits the first pause, and a pause too long to represent.
    let policy = policy.max_delay(SECOND / 2);
    assert_eq!(time_of(policy.clone()).await, 2 * SECOND);
    assert_eq!(time_of(policy.factor(f32::INFINITY)).await, 2 * SECOND);
    let policy = RetryPolicy::new(4).backoff(Duration::MAX).max_delay(SECOND);
    assert_eq!(time_of(policy).await, 4 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn jitter_extends_a_pause_up_to_the_maximum() {
    let policy = RetryPolicy::new(4).backoff(SECOND).factor(1.0).jitter();
    let time = time_of(policy.clone()).await;
    assert!((4 * SECOND..8 * SECOND + SECOND).contains(&time), "{time:?}");
    assert_ne!(time, 4 * SECOND);
    assert_eq!(time_of(policy.max_delay(SECOND)).await, 4 * SECOND);
}

#[tokio::test]
async fn only_errors_that_match_when_are_retried() {
    static RUNS: AtomicU32 = AtomicU32::new(0);

    #[node]
    async fn fails(_state: &Trip, attempt: u32) -> Result<(), NodeError> {
        RUNS.fetch_add(1, Ordering::SeqCst);
        if attempt < 3 {
            return Err(io::Error::other("try again").into());
        }
        Err("never again".into())
    }

    let app = graph! {
        node FAILS = fails { retry: RetryPolicy::new(9).when(<dyn Error>::is::<io::Error>) };
        FAILS -> END
    };
    let error = failure(&app).await;
    assert_eq!(RUNS.load(Ordering::SeqCst), 3);
    assert!(error.to_string().ends_with(": never again"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn panics_and_timeouts_are_retried() {
    #[node]
    async fn flaky(state: &mut Trip, attempt: u32) {
        state.steps.push(attempt.to_string());
        match attempt {
            1 => panic!("ouch"),
            2 => pending().await,
            _ => {}
        }
    }

    let policy = RetryPolicy::new(2).when(|error| error.is::<Panicked>() || error.is::<AttemptTimedOut>());
    let app = graph! {
        node FLAKY = flaky { retry: policy, timeout: 2s };
        FLAKY -> END
    };
    let began = Instant::now();
    assert_eq!(steps(&app).await, ["3"]);
    assert_eq!(began.elapsed(), 2 * SECOND);
}

#[tokio::test]
async fn a_parallel_node_is_retried_on_the_same_state() {
    #[node]
    async fn flaky(state: &Trip, attempt: u32) -> Result<TripUpdate, NodeError> {
        let update = Trip::update().steps([format!("{attempt} after {}", state.steps.join(" "))]);
        if attempt < 3 { Err("not yet".into()) } else { Ok(update) }
    }

    let app = graph! {
        node A = (Say);
        node B = (Say);
        node FLAKY = flaky { retry: 2 };
        node C = (Say);
        A -> { B -> FLAKY, C } -> END
    };
    assert_eq!(steps(&app).await, ["A", "B", "3 after A B", "C"]);

    let app = graph! {
        node FLAKY = flaky { retry: 1 };
        node C = (Say);
        START -> { FLAKY, C } -> END
    };
    let error = failure(&app).await;
    let RunErrorKind::Node(failed) = error.kind() else { panic!("{error}") };
    assert_eq!((&*failed.node, failed.attempt), ("FLAKY", 2));
}

mod timeouts {
    use super::*;

    fn after(error: &agentflow::RunError) -> Option<Duration> {
        error.downcast_ref::<AttemptTimedOut>().map(|timed_out| timed_out.after)
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_holds_per_attempt_and_drops_it() {
        static DROPS: AtomicU32 = AtomicU32::new(0);

        #[node]
        async fn slow(state: &mut Trip, attempt: u32) {
            let _guard = OnDrop(|| _ = DROPS.fetch_add(1, Ordering::SeqCst));
            state.count += 1;
            sleep(attempt * SECOND).await;
            pending::<()>().await;
        }

        let app = graph! {
            node SLOW = slow { retry: 2, timeout: 5s };
            SLOW -> END
        };
        let began = Instant::now();
        let mut error = failure(&app).await;
        assert_eq!((after(&error), began.elapsed()), (Some(5 * SECOND), 15 * SECOND));
        assert_eq!(DROPS.load(Ordering::SeqCst), 3);
        let RunErrorKind::Node(failed) = error.kind() else { panic!("{error}") };
        assert_eq!((failed.attempt, failed.elapsed), (3, 5 * SECOND));
        assert_eq!(committed(&mut error).count, 0);
    }

    #[tokio::test]
    async fn zero_times_out_without_a_poll() {
        #[node]
        async fn never() {
            unreachable!("it is never polled");
        }

        let app = graph! {
            type State = Trip;
            node NEVER = never { timeout: 0s };
            NEVER -> END
        };
        assert_eq!(after(&failure(&app).await), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_duration_is_no_timeout() {
        #[node]
        async fn slow() {
            sleep(86_400 * SECOND).await;
        }

        let app = graph! {
            type State = Trip;
            node SLOW = slow { timeout: Duration::MAX };
            SLOW -> END
        };
        run(&app).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_awaits_completes_however_late() {
        #[node]
        async fn blocks(state: &mut Trip) {
            // One poll of `advance` moves the clock, like a body that blocks its thread.
            let _ = advance(5 * SECOND).now_or_never();
            state.count += 1;
        }

        let app = graph! {
            node BLOCKS = blocks { timeout: 1s };
            BLOCKS -> END
        };
        assert_eq!(run(&app).await.count, 1);
    }

    /// Always has work, so that nothing else in its task gets a share of tokio's budget.
    async fn never_idle() {
        let _ = advance(5 * SECOND).now_or_never();
        for _ in 0..100_000 {
            tokio::task::consume_budget().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_node_times_out() {
        #[node]
        async fn busy() {
            never_idle().await;
        }

        let app = graph! {
            type State = Trip;
            node BUSY = busy { timeout: 1s };
            BUSY -> END
        };
        assert_eq!(after(&failure(&app).await), Some(SECOND));

        let app = graph! {
            type State = Trip;
            busy -> END
        };
        let config = RunConfig::new().with_run_timeout(SECOND);
        let error = app.invoke(Trip::default(), config).await.unwrap_err();
        assert!(matches!(error.kind(), RunErrorKind::TimedOut { .. }), "{error}");

        let token = CancellationToken::new();
        let config = RunConfig::new().with_cancellation_token(token.clone());
        let run = app.invoke(Trip::default(), config);
        let (ended, ()) = tokio::join!(run, async { token.cancel() });
        let error = ended.unwrap_err();
        assert!(matches!(error.kind(), RunErrorKind::Cancelled { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_tokios_timeout_is_not_the_nodes_timeout() {
        #[node]
        async fn asks() -> Result<(), NodeError> {
            Ok(timeout(SECOND, pending()).await?)
        }

        let app = graph! {
            type State = Trip;
            node ASKS = asks { timeout: 10s };
            ASKS -> END
        };
        let error = failure(&app).await;
        assert!(error.downcast_ref::<Elapsed>().is_some());
        assert_eq!(after(&error), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_ignores_its_token_times_out_and_is_cancelled() {
        static DROPPED: AtomicBool = AtomicBool::new(false);

        #[node]
        async fn stubborn(cancel: &CancellationToken) {
            let _guard = OnDrop(|| DROPPED.store(true, Ordering::SeqCst));
            cancel.cancelled().await;
            pending::<()>().await;
        }

        let app = graph! {
            type State = Trip;
            node STUBBORN = stubborn { timeout: 1s };
            STUBBORN -> END
        };
        assert_eq!(after(&failure(&app).await), Some(SECOND));
        DROPPED.store(false, Ordering::SeqCst);

        cancelled_midway(&app).await;
        assert!(DROPPED.load(Ordering::SeqCst));
    }
}

mod fallbacks {
    use super::*;

    #[tokio::test]
    async fn a_fallback_sees_the_error_and_the_rolled_back_state_and_has_its_own_edge() {
        let app = graph! {
            node A = (Say);
            node FLAKY = (FailsBefore(3)) { retry: 1, on_error: recover };
            node B = (Say);
            node C = (Say);
            A -> FLAKY -> B -> END;
            recover -> C -> END
        };
        let state = run(&app).await;
        assert_eq!(state.steps, ["A", "C"]);
        assert_eq!(state.count, 0);
        assert!(state.title.starts_with("node `FLAKY` failed (attempt 2, after "), "{}", state.title);
        assert!(state.title.ends_with("): attempt 2"), "{}", state.title);
    }

    #[tokio::test]
    async fn a_fallback_reached_by_an_edge_sees_no_error() {
        let app = graph! {
            node OK = (FailsBefore(1)) { on_error: recover };
            OK -> recover -> END
        };
        let state = run(&app).await;
        assert_eq!((state.title.as_str(), state.count), ("no error", 1));

        // The node after a fallback does not see the error either.
        let app = graph! {
            node FLAKY = (FailsBefore(2)) { on_error: FIRST };
            node FIRST = (Say);
            FLAKY -> FIRST -> recover -> END
        };
        assert_eq!(run(&app).await.title, "no error");
    }

    #[tokio::test]
    async fn a_fallback_may_lead_back_to_the_failed_node() {
        #[node]
        async fn needs_three(state: &mut Trip) -> Result<(), NodeError> {
            state.steps.push("lost".into());
            if state.count < 3 { Err("too few".into()) } else { Ok(()) }
        }

        #[node]
        async fn one_more(state: &mut Trip) {
            state.count += 1;
        }

        let app = graph! {
            node NEEDS = needs_three { on_error: one_more };
            NEEDS -> END;
            one_more -> NEEDS
        };
        let state = run(&app).await;
        assert_eq!((state.count, state.steps), (3, vec!["lost".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn panics_and_timeouts_lead_to_the_fallback() {
        #[node]
        async fn panics(state: &mut Trip) {
            state.count += 1;
            panic!("ouch");
        }

        #[node]
        async fn hangs(state: &mut Trip) {
            state.count += 1;
            pending::<()>().await;
        }

        let app = graph! {
            node PANICS = panics { on_error: recover };
            PANICS -> END;
            recover -> END
        };
        let state = run(&app).await;
        assert!(state.title.ends_with("panicked: ouch"), "{}", state.title);
        assert_eq!(state.count, 0);

        let app = graph! {
            node HANGS = hangs { timeout: 1s, on_error: recover };
            HANGS -> END;
            recover -> END
        };
        let state = run(&app).await;
        assert!(state.title.ends_with("timed out after 1s"), "{}", state.title);
        assert_eq!(state.count, 0);
    }

    #[tokio::test]
    async fn the_failure_of_a_fallback_is_reported_unless_it_has_a_fallback() {
        #[node]
        async fn fails(state: &mut Trip) -> Result<(), NodeError> {
            state.count += 1;
            Err("no".into())
        }

        let app = graph! {
            node A = fails { on_error: B };
            node B = fails;
            A -> END;
            B -> END
        };
        assert_eq!(failure(&app).await.node(), Some("B"));

        let app = graph! {
            node A = fails { on_error: B };
            node B = fails { retry: 1, on_error: recover };
            A -> END;
            B -> END;
            recover -> END
        };
        let state = run(&app).await;
        assert!(state.title.starts_with("node `B` failed (attempt 2"), "{}", state.title);
    }

    #[tokio::test(start_paused = true)]
    async fn cancellations_and_limits_have_no_fallback() {
        #[node]
        async fn gives_up(cancel: &CancellationToken) -> Result<(), NodeError> {
            cancel.cancelled().await;
            Err("gave up".into())
        }

        let app = graph! {
            type State = Trip;
            node GIVES_UP = gives_up { on_error: recover };
            GIVES_UP -> END;
            recover -> END
        };
        cancelled_midway(&app).await;

        let app = graph! {
            node GIVES_UP = gives_up { on_error: recover };
            node A = (Say);
            A -> GIVES_UP -> END;
            recover -> END;
            compile { recursion_limit: 1 }
        };
        let error = failure(&app).await;
        assert!(matches!(error.kind(), RunErrorKind::RecursionLimit { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_cancelled_run_does_not_retry() {
    static RUNS: AtomicU32 = AtomicU32::new(0);

    // Fails when its token is cancelled, as an HTTP client with a cancellation token does.
    #[node]
    async fn gives_up(state: &mut Trip, cancel: &CancellationToken) -> Result<(), NodeError> {
        state.count += 1;
        RUNS.fetch_add(1, Ordering::SeqCst);
        cancel.cancelled().await;
        Err("gave up".into())
    }

    let app = graph! {
        node GIVES_UP = gives_up { retry: 3 };
        GIVES_UP -> END
    };
    let mut error = cancelled_midway(&app).await;
    assert_eq!(RUNS.load(Ordering::SeqCst), 1);
    assert_eq!(error.node(), Some("GIVES_UP"));
    assert_eq!(committed(&mut error), Trip::default());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_between_attempts_ends_at_once() {
    let token = CancellationToken::new();
    let app = graph! {
        node FLAKY = (FailsBefore(3)) { retry: RetryPolicy::new(2).backoff(10 * SECOND) };
        FLAKY -> END
    };
    let config = RunConfig::new().with_cancellation_token(token.clone());
    let began = Instant::now();
    let run = app.invoke(Trip::default(), config);
    let (ended, ()) = tokio::join!(run, async {
        sleep(SECOND).await;
        token.cancel();
    });
    assert!(matches!(ended.unwrap_err().kind(), RunErrorKind::Cancelled { .. }));
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test]
async fn the_recursion_limit_inside_a_subgraph_is_not_a_failure_of_the_subgraph() {
    struct Visit(Arc<AtomicU32>);
    impl Node<Trip> for Visit {
        type Output = ();
        async fn run(&self, _: NodeContext<'_, Trip>) -> Result<(), NodeError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    let visits = Arc::new(AtomicU32::new(0));

    let inner = graph! {
        node VISIT = (Visit(visits.clone()));
        VISIT -> match |state: &Trip| state.count > 0 { true => END, false => VISIT }
    };
    let app = graph! {
        node SUB = (inner) { retry: 3, on_error: recover };
        SUB -> END;
        recover -> END;
        compile { recursion_limit: 10 }
    };
    let error = failure(&app).await;
    assert!(matches!(error.kind(), RunErrorKind::RecursionLimit { .. }), "{error}");
    assert_eq!(visits.load(Ordering::SeqCst), 9);
}
