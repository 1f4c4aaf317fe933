//! Edits, forks, prunes, deletions and rollbacks: each of them happens, or nothing does, whenever the process dies, and
//! once, also if the answer of the store is lost.

use std::sync::Arc;

use agentflow::{
    CompiledGraph, RunConfig,
    store::{CancelKind, RunStatus, StoreErrorKind},
    thread::{HistoryFilter, ThreadError},
};

use super::{
    faulty_store::{BOTH, Faults, When},
    nodes::{Case, WHOLE, World, case, line},
    process::{Process, idle, recover, statuses},
    stores::{StoreUnderTest, on_every_store},
};

on_every_store!(
    an_edit_is_made_or_not,
    a_fork_is_made_or_not,
    a_prune_is_done_or_not,
    a_deletion_is_done_or_not,
    a_rollback_is_done_or_not,
    an_edit_whose_answer_is_lost_is_made_once,
    a_fork_whose_answer_is_lost_is_made,
    a_deletion_whose_answer_is_lost_is_done,
    a_rollback_whose_answer_is_lost_is_done_once,
    the_end_of_an_ephemeral_run_whose_answer_is_lost_is_the_outcome,
);

type App = CompiledGraph<Case, Arc<World>>;

/// A thread `a` with one run that has ended.
fn ended(stores: &dyn StoreUnderTest, world: &Arc<World>) {
    let process = Process::start(stores);
    let app = case(process.store(), world);
    let _ = process.run(app.thread("a").invoke(line("input"), RunConfig::new())).unwrap();
    process.die();
}

/// Lets a process die in an operation, and returns the app of the next process.
fn dying<'s, T>(
    stores: &'s dyn StoreUnderTest,
    world: &Arc<World>,
    faults: Faults,
    operation: impl AsyncFnOnce(&App) -> T,
) -> (Process<'s>, App) {
    let process = Process::start(stores).with(faults);
    let app = case(process.store(), world);
    assert!(process.run_until_death(operation(&app)).is_none());
    process.die();
    let process = Process::start(stores);
    let app = case(process.store(), world);
    (process, app)
}

async fn lines(app: &App, thread: &str) -> Option<Vec<String>> {
    app.thread(thread).state().await.unwrap().map(|state| state.values.lines)
}

fn with(text: &str) -> Vec<&str> {
    WHOLE.into_iter().chain([text]).collect()
}

fn an_edit_is_made_or_not(stores: &dyn StoreUnderTest) {
    let world = World::open();
    ended(stores, &world);
    for when in BOTH {
        let edit = async |app: &App| app.thread("a").update(line("edit"), None).await;
        let (process, app) = dying(stores, &world, Faults::death(when).at("edit"), edit);
        let expected = if when == When::After { with("edit") } else { WHOLE.to_vec() };
        assert_eq!(process.run(lines(&app, "a")).unwrap(), expected);
    }
}

fn a_fork_is_made_or_not(stores: &dyn StoreUnderTest) {
    let world = World::open();
    ended(stores, &world);
    for when in BOTH {
        let fork = async |app: &App| app.thread("a").fork("b").await;
        let (process, app) = dying(stores, &world, Faults::death(when).at("copy_thread"), fork);
        process.run(async {
            assert_eq!(lines(&app, "b").await, (when == When::After).then(|| WHOLE.map(str::to_owned).to_vec()));
            assert_eq!(app.thread("a").fork("b").await.is_ok(), when == When::Before);
            app.thread("b").delete().await.unwrap();
        });
    }
}

fn a_prune_is_done_or_not(stores: &dyn StoreUnderTest) {
    let world = World::open();
    ended(stores, &world);
    for when in BOTH {
        let prune = async |app: &App| app.thread("a").prune(2).await;
        let (process, app) = dying(stores, &world, Faults::death(when).at("prune"), prune);
        process.run(async {
            let history = app.thread("a").history(HistoryFilter::default()).await.unwrap();
            assert_eq!(history.len(), if when == When::After { 2 } else { 5 });
            assert_eq!(lines(&app, "a").await.unwrap(), WHOLE);
        });
    }
}

fn a_deletion_is_done_or_not(stores: &dyn StoreUnderTest) {
    let world = World::open();
    ended(stores, &world);
    for when in BOTH {
        let delete = async |app: &App| app.thread("a").delete().await;
        let (process, app) = dying(stores, &world, Faults::death(when).at("delete_thread"), delete);
        assert_eq!(process.run(lines(&app, "a")).is_some(), when == When::Before);
    }
}

