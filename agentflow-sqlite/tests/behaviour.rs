//! Behaviour of the store that the conformance suite does not cover: files, processes, and errors of the database.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use agentflow::{
    RunId,
    store::{
        BeginRun, Begun, Claim, Commit, Enqueued, FinishTask, NewCheckpoint, NewRun, NewTask, NewThread, NewValues,
        OnBusyThread, OwnerId, PutItem, PutOutcome, RunStart, RunStatus, Source, Store, StoreErrorKind, Stored,
        StoredTaskId, TakeOver, TaskEnd, ThreadId,
    },
};
use agentflow_sqlite::SqliteStore;
use bytes::Bytes;
use rusqlite::Connection;
use tempfile::TempDir;

const LEASE: Duration = Duration::from_secs(30);
/// The variable that makes a test the helper process of another one.
const HELPER: &str = "AGENTFLOW_SQLITE_HELPER";

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn json(text: &str) -> Stored {
    Stored::Json(Bytes::copy_from_slice(text.as_bytes()))
}

fn thread() -> ThreadId {
    "case-17".parse().unwrap()
}

fn checkpoint(values: NewValues) -> NewCheckpoint {
    NewCheckpoint::new(Source::Loop, values, vec!["write".into()], json("{}"))
}

fn begin(owner: OwnerId, id: RunId) -> BeginRun {
    let run = NewRun::new(id, thread(), "mail".into(), owner, json("{}"), json("{}"));
    let mut start = RunStart::at(None);
    start.checkpoints.push(checkpoint(NewValues::Snapshot(json(r#"{"notes":["a"]}"#))));
    BeginRun::new(run, OnBusyThread::Reject, start)
}

fn task(name: &str) -> NewTask {
    NewTask::new(StoredTaskId::new(), name, Bytes::from_static(b"{}"), Bytes::from_static(b"{}"))
}

/// Returns the names of the files whose names contain `part`.
fn files(directory: &Path, part: &str) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(part)).collect()
}

// ---- Processes.

/// Starts this program as a helper: it runs the test of the given name alone. Returns it when it has said that it is ready.
fn helper(test: &str, database: &Path) -> (Child, String) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(HELPER, database)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).find_map(|line| Some(line.split_once("ready: ")?.1.to_owned()));
    (child, ready.expect("the helper gets ready"))
}

