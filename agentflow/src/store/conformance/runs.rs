//! Checks of the acceptance, the queue, the cancel and the lists of runs.

use std::time::Duration;

use super::{
    super::{
        BeginRun, Begun, CancelKind, CancelRequested, CheckpointId, Deleted, OnBusyThread, Rest, RunFilter, RunStart,
        RunStatus, StoreErrorKind, ThreadStatus,
    },
    check::list_checks,
    harness::{Checked, GRAPH, Harness, ensure, fenced, refused, same, thread_id, unexpected},
};
use crate::run_id::RunId;

list_checks![
    a_run_starts_at_once_if_nothing_is_in_its_way,
    a_repeated_acceptance_makes_no_second_run,
    a_run_id_belongs_to_one_thread,
    a_thread_belongs_to_one_graph,
    a_busy_thread_rejects_a_run,
    a_run_of_a_moved_head_is_refused,
    a_run_of_a_missing_checkpoint_is_refused,
    queued_runs_start_in_the_order_of_acceptance,
    a_queued_run_starts_once,
    a_run_whose_time_has_not_come_lets_others_pass,
    a_released_run_is_the_first_of_its_thread,
    a_queued_run_of_a_living_owner_is_not_started_by_another,
    a_cancel_of_a_queued_run_ends_it,
    a_cancel_of_a_running_run_marks_it,
    a_cancel_of_an_ended_run_changes_nothing,
    a_new_run_can_cancel_those_before_it,
    a_run_that_has_ended_is_deleted,
    runs_are_listed_newest_first,
];

async fn a_run_starts_at_once_if_nothing_is_in_its_way(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    let row = h.b.row(live.id).await?;
    same("its status", row.status, RunStatus::Running)?;
    same("its owner", row.owner, h.a.owner)?;
    same("its epoch", (row.epoch, live.epoch), (1, 1))?;
    same("its last checkpoint", row.last_checkpoint, live.last)?;
    same("the head before it", row.head_before, None)?;
    same("the head", h.b.head("t").await?, live.last)?;
    same("the thread", h.b.thread_status("t").await?, Some(ThreadStatus::Busy))?;
    let head = h.b.store.load(&live.thread, None).await?.ok_or("the head is not there")?;
    same("the first checkpoint's parent, step and run", (head.parent, head.step, head.run), (None, -1, Some(live.id)))
}

async fn a_repeated_acceptance_makes_no_second_run(h: &mut Harness<'_>) -> Checked {
    let run = h.a.run("t");
    let first = h.a.ask_to_begin(run.clone(), OnBusyThread::Reject).await?;
    ensure(matches!(first, Begun::Running(_)), format_args!("the first request: got {first:?}"))?;
    for handle in [&h.a, &h.b] {
        match handle.ask_to_begin(run.clone(), OnBusyThread::Queue).await? {
            Begun::Known(row) => same("the known run", (row.run.id, row.status), (run.id, RunStatus::Running))?,
            other => return unexpected("a repeated acceptance", &other),
        }
    }
    same("the number of runs", h.b.store.runs(RunFilter::default()).await?.len(), 1)?;
    same("the number of checkpoints", h.b.history("t").await?.len(), 1)
}

async fn a_run_id_belongs_to_one_thread(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    let mut run = h.a.run("other");
    run.id = live.id;
    let request = BeginRun::new(run, OnBusyThread::Reject, h.a.start_of("other", None).await?);
    refused("the id of a run of another thread", h.a.store.begin_run(request).await, &StoreErrorKind::Invalid)?;
    ensure(h.a.store.thread(&thread_id("other")).await?.is_none(), "the refused run made its thread")
}

async fn a_thread_belongs_to_one_graph(h: &mut Harness<'_>) -> Checked {
    h.a.run_once("t", 1).await?;
    let mut run = h.a.run("t");
    run.graph = "another".into();
    let id = run.id;
    match h.a.ask_to_begin(run, OnBusyThread::Reject).await? {
        Begun::OtherGraph(graph) => same("the graph of the thread", &*graph, GRAPH)?,
        other => return unexpected("a run of another graph", &other),
    }
    ensure(h.a.store.run(id).await?.is_none(), "the refused run is there")
}

async fn a_busy_thread_rejects_a_run(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    let run = h.b.run("t");
    let id = run.id;
    match h.b.ask_to_begin(run, OnBusyThread::Reject).await? {
        Begun::Busy { run, is_driven } => same("the run in the way", (run, is_driven), (live.id, true))?,
        other => return unexpected("a run of a busy thread", &other),
    }
    ensure(h.b.store.run(id).await?.is_none(), "the rejected run is there")?;
    h.kill().await?;
    match h.b.ask_to_begin(h.b.run("t"), OnBusyThread::Reject).await? {
        Begun::Busy { is_driven: false, .. } => Ok(()),
        other => unexpected("a run of a thread whose owner is dead", &other),
    }
}

