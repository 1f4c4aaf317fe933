//! Servers that restart or go away, and connections that are lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agentflow::store::{
    Claim, Deleted, HistoryFilter, Rest, RunEnd, RunStatus, Store, StoreErrorKind, StoredTaskFilter, TakeOver,
};
use agentflow_postgres::PostgresStore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_postgres::{Config, NoTls};

use crate::support::{Database, LEASE, Server, begun, commit, owner, patiently, task, thread_id};

/// A bound on real time for what happens by itself; it is far longer than what is waited for takes.
const BOUND: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_a_typed_error() {
    // The port is free, because the listener is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = PostgresStore::connect(&format!("postgres://nobody@127.0.0.1:{port}/none")).await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::Unavailable, "{error}");
    assert_eq!(error.operation(), "open");
    assert!(error.may_pass() && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_run_goes_on_after_a_restart_of_the_server() {
    let Some(server) = Server::start_new() else { return };
    let database = Database::on(server.config()).await;
    let (store, other) = (database.store().await, database.store().await);
    let owner = owner(&store).await;
    let (run, started) = begun(&store, "t", owner).await;
    let first = store.commit(commit(run, &started, 1)).await.unwrap();

    let thread = thread_id("t");
    server.pg_ctl(&["-m", "fast", "restart"]);
    let mut second = commit(run, &started, 2);
    second.parent = first.checkpoint;
    let second = patiently(|| store.commit(second.clone())).await;
    patiently(|| store.renew(owner, LEASE)).await;

    server.pg_ctl(&["-m", "immediate", "stop"]);
    let error = store.now().await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::Unavailable, "{error}");
    assert!(store.renew(owner, LEASE).await.unwrap_err().may_pass());
    server.pg_ctl(&["start"]);
    let mut last = commit(run, &started, 3);
    last.parent = second.checkpoint;
    last.end = Some(RunEnd::new(RunStatus::Done, Rest::Idle));
    patiently(|| store.commit(last.clone())).await;
    patiently(|| store.renew(owner, LEASE)).await;
    assert_eq!(patiently(|| other.run(run)).await.unwrap().status, RunStatus::Done);
    let steps = patiently(|| other.history(&thread, HistoryFilter::default())).await;
    assert_eq!(steps.len(), 4, "no commit is lost or applied twice");
}

#[tokio::test]
async fn operations_go_on_after_all_connections_were_terminated() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().await;
    let owner = owner(&store).await;
    let (run, started) = begun(&store, "t", owner).await;
    store.renew(owner, LEASE).await.unwrap();
    assert!(database.terminate(false).await >= 2);
    patiently(|| store.renew(owner, LEASE)).await;
    assert!(database.terminate(false).await >= 1);
    let committed = patiently(|| store.commit(commit(run, &started, 1))).await;
    let head = store.load(&thread_id("t"), None).await.unwrap().unwrap();
    assert_eq!(Some(head.id), committed.checkpoint);
}

#[tokio::test]
async fn a_store_listens_anew_after_its_connection_was_terminated() {
    let Some(database) = Database::new().await else { return };
    let (store, other) = (database.store().await, database.store().await);
    // The first change that each hears of is that it listens.
    let heard = store.changes(1, BOUND).await.unwrap();
    other.changes(1, BOUND).await.unwrap();
    assert_eq!(database.terminate(true).await, 2);
    let heard = store.changes(heard, BOUND).await.unwrap();
    other.enqueue(vec![task("a")]).await.unwrap();
    assert!(store.changes(heard, BOUND).await.unwrap() > heard);
}

#[tokio::test]
async fn a_store_hears_of_the_changes_of_another_one() {
    let Some(database) = Database::new().await else { return };
    let (store, other) = (database.store().await, database.store().await);
    let heard = store.changes(1, BOUND).await.unwrap();
    other.enqueue(vec![task("a")]).await.unwrap();
    let after = store.changes(heard, BOUND).await.unwrap();
    assert!(after > heard);
    // Without a change the call ends by its timeout.
    assert_eq!(store.changes(after, Duration::from_millis(1)).await.unwrap(), after);
}

#[tokio::test]
async fn a_store_on_the_callers_pool_renews_without_a_free_connection() {
    let Some(database) = Database::new().await else { return };
    let manager = deadpool_postgres::Manager::new(database.config.clone(), NoTls);
    let pool = deadpool_postgres::Pool::builder(manager).max_size(1).build().unwrap();
    let store = PostgresStore::new(pool.clone());
    store.open().await.unwrap();
    let owner = owner(&store).await;
    let taken = pool.get().await.unwrap();
    store.renew(owner, LEASE).await.unwrap();
    drop(taken);
    let (run, started) = begun(&store, "t", owner).await;
    store.commit(commit(run, &started, 1)).await.unwrap();
    store.close().await.unwrap();
    // The pool is the caller's still.
    assert!(!pool.is_closed());
}

