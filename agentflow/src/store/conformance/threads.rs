//! Checks of threads: their list, history, edits, copies, pruning and deletion.

use serde_json::{Map, Value};

use super::{
    super::{
        CheckpointId, Deleted, Edit, Edited, HistoryFilter, NewThread, NewValues, ProgressRecord, QuestionStatus, Rest,
        RunFilter, RunStart, RunStatus, Source, StoreErrorKind, ThreadFilter, ThreadId, ThreadOrder, ThreadStatus,
    },
    check::list_checks,
    harness::{
        Checked, GRAPH, Handle, Harness, LEASE, bytes, checkpoint, ensure, json, refused, same, thread_id, value,
    },
};

list_checks![
    a_thread_is_created_once,
    metadata_is_patched_field_by_field,
    threads_are_listed_in_order,
    threads_are_filtered,
    history_is_newest_first,
    an_edit_moves_the_head,
    an_edit_of_a_moved_head_is_refused,
    an_edit_of_a_busy_thread_is_refused,
    an_edit_of_an_older_checkpoint_drops_the_questions,
    branches_share_only_their_ancestors,
    a_run_from_an_older_checkpoint_drops_the_questions,
    a_copy_has_the_checkpoints_and_new_questions,
    a_copy_and_its_source_are_independent,
    a_thread_is_deleted_with_all_that_it_has,
    a_busy_thread_is_not_deleted,
    pruning_keeps_the_state_of_what_is_kept,
    pruning_keeps_what_is_needed,
];

async fn a_thread_is_created_once(h: &mut Harness<'_>) -> Checked {
    let mut new = NewThread::new(thread_id("t"), GRAPH.into());
    new.metadata.insert("user".into(), "ada".into());
    let (row, is_new) = h.a.store.create_thread(new.clone()).await?;
    ensure(is_new, "a new thread is not new")?;
    same("its head and status", (row.head, row.status), (None, ThreadStatus::Idle))?;
    new.metadata.clear();
    let (row, is_new) = h.b.store.create_thread(new).await?;
    ensure(!is_new, "a thread was created twice")?;
    same("its metadata", row.metadata.get("user"), Some(&"ada".into()))?;
    ensure(h.a.store.thread(&thread_id("none")).await?.is_none(), "a thread that is not there was found")?;
    let longest: ThreadId = "ä".repeat(127).parse()?;
    h.a.store.create_thread(NewThread::new(longest.clone(), GRAPH.into())).await?;
    ensure(h.b.store.thread(&longest).await?.is_some(), "a long id was not found")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

async fn metadata_is_patched_field_by_field(h: &mut Harness<'_>) -> Checked {
    let id = thread_id("t");
    h.a.run_once("t", 1).await?;
    h.a.store.patch_metadata(&id, object(serde_json::json!({"a": 1, "b": {"x": 1}, "c": 3}))).await?;
    let row = h.b.store.patch_metadata(&id, object(serde_json::json!({"b": [2], "c": null, "d": "é"}))).await?;
    let expected = object(serde_json::json!({"a": 1, "b": [2], "d": "é"}));
    same("the answer", row.map(|row| row.metadata), Some(expected.clone()))?;
    same("the thread", h.a.store.thread(&id).await?.map(|row| row.metadata), Some(expected))?;
    ensure(h.a.store.patch_metadata(&thread_id("none"), Map::new()).await?.is_none(), "a patch made a thread")
}

async fn names(handle: &Handle, filter: ThreadFilter) -> Checked<(Vec<String>, usize)> {
    let page = handle.store.threads(filter).await?;
    Ok((page.threads.iter().map(|row| row.id.to_string()).collect(), page.total))
}

fn owned<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).into()
}

async fn threads_are_listed_in_order(h: &mut Harness<'_>) -> Checked {
    for name in ["c", "a", "b"] {
        h.a.run_once(name, 1).await?;
        h.advance(LEASE / 30).await?;
    }
    h.b.run_once("c", 2).await?;
    same("the last changed first", names(&h.b, ThreadFilter::default()).await?, (owned(["c", "b", "a"]), 3))?;
    let ordered = |order| {
        let mut filter = ThreadFilter::default();
        filter.order = order;
        filter
    };
    same("the newest first", names(&h.b, ordered(ThreadOrder::Created)).await?, (owned(["b", "a", "c"]), 3))?;
    same("by id", names(&h.b, ordered(ThreadOrder::Id)).await?, (owned(["a", "b", "c"]), 3))?;
    let mut page = ordered(ThreadOrder::Id);
    (page.offset, page.limit) = (1, Some(1));
    same("a page", names(&h.b, page).await?, (owned(["b"]), 3))
}

