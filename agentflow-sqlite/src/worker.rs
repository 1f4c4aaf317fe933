//! The threads that own the connections: one that writes, and some that read.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use agentflow::store::{StoreError, StoreErrorKind, Timestamp};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::{
    database::{self, Settings},
    failure::Failure,
    owners::Owners,
    transaction::Transaction,
};

/// The greatest number of operations in one transaction. The first of them waits for the last.
const BATCH: usize = 128;

/// The time without writes after which the log is moved into the database file and truncated.
const IDLE: Duration = Duration::from_secs(1);

/// The number of threads that read. A long history on one of them does not delay the reads of others.
const READERS: usize = 2;

/// The state that the threads of a store share with its handles.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) owners: Owners,
    /// The time by which tests have moved the clock, in microseconds.
    pub(crate) clock_offset: AtomicU64,
    /// The number of changes that others may wait for.
    pub(crate) changes: watch::Sender<u64>,
    busy_timeout: Duration,
}

impl Shared {
    /// Returns the present time of the store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        // No other data depends on the offset, so that no order has to be established.
        Timestamp::now().after(Duration::from_micros(self.clock_offset.load(Ordering::Relaxed)))
    }

    pub(crate) fn announce(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}

/// An operation that waits for its thread, or for the end of its transaction.
trait Job: Send {
    /// Carries the operation out. Returns whether its changes are to be kept.
    fn run(&mut self, tx: &Transaction<'_>) -> bool;

    /// Answers the caller. `committed` is the outcome of the transaction.
    fn finish(self: Box<Self>, committed: Result<(), Failure>);
}

struct Operation<T, F> {
    name: &'static str,
    work: Option<F>,
    /// The outcome, once the operation was carried out.
    outcome: Option<Result<T, Failure>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send,
    F: FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send,
{
    fn run(&mut self, tx: &Transaction<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        // A panic must not end the thread, on which all other operations depend.
        let outcome = catch_unwind(AssertUnwindSafe(|| work(tx))).unwrap_or_else(|panic| Err(panicked(&*panic)));
        self.outcome.insert(outcome).is_ok()
    }

    fn finish(self: Box<Self>, committed: Result<(), Failure>) {
        let outcome = match (self.outcome, committed) {
            (Some(Err(failure)), _) | (_, Err(failure)) => Err(failure),
            (Some(outcome), Ok(())) => outcome,
            (None, Ok(())) => Err(Failure::undone()),
        };
        // A caller that is gone does not need the answer.
        let _ = self.answer.send(outcome.map_err(|failure| failure.into_error(self.name)));
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    Failure::new(StoreErrorKind::Other, format!("a panic: {}", text.unwrap_or("of unknown cause")))
}

enum Message {
    Run(Box<dyn Job>),
    /// Announces the commits of other processes since the last look.
    Look(oneshot::Sender<()>),
    /// Ends the thread, after all that was sent before.
    Close(oneshot::Sender<()>),
}

/// The queues of the threads of a store. The threads end with it.
#[derive(Debug)]
pub(crate) struct Workers {
    writer: Sender<Message>,
    readers: Sender<Message>,
}

impl Workers {
    /// Opens the connections and starts their threads.
    pub(crate) fn start(settings: &Settings) -> Result<(Self, Arc<Shared>), Failure> {
        let connection = database::open_writer(settings)?;
        let shared = Arc::new(Shared {
            owners: Owners::of(&settings.path),
            clock_offset: AtomicU64::new(0),
            changes: watch::Sender::new(1),
            busy_timeout: settings.busy_timeout,
        });
        let (readers, messages) = channel();
        let messages = Arc::new(Mutex::new(messages));
        for _ in 0..READERS {
            let reader = Reader {
                connection: database::open_reader(settings)?,
                shared: shared.clone(),
                messages: messages.clone(),
            };
            spawn("agentflow-sqlite-reader", move || reader.run())?;
        }
        let (writer, messages) = channel();
        let thread = Writer { connection, shared: shared.clone(), messages, next: None, version: 0, has_log: true };
        spawn("agentflow-sqlite-writer", move || thread.run())?;
        Ok((Self { writer, readers }, shared))
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        send(&self.writer, name, work).await
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        send(&self.readers, name, work).await
    }

    /// Announces the commits of other processes since the last look.
    pub(crate) async fn look(&self) {
        let (answer, answered) = oneshot::channel();
        if self.writer.send(Message::Look(answer)).is_ok() {
            let _ = answered.await;
        }
    }

    /// Carries out what was sent before, and ends the threads.
    pub(crate) async fn close(&self) {
        // The readers end first, so that none of them keeps the log from being truncated.
        for queue in [&self.readers; READERS].into_iter().chain([&self.writer]) {
            let (answer, answered) = oneshot::channel();
            // A thread that has ended is closed already.
            if queue.send(Message::Close(answer)).is_ok() {
                let _ = answered.await;
            }
        }
    }
}

async fn send<T: Send + 'static>(
    queue: &Sender<Message>,
    name: &'static str,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, StoreError> {
    let closed = || Failure::closed().into_error(name);
    let (answer, answered) = oneshot::channel();
    let operation = Operation { name, work: Some(work), outcome: None, answer };
    queue.send(Message::Run(Box::new(operation))).map_err(|_| closed())?;
    answered.await.unwrap_or_else(|_| Err(closed()))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(())
}

struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    messages: Receiver<Message>,
    /// A message that ended a batch.
    next: Option<Message>,
    /// The version of the file at the last look.
    version: i64,
    /// True if something was written since the log was truncated.
    has_log: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            match self.receive() {
                Ok(Message::Run(job)) => {
                    let jobs = self.batch(job);
                    self.execute(jobs);
                }
                Ok(Message::Look(answer)) => {
                    self.look();
                    let _ = answer.send(());
                }
                Ok(Message::Close(answer)) => {
                    self.truncate_log();
                    self.shared.owners.release();
                    // A failure to close loses nothing: what was acknowledged is in the log.
                    let _ = self.connection.close();
                    let _ = answer.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => self.truncate_log(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.truncate_log();
                    self.shared.owners.release();
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        // The number changes with the commits of other connections only. One that cannot be read is read the next time.
        let version = self.connection.pragma_query_value(None, "data_version", |row| row.get(0));
        if let Ok(version) = version
            && std::mem::replace(&mut self.version, version) != version
        {
            self.shared.announce();
        }
    }

    fn receive(&mut self) -> Result<Message, RecvTimeoutError> {
        if let Some(message) = self.next.take() {
            return Ok(message);
        }
        if self.has_log {
            self.messages.recv_timeout(IDLE)
        } else {
            self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
        }
    }

    /// Returns an operation with those that wait behind it.
    fn batch(&mut self, first: Box<dyn Job>) -> Vec<Box<dyn Job>> {
        let mut jobs = vec![first];
        while jobs.len() < BATCH {
            match self.messages.try_recv() {
                Ok(Message::Run(job)) => jobs.push(job),
                Ok(other) => {
                    self.next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        jobs
    }

    /// Carries out operations in one transaction. One that fails is undone by itself.
    fn execute(&mut self, jobs: Vec<Box<dyn Job>>) {
        let mut jobs = jobs.into_iter();
        while jobs.len() > 0 {
            if let Err(failure) = self.statement("BEGIN IMMEDIATE") {
                jobs.for_each(|job| job.finish(Err(failure.clone())));
                return;
            }
            self.has_log = true;
            let (done, concerns_others, outcome) = self.transaction(&mut jobs);
            if outcome.is_ok() && concerns_others {
                self.shared.announce();
            }
            for job in done {
                job.finish(outcome.clone());
            }
        }
    }

    /// Carries out operations in the transaction that is open, and ends it. It leaves those in `jobs` that it did not come to.
    fn transaction(
        &self,
        jobs: &mut impl ExactSizeIterator<Item = Box<dyn Job>>,
    ) -> (Vec<Box<dyn Job>>, bool, Result<(), Failure>) {
        let mut done = Vec::with_capacity(jobs.len());
        let mut concerns_others = false;
        let is_alone = jobs.len() == 1;
        for mut job in jobs.by_ref() {
            let tx = Transaction::new(&self.connection, self.shared.now(), &self.shared.owners);
            let savepoint = if is_alone { Ok(()) } else { self.statement("SAVEPOINT operation") };
            let is_kept = savepoint.is_ok() && job.run(&tx);
            concerns_others |= is_kept && tx.concerns_others();
            let end = match (is_alone, is_kept) {
                (true, _) => Ok(()),
                (false, true) => self.statement("RELEASE operation"),
                (false, false) => {
                    self.statement("ROLLBACK TO operation").and_then(|()| self.statement("RELEASE operation"))
                }
            };
            done.push(job);
            // Some errors make SQLite undo the whole transaction: a full disk, for one.
            if self.connection.is_autocommit() || savepoint.and(end).is_err() {
                self.roll_back();
                return (done, false, Err(Failure::undone()));
            }
            if is_alone && !is_kept {
                self.roll_back();
                return (done, false, Ok(()));
            }
        }
        let committed = self.statement("COMMIT");
        if committed.is_err() {
            self.roll_back();
        }
        (done, concerns_others, committed)
    }

    fn statement(&self, sql: &str) -> Result<(), Failure> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // There is nothing else to be done about a transaction that can be neither committed nor undone; the next
            // `BEGIN` reports it.
            let _ = self.statement("ROLLBACK");
        }
    }

    /// Moves the log into the database file. Another process that reads or writes has precedence.
    fn truncate_log(&mut self) {
        let truncate = || -> rusqlite::Result<()> {
            self.connection.busy_timeout(Duration::ZERO)?;
            self.connection.pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))?;
            Ok(())
        };
        // The log is truncated another time if this fails, and nothing depends on it.
        let _ = truncate();
        let _ = self.connection.busy_timeout(self.shared.busy_timeout);
        self.has_log = false;
    }
}

struct Reader {
    connection: Connection,
    shared: Arc<Shared>,
    messages: Arc<Mutex<Receiver<Message>>>,
}

impl Reader {
    fn run(self) {
        loop {
            // One reader waits for a message, and the others for the lock.
            let message = self.messages.lock().unwrap_or_else(PoisonError::into_inner).recv();
            match message {
                Ok(Message::Run(job)) => self.execute(job),
                Ok(Message::Look(_)) => {}
                Ok(Message::Close(answer)) => {
                    let _ = self.connection.close();
                    let _ = answer.send(());
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Carries out an operation that reads one state of the database.
    fn execute(&self, mut job: Box<dyn Job>) {
        let statement = |sql| -> Result<(), Failure> {
            self.connection.prepare_cached(sql)?.execute([])?;
            Ok(())
        };
        if let Err(failure) = statement("BEGIN") {
            return job.finish(Err(failure));
        }
        job.run(&Transaction::new(&self.connection, self.shared.now(), &self.shared.owners));
        // The transaction must not stay open, because the log would grow.
        let ended = statement("COMMIT");
        if ended.is_err() && !self.connection.is_autocommit() {
            let _ = statement("ROLLBACK");
        }
        job.finish(ended);
    }
}