#[tokio::test]
#[ignore = "it is a part of `the_run_and_the_task_of_a_killed_process_are_taken_over`"]
async fn helper_with_a_run_and_a_task() {
    let Some(path) = env::var_os(HELPER) else { return };
    let store = SqliteStore::open(path).unwrap();
    let (owner, run) = (OwnerId::new(), RunId::new());
    store.join(owner, LEASE).await.unwrap();
    assert!(matches!(store.begin_run(begin(owner, run)).await.unwrap(), Begun::Running(_)));
    store.enqueue(vec![task("deliver")]).await.unwrap();
    let claimed = store.claim(Claim::new(owner, vec![("deliver".into(), 1)], 1)).await.unwrap();
    assert_eq!(claimed.tasks.len(), 1);
    println!("ready: {run}");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_run_and_the_task_of_a_killed_process_are_taken_over() {
    let directory = directory();
    let path = directory.path().join("app.db");
    let store = SqliteStore::open(&path).unwrap();
    let owner = OwnerId::new();
    store.join(owner, LEASE).await.unwrap();

    let (mut child, run) = helper("helper_with_a_run_and_a_task", &path);
    let take_over = || store.take_over(TakeOver::new("mail".into(), owner, 10));
    let claim = || store.claim(Claim::new(owner, vec![("deliver".into(), 1)], 1));
    assert!(take_over().await.unwrap().is_empty(), "the helper lives");
    assert!(claim().await.unwrap().tasks.is_empty(), "the helper lives");

    child.kill().unwrap();
    child.wait().unwrap();
    let taken = take_over().await.unwrap();
    let [taken] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!(taken.run.run.id, run.parse().unwrap());
    assert_eq!((taken.run.status, taken.run.epoch, taken.run.crashes), (RunStatus::Running, 2, 1));
    assert_eq!(taken.run.owner, owner);
    assert_eq!(taken.checkpoint.as_ref().unwrap().values.json().unwrap(), r#"{"notes":["a"]}"#);
    let tasks = claim().await.unwrap().tasks;
    assert_eq!(tasks.iter().map(|task| (task.epoch, task.crashes)).collect::<Vec<_>>(), [(2, 1)]);

    // The dead owner holds nothing any more, and goes with the next one that joins.
    assert_eq!(files(directory.path(), "-owner-").len(), 2);
    store.join(OwnerId::new(), LEASE).await.unwrap();
    assert_eq!(files(directory.path(), "-owner-").len(), 2);
}

#[tokio::test]
async fn two_stores_of_one_file_see_each_other() {
    let directory = directory();
    let path = directory.path().join("app.db");
    let (one, other) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let before = other.changes(0, Duration::ZERO).await.unwrap();
    // The first look announces what was before it.
    let before = other.changes(before, Duration::ZERO).await.unwrap();

    one.enqueue(vec![task("deliver")]).await.unwrap();
    let after = other.changes(before, Duration::from_mins(1)).await.unwrap();
    assert_ne!(before, after);
    let owner = OwnerId::new();
    other.join(owner, LEASE).await.unwrap();
    let claimed = other.claim(Claim::new(owner, vec![("deliver".into(), 1)], 1)).await.unwrap();
    assert_eq!(claimed.tasks.len(), 1);

    // An owner of one store is alive for the other one, until its lock is released.
    let second = OwnerId::new();
    one.join(second, LEASE).await.unwrap();
    let claim = || one.claim(Claim::new(second, vec![("deliver".into(), 1)], 1));
    assert!(claim().await.unwrap().tasks.is_empty());
    other.release_owner_locks();
    assert_eq!(claim().await.unwrap().tasks.len(), 1);
}

// ---- Commits.

#[tokio::test]
async fn a_former_owner_commits_nothing_and_a_repetition_changes_nothing() {
    let directory = directory();
    let store = SqliteStore::open(directory.path().join("app.db")).unwrap();
    let (owner, run) = (OwnerId::new(), RunId::new());
    store.join(owner, LEASE).await.unwrap();
    let Begun::Running(started) = store.begin_run(begin(owner, run)).await.unwrap() else { panic!() };
    assert!(matches!(store.begin_run(begin(owner, run)).await.unwrap(), Begun::Known(_)));

    let mut commit = Commit::new(run, started.epoch, 1, started.checkpoints.last().copied());
    commit.checkpoint = Some(checkpoint(NewValues::Delta(Bytes::from_static(br#"{"append":{"notes":["b"]}}"#))));
    let id = StoredTaskId::new();
    commit.tasks.push(NewTask::new(id, "deliver", Bytes::from_static(b"{}"), Bytes::from_static(b"{}")));
    let first = store.commit(commit.clone()).await.unwrap();
    assert_eq!(store.commit(commit.clone()).await.unwrap(), first);
    let history = store.history(&thread(), agentflow::store::HistoryFilter::default()).await.unwrap();
    let values: Vec<_> = history.iter().map(|row| row.values.json().unwrap().clone()).collect();
    assert_eq!(values, [&br#"{"notes":["a","b"]}"#[..], &br#"{"notes":["a"]}"#[..]]);
    assert_eq!(store.enqueue(vec![commit.tasks[0].clone()]).await.unwrap(), [Enqueued::Known(id)]);

    store.release_run(run, 1, Duration::ZERO).await.unwrap();
    let other = OwnerId::new();
    store.join(other, LEASE).await.unwrap();
    assert_eq!(store.take_over(TakeOver::new("mail".into(), other, 10)).await.unwrap().len(), 1);
    commit.number = 2;
    commit.parent = first.checkpoint;
    let error = store.commit(commit).await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::Fenced);
    assert_eq!(error.operation(), "commit");
}

#[tokio::test]
async fn a_refused_operation_undoes_no_other_of_its_transaction() {
    let directory = directory();
    let store = SqliteStore::open(directory.path().join("app.db")).unwrap();
    // The writer is kept busy, so that all of these wait for it and share a transaction.
    let blocker = Connection::open(directory.path().join("app.db")).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.enqueue(vec![task("first")]).await }
    });
    let operations: Vec<_> = (0..20)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                if number % 2 == 0 {
                    store.enqueue(vec![task("even")]).await.map(|_| ())
                } else {
                    let task = FinishTask::new(StoredTaskId::new(), 1, TaskEnd::Done);
                    store.finish_task(task).await
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    blocker.execute_batch("COMMIT").unwrap();
    first.await.unwrap().unwrap();
    for (number, operation) in operations.into_iter().enumerate() {
        let outcome = operation.await.unwrap();
        assert_eq!(outcome.is_ok(), number % 2 == 0, "{outcome:?}");
    }
    assert_eq!(store.tasks(agentflow::store::StoredTaskFilter::default()).await.unwrap().len(), 11);
}

#[tokio::test]
async fn a_value_that_is_not_json_is_refused() {
    let directory = directory();
    let store = SqliteStore::open(directory.path().join("app.db")).unwrap();
    let owner = OwnerId::new();
    let mut request = begin(owner, RunId::new());
    request.run.input = Stored::Shared(Arc::new(1));
    let error = store.begin_run(request).await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::Invalid);
    assert!(store.thread(&thread()).await.unwrap().is_none(), "nothing of it was written");
}

// ---- Files.

#[tokio::test]
async fn what_was_written_is_there_after_a_close() {
    let directory = directory();
    let path = directory.path().join("app.db");
    let store = SqliteStore::open(&path).unwrap();
    let put = PutItem::new(vec!["users".into(), "ada".into()], "city", serde_json::json!("London"));
    assert_eq!(store.put_item(put).await.unwrap(), PutOutcome::Written(1));
    store.close().await.unwrap();
    assert_eq!(files(directory.path(), "app.db"), ["app.db"], "the log is gone");
    let error = store.now().await.map(drop).and(store.thread(&thread()).await.map(drop)).unwrap_err();
    assert!(!error.may_pass() && error.to_string().contains("closed"), "{error}");
    store.close().await.unwrap();

    let store = SqliteStore::open(&path).unwrap();
    let item = store.item(&["users".into(), "ada".into()], "city").await.unwrap().unwrap();
    assert_eq!(item.value, "London");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_user_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;

    let directory = directory();
    let store = SqliteStore::open(directory.path().join("app.db")).unwrap();
    store.join(OwnerId::new(), LEASE).await.unwrap();
    let files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
    let modes: Vec<_> =
        files.map(|file| (file.file_name(), file.metadata().unwrap().permissions().mode() & 0o777)).collect();
    assert_eq!(modes.len(), 4, "{modes:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
}

#[tokio::test]
async fn a_file_that_another_process_has_locked_is_an_error_that_may_pass() {
    let directory = directory();
    let path = directory.path().join("app.db");
    let store = SqliteStore::options().busy_timeout(Duration::from_millis(20)).open(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.enqueue(vec![task("deliver")]).await.unwrap_err();
    assert_eq!((error.kind(), error.may_pass()), (&StoreErrorKind::Unavailable, true));
    assert!(store.thread(&thread()).await.unwrap().is_none(), "reads go on");
    other.execute_batch("ROLLBACK").unwrap();
    store.enqueue(vec![task("deliver")]).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_undoes_the_operation_alone() {
    let directory = directory();
    let path = directory.path().join("app.db");
    let store = SqliteStore::options().max_pages(100).open(&path).unwrap();
    store.enqueue(vec![task("small")]).await.unwrap();
    let big = NewTask::new(StoredTaskId::new(), "big", Bytes::from(vec![b'1'; 1_000_000]), Bytes::new());
    let (big, small) = tokio::join!(store.enqueue(vec![big]), store.enqueue(vec![task("small")]));
    let error = big.unwrap_err();
    assert_eq!((error.kind(), error.may_pass()), (&StoreErrorKind::Full, false), "{error}");
    if let Err(error) = small {
        assert!(error.may_pass(), "{error}");
    }
    store.enqueue(vec![task("small")]).await.unwrap();
    assert!(store.tasks(agentflow::store::StoredTaskFilter::default()).await.unwrap().len() >= 2);
}

#[test]
fn a_file_that_is_no_database_is_corrupt() {
    let directory = directory();
    let path = directory.path().join("app.db");
    fs::write(&path, vec![b'x'; 8192]).unwrap();
    assert_eq!(*SqliteStore::open(&path).unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert_eq!(fs::read(&path).unwrap(), vec![b'x'; 8192], "it was left as it was");
}

#[tokio::test]
async fn an_overwritten_or_truncated_file_is_corrupt() {
    for damage in [overwrite as fn(&Path), truncate] {
        let directory = directory();
        let path = directory.path().join("app.db");
        let store = SqliteStore::open(&path).unwrap();
        for number in 0..200 {
            let thread = NewThread::new(format!("{number:0>200}").parse().unwrap(), "mail".into());
            store.create_thread(thread).await.unwrap();
        }
        store.close().await.unwrap();
        damage(&path);
        let error = match SqliteStore::open(&path) {
            Ok(store) => store.threads(agentflow::store::ThreadFilter::default()).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(*error.kind(), StoreErrorKind::Corrupt, "{error}");
    }
}

fn overwrite(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[4096..].fill(0xff);
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let directory = directory();
    let path = directory.path().join("app.db");
    drop(SqliteStore::open(&path).unwrap());
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::TooNew);
    assert_eq!(error.operation(), "open");
}

#[test]
fn a_file_of_another_program_is_left_alone() {
    let directory = directory();
    let path = directory.path().join("app.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
    assert_eq!(*SqliteStore::open(&path).unwrap_err().kind(), StoreErrorKind::Invalid);
    assert!(SqliteStore::open(directory.path()).is_err(), "a directory is no file");
    assert!(SqliteStore::open(directory.path().join("missing").join("app.db")).is_err());
}

#[test]
fn a_file_that_cannot_be_written_to_is_read_only() {
    let directory = directory();
    let path = directory.path().join("app.db");
    drop(SqliteStore::open(&path).unwrap());
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    if fs::OpenOptions::new().write(true).open(&path).is_ok() {
        // The superuser writes to any file.
        return;
    }
    assert_eq!(*SqliteStore::open(&path).unwrap_err().kind(), StoreErrorKind::ReadOnly);
}

#[test]
fn stores_that_are_opened_at_once_make_the_tables_once() {
    let directory = directory();
    let path = directory.path().join("app.db");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| SqliteStore::open(&path).unwrap());
        }
    });
}
