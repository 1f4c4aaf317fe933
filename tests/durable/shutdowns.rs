//! Shutdowns: runs of a durable store are kept, and the next process goes on with them.

use std::{sync::Arc, time::Duration};

use agentflow::{
    CompiledGraph, RunConfig, RunId,
    run::RunErrorKind,
    store::{RunStatus, StoreErrorKind},
    thread::{OnBusyThread, Outcome, ThreadError},
};

use super::{
    faulty_store::{BOTH, Faults, When},
    nodes::{Case, WHOLE, World, case, line},
    process::{Process, recover, runs, statuses},
    stores::{Memory, StoreUnderTest, on_every_store},
};
use crate::support::settle;

on_every_store!(
    a_run_is_released_at_its_next_commit_and_the_next_process_goes_on,
    a_queued_run_is_kept_and_the_next_process_starts_it,
    a_release_whose_answer_is_lost_is_a_kept_run,
    in_any_phase_of_aclose_a_death_loses_nothing,
    a_repeat_that_waits_for_a_run_of_another_process_does_not_hold_a_shutdown_up,
);

type App = CompiledGraph<Case, Arc<World>>;
type Spawned = tokio::task::JoinHandle<Result<Outcome<Case>, ThreadError>>;

fn invoke(app: &App, text: &'static str, config: RunConfig) -> Spawned {
    let thread = app.thread("a");
    tokio::spawn(async move { thread.invoke(line(text), config).await })
}

#[track_caller]
fn is_shut_down(outcome: Result<Outcome<Case>, ThreadError>) {
    match outcome {
        Err(ThreadError::Run(error)) if matches!(error.kind(), RunErrorKind::ShutDown { .. }) => {}
        other => panic!("the run was not kept: {other:?}"),
    }
}

/// Recovers in a new process. Returns the lines of the thread.
fn go_on(stores: &dyn StoreUnderTest, world: &Arc<World>) -> Vec<String> {
    let process = Process::start(stores);
    let app = case(process.store(), world);
    process.run(async {
        let _ = recover(&app).await;
        app.thread("a").state().await.unwrap().unwrap().values.lines
    })
}

fn a_run_is_released_at_its_next_commit_and_the_next_process_goes_on(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let run = invoke(&app, "input", RunConfig::new());
        world.entered.notified().await;
        let id = app.runs()[0].id;
        let closing = tokio::spawn({
            let app = app.clone();
            async move { app.aclose().await }
        });
        settle().await;
        world.gate.add_permits(1);
        let report = closing.await.unwrap();
        assert_eq!((&*report.runs.kept, report.runs.ended, report.runs.unfinished.len()), (&[id][..], 0, 0));
        is_shut_down(run.await.unwrap());
        let row = runs(&app.thread("a")).await.remove(0);
        assert_eq!((row.status, row.crashes), (RunStatus::Queued, 0));
    });
    process.die();
    assert_eq!(go_on(stores, &world), WHOLE);
    assert_eq!(world.executions(), ["1/first", "2/gated", "3/second"], "the node has run once");
}

fn a_queued_run_is_kept_and_the_next_process_starts_it(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let run = invoke(&app, "input", RunConfig::new());
        world.entered.notified().await;
        let queued = invoke(&app, "again", RunConfig::new().on_busy_thread(OnBusyThread::Queue));
        while process.store().calls("start_run") == 0 {
            tokio::task::yield_now().await;
        }
        let closing = tokio::spawn({
            let app = app.clone();
            async move { app.aclose().await }
        });
        is_shut_down(queued.await.unwrap());
        world.gate.add_permits(1);
        let report = closing.await.unwrap();
        assert_eq!((report.runs.kept.len(), report.runs.still_running.len()), (2, 0));
        is_shut_down(run.await.unwrap());
    });
    process.die();
    world.gate.add_permits(2);
    let all = [&WHOLE[..], &["again", "first", "gated", "second after 7"]].concat();
    assert_eq!(go_on(stores, &world), all);
}

fn a_release_whose_answer_is_lost_is_a_kept_run(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let lost = Faults::error(When::After, StoreErrorKind::Unavailable).at("release_run");
    let process = Process::start(stores).with(lost);
    let app = case(process.store(), &world);
    process.run(async {
        let run = invoke(&app, "input", RunConfig::new());
        world.entered.notified().await;
        let closing = tokio::spawn({
            let app = app.clone();
            async move { app.aclose().await }
        });
        settle().await;
        world.gate.add_permits(1);
        assert_eq!(closing.await.unwrap().runs.kept.len(), 1);
        is_shut_down(run.await.unwrap());
    });
    process.die();
    assert_eq!(go_on(stores, &world), WHOLE);
}

fn in_any_phase_of_aclose_a_death_loses_nothing(stores: &dyn StoreUnderTest) {
    for when in BOTH {
        for n in 0.. {
            let world = World::new();
            let process = Process::start(stores);
            let app = case(process.store(), &world);
            let closed = process.run_until_death(async {
                let run = invoke(&app, "input", RunConfig::new());
                world.entered.notified().await;
                process.store().plan(Faults::death(when).after(n));
                let closing = tokio::spawn({
                    let app = app.clone();
                    async move { app.aclose().await }
                });
                tokio::task::yield_now().await;
                world.gate.add_permits(1);
                closing.await.unwrap();
                run.await.unwrap()
            });
            process.die();
            world.gate.add_permits(9);
            assert_eq!(go_on(stores, &world), WHOLE, "{when:?} operation {n}");
            let process = Process::start(stores);
            let app = case(process.store(), &world);
            process.run(async {
                assert_eq!(statuses(&app.thread("a")).await, [RunStatus::Done]);
                app.thread("a").delete().await.unwrap();
            });
            if closed.is_some() {
                assert!(n >= 3, "a commit, a release and a leave are more operations than {n}");
                break;
            }
        }
    }
}

fn a_repeat_that_waits_for_a_run_of_another_process_does_not_hold_a_shutdown_up(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let [app, other] = [case(process.store(), &world), case(process.store(), &world)];
    process.run(async {
        let config = RunConfig::new().with_run_id(RunId::new());
        let run = invoke(&app, "input", config.clone());
        world.entered.notified().await;
        let waiting = invoke(&other, "input", config);
        while process.store().calls("begin_run") < 2 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        let report = other.aclose().await;
        assert!(report.runs.still_running.is_empty(), "{report:?}");
        is_shut_down(waiting.await.unwrap());
        world.gate.add_permits(1);
        assert_eq!(run.await.unwrap().unwrap().done().unwrap().lines, WHOLE);
    });
}

// The following test needs the paused clock, which the store in memory shares.

#[test]
fn a_run_that_stands_in_a_node_past_the_shutdown_timeout_is_kept_and_its_node_runs_again() {
    let (stores, world) = (Memory::default(), World::new());
    let process = Process::start_paused(&stores);
    let app = case(process.store(), &world);
    process.run(async {
        let run = invoke(&app, "input", RunConfig::new());
        world.entered.notified().await;
        let report = app.aclose().await;
        assert!(report.elapsed < Duration::from_secs(40), "{report:?}");
        assert_eq!((report.runs.kept.len(), report.runs.unfinished.len()), (1, 0));
        assert!(report.to_string().contains("1 kept in the store"), "{report}");
        is_shut_down(run.await.unwrap());
    });
    process.die();
    world.gate.add_permits(1);
    assert_eq!(go_on(&stores, &world), WHOLE);
    assert_eq!(world.executions(), ["1/first", "2/gated", "2/gated", "3/second"]);
}
