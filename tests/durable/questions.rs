//! Questions and answers in processes that die.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use agentflow::{
    CompiledGraph, RunConfig,
    store::{QuestionStatus, RunFilter, RunStatus, StoreErrorKind},
    thread::{Input, QuestionId, ThreadError},
};
use serde_json::json;

use super::{
    faulty_store::{BOTH, Faults, FaultyStore, When},
    nodes::{Case, World, group_of_questions, line, questions},
    process::{Process, idle, recover, statuses},
    stores::{Memory, StoreUnderTest, on_every_store},
};

on_every_store!(
    after_a_node_returned_a_question_and_before_the_commit_it_asks_again,
    after_an_answer_was_accepted_the_node_runs_again_with_the_same_answer,
    an_answer_before_its_acceptance_leaves_the_question_open,
    a_question_that_is_killed_at_any_operation_is_asked_and_answered_once,
    a_group_of_questions_that_is_killed_at_any_operation_asks_each_once,
    an_answer_survives_a_failure_a_death_and_a_resume,
    a_killed_resume_that_asks_anew_leaves_one_open_question,
    an_answer_belongs_to_its_step_only,
    the_step_of_a_question_is_the_step_of_its_answer,
    a_rollback_of_an_answering_run_opens_the_question_again,
);

type App = CompiledGraph<Case, Arc<World>>;

/// Asks on the thread `a`, in a process of its own.
fn asked(stores: &dyn StoreUnderTest, world: &Arc<World>) -> QuestionId {
    let process = Process::start(stores);
    let app = questions(process.store(), world);
    let question = process.run(async {
        let outcome = app.thread("a").invoke(line("input"), RunConfig::new()).await.unwrap();
        outcome.questions()[0].id()
    });
    process.die();
    question
}

async fn states(process: &Process<'_>) -> Vec<QuestionStatus> {
    let rows = process.store().inner().questions(&"a".parse().unwrap(), None).await.unwrap();
    rows.iter().map(|row| row.status).collect()
}

async fn lines(app: &App) -> Vec<String> {
    app.thread("a").state().await.unwrap().unwrap().values.lines
}

fn after_a_node_returned_a_question_and_before_the_commit_it_asks_again(stores: &dyn StoreUnderTest) {
    for (when, executions) in BOTH.into_iter().zip([2, 1]) {
        let world = World::open();
        let process = Process::start(stores).with(Faults::death(when).at("commit"));
        let app = questions(process.store(), &world);
        assert!(process.run_until_death(app.thread("a").invoke(line("input"), RunConfig::new())).is_none());
        process.die();
        let process = Process::start(stores);
        let app = questions(process.store(), &world);
        process.run(async {
            let _ = recover(&app).await;
            let thread = app.thread("a");
            let open = thread.questions().await.unwrap();
            assert_eq!(open.len(), 1);
            assert_eq!(open[0].decode::<String>().unwrap(), "how many, after 2?");
            assert_eq!(lines(&app).await, ["input"]);
            assert_eq!(world.executions().len(), executions);
            thread.delete().await.unwrap();
        });
    }
}

fn after_an_answer_was_accepted_the_node_runs_again_with_the_same_answer(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let question = asked(stores, &world);
    let process = Process::start(stores).with(Faults::death(When::After).at("begin_run"));
    let app = questions(process.store(), &world);
    assert!(process.run_until_death(app.thread("a").answer(question, &7)).is_none());
    process.die();

    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(async {
        assert_eq!(states(&process).await, [QuestionStatus::Answered]);
        let error = app.thread("a").answer(question, &8).await.unwrap_err();
        assert!(matches!(error, ThreadError::AlreadyAnswered { .. }), "{error}");
        let _ = recover(&app).await;
        assert_eq!(states(&process).await, [QuestionStatus::Closed]);
        assert_eq!(lines(&app).await, ["input", "asked", "took 7 after 2"]);
    });
}

fn an_answer_before_its_acceptance_leaves_the_question_open(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let question = asked(stores, &world);
    let process = Process::start(stores).with(Faults::death(When::Before).at("begin_run"));
    let app = questions(process.store(), &world);
    assert!(process.run_until_death(app.thread("a").answer(question, &7)).is_none());
    process.die();
    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(async {
        assert!(recover(&app).await.taken.is_empty());
        assert_eq!(states(&process).await, [QuestionStatus::Open]);
        let outcome = app.thread("a").answer(question, &8).await.unwrap();
        assert_eq!(outcome.done().unwrap().lines, ["input", "asked", "took 8 after 2"]);
    });
}

