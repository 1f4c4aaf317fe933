//! Transitions of runs, questions and threads that are not allowed: each is a typed error and changes nothing.

use std::sync::Arc;

use agentflow::{
    CompiledGraph, RunConfig, RunId,
    store::{CancelKind, QuestionStatus, RunStatus, ThreadFilter, ThreadStatus},
    thread::{Input, OnBusyThread, QuestionId, ThreadError},
};

use super::{
    nodes::{Case, WHOLE, World, case, line, questions},
    process::{Process, idle, recover, runs, statuses},
    stores::{StoreUnderTest, on_every_store},
};

on_every_store!(
    resume_and_answer_of_nothing_are_refused,
    of_two_answers_from_two_apps_one_wins,
    of_two_runs_from_two_apps_one_is_refused,
    runs_queued_by_two_apps_all_run_in_the_order_of_their_acceptance,
    an_edit_of_a_busy_thread_is_refused,
    a_cancel_after_the_end_changes_nothing,
    a_cancel_of_another_process_ends_the_run,
    a_cancel_of_a_dead_process_s_run_ends_it_at_once,
    a_queued_run_is_cancelled_by_another_process,
    a_deletion_of_a_busy_thread_cancels_the_run_and_a_late_commit_does_not_make_it_anew,
    a_deletion_from_another_process_cancels_first,
    a_thread_of_a_dead_process_is_deleted,
    a_fork_to_an_existing_name_is_refused,
    a_thread_belongs_to_one_graph,
    a_checkpoint_of_another_thread_is_refused,
    a_queued_answer_that_is_late_fails_its_run_only,
    delete_idle_leaves_busy_and_asking_threads,
);

type App = CompiledGraph<Case, Arc<World>>;
type Spawned = tokio::task::JoinHandle<Result<agentflow::thread::Outcome<Case>, ThreadError>>;

async fn lines(app: &App) -> Vec<String> {
    app.thread("a").state().await.unwrap().map(|state| state.values.lines).unwrap_or_default()
}

fn invoke(app: &App, text: &'static str, config: RunConfig) -> Spawned {
    let thread = app.thread("a");
    tokio::spawn(async move { thread.invoke(line(text), config).await })
}

/// Starts a run that stands in the gated node.
async fn standing(app: &App, world: &World) -> (RunId, Spawned) {
    let run = invoke(app, "input", RunConfig::new());
    world.entered.notified().await;
    (app.runs()[0].id, run)
}

fn resume_and_answer_of_nothing_are_refused(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let thread = app.thread("a");
        for _ in 0..2 {
            let error = thread.invoke(Input::resume(), RunConfig::new()).await.unwrap_err();
            assert!(matches!(error, ThreadError::NothingToResume), "{error}");
            let question = QuestionId::new();
            let error = thread.answer(question, &1).await.unwrap_err();
            assert!(
                matches!(error, ThreadError::NoSuchQuestion { question: named, .. } if named == question),
                "{error}"
            );
            if thread.state().await.unwrap().is_none() {
                assert!(runs(&thread).await.is_empty());
                let _ = thread.invoke(line("input"), RunConfig::new()).await.unwrap();
            }
        }
        assert_eq!(statuses(&thread).await, [RunStatus::Done]);
    });
}

fn of_two_answers_from_two_apps_one_wins(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores);
    let apps = [questions(process.store(), &world), questions(process.store(), &world)];
    process.run(async {
        let outcome = apps[0].thread("a").invoke(line("input"), RunConfig::new()).await.unwrap();
        let question = outcome.questions()[0].id();
        let [one, two] = [(&apps[0], 1), (&apps[1], 2)].map(|(app, answer)| {
            let thread = app.thread("a");
            tokio::spawn(async move { thread.answer(question, &answer).await })
        });
        let ended = [one.await.unwrap(), two.await.unwrap()];
        let won: Vec<_> = ended.iter().enumerate().filter(|(_, ended)| ended.is_ok()).map(|(index, _)| index).collect();
        assert_eq!(won.len(), 1, "{ended:?}");
        let lost = ended[1 - won[0]].as_ref().unwrap_err();
        assert!(matches!(lost, ThreadError::AlreadyAnswered { question: named, .. } if *named == question), "{lost}");
        assert_eq!(lines(&apps[0]).await, ["input".to_owned(), "asked".into(), format!("took {} after 2", won[0] + 1)]);
        let rows = process.store().inner().questions(&"a".parse().unwrap(), None).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [QuestionStatus::Closed]);
        let all = statuses(&apps[0].thread("a")).await;
        assert_eq!(all.iter().filter(|status| **status == RunStatus::Done).count(), 1, "{all:?}");
    });
}

fn of_two_runs_from_two_apps_one_is_refused(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let apps = [case(process.store(), &world), case(process.store(), &world)];
    process.run(async {
        let [one, two] = [&apps[0], &apps[1]].map(|app| invoke(app, "input", RunConfig::new()));
        world.entered.notified().await;
        world.gate.add_permits(2);
        let ended = [one.await.unwrap(), two.await.unwrap()];
        let lost: Vec<_> = ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
        assert!(matches!(lost[..], [ThreadError::Busy { is_driven: true, .. }]), "{ended:?}");
        assert_eq!(lines(&apps[0]).await, WHOLE);
        assert_eq!(statuses(&apps[0].thread("a")).await, [RunStatus::Done]);
    });
}