async fn threads_are_filtered(h: &mut Harness<'_>) -> Checked {
    h.a.run_once("idle", 1).await?;
    h.a.run_until_question("paused").await?;
    h.a.store.patch_metadata(&thread_id("idle"), object(serde_json::json!({"k": {"x": 1}, "u": 2}))).await?;
    h.advance(LEASE / 30).await?;
    let between = h.a.store.now().await?;
    h.advance(LEASE / 30).await?;
    h.a.begin("busy").await?;
    let with = |change: fn(&mut ThreadFilter)| {
        let mut filter = ThreadFilter::default();
        filter.order = ThreadOrder::Id;
        change(&mut filter);
        filter
    };
    let mut before = with(|_| ());
    before.updated_before = Some(between);
    for (filter, expected) in [
        (with(|filter| filter.graph = Some("another".into())), owned([])),
        (with(|filter| filter.ids = Some(vec![thread_id("busy"), thread_id("none")])), owned(["busy"])),
        (with(|filter| filter.status = Some(ThreadStatus::Paused)), owned(["paused"])),
        (with(|filter| filter.status = Some(ThreadStatus::Busy)), owned(["busy"])),
        (with(|filter| filter.without_questions = true), owned(["busy", "idle"])),
        (with(|filter| filter.metadata = object(serde_json::json!({"k": {"x": 1}}))), owned(["idle"])),
        (with(|filter| filter.metadata = object(serde_json::json!({"k": {"x": 2}}))), owned([])),
        (before, owned(["idle", "paused"])),
    ] {
        let total = expected.len();
        same(&format!("{filter:?}"), names(&h.b, filter).await?, (expected, total))?;
    }
    Ok(())
}