#[tokio::test]
async fn a_former_owner_is_fenced_off() {
    let Some(database) = Database::new().await else { return };
    let (first, second) = (database.store().await, database.store().await);
    let (slow, quick) = (owner(&first).await, owner(&second).await);
    let (run, started) = begun(&first, "t", slow).await;
    first.enqueue(vec![task("a")]).await.unwrap();
    let claim = |owner| Claim::new(owner, vec![("a".into(), 1)], 1);
    let claimed = first.claim(claim(slow)).await.unwrap().tasks.remove(0);
    let take_over = || TakeOver::new("mail".into(), quick, 10);
    assert!(second.take_over(take_over()).await.unwrap().is_empty());
    assert!(second.claim(claim(quick)).await.unwrap().tasks.is_empty());
    assert_eq!(second.delete_thread(&thread_id("t")).await.unwrap(), Deleted::Busy(run));

    // The first process is stopped past its lease.
    first.move_clock(31_000_000).await.unwrap();
    second.renew(quick, LEASE).await.unwrap();
    let taken = second.take_over(take_over()).await.unwrap().remove(0);
    assert_eq!((taken.run.run.id, taken.run.epoch, taken.run.crashes), (run, 2, 1));
    assert_eq!(taken.checkpoint.as_ref().map(|checkpoint| checkpoint.id), taken.run.last_checkpoint);
    let again = second.claim(claim(quick)).await.unwrap().tasks.remove(0);
    assert_eq!((again.epoch, again.crashes), (2, 1));

    // It wakes and knows nothing of that.
    first.renew(slow, LEASE).await.unwrap();
    let error = first.commit(commit(run, &started, 1)).await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::Fenced);
    let finish = |epoch| agentflow::store::FinishTask::new(claimed.task.id, epoch, agentflow::store::TaskEnd::Done);
    assert_eq!(*first.finish_task(finish(1)).await.unwrap_err().kind(), StoreErrorKind::Fenced);
    let mut step = commit(run, &started, 1);
    step.epoch = 2;
    second.commit(step).await.unwrap();
    second.finish_task(finish(2)).await.unwrap();
}

/// Forwards connections to the server. When it is told to, it keeps back the answer to the next COMMIT, and closes the
/// connection.
async fn proxy(server: Config, loses_commit: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = match (&server.get_hosts()[0], server.get_ports().first()) {
        (tokio_postgres::config::Host::Tcp(host), port) => (host.clone(), port.copied().unwrap_or(5432)),
        other => panic!("{other:?}"),
    };
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let upstream = TcpStream::connect(to.clone()).await.unwrap();
            tokio::spawn(forward(client, upstream, loses_commit.clone()));
        }
    });
    port
}

async fn forward(client: TcpStream, upstream: TcpStream, loses_commit: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        let has_commit = buffer[..length].windows(7).any(|window| window == b"COMMIT\0");
        let loses = has_commit && loses_commit.swap(false, Ordering::SeqCst);
        if loses {
            back.abort();
        }
        to_server.write_all(&buffer[..length]).await.unwrap();
        if loses {
            // The server sees the end of the connection when it has carried out the commit.
            return;
        }
    }
    back.abort();
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_not_applied_twice() {
    let Some(database) = Database::new().await else { return };
    let loses_commit = Arc::new(AtomicBool::new(false));
    let port = proxy(database.config.clone(), loses_commit.clone()).await;
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).application_name("through a proxy");
    config.options(database.config.get_options().unwrap());
    config.user(database.config.get_user().unwrap()).dbname(database.config.get_dbname().unwrap());
    if let Some(password) = database.config.get_password() {
        config.password(password);
    }
    let (store, direct) = (PostgresStore::connect_with(config).await.unwrap(), database.store().await);
    let owner = owner(&store).await;
    let (run, started) = begun(&store, "t", owner).await;
    let mut step = commit(run, &started, 1);
    step.tasks = vec![task("a")];
    loses_commit.store(true, Ordering::SeqCst);
    let error = store.commit(step.clone()).await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::Unavailable, "{error}");
    let committed = patiently(|| store.commit(step.clone())).await;
    let head = direct.load(&thread_id("t"), None).await.unwrap().unwrap();
    assert_eq!(Some(head.id), committed.checkpoint);
    assert_eq!(direct.history(&thread_id("t"), HistoryFilter::default()).await.unwrap().len(), 2);
    assert_eq!(direct.tasks(StoredTaskFilter::default()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_operation_that_is_dropped_leaves_no_transaction_behind() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().await;
    let owner = owner(&store).await;
    begun(&store, "t", owner).await;
    let client = database.client().await;
    client.batch_execute("BEGIN; SELECT * FROM agentflow_threads FOR UPDATE").await.unwrap();
    let thread = thread_id("t");
    let patch = || store.patch_metadata(&thread, serde_json::Map::new());
    // The operation waits for the lock of the other transaction, so the time passes.
    assert!(timeout(Duration::from_millis(50), patch()).await.is_err());
    client.batch_execute("COMMIT").await.unwrap();
    timeout(BOUND, patch()).await.unwrap().unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state LIKE 'idle in transaction%'";
    let idle: i64 = client.query_one(sql, &[&database.schema]).await.unwrap().get(0);
    assert_eq!(idle, 0);
}
