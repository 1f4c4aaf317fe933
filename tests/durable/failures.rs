//! Faults of the store: the outcome of a run is typed, and nothing is lost or doubled.

use std::{sync::Arc, time::Duration};

use agentflow::{
    CompiledGraph, RunConfig, RunId,
    run::{LastState, RunErrorKind},
    store::{CancelKind, OwnerId, RunStatus, StoreErrorKind, TakeOver},
    thread::{Input, OnBusyThread, Outcome, ThreadError},
};
use tokio::time::Instant;

use super::{
    faulty_store::{BOTH, Faults, When},
    nodes::{ALL_FORMS, Case, WHOLE, World, all_forms, case, line},
    process::{Process, idle, recover, runs, statuses},
    stores::{Memory, StoreUnderTest, on_every_store},
};
use crate::support::settle;

on_every_store!(
    an_error_that_may_pass_at_any_operation_changes_nothing,
    a_queued_run_whose_start_has_a_lost_answer_goes_on,
    a_queued_run_whose_acceptance_has_a_lost_answer_starts,
    an_error_that_does_not_pass_ends_the_run_typed_and_recovery_goes_on,
    an_error_at_the_last_commit_is_no_success,
    a_refused_acceptance_is_an_error_and_leaves_nothing,
    a_fenced_run_stops_and_the_new_owner_ends_it,
    a_state_that_cannot_be_written_ends_the_run_and_the_head_stays,
    a_repeat_of_a_live_run_gets_its_outcome_and_leaves_it_registered,
    a_repeat_that_goes_away_does_not_end_the_run,
);

type App = CompiledGraph<Case, Arc<World>>;

async fn lines(app: &App, thread: &str) -> Vec<String> {
    app.thread(thread).state().await.unwrap().map(|state| state.values.lines).unwrap_or_default()
}

fn store_error(error: &ThreadError) -> &StoreErrorKind {
    match error {
        ThreadError::Store(error) => error.kind(),
        ThreadError::Run(error) => match error.kind() {
            RunErrorKind::Store(error) => error.kind(),
            other => panic!("not an error of the store: {other:?}"),
        },
        other => panic!("not an error of the store: {other:?}"),
    }
}

fn an_error_that_may_pass_at_any_operation_changes_nothing(stores: &dyn StoreUnderTest) {
    for when in BOTH {
        for n in 0.. {
            let world = World::open();
            let faults = Faults::error(when, StoreErrorKind::Unavailable).after(n).times(2);
            let process = Process::start(stores).with(faults);
            let app = all_forms(process.store(), &world);
            let is_over = process.run(async {
                let outcome = app.thread("a").invoke(line("input"), RunConfig::new()).await;
                let calls = process.store().all_calls();
                let outcome = outcome.unwrap_or_else(|error| panic!("{when:?} operation {n}: {error:?}"));
                assert_eq!(outcome.done().unwrap().lines, ALL_FORMS, "{when:?} operation {n}");
                assert_eq!(lines(&app, "a").await, ALL_FORMS, "{when:?} operation {n}");
                assert_eq!(statuses(&app.thread("a")).await, [RunStatus::Done]);
                assert_eq!(world.executions().len(), 12, "no node runs twice");
                app.thread("a").delete().await.unwrap();
                calls <= n
            });
            if is_over {
                assert!(n > 10, "a run has more operations than {n}");
                break;
            }
        }
    }
}

/// Queues a run behind one that stands in the gated node, and lets both end.
fn queued_run_with(stores: &dyn StoreUnderTest, faults: Faults, is_planned_before: bool) {
    let world = World::new();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let thread = app.thread("a");
        let first = tokio::spawn({
            let thread = thread.clone();
            async move { thread.invoke(line("input"), RunConfig::new()).await }
        });
        world.entered.notified().await;
        if is_planned_before {
            process.store().plan(faults.clone());
        }
        let queued = tokio::spawn({
            let thread = thread.clone();
            async move { thread.invoke(line("again"), RunConfig::new().on_busy_thread(OnBusyThread::Queue)).await }
        });
        while process.store().calls("start_run") == 0 {
            tokio::task::yield_now().await;
        }
        if !is_planned_before {
            process.store().plan(faults);
        }
        world.gate.add_permits(2);
        let _ = first.await.unwrap().unwrap();
        let last = queued.await.unwrap().unwrap().done().unwrap();
        assert_eq!(last.lines, [&WHOLE[..], &["again", "first", "gated", "second after 7"]].concat());
        assert_eq!(statuses(&thread).await, [RunStatus::Done; 2]);
    });
}

fn a_queued_run_whose_start_has_a_lost_answer_goes_on(stores: &dyn StoreUnderTest) {
    queued_run_with(stores, Faults::error(When::After, StoreErrorKind::Unavailable).at("start_run"), false);
}