/// Starts a run that stands in the gated node, and rolls it back.
async fn rolled_back(app: &App, world: &World) -> Result<(), ThreadError> {
    let thread = app.thread("a");
    let run = tokio::spawn(async move { thread.invoke(line("again"), RunConfig::new()).await });
    world.entered.notified().await;
    app.cancel_run(app.runs()[0].id, CancelKind::Rollback).await?;
    run.await.unwrap().map(drop)
}

fn a_rollback_is_done_or_not(stores: &dyn StoreUnderTest) {
    for when in BOTH {
        let world = World::open();
        ended(stores, &world);
        world.gate.forget_permits(1_000);
        world.entered.notify_one();
        let rollback = async |app: &App| {
            world.entered.notified().await;
            rolled_back(app, &world).await
        };
        let (process, app) = dying(stores, &world, Faults::death(when).at("commit").after(1), rollback);
        process.run(async {
            let thread = app.thread("a");
            let all = statuses(&thread).await;
            match when {
                When::Before => assert_eq!(all, [RunStatus::Done, RunStatus::Running]),
                When::After => assert_eq!(all, [RunStatus::Done]),
            }
            let _ = recover(&app).await;
            assert_eq!(statuses(&thread).await, [RunStatus::Done]);
            assert_eq!(lines(&app, "a").await.unwrap(), WHOLE);
            thread.delete().await.unwrap();
        });
    }
}

fn unavailable(operation: &'static str) -> Faults {
    Faults::error(When::After, StoreErrorKind::Unavailable).at(operation)
}

fn an_edit_whose_answer_is_lost_is_made_once(stores: &dyn StoreUnderTest) {
    let world = World::open();
    ended(stores, &world);
    let process = Process::start(stores).with(unavailable("edit"));
    let app = case(process.store(), &world);
    process.run(async {
        let thread = app.thread("a");
        let made = thread.update(line("edit"), None).await.unwrap();
        let state = thread.state().await.unwrap().unwrap();
        assert_eq!(
            (state.checkpoint, state.values.lines),
            (made, with("edit").into_iter().map(str::to_owned).collect())
        );
    });
}

fn a_fork_whose_answer_is_lost_is_made(stores: &dyn StoreUnderTest) {
    let world = World::open();
    ended(stores, &world);
    let process = Process::start(stores).with(unavailable("copy_thread"));
    let app = case(process.store(), &world);
    process.run(async {
        app.thread("a").fork("b").await.unwrap();
        assert_eq!(lines(&app, "b").await.unwrap(), WHOLE);
        assert!(matches!(app.thread("a").fork("b").await, Err(ThreadError::Exists)));
        process.store().plan(Faults::error(When::Before, StoreErrorKind::Unavailable).at("copy_thread"));
        assert!(matches!(app.thread("a").fork("b").await, Err(ThreadError::Exists)));
    });
}

fn a_deletion_whose_answer_is_lost_is_done(stores: &dyn StoreUnderTest) {
    let world = World::open();
    ended(stores, &world);
    let process = Process::start(stores).with(unavailable("delete_thread"));
    let app = case(process.store(), &world);
    process.run(async {
        assert!(app.thread("a").delete().await.unwrap(), "the thread was there");
        assert!(!app.thread("a").delete().await.unwrap());
    });
}

fn a_rollback_whose_answer_is_lost_is_done_once(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores).with(unavailable("commit").after(1));
    let app = case(process.store(), &world);
    process.run(async {
        let error = rolled_back(&app, &world).await.unwrap_err();
        assert!(error.to_string().contains("cancelled at node `gated`"), "{error}");
        assert!(app.thread("a").state().await.unwrap().is_none());
        idle(&app).await;
    });
}

fn the_end_of_an_ephemeral_run_whose_answer_is_lost_is_the_outcome(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores).with(unavailable("commit").after(2));
    let app = case(process.store(), &world);
    process.run(async {
        let outcome = app.thread("a").invoke(line("input"), RunConfig::new().ephemeral()).await.unwrap();
        assert_eq!(outcome.done().unwrap().lines, WHOLE);
        assert!(process.store().inner().thread(&"a".parse().unwrap()).await.unwrap().is_none());
    });
}