async fn a_run_of_a_moved_head_is_refused(h: &mut Harness<'_>) -> Checked {
    let stale = h.a.start_of("t", None).await?;
    let live = h.a.run_once("t", 1).await?;
    let run = h.b.run("t");
    let id = run.id;
    match h.b.store.begin_run(BeginRun::new(run, OnBusyThread::Reject, stale)).await? {
        Begun::HeadMoved(head) => same("the head", head, live.last)?,
        other => return unexpected("a run of a moved head", &other),
    }
    ensure(h.b.store.run(id).await?.is_none(), "the refused run is there")?;
    same("the head afterwards", h.b.head("t").await?, live.last)
}

async fn a_run_of_a_missing_checkpoint_is_refused(h: &mut Harness<'_>) -> Checked {
    h.a.run_once("t", 1).await?;
    let missing = CheckpointId::new();
    let mut start = h.a.start_of("t", None).await?;
    start.base = Some(missing);
    match h.a.store.begin_run(BeginRun::new(h.a.run("t"), OnBusyThread::Reject, start)).await? {
        Begun::NoSuchCheckpoint(id) => same("the checkpoint", id, missing),
        other => unexpected("a run of a missing checkpoint", &other),
    }
}

async fn queued_runs_start_in_the_order_of_acceptance(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    // The ids are made in another order than the runs are accepted in, as those of two machines may be.
    let (mut early, mut late) = (h.a.run("t"), h.b.run("t"));
    (early.id, late.id) = (RunId::new(), RunId::new());
    let (early_id, late_id) = (early.id, late.id);
    for (handle, run) in [(&h.b, late), (&h.a, early)] {
        let begun = handle.ask_to_begin(run, OnBusyThread::Queue).await?;
        ensure(matches!(begun, Begun::Queued { behind: Some(_) }), format_args!("a queued run: got {begun:?}"))?;
    }
    match h.b.start(late_id).await? {
        Begun::Queued { behind } => same("the run before it", behind, Some(live.id))?,
        other => return unexpected("the start of a run behind a running one", &other),
    }
    h.a.end(&mut live, RunStatus::Done, Rest::Idle).await?;
    match h.a.start(early_id).await? {
        Begun::Queued { behind } => same("the run before the second", behind, Some(late_id))?,
        other => return unexpected("the start of the second run of the queue", &other),
    }
    let begun = h.b.start(late_id).await?;
    let mut first = h.b.live(late_id, thread_id("t"), begun).await?;
    h.b.end(&mut first, RunStatus::Done, Rest::Idle).await?;
    let begun = h.a.start(early_id).await?;
    h.a.live(early_id, thread_id("t"), begun).await?;
    Ok(())
}

async fn a_queued_run_starts_once(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let queued = h.a.queue("t").await?;
    h.a.end(&mut live, RunStatus::Done, Rest::Idle).await?;
    let begun = h.a.start(queued).await?;
    let mut started = h.a.live(queued, thread_id("t"), begun).await?;
    let count = h.a.history("t").await?.len();
    match h.a.start(queued).await? {
        Begun::Known(row) => same("the running run", row.run.id, queued)?,
        other => return unexpected("the start of a running run", &other),
    }
    same("the number of checkpoints", h.a.history("t").await?.len(), count)?;
    h.a.end(&mut started, RunStatus::Done, Rest::Idle).await?;
    match h.a.start(queued).await? {
        Begun::Gone => same("its status", h.a.status(queued).await?, RunStatus::Done),
        other => unexpected("the start of a run that has ended", &other),
    }
}

async fn a_run_whose_time_has_not_come_lets_others_pass(h: &mut Harness<'_>) -> Checked {
    let mut run = h.a.run("t");
    run.not_before = Some(h.a.store.now().await?.after(Duration::from_mins(10)));
    let id = run.id;
    match h.a.ask_to_begin(run, OnBusyThread::Reject).await? {
        Begun::Queued { behind: None } => {}
        other => return unexpected("a run whose time has not come", &other),
    }
    same("the thread", h.a.thread_status("t").await?, Some(ThreadStatus::Idle))?;
    let begun = h.a.start(id).await?;
    ensure(matches!(begun, Begun::Queued { .. }), format_args!("an early start: got {begun:?}"))?;
    h.b.run_once("t", 1).await?;
    h.advance(Duration::from_secs(601)).await?;
    same("the thread in time", h.a.thread_status("t").await?, Some(ThreadStatus::Busy))?;
    let begun = h.a.start(id).await?;
    h.a.live(id, thread_id("t"), begun).await?;
    Ok(())
}

