//! The death of a process in a run: what it leaves behind, at each point of the run.

use std::{collections::BTreeSet, sync::Arc};

use agentflow::{
    CompiledGraph, RunConfig, RunId, graph, node,
    store::{CancelKind, RunStatus, ThreadStatus},
    thread::{Input, OnBusyThread, Thread},
};

use super::{
    faulty_store::{BOTH, Faults, When},
    nodes::{ALL_FORMS, Case, WHOLE, World, all_forms, case, line},
    process::{Process, recover, runs, statuses},
    stores::{StoreUnderTest, on_every_store},
};

on_every_store!(
    before_the_acceptance_nothing_is_accepted_and_the_repeated_run_starts,
    after_the_acceptance_the_run_starts_and_a_repeat_gets_its_outcome,
    a_queued_run_of_a_dead_owner_starts_after_recovery,
    inside_a_node_the_node_runs_again_with_the_same_step_id,
    before_a_commit_is_sent_the_node_runs_again,
    while_a_commit_is_under_way_it_is_there_or_not,
    after_a_commit_the_hook_is_not_repeated,
    after_the_last_commit_nothing_is_left,
    inside_a_group_and_at_its_join_the_merge_is_done_once,
    after_a_cancel_was_requested_the_next_owner_ends_the_run_and_its_node_does_not_run,
    a_run_that_is_killed_at_any_operation_ends_as_one_that_is_not,
    the_recursion_limit_does_not_start_over,
    a_run_at_which_five_processes_died_alone_is_parked_and_reported,
);

type App = CompiledGraph<Case, Arc<World>>;

async fn lines(thread: &Thread<Case, Arc<World>>) -> Vec<String> {
    thread.state().await.unwrap().map(|state| state.values.lines).unwrap_or_default()
}

/// Lets a process die while its run stands in the gated node.
fn die_inside_the_gated_node(stores: &dyn StoreUnderTest, world: &Arc<World>, config: RunConfig) {
    let process = Process::start(stores);
    let app = case(process.store(), world);
    process.run(async {
        let thread = app.thread("a");
        tokio::spawn(async move { thread.invoke(line("input"), config).await });
        world.entered.notified().await;
    });
    process.die();
}

fn before_the_acceptance_nothing_is_accepted_and_the_repeated_run_starts(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let config = RunConfig::new().with_run_id(RunId::new());
    let process = Process::start(stores).with(Faults::death(When::Before).at("begin_run"));
    let app = case(process.store(), &world);
    assert!(process.run_until_death(app.thread("a").invoke(line("input"), config.clone())).is_none());
    process.die();

    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        assert!(recover(&app).await.taken.is_empty());
        assert!(app.thread("a").state().await.unwrap().is_none());
        let state = app.thread("a").invoke(line("input"), config).await.unwrap().done().unwrap();
        assert_eq!(state.lines, WHOLE);
    });
}

fn after_the_acceptance_the_run_starts_and_a_repeat_gets_its_outcome(stores: &dyn StoreUnderTest) {
    let world = World::open();
    let config = RunConfig::new().with_run_id(RunId::new());
    let process = Process::start(stores).with(Faults::death(When::After).at("begin_run"));
    let app = case(process.store(), &world);
    assert!(process.run_until_death(app.thread("a").invoke(line("input"), config.clone())).is_none());
    process.die();
    assert!(world.executions().is_empty());

    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        assert_eq!(app.recover().await.unwrap().taken, [config.run_id().unwrap()]);
        let state = app.thread("a").invoke(line("input"), config).await.unwrap().done().unwrap();
        assert_eq!(state.lines, WHOLE);
        assert_eq!(statuses(&app.thread("a")).await, [RunStatus::Done]);
    });
    assert_eq!(world.executions().len(), 3);
}

fn a_queued_run_of_a_dead_owner_starts_after_recovery(stores: &dyn StoreUnderTest) {
    let world = World::new();
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        for (text, number) in [("input", 1), ("again", 2)] {
            let thread = app.thread("a");
            let config = RunConfig::new().on_busy_thread(OnBusyThread::Queue);
            tokio::spawn(async move { thread.invoke(line(text), config).await });
            while runs(&app.thread("a")).await.len() < number {
                tokio::task::yield_now().await;
            }
        }
        world.entered.notified().await;
    });
    process.die();

    world.gate.add_permits(2);
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        assert_eq!(recover(&app).await.taken.len(), 2);
        assert_eq!(statuses(&app.thread("a")).await, [RunStatus::Done; 2]);
        let all = [&WHOLE[..], &["again", "first", "gated", "second after 7"]].concat();
        assert_eq!(lines(&app.thread("a")).await, all);
    });
}

