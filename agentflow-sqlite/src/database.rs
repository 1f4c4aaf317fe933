//! The database file: how it is opened and brought up to date.

use std::{
    fs::OpenOptions,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use agentflow::store::{StoreErrorKind, Timestamp};
use rusqlite::{Connection, MAIN_DB, OpenFlags, TransactionBehavior, params};

use crate::{Synchronous, failure::Failure, owners};

/// The steps that make the tables. A new version of this crate adds steps, which only add tables, columns and indexes, so
/// that the version before can still use the file.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// The number in the file's header that tells which versions of this crate can use the file: those that know it. It grows
/// only with a step that the version before cannot live with.
const FORMAT: i64 = 1;

/// The number in the file's header that tells SQLite files of this crate from others: `agfl`.
const APPLICATION: i64 = 0x6167_666c;

/// The pause between two attempts to open a file that another process is opening.
const OPEN_PAUSE: Duration = Duration::from_millis(5);

/// The settings of a store.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) busy_timeout: Duration,
    pub(crate) max_pages: Option<u32>,
}

/// Opens the file for writing, and creates or migrates its tables.
pub(crate) fn open_writer(settings: &Settings) -> Result<Connection, Failure> {
    // SQLite gives its other files the mode of this one.
    owners::private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(&settings.path)?;
    let began = Instant::now();
    loop {
        match prepare(settings) {
            // Not every wait for another process that opens the file is covered by SQLite's own timeout.
            Err(failure) if failure.may_pass() && began.elapsed() < settings.busy_timeout => thread::sleep(OPEN_PAUSE),
            prepared => return prepared,
        }
    }
}

/// Opens the file for reading.
pub(crate) fn open_reader(settings: &Settings) -> Result<Connection, Failure> {
    let connection = connect(settings)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn connect(settings: &Settings) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&settings.path, flags)?;
    connection.busy_timeout(settings.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(256);
    Ok(connection)
}

fn prepare(settings: &Settings) -> Result<Connection, Failure> {
    let mut connection = connect(settings)?;
    // SQLite opens a file that it may not write to for reading.
    if connection.is_readonly(MAIN_DB)? {
        return Err(Failure::new(StoreErrorKind::ReadOnly, "the file cannot be written to"));
    }
    // This is checked before the first write.
    check_format(&connection)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        let reason = format!("the file's journal mode is `{mode}`, and has to be `wal`");
        return Err(Failure::new(StoreErrorKind::Other, reason));
    }
    let synchronous = match settings.synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    if let Some(pages) = settings.max_pages {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    migrate(&mut connection)?;
    Ok(connection)
}

fn check_format(connection: &Connection) -> Result<(), Failure> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    // Another process may make the tables now. It sets the number with them, so that the number is read after the tables.
    let is_empty = !connection.prepare("SELECT 1 FROM sqlite_schema")?.exists([])?;
    let (application, format) = (number("application_id")?, number("user_version")?);
    if application != APPLICATION && (application != 0 || !is_empty) {
        return Err(Failure::invalid("the file is a database of another program"));
    }
    if format > FORMAT {
        let reason = format!("the file has the format {format}, and this version knows {FORMAT}");
        return Err(Failure::new(StoreErrorKind::TooNew, reason));
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    if applied(connection)? >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster, also one of a newer version.
    check_format(&transaction)?;
    let applied = applied(&transaction)?;
    if applied == 0 {
        transaction
            .execute_batch("CREATE TABLE migrations (number INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL)")?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
    }
    for (number, migration) in (1_i64..).zip(MIGRATIONS).skip(applied) {
        transaction.execute_batch(migration)?;
        let now = Timestamp::now().as_micros();
        transaction.execute("INSERT INTO migrations (number, applied_at) VALUES (?1, ?2)", params![number, now])?;
    }
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()?;
    Ok(())
}

/// Returns the number of steps that were applied.
fn applied(connection: &Connection) -> Result<usize, Failure> {
    // A query sees the tables that another process has just made; the connection's own list of tables may be old.
    if !connection.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'migrations'")?.exists([])? {
        return Ok(0);
    }
    let last: i64 = connection.query_row("SELECT coalesce(max(number), 0) FROM migrations", [], |row| row.get(0))?;
    usize::try_from(last).map_err(|_| Failure::corrupt("the number of the last migration is negative"))
}