async fn a_released_run_is_the_first_of_its_thread(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let last = h.a.step(&mut live, 1).await?;
    let queued = h.a.queue("t").await?;
    h.a.store.release_run(live.id, live.epoch, Duration::from_secs(3)).await?;
    same("its status", h.a.status(live.id).await?, RunStatus::Queued)?;
    same("its position", h.a.row(live.id).await?.last_checkpoint, Some(last))?;
    fenced("a commit after the release", h.a.store.commit(live.commit()).await)?;
    match h.a.start(queued).await? {
        Begun::Queued { behind } => same("the run before the queued one", behind, Some(live.id))?,
        other => return unexpected("the start of a run behind a released one", &other),
    }
    let taken = h.b.take_over().await?;
    same("the runs that are taken over", taken.iter().map(|taken| taken.run.run.id).collect(), vec![live.id])?;
    let row = &taken[0].run;
    same("its status, epoch and crashes", (row.status, row.epoch, row.crashes), (RunStatus::Running, 2, 0))?;
    same("its owner and consumed time", (row.owner, row.consumed), (h.b.owner, Duration::from_secs(3)))
}

async fn a_queued_run_of_a_living_owner_is_not_started_by_another(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let queued = h.a.queue("t").await?;
    h.a.end(&mut live, RunStatus::Done, Rest::Idle).await?;
    let start = h.b.start_of("t", None).await?;
    fenced("the start by another owner", h.b.store.start_run(queued, h.b.owner, start).await)?;
    ensure(h.b.take_over().await?.is_empty(), "a queued run of a living owner was taken over")?;
    h.kill().await?;
    let begun = h.b.start(queued).await?;
    let started = h.b.live(queued, thread_id("t"), begun).await?;
    same("its epoch", started.epoch, 2)?;
    same("its owner", h.b.row(queued).await?.owner, h.b.owner)
}

async fn a_cancel_of_a_queued_run_ends_it(h: &mut Harness<'_>) -> Checked {
    h.a.begin("t").await?;
    let (cancelled, rolled_back) = (h.a.queue("t").await?, h.a.queue("t").await?);
    let answer = h.b.store.request_cancel(cancelled, CancelKind::Cancel).await?;
    same("the answer", answer, CancelRequested::Cancelled)?;
    same("its status", h.a.status(cancelled).await?, RunStatus::Cancelled)?;
    let begun = h.a.start(cancelled).await?;
    ensure(matches!(begun, Begun::Gone), format_args!("the start of a cancelled run: got {begun:?}"))?;
    let answer = h.b.store.request_cancel(rolled_back, CancelKind::Rollback).await?;
    same("the answer to a rollback", answer, CancelRequested::Cancelled)?;
    ensure(h.a.store.run(rolled_back).await?.is_none(), "a queued run that was rolled back is there")?;
    let begun = h.a.store.start_run(rolled_back, h.a.owner, RunStart::default()).await?;
    ensure(matches!(begun, Begun::Gone), format_args!("the start of a deleted run: got {begun:?}"))
}

async fn a_cancel_of_a_running_run_marks_it(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let marked = CancelRequested::Marked { owner: h.a.owner, is_alive: true };
    same("the answer", h.b.store.request_cancel(live.id, CancelKind::Cancel).await?, marked.clone())?;
    same("its status", h.a.status(live.id).await?, RunStatus::Running)?;
    let commit = live.commit_of("{}");
    let committed = h.a.commit(&mut live, commit).await?;
    same("the cancel in the answer to a commit", committed.cancel, Some(CancelKind::Cancel))?;
    same("a rollback", h.b.store.request_cancel(live.id, CancelKind::Rollback).await?, marked.clone())?;
    same("a cancel after it", h.b.store.request_cancel(live.id, CancelKind::Cancel).await?, marked)?;
    same("the stronger request", h.a.row(live.id).await?.cancel, Some(CancelKind::Rollback))?;
    h.a.end(&mut live, RunStatus::Done, Rest::Idle).await?;
    same("an end in spite of it", h.a.status(live.id).await?, RunStatus::Done)
}

