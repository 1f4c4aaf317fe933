//! Checks that race operations from both handles.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde_json::{Map, json as value};

use super::{
    super::{
        BeginRun, Begun, Claim, Commit, Edit, Edited, Fire, Fired, NewValues, OnBusyThread, Overlap, PutItem,
        PutOutcome, Rest, RunStart, ScheduleRow, Source, Store, StoredTaskFilter, StoredTaskId, Timestamp,
    },
    check::list_checks,
    harness::{Checked, GRAPH, Handle, Harness, bytes, checkpoint, ensure, json, same, task, thread_id},
};
use crate::run_id::RunId;

list_checks![
    a_commit_is_seen_whole,
    of_two_runs_of_one_thread_one_starts,
    of_two_answers_to_one_question_one_wins,
    of_two_edits_of_one_head_one_wins,
    no_task_is_claimed_by_two_owners,
    no_run_is_taken_over_by_two_owners,
    of_two_firings_of_one_due_time_one_wins,
    writers_of_one_item_lose_no_update,
    patches_of_one_thread_lose_no_field,
    a_refusal_undoes_no_other_operation,
    runs_on_many_threads_do_not_mix,
];

/// The number of rounds of a race.
const ROUNDS: usize = 20;

/// Runs one operation on each handle at the same time. Each has a task of its own.
async fn race<T: Send + 'static, F: Future<Output = Checked<T>> + Send + 'static>(
    h: &Harness<'_>,
    operation: impl Fn(Handle, usize) -> F,
) -> Checked<[T; 2]> {
    let first = tokio::spawn(operation(h.a.clone(), 0));
    let second = tokio::spawn(operation(h.b.clone(), 1));
    Ok([first.await??, second.await??])
}

async fn a_commit_is_seen_whole(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    for _ in 0..ROUNDS {
        let mut commit = live.commit_of("{}");
        let spawned = task("job");
        commit.tasks = vec![spawned.clone()];
        let (before, store) = (live.last, h.a.store.clone());
        let committing = tokio::spawn(async move { store.commit(commit).await });
        loop {
            // The head is read first: a task whose commit follows between the two reads is no contradiction.
            let head = h.b.head("t").await?;
            let mut filter = StoredTaskFilter::default();
            filter.ids = Some(vec![spawned.id]);
            let tasks = h.b.store.tasks(filter).await?;
            ensure(head == before || !tasks.is_empty(), "the checkpoint of a commit is there without its task")?;
            if committing.is_finished() {
                break;
            }
            tokio::task::yield_now().await;
        }
        live.last = committing.await??.checkpoint;
        live.number += 1;
    }
    Ok(())
}

async fn of_two_runs_of_one_thread_one_starts(h: &mut Harness<'_>) -> Checked {
    for round in 0..ROUNDS {
        let thread = format!("t{round}");
        let begun = race(h, |handle, _| {
            let thread = thread.clone();
            async move { handle.ask_to_begin(handle.run(&thread), OnBusyThread::Reject).await }
        })
        .await?;
        let started = begun.iter().filter(|begun| matches!(begun, Begun::Running(_))).count();
        same(&format!("the number of started runs of {begun:?}"), started, 1)?;
        same("the number of checkpoints", h.a.history(&thread).await?.len(), 1)?;
    }
    Ok(())
}

async fn of_two_answers_to_one_question_one_wins(h: &mut Harness<'_>) -> Checked {
    for round in 0..ROUNDS {
        let thread = format!("t{round}");
        let (_, question) = h.a.run_until_question(&thread).await?;
        let start = h.a.answering(&thread, question, "1").await?;
        let begun = race(h, |handle, _| {
            let request = BeginRun::new(handle.run(&thread), OnBusyThread::Queue, start.clone());
            async move { Ok(handle.store.begin_run(request).await?) }
        })
        .await?;
        let count = |matches: fn(&Begun) -> bool| begun.iter().filter(|begun| matches(begun)).count();
        let counts = (
            count(|begun| matches!(begun, Begun::Running(_))),
            count(|begun| matches!(begun, Begun::NotOpen { status: Some(_), .. })),
        );
        same(&format!("the outcomes {begun:?}"), counts, (1, 1))?;
    }
    Ok(())
}

