//! [`Owners`]: a lock file for each owner, which tells whether its process lives.
//!
//! The operating system releases a lock however the process dies, so that no process number and no clock is asked. A
//! process that is stopped keeps its locks.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agentflow::store::OwnerId;
use rusqlite::params;

use crate::{
    failure::Failure,
    transaction::Transaction,
    value::{Sql, get},
};

/// The lock files beside a database, and the locks that this store holds.
#[derive(Debug)]
pub(crate) struct Owners {
    directory: PathBuf,
    prefix: String,
    held: Mutex<HashMap<OwnerId, File>>,
}

impl Owners {
    /// Creates the locks of a database: `app.db-owner-<id>` beside `app.db`.
    pub(crate) fn of(database: &Path) -> Self {
        let name = database.file_name().map_or_else(OsString::new, OsString::from);
        let directory = match database.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Self { directory, prefix: format!("{}-owner-", name.to_string_lossy()), held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<OwnerId, File>> {
        // The map is as it was before or after a change, also if a thread has panicked.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, owner: OwnerId) -> PathBuf {
        self.directory.join(format!("{}{owner}", self.prefix))
    }

    fn lock(&self, owner: OwnerId) -> Result<(), Failure> {
        let mut held = self.held();
        if held.contains_key(&owner) {
            return Ok(());
        }
        let file = private(OpenOptions::new().read(true).write(true).create(true)).open(self.path(owner))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Failure::invalid(format!("the owner {owner} exists"))),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        held.insert(owner, file);
        Ok(())
    }

    fn unlock(&self, owner: OwnerId) {
        // The file goes first: once it is unlocked, another process may remove it too.
        let _ = fs::remove_file(self.path(owner));
        self.held().remove(&owner);
    }

    /// Releases all locks, and leaves the files as a process does that dies.
    pub(crate) fn release(&self) {
        self.held().clear();
    }

    /// Returns whether the lock of an owner is held, by this store or another one.
    pub(crate) fn is_locked(&self, owner: OwnerId) -> bool {
        if self.held().contains_key(&owner) {
            return true;
        }
        match File::open(self.path(owner)) {
            // A shared lock, so that two that look at the same time do not take each other for the owner.
            Ok(file) => file.try_lock_shared().is_err(),
            // An owner that cannot be judged now is judged again later.
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    /// Removes the files of owners that are not in the table: their processes died before they had joined.
    fn sweep(&self, is_known: impl Fn(OwnerId) -> Result<bool, Failure>) -> Result<(), Failure> {
        for entry in fs::read_dir(&self.directory)?.flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix(&self.prefix)?.parse().ok());
            let Some(owner) = id else { continue };
            if !is_known(owner)? && !self.is_locked(owner) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Sets the mode of a new file: only its owner reads and writes it.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

pub(crate) fn join(tx: &Transaction<'_>, owner: OwnerId, lease: Duration) -> Result<(), Failure> {
    // The file is locked before the row is there, so that nobody sees the row of an owner without its lock.
    tx.owners.lock(owner)?;
    tx.execute(
        "INSERT INTO owners (id, lease, renewed_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (id) DO UPDATE SET lease = excluded.lease, renewed_at = excluded.renewed_at",
        params![Sql(owner), Sql(lease), Sql(tx.now)],
    )?;
    tx.forget(owner);
    remove_dead(tx)
}

/// Removes dead owners that hold nothing any more. The others are needed until their runs and tasks are taken over.
fn remove_dead(tx: &Transaction<'_>) -> Result<(), Failure> {
    let idle = tx.all(
        "SELECT id FROM owners AS o
         WHERE NOT EXISTS (SELECT 1 FROM runs WHERE owner = o.id AND status IN ('queued', 'running'))
           AND NOT EXISTS (SELECT 1 FROM tasks WHERE owner = o.id AND status = 'running')",
        [],
        |row| Ok(get::<OwnerId>(row, "id")?),
    )?;
    for owner in idle {
        if !tx.is_alive(owner)? {
            tx.execute("DELETE FROM owners WHERE id = ?1", [Sql(owner)])?;
        }
    }
    tx.owners.sweep(|owner| tx.exists("SELECT 1 FROM owners WHERE id = ?1", [Sql(owner)]))
}

pub(crate) fn renew(tx: &Transaction<'_>, owner: OwnerId, lease: Duration) -> Result<(), Failure> {
    let renewed = tx.execute(
        "UPDATE owners SET lease = ?2, renewed_at = ?3 WHERE id = ?1",
        params![Sql(owner), Sql(lease), Sql(tx.now)],
    )?;
    if renewed == 0 { Err(Failure::fenced()) } else { Ok(()) }
}

pub(crate) fn leave(tx: &Transaction<'_>, owner: OwnerId) -> Result<(), Failure> {
    tx.execute("DELETE FROM owners WHERE id = ?1", [Sql(owner)])?;
    tx.owners.unlock(owner);
    tx.forget(owner);
    // What the owner still holds can be taken over.
    tx.notify();
    Ok(())
}

/// Returns the time from `since` until the last renewal of an owner; zero if the owner has left.
pub(crate) fn charge(
    tx: &Transaction<'_>,
    owner: OwnerId,
    since: agentflow::store::Timestamp,
) -> Result<Duration, Failure> {
    let renewed =
        tx.one("SELECT renewed_at FROM owners WHERE id = ?1", [Sql(owner)], |row| Ok(get(row, "renewed_at")?))?;
    Ok(renewed.map_or(Duration::ZERO, |renewed: agentflow::store::Timestamp| renewed.since(since)))
}