async fn a_cancel_of_an_ended_run_changes_nothing(h: &mut Harness<'_>) -> Checked {
    for (name, status, rest, thread) in [
        ("done", RunStatus::Done, Rest::Idle, ThreadStatus::Idle),
        ("waiting", RunStatus::Waiting, Rest::Paused, ThreadStatus::Paused),
        ("failed", RunStatus::Failed, Rest::Failed, ThreadStatus::Failed),
        ("cancelled", RunStatus::Cancelled, Rest::Paused, ThreadStatus::Paused),
    ] {
        let mut live = h.a.begin(name).await?;
        h.a.end(&mut live, status, rest).await?;
        same(name, h.b.thread_status(name).await?, Some(thread))?;
        for kind in [CancelKind::Cancel, CancelKind::Rollback] {
            let answer = h.b.store.request_cancel(live.id, kind).await?;
            same(name, answer, CancelRequested::AlreadyEnded(status))?;
            same(name, h.b.status(live.id).await?, status)?;
        }
        fenced("a commit after the end", h.a.store.commit(live.commit()).await)?;
        let released = h.a.store.release_run(live.id, live.epoch, Duration::ZERO).await;
        fenced("a release after the end", released)?;
        ensure(h.b.take_over().await?.is_empty(), "a run that has ended was taken over")?;
    }
    let answer = h.b.store.request_cancel(RunId::new(), CancelKind::Cancel).await?;
    same("a run that is not there", answer, CancelRequested::NotFound)
}

async fn a_new_run_can_cancel_those_before_it(h: &mut Harness<'_>) -> Checked {
    for (name, policy, kind) in [
        ("cancel", OnBusyThread::Cancel, CancelKind::Cancel),
        ("rollback", OnBusyThread::Rollback, CancelKind::Rollback),
    ] {
        let mut live = h.a.begin(name).await?;
        let queued = h.a.queue(name).await?;
        let run = h.b.run(name);
        let id = run.id;
        match h.b.ask_to_begin(run, policy).await? {
            Begun::Queued { behind } => same("the run before it", behind, Some(live.id))?,
            other => return unexpected("a run that cancels those before it", &other),
        }
        same("the request of the running run", h.a.row(live.id).await?.cancel, Some(kind))?;
        let status = h.a.store.run(queued).await?.map(|row| row.status);
        same("the queued run", status, (kind == CancelKind::Cancel).then_some(RunStatus::Cancelled))?;
        h.a.end(&mut live, RunStatus::Cancelled, Rest::Paused).await?;
        let begun = h.b.start(id).await?;
        h.b.live(id, thread_id(name), begun).await?;
    }
    Ok(())
}

async fn a_run_that_has_ended_is_deleted(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    same("a running run", h.b.store.delete_run(live.id).await?, Deleted::Busy(live.id))?;
    h.a.end(&mut live, RunStatus::Done, Rest::Idle).await?;
    same("a run that has ended", h.b.store.delete_run(live.id).await?, Deleted::Yes)?;
    same("a deleted run", h.b.store.delete_run(live.id).await?, Deleted::NotFound)?;
    same("the head", h.a.head("t").await?, live.last)
}

async fn runs_are_listed_newest_first(h: &mut Harness<'_>) -> Checked {
    let mut ids = Vec::new();
    for (handle, thread) in [(&h.a, "x"), (&h.b, "y"), (&h.a, "x"), (&h.b, "x")] {
        ids.push(handle.run_once(thread, 1).await?.id);
    }
    let running = h.a.begin("x").await?.id;
    ids.push(running);
    ids.reverse();
    let listed = async |filter: RunFilter| -> Checked<Vec<RunId>> {
        Ok(h.b.store.runs(filter).await?.into_iter().map(|row| row.run.id).collect())
    };
    same("all", listed(RunFilter::default()).await?, ids.clone())?;
    let mut of_thread = RunFilter::default();
    of_thread.thread = Some(thread_id("x"));
    same("those of a thread", listed(of_thread.clone()).await?, vec![ids[0], ids[1], ids[2], ids[4]])?;
    (of_thread.offset, of_thread.limit) = (1, Some(2));
    same("a page", listed(of_thread).await?, vec![ids[1], ids[2]])?;
    let mut of_owner = RunFilter::default();
    (of_owner.owner, of_owner.graph) = (Some(h.b.owner), Some(GRAPH.into()));
    same("those of an owner", listed(of_owner).await?, vec![ids[1], ids[3]])?;
    let mut in_state = RunFilter::default();
    in_state.status = Some(RunStatus::Running);
    same("those that run", listed(in_state).await?, vec![running])?;
    let mut of_graph = RunFilter::default();
    of_graph.graph = Some("another".into());
    same("those of another graph", listed(of_graph).await?, Vec::new())
}