async fn of_two_edits_of_one_head_one_wins(h: &mut Harness<'_>) -> Checked {
    let mut head = h.a.run_once("t", 0).await?.last;
    for round in 0..ROUNDS {
        let edited = race(h, |handle, n| async move {
            let values = NewValues::Delta(bytes(&format!(r#"{{"set":{{"n":[{round},{n}]}}}}"#)));
            let new = checkpoint(Source::Update, values);
            Ok(handle.store.edit(Edit::new(thread_id("t"), GRAPH.into(), head, new, Rest::Idle)).await?)
        })
        .await?;
        let made: Vec<_> = edited
            .iter()
            .filter_map(|edited| match edited {
                Edited::Made(id) => Some(*id),
                _ => None,
            })
            .collect();
        same(&format!("the number of edits of {edited:?}"), made.len(), 1)?;
        head = h.a.head("t").await?;
        same("the head", head, made.first().copied())?;
    }
    Ok(())
}

async fn no_task_is_claimed_by_two_owners(h: &mut Harness<'_>) -> Checked {
    const COUNT: usize = 60;
    h.a.store.enqueue((0..COUNT).map(|_| task("job")).collect()).await?;
    let claimed = race(h, |handle, _| async move {
        let mut ids: Vec<StoredTaskId> = Vec::new();
        loop {
            let claim = Claim::new(handle.owner, vec![("job".into(), 3)], 3);
            let claimed = handle.store.claim(claim).await?;
            if claimed.tasks.is_empty() {
                return Ok(ids);
            }
            ids.extend(claimed.tasks.iter().map(|row| row.task.id));
            tokio::task::yield_now().await;
        }
    })
    .await?
    .concat();
    let distinct: HashSet<_> = claimed.iter().collect();
    same("the numbers of claims and of claimed tasks", (claimed.len(), distinct.len()), (COUNT, COUNT))
}

async fn no_run_is_taken_over_by_two_owners(h: &mut Harness<'_>) -> Checked {
    const COUNT: usize = 15;
    for n in 0..COUNT {
        h.a.begin(&format!("t{n}")).await?;
    }
    h.die().await?;
    let taken = race(h, |handle, _| async move {
        let taken = handle.take_over().await?;
        Ok(taken.iter().map(|taken| taken.run.run.id).collect::<Vec<RunId>>())
    })
    .await?
    .concat();
    let distinct: HashSet<_> = taken.iter().collect();
    same("the numbers of takeovers and of runs", (taken.len(), distinct.len()), (COUNT, COUNT))
}

async fn of_two_firings_of_one_due_time_one_wins(h: &mut Harness<'_>) -> Checked {
    let due = |n: usize| Timestamp::default().after(Duration::from_secs(n as u64));
    h.a.store.put_schedule(ScheduleRow::new("s", "job", bytes("{}"), due(0))).await?;
    for round in 0..ROUNDS {
        let fired = race(h, |handle, _| {
            let mut fire = Fire::new("s".into(), due(round), due(round + 1), task("job"));
            fire.overlap = Overlap::Allow;
            async move { Ok(handle.store.fire(fire).await?) }
        })
        .await?;
        let made = fired.iter().filter(|fired| matches!(fired, Fired::Made(_))).count();
        same(&format!("the number of tasks of {fired:?}"), made, 1)?;
    }
    same("the number of all tasks", h.a.store.tasks(StoredTaskFilter::default()).await?.len(), ROUNDS)
}

/// Adds one to an item, as often as another writer comes first.
async fn add_one(store: &Arc<dyn Store>) -> Checked {
    let namespace = ["n".to_owned()];
    loop {
        let row = store.item(&namespace, "k").await?;
        let (count, version) = row.map_or((0, 0), |row| (row.value.as_u64().unwrap_or_default(), row.version));
        tokio::task::yield_now().await;
        let mut put = PutItem::new(namespace.to_vec(), "k", value!(count + 1));
        put.expected_version = Some(version);
        if let PutOutcome::Written(_) = store.put_item(put).await? {
            return Ok(());
        }
    }
}

async fn writers_of_one_item_lose_no_update(h: &mut Harness<'_>) -> Checked {
    race(h, |handle, _| async move {
        for _ in 0..ROUNDS {
            add_one(&handle.store).await?;
        }
        Ok(())
    })
    .await?;
    let row = h.a.store.item(&["n".to_owned()], "k").await?.ok_or("the item is not there")?;
    same("the count and the version", (row.value, row.version), (value!(2 * ROUNDS), 2 * ROUNDS as u64))
}

async fn patches_of_one_thread_lose_no_field(h: &mut Harness<'_>) -> Checked {
    h.a.run_once("t", 0).await?;
    race(h, |handle, n| async move {
        for round in 0..ROUNDS {
            let patch = Map::from_iter([(format!("{n}-{round}"), value!(round))]);
            handle.store.patch_metadata(&thread_id("t"), patch).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    })
    .await?;
    let row = h.b.store.thread(&thread_id("t")).await?.ok_or("the thread is not there")?;
    same("the number of fields", row.metadata.len(), 2 * ROUNDS)
}

async fn a_refusal_undoes_no_other_operation(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("busy").await?;
    for round in 0..ROUNDS {
        let store = h.a.store.clone();
        let key = format!("{round}");
        let put = PutItem::new(vec!["n".to_owned()], key.clone(), value!(round));
        let spawned = task("job");
        let mut refused = live.commit();
        refused.epoch += 1;
        let rejected = BeginRun::new(h.a.run("busy"), OnBusyThread::Reject, RunStart::at(live.last));
        // All five are sent before one of them is answered, so that a store that gathers them has them in one batch.
        let (put, first, made, second, other) = tokio::join!(
            store.put_item(put),
            store.commit(refused),
            store.enqueue(vec![spawned.clone()]),
            store.begin_run(rejected),
            store.commit(Commit::new(RunId::new(), 1, 1, None)),
        );
        put?;
        made?;
        ensure(first.is_err() && other.is_err(), "a commit that is not live was accepted")?;
        ensure(matches!(second?, Begun::Busy { .. }), "a run of a busy thread was accepted")?;
        let item = h.b.store.item(&["n".to_owned()], &key).await?;
        ensure(item.is_some(), "an item that was written beside a refused operation is gone")?;
        h.b.task(spawned.id).await?;
    }
    Ok(())
}

async fn runs_on_many_threads_do_not_mix(h: &mut Harness<'_>) -> Checked {
    race(h, |handle, n| async move {
        for round in 0..ROUNDS {
            let thread = format!("t{n}-{round}");
            let mut start = handle.start_of(&thread, None).await?;
            start.checkpoints = vec![checkpoint(Source::Input, NewValues::Snapshot(json(r#"{"log":[]}"#)))];
            let mut live = handle.begin_with(&thread, start).await?;
            for step in 0..3 {
                let commit = live.commit_of(&format!(r#"{{"append":{{"log":[{step}]}}}}"#));
                handle.commit(&mut live, commit).await?;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    })
    .await?;
    for n in 0..2 {
        for round in 0..ROUNDS {
            let thread = format!("t{n}-{round}");
            same(&thread, h.b.state(&thread, None).await?, value!({"log": [0, 1, 2]}))?;
            same("its checkpoints", h.a.history(&thread).await?.len(), 4)?;
        }
    }
    Ok(())
}