fn a_queued_run_whose_acceptance_has_a_lost_answer_starts(stores: &dyn StoreUnderTest) {
    queued_run_with(stores, Faults::error(When::After, StoreErrorKind::Unavailable).at("begin_run"), true);
}

fn an_error_that_does_not_pass_ends_the_run_typed_and_recovery_goes_on(stores: &dyn StoreUnderTest) {
    for (number, when) in BOTH.into_iter().enumerate() {
        for kind in [StoreErrorKind::Full, StoreErrorKind::ReadOnly, StoreErrorKind::Corrupt, StoreErrorKind::Other] {
            let world = World::open();
            let process = Process::start(stores).with(Faults::error(when, kind.clone()).at("commit").after(1));
            let app = case(process.store(), &world);
            let thread = app.thread(format!("{number} {kind:?}"));
            process.run(async {
                let error = thread.invoke(line("input"), RunConfig::new()).await.unwrap_err();
                assert_eq!(*store_error(&error), kind);
                let ThreadError::Run(mut error) = error else { panic!("{error:?}") };
                assert!(matches!(error.take_state::<Case>(), Some(LastState::Uncommitted(_))));
                assert!(app.runs().is_empty());
                // The run is given up, and is taken up again.
                let report = recover(&app).await;
                assert_eq!(report.taken.len(), 1);
                assert_eq!(thread.state().await.unwrap().unwrap().values.lines, WHOLE);
                assert_eq!(statuses(&thread).await, [RunStatus::Done]);
            });
        }
    }
}

fn an_error_at_the_last_commit_is_no_success(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process =
        Process::start(stores).with(Faults::error(When::Before, StoreErrorKind::Full).at("commit").after(2).times(9));
    let app = case(process.store(), &world);
    process.run(async {
        let error = app.thread("a").invoke(line("input"), RunConfig::new()).await.unwrap_err();
        assert_eq!(*store_error(&error), StoreErrorKind::Full);
        assert_eq!(lines(&app, "a").await, ["input", "first", "gated"]);
        process.store().heal();
        let _ = recover(&app).await;
        assert_eq!(lines(&app, "a").await, WHOLE);
    });
}

fn a_refused_acceptance_is_an_error_and_leaves_nothing(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores).with(Faults::error(When::Before, StoreErrorKind::ReadOnly).at("begin_run"));
    let app = case(process.store(), &world);
    process.run(async {
        let error = app.thread("a").invoke(line("input"), RunConfig::new()).await.unwrap_err();
        assert_eq!(*store_error(&error), StoreErrorKind::ReadOnly);
        assert!(error.to_string().contains("`begin_run`"), "{error}");
        assert!(runs(&app.thread("a")).await.is_empty());
        assert!(app.runs().is_empty());
        let _ = app.thread("a").invoke(line("input"), RunConfig::new()).await.unwrap();
        assert_eq!(lines(&app, "a").await, WHOLE);
    });
}

fn a_fenced_run_stops_and_the_new_owner_ends_it(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    let mut former = None;
    process.run(async {
        let thread = app.thread("a");
        former = Some(tokio::spawn(async move { thread.invoke(line("input"), RunConfig::new()).await }));
        world.entered.notified().await;
    });
    // The former owner is cut off for longer than its lease, and another process takes the run over meanwhile.
    stores.advance(Duration::from_mins(1));
    let other = Process::start(stores);
    let other_app = case(other.store(), &world);
    other.run(async {
        assert_eq!(other_app.recover().await.unwrap().taken.len(), 1);
        world.entered.notified().await;
    });
    world.gate.add_permits(1);
    process.run(async {
        let error = former.unwrap().await.unwrap().unwrap_err();
        assert_eq!(*store_error(&error), StoreErrorKind::Fenced);
        assert!(world.steps_of("second").is_empty(), "a fenced run runs no further node");
    });
    world.gate.add_permits(1);
    other.run(async {
        idle(&other_app).await;
        assert_eq!(lines(&other_app, "a").await, WHOLE);
        let run = runs(&other_app.thread("a")).await.remove(0);
        assert_eq!((run.status, run.epoch), (RunStatus::Done, 2));
    });
}

fn a_state_that_cannot_be_written_ends_the_run_and_the_head_stays(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let _ = app.thread("a").invoke(line("input"), RunConfig::new().stop_before(["gated"])).await.unwrap();
        let error = app.thread("a").update(Case::update().weight(f64::NAN), None).await.unwrap_err();
        assert!(matches!(&error, ThreadError::Unwritable { error, .. } if error.contains("weight")), "{error}");
        let error = app.thread("a").invoke(Case::update().weight(f64::INFINITY), RunConfig::new()).await.unwrap_err();
        assert!(matches!(&error, ThreadError::Unwritable { error, .. } if error.contains("weight")), "{error}");
        assert_eq!(lines(&app, "a").await, ["input", "first"]);
        let state = app.thread("a").invoke(Input::resume(), RunConfig::new()).await.unwrap().done().unwrap();
        assert_eq!(state.lines, WHOLE);
    });
    nan_in_a_node(stores);
}