/// Asks and answers: the first answer is bad, so that the node asks again.
fn a_question_that_is_killed_at_any_operation_is_asked_and_answered_once(stores: &dyn StoreUnderTest) {
    for when in BOTH {
        for n in 0.. {
            let world = World::open();
            let mut deaths = 0;
            loop {
                let process = Process::start(stores);
                if deaths < 4 {
                    process.store().plan(Faults::death(when).after(n));
                }
                let app = questions(process.store(), &world);
                let ended = process.run_until_death(async {
                    let _ = recover(&app).await;
                    let thread = app.thread("a");
                    if thread.state().await.unwrap().is_none() {
                        let _ = thread.invoke(line("input"), RunConfig::new()).await.unwrap();
                    }
                    while let Some(question) = thread.questions().await.unwrap().pop() {
                        let is_first = question.decode::<String>().unwrap() == "how many, after 2?";
                        let _ = thread.answer(question.id(), &if is_first { 0 } else { 5 }).await.unwrap();
                    }
                });
                process.die();
                if ended.is_some() {
                    break;
                }
                deaths += 1;
            }
            let process = Process::start(stores);
            let app = questions(process.store(), &world);
            process.run(async {
                assert_eq!(lines(&app).await, ["input", "asked", "asked", "took 5 after 3"], "{when:?} operation {n}");
                assert_eq!(states(&process).await, [QuestionStatus::Closed; 2], "{when:?} operation {n}");
                assert_eq!(
                    statuses(&app.thread("a")).await,
                    [RunStatus::Waiting, RunStatus::Waiting, RunStatus::Done],
                    "{when:?} operation {n}",
                );
                app.thread("a").delete().await.unwrap();
            });
            if deaths == 0 {
                assert!(n > 15, "there are more operations than {n}");
                break;
            }
        }
    }
}

fn a_group_of_questions_that_is_killed_at_any_operation_asks_each_once(stores: &dyn StoreUnderTest) {
    for when in BOTH {
        for n in 0.. {
            let world = World::open();
            let mut deaths = 0;
            loop {
                let process = Process::start(stores);
                if deaths < 4 {
                    process.store().plan(Faults::death(when).after(n));
                }
                let app = group_of_questions(process.store(), &world);
                let ended = process.run_until_death(async {
                    let _ = recover(&app).await;
                    let thread = app.thread("a");
                    if thread.state().await.unwrap().is_none() {
                        let _ = thread.invoke(line("input"), RunConfig::new()).await.unwrap();
                    }
                    while let Some(question) = thread.questions().await.unwrap().pop() {
                        let is_left = question.decode::<String>().unwrap() == "left?";
                        let _ = thread.answer(question.id(), &if is_left { 1 } else { 2 }).await.unwrap();
                    }
                });
                process.die();
                if ended.is_some() {
                    break;
                }
                deaths += 1;
            }
            let process = Process::start(stores);
            let app = group_of_questions(process.store(), &world);
            process.run(async {
                let whole = ["input", "first", "left 1", "right", "right 2", "second after 5"];
                assert_eq!(lines(&app).await, whole, "{when:?} operation {n}");
                assert_eq!(states(&process).await, [QuestionStatus::Closed; 2], "{when:?} operation {n}");
                let runs = [RunStatus::Waiting, RunStatus::Waiting, RunStatus::Done];
                assert_eq!(statuses(&app.thread("a")).await, runs, "{when:?} operation {n}");
                app.thread("a").delete().await.unwrap();
            });
            let ids: BTreeSet<_> = world.executions().into_iter().collect();
            assert_eq!(ids.len(), 5, "each step has one id: {ids:?}");
            if deaths == 0 {
                assert!(n > 15, "there are more operations than {n}");
                break;
            }
        }
    }
}

fn an_answer_survives_a_failure_a_death_and_a_resume(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let question = asked(stores, &world);
    world.failures.store(2, Ordering::SeqCst);
    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(app.thread("a").answer(question, &3)).unwrap_err();
    process.die();
    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(app.thread("a").invoke(Input::resume(), RunConfig::new())).unwrap_err();
    process.die();
    let process = Process::start(stores).with(Faults::death(When::Before).at("commit"));
    let app = questions(process.store(), &world);
    assert!(process.run_until_death(app.thread("a").invoke(Input::resume(), RunConfig::new())).is_none());
    process.die();
    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(async {
        let _ = recover(&app).await;
        assert_eq!(states(&process).await, [QuestionStatus::Closed]);
        assert_eq!(lines(&app).await, ["input", "asked", "took 3 after 2"]);
    });
}

fn a_killed_resume_that_asks_anew_leaves_one_open_question(stores: &dyn StoreUnderTest) {
    for when in BOTH {
        let world = World::open();
        let question = asked(stores, &world);
        let process = Process::start(stores).with(Faults::death(when).at("commit"));
        let app = questions(process.store(), &world);
        assert!(process.run_until_death(app.thread("a").invoke(Input::resume(), RunConfig::new())).is_none());
        process.die();
        let process = Process::start(stores);
        let app = questions(process.store(), &world);
        process.run(async {
            let _ = recover(&app).await;
            assert_eq!(states(&process).await, [QuestionStatus::Dropped, QuestionStatus::Open], "{when:?}");
            assert_ne!(app.thread("a").questions().await.unwrap()[0].id(), question);
            app.thread("a").delete().await.unwrap();
        });
    }
}