fn inside_a_node_the_node_runs_again_with_the_same_step_id(stores: &dyn StoreUnderTest) {
    let world = World::new();
    die_inside_the_gated_node(stores, &world, RunConfig::new());
    die_inside_recovery(stores, &world);
    world.gate.add_permits(1);
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        assert_eq!(recover(&app).await.taken.len(), 1);
        assert_eq!(lines(&app.thread("a")).await, WHOLE);
        let run = runs(&app.thread("a")).await.remove(0);
        assert_eq!((run.status, run.epoch, run.crashes), (RunStatus::Done, 3, 0));
    });
    let steps = world.steps_of("gated");
    assert_eq!(steps, [&*steps[0]; 3]);
    assert_eq!(world.executions(), ["1/first", "2/gated", "2/gated", "2/gated", "3/second"]);
}

/// Takes the run over that stands in the gated node, and dies there again.
fn die_inside_recovery(stores: &dyn StoreUnderTest, world: &Arc<World>) {
    let process = Process::start(stores);
    let app = case(process.store(), world);
    process.run(async {
        assert_eq!(app.recover().await.unwrap().taken.len(), 1);
        world.entered.notified().await;
    });
    process.die();
}

/// Runs `case` in a process with faults, and then in one without. Returns the lines of the thread.
fn run_and_recover(stores: &dyn StoreUnderTest, world: &Arc<World>, faults: Faults) -> Vec<String> {
    let process = Process::start(stores).with(faults);
    let app = case(process.store(), world);
    assert!(process.run_until_death(app.thread("a").invoke(line("input"), RunConfig::new())).is_none());
    process.die();
    let process = Process::start(stores);
    let app = case(process.store(), world);
    process.run(async {
        let _ = recover(&app).await;
        lines(&app.thread("a")).await
    })
}

fn before_a_commit_is_sent_the_node_runs_again(stores: &dyn StoreUnderTest) {
    let world = World::open();
    assert_eq!(run_and_recover(stores, &world, Faults::death(When::Before).at("commit").after(1)), WHOLE);
    assert_eq!(world.executions(), ["1/first", "2/gated", "2/gated", "3/second"]);
}

fn while_a_commit_is_under_way_it_is_there_or_not(stores: &dyn StoreUnderTest) {
    let world = World::open();
    assert_eq!(run_and_recover(stores, &world, Faults::death(When::After).at("commit").after(1)), WHOLE);
    assert_eq!(world.executions(), ["1/first", "2/gated", "3/second"]);
}

fn after_a_commit_the_hook_is_not_repeated(stores: &dyn StoreUnderTest) {
    for (number, when) in [(0, When::Before), (1, When::After)] {
        let world = World::open();
        let process = Process::start(stores).with(Faults::death(when).at("commit").after(1));
        let app = case(process.store(), &world);
        let thread = format!("thread {number}");
        assert!(process.run_until_death(app.thread(&thread).invoke(line("input"), RunConfig::new())).is_none());
        process.die();
        assert_eq!(*world.commits.lock().unwrap(), ["first"], "the hook comes after the commit");
        let process = Process::start(stores);
        let app = case(process.store(), &world);
        let _ = process.run(recover(&app));
        let seen = world.commits.lock().unwrap().clone();
        match when {
            When::Before => assert_eq!(seen, ["first", "gated", "second"]),
            When::After => assert_eq!(seen, ["first", "second"]),
        }
    }
}

fn after_the_last_commit_nothing_is_left(stores: &dyn StoreUnderTest) {
    let world = World::open();
    assert_eq!(run_and_recover(stores, &world, Faults::death(When::After).at("commit").after(2)), WHOLE);
    assert_eq!(world.executions().len(), 3);
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        assert!(recover(&app).await.taken.is_empty());
        assert_eq!(statuses(&app.thread("a")).await, [RunStatus::Done]);
    });
}

fn inside_a_group_and_at_its_join_the_merge_is_done_once(stores: &dyn StoreUnderTest) {
    // The graph has five commits before the join of the first group: four inside the subgraph, and the fallback's two.
    for (number, when) in BOTH.into_iter().enumerate() {
        let world = World::open();
        let thread = format!("thread {number}");
        let process = Process::start(stores).with(Faults::death(when).at("commit").after(6));
        let app = all_forms(process.store(), &world);
        assert!(process.run_until_death(app.thread(&thread).invoke(line("input"), RunConfig::new())).is_none());
        let at_death = world.executions();
        assert!(at_death.iter().any(|step| step.contains("left")), "{at_death:?}");
        process.die();
        let process = Process::start(stores);
        let app = all_forms(process.store(), &world);
        process.run(async {
            let _ = recover(&app).await;
            assert_eq!(lines(&app.thread(&thread)).await, ALL_FORMS);
        });
    }
}

fn after_a_cancel_was_requested_the_next_owner_ends_the_run_and_its_node_does_not_run(stores: &dyn StoreUnderTest) {
    let kinds = [CancelKind::Cancel, CancelKind::Rollback];
    for kind in kinds {
        let world = World::new();
        die_inside_the_gated_node(stores, &world, RunConfig::new());
        let process = Process::start(stores).with(Faults::death(When::After).at("request_cancel"));
        let app = case(process.store(), &world);
        process.run_until_death(async {
            let run = runs(&app.thread("a")).await.pop().unwrap().run.id;
            app.cancel_run(run, kind).await
        });
        process.die();

        let process = Process::start(stores);
        let app = case(process.store(), &world);
        process.run(async {
            assert_eq!(recover(&app).await.taken.len(), 1);
            let thread = app.thread("a");
            match kind {
                CancelKind::Cancel => {
                    assert_eq!(statuses(&thread).await, [RunStatus::Cancelled]);
                    let state = thread.state().await.unwrap().unwrap();
                    assert_eq!(
                        (state.values.lines.join(","), state.next.join(",")),
                        ("input,first".into(), "gated".into())
                    );
                }
                _ => assert!(thread.state().await.unwrap().is_none()),
            }
            assert_eq!(world.steps_of("gated").len(), 1);
            thread.delete().await.unwrap();
        });
    }
}