fn nan_in_a_node(stores: &dyn StoreUnderTest) {
    use agentflow::{graph, node};

    #[node]
    async fn divide(state: &mut Case) {
        state.weight = f64::NAN;
    }

    let process = Process::start(stores);
    let app = graph! { name = "nan"; divide -> END; compile { store: process.store() } };
    process.run(async {
        let thread = app.thread("nan");
        let error = thread.invoke(line("input"), RunConfig::new()).await.unwrap_err();
        let ThreadError::Run(mut error) = error else { panic!("{error:?}") };
        assert!(matches!(error.kind(), RunErrorKind::Unwritable { node, error, .. }
            if &**node == "divide" && error.contains("weight")));
        assert!(matches!(error.take_state::<Case>(), Some(LastState::Uncommitted(_))));
        let state = thread.state().await.unwrap().unwrap();
        assert_eq!((state.values.lines.join(","), state.next.join(",")), ("input".to_owned(), "divide".to_owned()));
        assert_eq!(statuses(&thread).await, [RunStatus::Failed]);
    });
}

/// Starts a run that stands in the gated node, and repeats it with the same id.
async fn repeated(
    app: &App,
    world: &World,
) -> (RunId, [tokio::task::JoinHandle<Result<Outcome<Case>, ThreadError>>; 2]) {
    let config = RunConfig::new().with_run_id(RunId::new());
    let invoke = || {
        let (thread, config) = (app.thread("a"), config.clone());
        tokio::spawn(async move { thread.invoke(line("input"), config).await })
    };
    let first = invoke();
    world.entered.notified().await;
    let second = invoke();
    (config.run_id().unwrap(), [first, second])
}

/// Waits until the repeated run has been looked up in the store.
async fn looked_up(process: &Process<'_>) {
    while process.store().calls("run") == 0 {
        tokio::task::yield_now().await;
    }
    settle().await;
}

fn a_repeat_of_a_live_run_gets_its_outcome_and_leaves_it_registered(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let (run, [first, second]) = repeated(&app, &world).await;
        looked_up(&process).await;
        assert_eq!(app.runs().len(), 1);
        assert!(app.cancel_run(run, CancelKind::Cancel).await.unwrap());
        for outcome in [first, second] {
            let error = outcome.await.unwrap().unwrap_err();
            assert!(error.to_string().contains("cancelled at node `gated`"), "{error}");
        }
    });
}

fn a_repeat_that_goes_away_does_not_end_the_run(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let (run, [first, second]) = repeated(&app, &world).await;
        looked_up(&process).await;
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        settle().await;
        assert_eq!(app.runs().iter().map(|run| run.id).collect::<Vec<_>>(), [run]);
        world.gate.add_permits(1);
        assert_eq!(first.await.unwrap().unwrap().done().unwrap().lines, WHOLE);
    });
}

// The following tests need the paused clock, which the store in memory shares.

#[test]
fn a_store_that_is_away_for_less_than_the_patience_is_waited_for() {
    let (stores, world) = (Memory::default(), World::open());
    let process = Process::start_paused(&stores);
    let app = case(process.store(), &world);
    process.run(async {
        let store = process.store();
        store.plan(Faults::error(When::Before, StoreErrorKind::Unavailable).at("commit").after(1).times(usize::MAX));
        let thread = app.thread("a");
        let run = tokio::spawn(async move { thread.invoke(line("input"), RunConfig::new()).await });
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(world.executions().len(), 2);
        store.heal();
        assert_eq!(run.await.unwrap().unwrap().done().unwrap().lines, WHOLE);
        assert_eq!(world.executions().len(), 3);
    });
}

#[test]
fn a_store_that_is_away_for_longer_ends_the_run_typed_and_the_same_process_takes_it_up_again() {
    let (stores, world) = (Memory::default(), World::open());
    let process = Process::start_paused(&stores);
    let app = case(process.store(), &world);
    process.run(async {
        let store = process.store();
        let _ = app.recover().await.unwrap();
        store.plan(Faults::error(When::Before, StoreErrorKind::Unavailable).after(3).times(usize::MAX));
        let began = Instant::now();
        let error = app.thread("a").invoke(line("input"), RunConfig::new()).await.unwrap_err();
        assert_eq!(*store_error(&error), StoreErrorKind::Unavailable);
        let waited = began.elapsed();
        assert!((25..40).contains(&waited.as_secs()), "{waited:?}");
        tokio::time::sleep(Duration::from_secs(30)).await;
        store.heal();
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(lines(&app, "a").await, WHOLE);
        assert_eq!(statuses(&app.thread("a")).await, [RunStatus::Done]);
    });
}