fn an_answer_belongs_to_its_step_only(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let question = asked(stores, &world);
    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(async {
        let thread = app.thread("a");
        world.failures.store(1, Ordering::SeqCst);
        thread.answer(question, &3).await.unwrap_err();
        // Another input comes to the same node, which fails: it has no answer yet.
        world.failures.store(1, Ordering::SeqCst);
        thread.invoke(line("again"), RunConfig::new()).await.unwrap_err();
        let outcome = thread.invoke(Input::resume(), RunConfig::new()).await.unwrap();
        assert_eq!(outcome.questions().len(), 1, "{outcome:?}");
        // The run of another input dies at a node that takes no answer.
        thread.answer(outcome.questions()[0].id(), &2).await.unwrap().done().unwrap();
        let again = thread.invoke(line("and again"), RunConfig::new()).await.unwrap();
        world.failures.store(1, Ordering::SeqCst);
        thread.answer(again.questions()[0].id(), &4).await.unwrap_err();
    });
    process.store().plan(Faults::death(When::Before).at("commit"));
    let gone = Input::goto_with("take", &json!(8));
    assert!(process.run_until_death(app.thread("a").invoke(gone, RunConfig::new())).is_none());
    process.die();
    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(async {
        let report = recover(&app).await;
        assert_eq!((report.taken.len(), report.left.len()), (1, 0), "{report:?}");
        assert_eq!(lines(&app).await.last().unwrap(), "took 8 after 5");
    });
}

fn the_step_of_a_question_is_the_step_of_its_answer(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let question = asked(stores, &world);
    world.failures.store(1, Ordering::SeqCst);
    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(async {
        app.thread("a").answer(question, &3).await.unwrap_err();
        app.thread("a").invoke(Input::resume(), RunConfig::new()).await.unwrap().done().unwrap();
    });
    let steps = world.steps_of("ask");
    assert_eq!(steps, [&*steps[0]; 3]);
}

fn a_rollback_of_an_answering_run_opens_the_question_again(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let question = asked(stores, &world);
    // The answer is accepted, and the process dies.
    let process = Process::start(stores).with(Faults::death(When::After).at("begin_run"));
    let app = questions(process.store(), &world);
    assert!(process.run_until_death(app.thread("a").answer(question, &3)).is_none());
    process.die();
    let process = Process::start(stores);
    let app = questions(process.store(), &world);
    process.run(async {
        let thread = app.thread("a");
        let run = thread.runs(RunFilter::default()).await.unwrap().remove(0).run.id;
        assert!(app.cancel_run(run, agentflow::store::CancelKind::Rollback).await.unwrap());
        let _ = recover(&app).await;
        idle(&app).await;
        assert_eq!(states(&process).await, [QuestionStatus::Open]);
        assert_eq!(statuses(&thread).await, [RunStatus::Waiting]);
        let outcome = thread.answer_json(question, json!(4)).await.unwrap();
        assert_eq!(outcome.done().unwrap().lines, ["input", "asked", "took 4 after 2"]);
    });
}

#[test]
fn an_answer_that_was_prepared_before_another_one_ran_goes_on_from_both() {
    let (stores, world) = (Memory::default(), World::open());
    let process = Process::start_paused(&stores);
    let other = FaultyStore::new(stores.open());
    let [app, other] = [process.store(), other].map(|store| group_of_questions(store, &world));
    process.run(async {
        let thread = app.thread("a");
        let outcome = thread.invoke(line("input"), RunConfig::new()).await.unwrap();
        let [left, right] = ["pick_left", "pick_right"]
            .map(|node| outcome.questions().iter().find(|question| question.node() == node).unwrap().id());
        // The acceptance of the answer fails once, and is repeated with what was prepared.
        process.store().plan(Faults::error(When::Before, StoreErrorKind::Unavailable).at("begin_run"));
        let calls = process.store().calls("begin_run");
        let late = tokio::spawn(async move { thread.answer(left, &1).await });
        while process.store().calls("begin_run") == calls {
            tokio::task::yield_now().await;
        }
        let outcome = other.thread("a").answer(right, &2).await.unwrap();
        assert_eq!(outcome.questions().len(), 1, "{outcome:?}");
        let state = late.await.unwrap().unwrap().done().unwrap();
        assert_eq!(state.lines, ["input", "first", "left 1", "right", "right 2", "second after 5"]);
        assert_eq!(states(&process).await, [QuestionStatus::Closed; 2]);
    });
}