fn runs_queued_by_two_apps_all_run_in_the_order_of_their_acceptance(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let apps = [case(process.store(), &world), case(process.store(), &world)];
    process.run(async {
        let mut all = vec![standing(&apps[0], &world).await.1];
        for (index, text) in ["one", "two", "three", "four"].into_iter().enumerate() {
            let app = &apps[(index + 1) % 2];
            all.push(invoke(app, text, RunConfig::new().on_busy_thread(OnBusyThread::Queue)));
            while runs(&app.thread("a")).await.len() < index + 2 {
                tokio::task::yield_now().await;
            }
        }
        world.gate.add_permits(5);
        for run in all {
            let _ = run.await.unwrap().unwrap();
        }
        let inputs: Vec<_> = lines(&apps[0]).await.into_iter().step_by(4).collect();
        assert_eq!(inputs, ["input", "one", "two", "three", "four"]);
    });
}

fn an_edit_of_a_busy_thread_is_refused(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let apps = [case(process.store(), &world), case(process.store(), &world)];
    process.run(async {
        let (id, run) = standing(&apps[0], &world).await;
        for app in &apps {
            let error = app.thread("a").update(line("edit"), None).await.unwrap_err();
            assert!(matches!(error, ThreadError::Busy { run, .. } if run == id), "{error}");
        }
        world.gate.add_permits(1);
        assert_eq!(run.await.unwrap().unwrap().done().unwrap().lines, WHOLE);
    });
}

fn a_cancel_after_the_end_changes_nothing(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let _ = app.thread("a").invoke(line("input"), RunConfig::new()).await.unwrap();
        let run = runs(&app.thread("a")).await.remove(0).run.id;
        for kind in [CancelKind::Cancel, CancelKind::Rollback] {
            assert!(!app.cancel_run(run, kind).await.unwrap());
            assert!(!app.cancel_run(RunId::new(), kind).await.unwrap());
        }
        assert_eq!(statuses(&app.thread("a")).await, [RunStatus::Done]);
        assert_eq!(lines(&app).await, WHOLE);
    });
}

fn a_cancel_of_another_process_ends_the_run(stores: &dyn StoreUnderTest) {
    for kind in [CancelKind::Cancel, CancelKind::Rollback] {
        let world = World::new();
        let process = Process::start(stores);
        let [app, other] = [case(process.store(), &world), case(process.store(), &world)];
        process.run(async {
            let (id, run) = standing(&app, &world).await;
            assert!(other.cancel_run(id, kind).await.unwrap());
            let error = run.await.unwrap().unwrap_err();
            assert!(error.to_string().contains("cancelled at node `gated`"), "{error}");
            match kind {
                CancelKind::Cancel => assert_eq!(lines(&app).await, ["input", "first"]),
                _ => assert!(app.thread("a").state().await.unwrap().is_none()),
            }
            app.thread("a").delete().await.unwrap();
        });
    }
}

fn a_cancel_of_a_dead_process_s_run_ends_it_at_once(stores: &dyn StoreUnderTest) {
    for kind in [CancelKind::Cancel, CancelKind::Rollback] {
        let world = World::new();
        let process = Process::start(stores);
        let app = case(process.store(), &world);
        process.run(standing(&app, &world));
        process.die();
        // This process does not recover: the cancel itself ends the run.
        let process = Process::start(stores);
        let app = case(process.store(), &world);
        process.run(async {
            let thread = app.thread("a");
            let run = runs(&thread).await.remove(0).run.id;
            assert!(app.cancel_run(run, kind).await.unwrap());
            idle(&app).await;
            match kind {
                CancelKind::Cancel => assert_eq!(statuses(&thread).await, [RunStatus::Cancelled]),
                _ => assert!(thread.state().await.unwrap().is_none()),
            }
            assert_eq!(world.steps_of("gated").len(), 1);
            thread.delete().await.unwrap();
        });
    }
}

fn a_queued_run_is_cancelled_by_another_process(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let [app, other] = [case(process.store(), &world), case(process.store(), &world)];
    process.run(async {
        let (_, run) = standing(&app, &world).await;
        let id = RunId::new();
        let config = RunConfig::new().on_busy_thread(OnBusyThread::Queue).with_run_id(id);
        let queued = invoke(&app, "again", config);
        while process.store().calls("start_run") == 0 {
            tokio::task::yield_now().await;
        }
        assert!(other.cancel_run(id, CancelKind::Cancel).await.unwrap());
        let error = queued.await.unwrap().unwrap_err();
        assert!(matches!(error, ThreadError::CancelledBeforeStart), "{error}");
        world.gate.add_permits(1);
        assert_eq!(run.await.unwrap().unwrap().done().unwrap().lines, WHOLE);
        assert_eq!(statuses(&app.thread("a")).await, [RunStatus::Done, RunStatus::Cancelled]);
    });
}