#[test]
fn an_acceptance_whose_answer_never_came_is_taken_up_again_by_the_same_process() {
    for is_queued in [false, true] {
        let (stores, world) = (Memory::default(), World::new());
        let process = Process::start_paused(&stores);
        let app = case(process.store(), &world);
        process.run(async {
            let _ = app.recover().await.unwrap();
            let store = process.store();
            let thread = app.thread("a");
            let first = is_queued.then(|| {
                let thread = thread.clone();
                tokio::spawn(async move { thread.invoke(line("input"), RunConfig::new()).await })
            });
            if is_queued {
                world.entered.notified().await;
            }
            // The first answer is lost, and the store is away from then on.
            store.plan(Faults::error(When::After, StoreErrorKind::Unavailable).at("begin_run").times(usize::MAX));
            let config = RunConfig::new().on_busy_thread(OnBusyThread::Queue);
            let error = thread.invoke(line("again"), config).await.unwrap_err();
            assert_eq!(*store_error(&error), StoreErrorKind::Unavailable);
            store.heal();
            world.gate.add_permits(2);
            if let Some(first) = first {
                let _ = first.await.unwrap().unwrap();
            }
            tokio::time::sleep(Duration::from_mins(1)).await;
            let all = statuses(&thread).await;
            assert!(all.iter().all(|status| *status == RunStatus::Done), "{all:?}");
            assert_eq!(
                lines(&app, "a").await.last().unwrap(),
                if is_queued { "second after 7" } else { "second after 3" }
            );
        });
    }
}

#[test]
fn an_app_does_not_take_over_its_own_live_runs_when_it_lives_longer_than_a_lease() {
    let (stores, world) = (Memory::default(), World::new());
    let process = Process::start_paused(&stores);
    let app = case(process.store(), &world);
    process.run(async {
        let _ = app.recover().await.unwrap();
        let thread = app.thread("a");
        let run = tokio::spawn(async move { thread.invoke(line("input"), RunConfig::new()).await });
        world.entered.notified().await;
        tokio::time::sleep(Duration::from_mins(5)).await;
        let error = app.thread("a").invoke(line("again"), RunConfig::new()).await.unwrap_err();
        assert!(matches!(error, ThreadError::Busy { is_driven: true, .. }), "{error}");
        // Its lease has run out, as that of a process that was stopped for a while.
        stores.advance(Duration::from_mins(1));
        let report = app.recover().await.unwrap();
        assert_eq!((report.taken.len(), world.steps_of("gated").len()), (0, 1));
        world.gate.add_permits(1);
        assert_eq!(run.await.unwrap().unwrap().done().unwrap().lines, WHOLE);
    });
}

#[test]
fn the_time_of_a_run_timeout_passes_only_while_the_run_has_an_owner() {
    let (stores, world) = (Memory::default(), World::new());
    let process = Process::start_paused(&stores);
    let app = case(process.store(), &world);
    let config = RunConfig::new().with_run_timeout(Duration::from_secs(100));
    process.run(async {
        let thread = app.thread("a");
        tokio::spawn(async move { thread.invoke(line("input"), config).await });
        world.entered.notified().await;
        tokio::time::sleep(Duration::from_secs(41)).await;
    });
    process.die();
    stores.advance(Duration::from_secs(1_000));
    let process = Process::start_paused(&stores);
    let app = case(process.store(), &world);
    process.run(async {
        let began = Instant::now();
        let _ = recover(&app).await;
        let left = began.elapsed();
        // The time until the last renewal before the death counts.
        assert!((59..=70).contains(&left.as_secs()), "{left:?}");
        let run = runs(&app.thread("a")).await.remove(0);
        assert_eq!((run.status, &*run.failure.unwrap().kind), (RunStatus::Failed, "TimedOut"));
    });
}

#[test]
fn a_run_of_nobody_is_taken_over_by_a_store_user() {
    // The harness itself: an owner that died is dead for the store after its lease.
    let (stores, world) = (Memory::default(), World::new());
    let process = Process::start(&stores);
    let app = case(process.store(), &world);
    process.run(async {
        let thread = app.thread("a");
        tokio::spawn(async move { thread.invoke(line("input"), RunConfig::new()).await });
        world.entered.notified().await;
        let mine = TakeOver::new("case".into(), OwnerId::new(), 1);
        assert!(process.store().inner().take_over(mine).await.unwrap().is_empty());
    });
    process.die();
    let process = Process::start(&stores);
    process.run(async {
        let mine = TakeOver::new("case".into(), OwnerId::new(), 1);
        assert_eq!(process.store().inner().take_over(mine).await.unwrap().len(), 1);
    });
}
