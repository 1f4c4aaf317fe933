//! [`Transaction`]: the surroundings of one operation.

use std::{cell::Cell, cell::RefCell, collections::HashMap};

use agentflow::store::{OwnerId, Timestamp};
use rusqlite::{Connection, Params, Row};

use crate::{failure::Failure, owners::Owners, value::Sql};

/// An open transaction, its time, and the owners whose locks tell which of them are alive.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    connection: &'a Connection,
    /// The present time of the store's clock.
    pub(crate) now: Timestamp,
    /// The lock files.
    pub(crate) owners: &'a Owners,
    alive: RefCell<HashMap<OwnerId, bool>>,
    concerns_others: Cell<bool>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(connection: &'a Connection, now: Timestamp, owners: &'a Owners) -> Self {
        Self { connection, now, owners, alive: RefCell::default(), concerns_others: Cell::new(false) }
    }

    /// Executes a statement. Returns the number of rows that it changed.
    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> Result<usize, Failure> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    /// Executes an `INSERT` of one row. Returns its key.
    pub(crate) fn insert(&self, sql: &str, params: impl Params) -> Result<i64, Failure> {
        Ok(self.connection.prepare_cached(sql)?.insert(params)?)
    }

    /// Returns the first row of a query.
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        rows.next()?.map(read).transpose()
    }

    /// Returns all rows of a query.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    /// Returns whether a query has a row.
    pub(crate) fn exists(&self, sql: &str, params: impl Params) -> Result<bool, Failure> {
        Ok(self.connection.prepare_cached(sql)?.exists(params)?)
    }

    /// Returns whether an owner is there and its process lives.
    pub(crate) fn is_alive(&self, owner: OwnerId) -> Result<bool, Failure> {
        if let Some(&is_alive) = self.alive.borrow().get(&owner) {
            return Ok(is_alive);
        }
        let is_there = self.exists("SELECT 1 FROM owners WHERE id = ?1", [Sql(owner)])?;
        let is_alive = is_there && self.owners.is_locked(owner);
        self.alive.borrow_mut().insert(owner, is_alive);
        Ok(is_alive)
    }

    /// Forgets what is known about an owner, which has joined or left.
    pub(crate) fn forget(&self, owner: OwnerId) {
        self.alive.borrow_mut().remove(&owner);
    }

    /// Notes that the operation changes something that others wait for.
    pub(crate) fn notify(&self) {
        self.concerns_others.set(true);
    }

    pub(crate) fn concerns_others(&self) -> bool {
        self.concerns_others.get()
    }
}
