//! A database for each test, and servers that a test may stop.

use std::{
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

use agentflow::{
    RunId,
    store::{
        BeginRun, Begun, Commit, NewCheckpoint, NewRun, NewTask, NewValues, OnBusyThread, OwnerId, RunStart,
        RunStarted, Source, Store, StoreError, Stored, StoredTaskId, ThreadId,
    },
};
use agentflow_postgres::PostgresStore;
use bytes::Bytes;
use tokio_postgres::{Client, Config, NoTls};

/// The lease of owners that are not to die in a test.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// Says once that tests are left out, in a way that the test harness does not capture. Where servers are required, fails.
pub(crate) fn skip(reason: &str) {
    static ONCE: Once = Once::new();
    assert!(std::env::var_os("AGENTFLOW_REQUIRE_SERVERS").is_none_or(|value| value != "1"), "{reason}");
    ONCE.call_once(|| {
        let _ = writeln!(std::io::stderr(), "SKIPPED: the tests of agentflow-postgres need a server: {reason}");
    });
}

/// Returns the configuration of the server that `AGENTFLOW_POSTGRES_URL` names, or leaves the test out.
pub(crate) fn server() -> Option<Config> {
    let Ok(url) = std::env::var("AGENTFLOW_POSTGRES_URL") else {
        skip("AGENTFLOW_POSTGRES_URL names none");
        return None;
    };
    Some(url.parse().expect("AGENTFLOW_POSTGRES_URL is a connection string"))
}

/// A schema of its own for one test.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) config: Config,
    pub(crate) schema: String,
}

impl Database {
    pub(crate) async fn new() -> Option<Self> {
        Some(Self::on(server()?).await)
    }

    pub(crate) async fn on(mut config: Config) -> Self {
        let schema = format!("test_{}", RunId::new()).replace('-', "_");
        connect(&config).await.batch_execute(&format!("CREATE SCHEMA {schema}")).await.unwrap();
        config.options(format!("-c search_path={schema}"));
        config.application_name(&schema);
        Self { config, schema }
    }

    /// Opens a store: a process of its own, as far as the server can tell.
    pub(crate) async fn store(&self) -> PostgresStore {
        PostgresStore::connect_with(self.config.clone()).await.unwrap()
    }

    /// Returns a connection beside those of the stores.
    pub(crate) async fn client(&self) -> Client {
        let mut config = self.config.clone();
        config.application_name("a test");
        connect(&config).await
    }

    /// Closes the connections of all stores, or only those that listen. Returns how many there were.
    pub(crate) async fn terminate(&self, only_listeners: bool) -> usize {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = $1 AND (NOT $2 OR query LIKE 'LISTEN%')";
        self.client().await.query(sql, &[&self.schema, &only_listeners]).await.unwrap().len()
    }
}

pub(crate) async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A server that a test may stop.
#[derive(Debug)]
pub(crate) struct Server {
    binaries: PathBuf,
    folder: PathBuf,
    pub(crate) port: u16,
}

impl Server {
    /// Makes a new cluster and starts it, or leaves the test out.
    pub(crate) fn start_new() -> Option<Self> {
        let Some(binaries) = binaries() else {
            skip("its programs are not here");
            return None;
        };
        let (folder, port) = (new_folder(), free_port());
        let server = Self { binaries, folder, port };
        let data = server.folder.join("data");
        let mut initdb = server.command("initdb");
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        assert!(initdb.status().unwrap().success(), "initdb failed");
        server.pg_ctl(&["start"]);
        Some(server)
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("postgres");
        config
    }

    /// Runs `pg_ctl` and waits until it is done.
    pub(crate) fn pg_ctl(&self, arguments: &[&str]) {
        let options = format!("-c listen_addresses=127.0.0.1 -p {} -k {}", self.port, self.folder.display());
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.folder.join("data")).arg("-l").arg(self.folder.join("log")).arg("-w");
        assert!(command.arg("-o").arg(options).args(arguments).status().unwrap().success(), "pg_ctl failed");
    }

    fn command(&self, program: &str) -> Command {
        let mut command = as_server(&self.binaries.join(program));
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.folder.join("data");
        let _ = self.command("pg_ctl").arg("-D").arg(data).args(["-m", "immediate", "-w", "stop"]).status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Makes a folder for the files of a server.
pub(crate) fn new_folder() -> PathBuf {
    // A socket's path is limited to some 100 bytes.
    let folder = PathBuf::from(format!("/tmp/agentflow-{}", RunId::new()));
    std::fs::create_dir(&folder).unwrap();
    if is_root() {
        assert!(Command::new("chown").arg("postgres").arg(&folder).status().unwrap().success());
    }
    folder
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Returns a command that runs as a user whom servers accept: PostgreSQL does not run as root.
pub(crate) fn as_server(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

/// Returns the folder of the server's programs.
fn binaries() -> Option<PathBuf> {
    let named = std::env::var_os("AGENTFLOW_POSTGRES_BINARIES").map(PathBuf::from);
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = installed.map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    named.into_iter().chain(folders.into_iter().rev()).find(|folder| Path::new(folder).join("initdb").exists())
}

// ---- What tests write.

pub(crate) fn json(text: &str) -> Stored {
    Stored::Json(Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn thread_id(text: &str) -> ThreadId {
    text.parse().unwrap()
}

pub(crate) fn checkpoint(state: &str) -> NewCheckpoint {
    NewCheckpoint::new(Source::Loop, NewValues::Snapshot(json(state)), vec!["next".into()], json("{}"))
}

pub(crate) fn task(name: &str) -> NewTask {
    NewTask::new(StoredTaskId::new(), name, Bytes::from_static(b"[]"), Bytes::from_static(b"{}"))
}

/// Returns a request to begin a run at the head of a new thread.
pub(crate) fn begin(run: RunId, thread: &str, owner: OwnerId) -> BeginRun {
    let new = NewRun::new(run, thread_id(thread), "mail".into(), owner, json("{}"), json("{}"));
    let mut start = RunStart::at(None);
    start.checkpoints = vec![checkpoint(r#"{"n":0}"#)];
    BeginRun::new(new, OnBusyThread::Queue, start)
}

/// Begins a run on a new thread.
pub(crate) async fn begun(store: &dyn Store, thread: &str, owner: OwnerId) -> (RunId, RunStarted) {
    let run = RunId::new();
    match store.begin_run(begin(run, thread, owner)).await.unwrap() {
        Begun::Running(started) => (run, started),
        other => panic!("{other:?}"),
    }
}

/// Returns the commit of a step with a new state.
pub(crate) fn commit(run: RunId, started: &RunStarted, number: u64) -> Commit {
    let mut commit = Commit::new(run, started.epoch, number, started.checkpoints.last().copied());
    commit.checkpoint = Some(checkpoint(&format!(r#"{{"n":{number}}}"#)));
    commit
}

pub(crate) async fn owner(store: &dyn Store) -> OwnerId {
    let owner = OwnerId::new();
    store.join(owner, LEASE).await.unwrap();
    owner
}

/// Repeats an operation while its error may pass, as the library does, for a minute at most.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(mut operation: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        match operation().await {
            Ok(value) => return value,
            Err(error) => assert!(error.may_pass() && began.elapsed() < Duration::from_mins(1), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}