fn a_deletion_of_a_busy_thread_cancels_the_run_and_a_late_commit_does_not_make_it_anew(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let (_, run) = standing(&app, &world).await;
        assert!(app.thread("a").delete().await.unwrap());
        assert!(run.await.unwrap().is_err());
        world.gate.add_permits(1);
        idle(&app).await;
        assert!(app.thread("a").state().await.unwrap().is_none());
        assert!(app.threads().list(ThreadFilter::default()).await.unwrap().threads.is_empty());
    });
}

fn a_deletion_from_another_process_cancels_first(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let [app, other] = [case(process.store(), &world), case(process.store(), &world)];
    process.run(async {
        let (_, run) = standing(&app, &world).await;
        assert!(other.thread("a").delete().await.unwrap());
        let error = run.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("cancelled"), "{error}");
        assert!(other.thread("a").state().await.unwrap().is_none());
    });
}

fn a_thread_of_a_dead_process_is_deleted(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(standing(&app, &world));
    process.die();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let error = app.thread("a").invoke(line("again"), RunConfig::new()).await.unwrap_err();
        assert!(matches!(error, ThreadError::Busy { is_driven: false, .. }), "{error}");
        assert!(app.thread("a").delete().await.unwrap());
        assert!(recover(&app).await.taken.is_empty());
        assert!(app.thread("a").state().await.unwrap().is_none());
    });
}

fn a_fork_to_an_existing_name_is_refused(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let error = app.thread("a").fork("b").await.unwrap_err();
        assert!(matches!(error, ThreadError::NoSuchThread), "{error}");
        for id in ["a", "b"] {
            let _ = app.thread(id).invoke(line(id), RunConfig::new()).await.unwrap();
        }
        for to in ["b", "a"] {
            let error = app.thread("a").fork(to).await.unwrap_err();
            assert!(matches!(error, ThreadError::Exists), "{error}");
        }
        assert_eq!(app.thread("b").state().await.unwrap().unwrap().values.lines[0], "b");
    });
}

fn a_thread_belongs_to_one_graph(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores);
    let [app, other] = [case(process.store(), &world), questions(process.store(), &world)];
    process.run(async {
        let _ = app.thread("a").invoke(line("input"), RunConfig::new()).await.unwrap();
        for error in [
            other.thread("a").invoke(line("input"), RunConfig::new()).await.unwrap_err(),
            other.thread("a").update(line("edit"), None).await.unwrap_err(),
        ] {
            assert!(matches!(&error, ThreadError::OtherGraph { graph, .. } if &**graph == "case"), "{error}");
        }
        assert_eq!(lines(&app).await, WHOLE);
    });
}

fn a_checkpoint_of_another_thread_is_refused(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        for id in ["a", "b"] {
            let _ = app.thread(id).invoke(line(id), RunConfig::new()).await.unwrap();
        }
        let foreign = app.thread("b").state().await.unwrap().unwrap().checkpoint;
        let input = Input::update(line("again")).at(foreign);
        let error = app.thread("a").invoke(input, RunConfig::new()).await.unwrap_err();
        assert!(matches!(error, ThreadError::NoSuchCheckpoint { checkpoint, .. } if checkpoint == foreign), "{error}");
        let error = app.thread("a").at(foreign).await.unwrap_err();
        assert!(matches!(error, ThreadError::NoSuchCheckpoint { .. }), "{error}");
    });
}

fn a_queued_answer_that_is_late_fails_its_run_only(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(async {
        let thread = app.thread("a");
        let outcome = thread.invoke(line("input"), RunConfig::new()).await.unwrap();
        let question = outcome.questions()[0].id();
        // Of two answers that are accepted while the question is open, the second one comes too late.
        let (one, two) = tokio::join!(thread.answer(question, &1), thread.answer(question, &2));
        assert_ne!(one.is_ok(), two.is_ok());
        let error = one.err().or(two.err()).unwrap();
        assert!(matches!(error, ThreadError::AlreadyAnswered { .. }), "{error}");
        let row = app.threads().get(thread.id().unwrap()).await.unwrap().unwrap();
        assert_eq!(row.status, ThreadStatus::Idle);
        assert_eq!(lines(&app).await.len(), 3);
    });
}

fn delete_idle_leaves_busy_and_asking_threads(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let [app, asking] = [case(process.store(), &world), questions(process.store(), &world)];
    process.run(async {
        let (_, run) = standing(&app, &world).await;
        let done = app.thread("done").invoke(line("x"), RunConfig::new().stop_before(["gated"])).await.unwrap();
        drop(done);
        let _ = asking.thread("asks").invoke(line("x"), RunConfig::new()).await.unwrap();
        stores.advance(std::time::Duration::from_secs(5));
        let age = std::time::Duration::from_secs(4);
        assert_eq!(app.threads().delete_idle(age).await.unwrap(), 1);
        assert_eq!(asking.threads().delete_idle(age).await.unwrap(), 0);
        world.gate.add_permits(1);
        assert_eq!(run.await.unwrap().unwrap().done().unwrap().lines, WHOLE);
        assert_eq!(asking.thread("asks").questions().await.unwrap().len(), 1);
    });
}