/// The steps of `all_forms`: their numbers, and the nodes in them.
const STEPS: [&str; 12] = [
    "1/INNER/first",
    "3/INNER/second",
    "4/INNER/first",
    "5/INNER/second",
    "6/FAILS",
    "7/repair",
    "8/left#1",
    "8/right#1",
    "9/item[0]#1",
    "9/item[1]#1",
    "9/item[2]#1",
    "10/gated",
];

/// Runs a graph once, in as many processes as it takes: each of them dies at its `n`th operation. Returns how many died.
fn run_dying_at(stores: &dyn StoreUnderTest, build: impl Fn(&Process<'_>) -> App, n: usize, when: When) -> usize {
    let id = RunId::new();
    for deaths in 0.. {
        // With four deaths in a row the fifth one would park the run.
        let process = Process::start(stores);
        if deaths < 4 {
            process.store().plan(Faults::death(when).after(n));
        }
        let app = build(&process);
        let ended = process.run_until_death(async {
            let _ = recover(&app).await;
            let config = RunConfig::new().with_run_id(id);
            app.thread("a").invoke(line("input"), config).await.unwrap().done().unwrap()
        });
        if ended.is_some() {
            return deaths;
        }
    }
    unreachable!("the last process does not die")
}

fn a_run_that_is_killed_at_any_operation_ends_as_one_that_is_not(stores: &dyn StoreUnderTest) {
    for when in BOTH {
        for n in 0.. {
            let world = World::open();
            let deaths = run_dying_at(stores, |process| all_forms(process.store(), &world), n, when);
            let process = Process::start(stores);
            let app = all_forms(process.store(), &world);
            process.run(async {
                let thread = app.thread("a");
                assert_eq!(lines(&thread).await, ALL_FORMS, "{when:?} operation {n}");
                assert_eq!(statuses(&thread).await, [RunStatus::Done]);
                let row = app.threads().get(thread.id().unwrap()).await.unwrap().unwrap();
                assert_eq!(row.status, ThreadStatus::Idle);
                assert!(thread.delete().await.unwrap());
            });
            // All executions of a step have its id, and no two steps share one.
            let distinct: BTreeSet<_> = world.executions().into_iter().collect();
            assert_eq!(distinct, BTreeSet::from(STEPS.map(str::to_owned)), "{when:?} operation {n}");
            if deaths == 0 {
                assert!(n > 10, "a run has more operations than {n}");
                break;
            }
        }
    }
}

#[node]
async fn spin(state: &mut Case) -> bool {
    state.lines.push("round".to_owned());
    state.lines.len() < 8
}

fn the_recursion_limit_does_not_start_over(stores: &dyn StoreUnderTest) {
    let build = |process: &Process<'_>| {
        graph! {
            name = "spin";
            spin -> match { true => spin, false => END };
            compile { store: process.store(), recursion_limit: 6 }
        }
    };
    let process = Process::start(stores).with(Faults::death(When::After).at("commit").after(3));
    let app = build(&process);
    assert!(process.run_until_death(app.thread("a").invoke(line("input"), RunConfig::new())).is_none());
    process.die();
    let process = Process::start(stores);
    let app = build(&process);
    process.run(async {
        let _ = recover(&app).await;
        let run = runs(&app.thread("a")).await.remove(0);
        assert_eq!((run.status, &*run.failure.unwrap().kind, run.steps), (RunStatus::Failed, "RecursionLimit", 6));
    });
}

fn a_run_at_which_five_processes_died_alone_is_parked_and_reported(stores: &dyn StoreUnderTest) {
    let world = World::new();
    die_inside_the_gated_node(stores, &world, RunConfig::new());
    for _ in 0..4 {
        die_inside_recovery(stores, &world);
    }
    let process = Process::start(stores);
    let app = case(process.store(), &world);
    process.run(async {
        let report = recover(&app).await;
        assert_eq!(report.taken.len(), 0);
        let run = runs(&app.thread("a")).await.remove(0);
        assert_eq!(report.parked, [run.run.id]);
        assert_eq!((run.status, &*run.failure.unwrap().kind), (RunStatus::Failed, "Poison"));
        // The thread is as its last commit left it, and goes on by hand.
        world.gate.add_permits(1);
        let state = app.thread("a").invoke(Input::resume(), RunConfig::new()).await.unwrap().done().unwrap();
        assert_eq!(state.lines, WHOLE);
    });
}