async fn history_is_newest_first(h: &mut Harness<'_>) -> Checked {
    let first = h.a.run_once("t", 1).await?;
    h.b.run_once("other", 1).await?;
    let second = h.b.run_once("t", 2).await?;
    let rows = h.a.history("t").await?;
    let ids: Vec<CheckpointId> = rows.iter().map(|row| row.id).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    sorted.reverse();
    same("the order", &ids, &sorted)?;
    same("the newest", ids.first().copied(), second.last)?;
    same("the steps", rows.iter().map(|row| row.step).collect(), vec![2, 1, 0, -1])?;
    let parents: Vec<_> = ids.iter().skip(1).copied().map(Some).chain([None]).collect();
    same("the parents", rows.iter().map(|row| row.parent).collect(), parents)?;
    let mut states = Vec::new();
    for row in &rows {
        states.push(value(&row.values)?);
    }
    same(
        "the states",
        states,
        [r#"{"n":2}"#, r#"{"n":1}"#, r#"{"n":1}"#, "{}"].map(|json| json.parse().unwrap_or_default()).into(),
    )?;

    let select = async |filter: HistoryFilter| -> Checked<Vec<CheckpointId>> {
        Ok(h.a.store.history(&thread_id("t"), filter).await?.into_iter().map(|row| row.id).collect())
    };
    let mut page = HistoryFilter::default();
    (page.before, page.limit) = (Some(ids[1]), Some(1));
    same("a page", select(page).await?, vec![ids[2]])?;
    let mut of_run = HistoryFilter::default();
    of_run.run = Some(first.id);
    same("those of a run", select(of_run).await?, vec![ids[2], ids[3]])?;
    let mut of_source = HistoryFilter::default();
    of_source.source = Some(Source::Loop);
    same("those of a source", select(of_source).await?, vec![ids[0], ids[2]])
}

/// Returns an edit of the head of a thread, which sets the field `n`.
async fn edit_of(handle: &Handle, thread: &str, n: u64) -> Checked<Edit> {
    let head = handle.head(thread).await?;
    let values = match head {
        Some(_) => NewValues::Delta(bytes(&format!(r#"{{"set":{{"n":{n}}}}}"#))),
        None => NewValues::Snapshot(json(&format!(r#"{{"n":{n}}}"#))),
    };
    Ok(Edit::new(thread_id(thread), GRAPH.into(), head, checkpoint(Source::Update, values), Rest::Paused))
}

async fn an_edit_moves_the_head(h: &mut Harness<'_>) -> Checked {
    let edit = edit_of(&h.a, "t", 1).await?;
    let Edited::Made(first) = h.a.store.edit(edit).await? else { return Err("a new thread was not edited".into()) };
    same("the status", h.b.thread_status("t").await?, Some(ThreadStatus::Paused))?;
    let (_, question) = h.a.run_until_question("t").await?;
    let before = h.a.head("t").await?;
    let made = h.b.store.edit(edit_of(&h.b, "t", 7).await?).await?;
    let head = h.a.store.load(&thread_id("t"), None).await?.ok_or("the head is not there")?;
    same("the answer", made, Edited::Made(head.id))?;
    same("its parent and run", (head.parent, head.run), (before, None))?;
    same("its state", value(&head.values)?, serde_json::json!({"n": 7}))?;
    same("the first one's state", h.a.state("t", Some(first)).await?, serde_json::json!({"n": 1}))?;
    same("the question", h.a.question_status("t", question).await?, Some(QuestionStatus::Open))?;
    let mut edit = edit_of(&h.b, "t", 8).await?;
    edit.drops_questions = true;
    h.b.store.edit(edit).await?;
    same("the question", h.a.question_status("t", question).await?, Some(QuestionStatus::Dropped))
}

async fn an_edit_of_a_moved_head_is_refused(h: &mut Harness<'_>) -> Checked {
    let live = h.a.run_once("t", 1).await?;
    let stale = edit_of(&h.a, "t", 2).await?;
    let Edited::Made(head) = h.b.store.edit(stale.clone()).await? else { return Err("the head was not edited".into()) };
    same("a second edit of the same head", h.a.store.edit(stale).await?, Edited::HeadMoved(Some(head)))?;
    same("the head", h.a.head("t").await?, Some(head))?;
    let mut of_none = edit_of(&h.a, "new", 1).await?;
    of_none.expected_head = live.last;
    same("an edit of a missing thread", h.a.store.edit(of_none.clone()).await?, Edited::HeadMoved(None))?;
    ensure(h.a.store.thread(&of_none.thread).await?.is_none(), "a refused edit made a thread")?;
    let mut foreign = edit_of(&h.a, "t", 3).await?;
    foreign.graph = "another".into();
    same("an edit by another graph", h.a.store.edit(foreign).await?, Edited::OtherGraph(GRAPH.into()))?;
    let mut orphan = edit_of(&h.a, "t", 3).await?;
    orphan.parent = Some(CheckpointId::new());
    refused("an edit of a missing checkpoint", h.a.store.edit(orphan).await, &StoreErrorKind::Invalid)
}

async fn an_edit_of_a_busy_thread_is_refused(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    same("an edit of a busy thread", h.b.store.edit(edit_of(&h.b, "t", 2).await?).await?, Edited::Busy(live.id))?;
    same("the head", h.b.head("t").await?, live.last)
}

async fn an_edit_of_an_older_checkpoint_drops_the_questions(h: &mut Harness<'_>) -> Checked {
    let first = h.a.run_once("t", 1).await?;
    let (_, question) = h.a.run_until_question("t").await?;
    let mut edit = edit_of(&h.a, "t", 2).await?;
    edit.parent = first.last;
    h.a.store.edit(edit).await?;
    let head = h.b.store.load(&thread_id("t"), None).await?.ok_or("the head is not there")?;
    same("its parent", head.parent, first.last)?;
    same("the question", h.b.question_status("t", question).await?, Some(QuestionStatus::Dropped))
}

async fn branches_share_only_their_ancestors(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin_with("t", h.a.start_of("t", Some(r#"{"log":[]}"#)).await?).await?;
    let append = |n: u64| format!(r#"{{"append":{{"log":[{n}]}}}}"#);
    let mut made = Vec::new();
    for n in 1..=3 {
        let commit = live.commit_of(&append(n));
        made.push(h.a.commit(&mut live, commit).await?.checkpoint);
    }
    h.a.end(&mut live, RunStatus::Done, Rest::Idle).await?;
    let mut start = RunStart::at(made[2]);
    start.base = made[0];
    start.checkpoints = vec![checkpoint(Source::Fork, NewValues::Same)];
    let mut branch = h.b.begin_with("t", start).await?;
    same("the state at the fork", h.a.state("t", None).await?, serde_json::json!({"log": [1]}))?;
    let commit = branch.commit_of(&append(9));
    h.b.commit(&mut branch, commit).await?;
    same("the branch", h.a.state("t", branch.last).await?, serde_json::json!({"log": [1, 9]}))?;
    same("its sibling", h.a.state("t", made[2]).await?, serde_json::json!({"log": [1, 2, 3]}))?;
    same("the head", h.a.head("t").await?, branch.last)?;
    let head = h.a.store.load(&thread_id("t"), None).await?.ok_or("the head is not there")?;
    same("the step of the head", head.step, 2)
}

async fn a_run_from_an_older_checkpoint_drops_the_questions(h: &mut Harness<'_>) -> Checked {
    let first = h.a.run_once("t", 1).await?;
    let (asker, question) = h.a.run_until_question("t").await?;
    let mut start = RunStart::at(asker.last);
    start.base = first.last;
    start.checkpoints = vec![checkpoint(Source::Fork, NewValues::Same)];
    let live = h.a.begin_with("t", start).await?;
    same("the question", h.b.question_status("t", question).await?, Some(QuestionStatus::Dropped))?;
    same("the base", h.b.row(live.id).await?.base, first.last)
}

async fn a_copy_has_the_checkpoints_and_new_questions(h: &mut Harness<'_>) -> Checked {
    h.a.run_once("t", 1).await?;
    let (_, question) = h.a.run_until_question("t").await?;
    let (from, to) = (thread_id("t"), thread_id("copy"));
    h.a.store.patch_metadata(&from, object(serde_json::json!({"k": 1}))).await?;
    let row = h.b.store.copy_thread(&from, &to).await?.ok_or("the source was not found")?;
    same("its status and head", (row.status, row.head), (ThreadStatus::Paused, h.a.head("t").await?))?;
    same("its metadata", row.metadata.get("k"), Some(&1.into()))?;
    let ids = async |name| -> Checked<Vec<_>> {
        let mut rows = Vec::new();
        for row in h.b.history(name).await? {
            rows.push((row.id, row.parent, row.step, value(&row.values)?));
        }
        Ok(rows)
    };
    same("its checkpoints", ids("copy").await?, ids("t").await?)?;
    let questions = h.b.store.questions(&to, None).await?;
    same("the number of its questions", questions.len(), 1)?;
    ensure(questions[0].asked.id != question, "a question of the copy has the same id")?;
    same("its state", questions[0].status, QuestionStatus::Open)?;
    let mut of_copy = RunFilter::default();
    of_copy.thread = Some(to.clone());
    ensure(h.b.store.runs(of_copy).await?.is_empty(), "runs were copied")?;
    refused("a copy to a thread that exists", h.b.store.copy_thread(&from, &to).await, &StoreErrorKind::Invalid)?;
    let none = h.b.store.copy_thread(&thread_id("none"), &thread_id("x")).await?;
    ensure(none.is_none(), "a thread that is not there was copied")
}

async fn a_copy_and_its_source_are_independent(h: &mut Harness<'_>) -> Checked {
    h.a.run_once("t", 1).await?;
    h.a.store.copy_thread(&thread_id("t"), &thread_id("copy")).await?;
    h.a.run_once("t", 2).await?;
    h.b.run_once("copy", 3).await?;
    same("the source", h.a.state("t", None).await?, serde_json::json!({"n": 2}))?;
    same("the copy", h.a.state("copy", None).await?, serde_json::json!({"n": 3}))?;
    h.a.store.delete_thread(&thread_id("t")).await?;
    same("the copy of a deleted thread", h.b.history("copy").await?.len(), 4)?;
    same("its state", h.b.state("copy", None).await?, serde_json::json!({"n": 3}))
}

async fn a_thread_is_deleted_with_all_that_it_has(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let record = vec![ProgressRecord::new("s".into(), "a".into(), json("1"))];
    h.a.store.record(live.id, live.epoch, record).await?;
    h.a.ask(&mut live, "s").await?;
    let id = thread_id("t");
    same("the answer", h.b.store.delete_thread(&id).await?, Deleted::Yes)?;
    ensure(h.a.store.thread(&id).await?.is_none(), "the thread is there")?;
    ensure(h.a.store.run(live.id).await?.is_none(), "its run is there")?;
    ensure(h.a.history("t").await?.is_empty(), "its checkpoints are there")?;
    ensure(h.a.store.questions(&id, None).await?.is_empty(), "its questions are there")?;
    ensure(h.a.store.progress(&id).await?.is_empty(), "its progress is there")?;
    ensure(h.a.store.load(&id, live.last).await?.is_none(), "its checkpoint can be loaded")?;
    same("a second time", h.b.store.delete_thread(&id).await?, Deleted::NotFound)
}

async fn a_busy_thread_is_not_deleted(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    let queued = h.a.queue("t").await?;
    same("a busy thread", h.b.store.delete_thread(&live.thread).await?, Deleted::Busy(live.id))?;
    h.kill().await?;
    same("one of a dead owner", h.b.store.delete_thread(&live.thread).await?, Deleted::Yes)?;
    ensure(h.b.store.run(queued).await?.is_none(), "the queued run is there")
}

async fn pruning_keeps_the_state_of_what_is_kept(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin_with("t", h.a.start_of("t", Some(r#"{"log":[],"n":0}"#)).await?).await?;
    for n in 1..=9 {
        let commit = live.commit_of(&format!(r#"{{"append":{{"log":[{n}]}},"set":{{"n":{n}}}}}"#));
        h.a.commit(&mut live, commit).await?;
    }
    h.a.end(&mut live, RunStatus::Done, Rest::Idle).await?;
    let before = h.a.history("t").await?;
    same("the number of deleted ones", h.b.store.prune(&live.thread, 3).await?, 7)?;
    let after = h.a.history("t").await?;
    same("the number of kept ones", after.len(), 3)?;
    for (kept, former) in after.iter().zip(&before) {
        same("its id and step", (kept.id, kept.step), (former.id, former.step))?;
        same("its state", value(&kept.values)?, value(&former.values)?)?;
        same("its state when it is loaded", h.b.state("t", Some(kept.id)).await?, value(&former.values)?)?;
    }
    same("the parent of the oldest", after.last().and_then(|row| row.parent), None)?;
    let mut next = h.a.begin("t").await?;
    let commit = next.commit_of(r#"{"append":{"log":[10]}}"#);
    h.a.commit(&mut next, commit).await?;
    same("a step afterwards", h.b.state("t", None).await?["log"].as_array().map(Vec::len), Some(10))?;
    same("a second pruning of nothing", h.b.store.prune(&thread_id("none"), 1).await?, 0)
}

async fn pruning_keeps_what_is_needed(h: &mut Harness<'_>) -> Checked {
    let first = h.a.run_once("t", 1).await?;
    let (asker, question) = h.a.run_until_question("t").await?;
    let asked_at = asker.last;
    // The edit leaves the question open and moves the head away from its checkpoint.
    for n in 2..5 {
        h.a.store.edit(edit_of(&h.a, "t", n).await?).await?;
    }
    h.b.store.prune(&thread_id("t"), 1).await?;
    let head = h.a.head("t").await?;
    let kept = async || -> Checked<Vec<_>> { Ok(h.b.history("t").await?.iter().map(|row| Some(row.id)).collect()) };
    same("the head and that of the question", kept().await?, vec![head, asked_at])?;
    same("the question", h.b.question_status("t", question).await?, Some(QuestionStatus::Open))?;
    ensure(h.b.store.load(&thread_id("t"), first.last).await?.is_none(), "a deleted checkpoint is there")?;

    let mut live = h.a.begin("t").await?;
    h.a.step(&mut live, 7).await?;
    h.b.store.prune(&thread_id("t"), 1).await?;
    ensure(kept().await?.contains(&head), "the checkpoint that an unfinished run began at is gone")?;
    h.a.step(&mut live, 8).await?;
    Ok(())
}
