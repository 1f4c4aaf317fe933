//! Stored items.
//!
//! A namespace is kept as the JSON of its names, so that those with a prefix are one range: `["a","b"]` is behind `["a",`.

use agentflow::store::{ItemFilter, ItemRow, PutItem, PutOutcome};
use rusqlite::{Row, params, params_from_iter, types::Value as SqlValue};

use crate::{
    failure::Failure,
    threads::has_fields,
    transaction::Transaction,
    value::{Sql, count, get, get_optional, integer, optional},
};

fn read(row: &Row<'_>) -> Result<ItemRow, Failure> {
    let namespace = serde_json::from_str(&row.get::<_, String>("namespace")?)?;
    let value = serde_json::from_str(&row.get::<_, String>("value")?)?;
    let mut item = ItemRow::new(namespace, row.get("key")?, value, get(row, "created_at")?);
    item.version = count(row, "version")?;
    item.updated_at = get(row, "updated_at")?;
    item.expires_at = get_optional(row, "expires_at")?;
    Ok(item)
}

const COLUMNS: &str = "SELECT namespace, key, value, version, created_at, updated_at, expires_at FROM items";

pub(crate) fn put(tx: &Transaction<'_>, put: &PutItem) -> Result<PutOutcome, Failure> {
    tx.execute("DELETE FROM items WHERE expires_at <= ?1 AND expires_at IS NOT NULL", [Sql(tx.now)])?;
    let namespace = serde_json::to_string(&put.namespace)?;
    let version = tx
        .one("SELECT version FROM items WHERE namespace = ?1 AND key = ?2", [&namespace, &put.key], |row| {
            Ok(count(row, "version")?)
        })?
        .unwrap_or(0);
    if put.expected_version.is_some_and(|expected| expected != version) {
        return Ok(PutOutcome::OtherVersion(version));
    }
    let expires_at = put.time_to_live.map(|time| tx.now.after(time));
    tx.execute(
        "INSERT INTO items (namespace, key, value, version, created_at, updated_at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6)
         ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, version = excluded.version,
             updated_at = excluded.updated_at, expires_at = excluded.expires_at",
        params![
            namespace,
            put.key,
            serde_json::to_string(&put.value)?,
            integer(version + 1),
            Sql(tx.now),
            optional(expires_at)
        ],
    )?;
    Ok(PutOutcome::Written(version + 1))
}

pub(crate) fn by_key(tx: &Transaction<'_>, namespace: &[String], key: &str) -> Result<Option<ItemRow>, Failure> {
    tx.one(
        &format!("{COLUMNS} WHERE namespace = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)"),
        params![serde_json::to_string(namespace)?, key, Sql(tx.now)],
        read,
    )
}

pub(crate) fn delete(tx: &Transaction<'_>, namespace: &[String], key: &str) -> Result<bool, Failure> {
    let was_there = by_key(tx, namespace, key)?.is_some();
    tx.execute("DELETE FROM items WHERE namespace = ?1 AND key = ?2", params![serde_json::to_string(namespace)?, key])?;
    Ok(was_there)
}

/// Returns the condition for the namespaces that begin with some names, and its parameters.
fn with_prefix(prefix: &[String]) -> Result<(&'static str, Vec<SqlValue>), Failure> {
    if prefix.is_empty() {
        return Ok(("1", Vec::new()));
    }
    let whole = serde_json::to_string(prefix)?;
    let open = whole.strip_suffix(']').unwrap_or(&whole);
    // The range of the texts that begin with `["a",`. The character behind a comma is a hyphen.
    let values = vec![whole.clone().into(), format!("{open},").into(), format!("{open}-").into()];
    Ok(("(namespace = ?1 OR (namespace > ?2 AND namespace < ?3))", values))
}

pub(crate) fn list(tx: &Transaction<'_>, filter: &ItemFilter) -> Result<Vec<ItemRow>, Failure> {
    let (condition, mut values) = with_prefix(&filter.namespace_prefix)?;
    values.push(tx.now.as_micros().into());
    let sql = format!(
        "{COLUMNS} WHERE {condition} AND (expires_at IS NULL OR expires_at > ?{}) ORDER BY updated_at DESC, namespace, key",
        values.len()
    );
    let mut items = Vec::new();
    let mut selected = 0;
    let limit = filter.limit.unwrap_or(usize::MAX);
    tx.all(&sql, params_from_iter(values), |row| {
        if items.len() == limit {
            return Ok(());
        }
        let item = read(row)?;
        let is_selected = match item.value.as_object() {
            Some(object) => has_fields(object, &filter.fields),
            None => filter.fields.is_empty(),
        };
        if is_selected {
            selected += 1;
            if selected > filter.offset {
                items.push(item);
            }
        }
        Ok(())
    })?;
    Ok(items)
}

pub(crate) fn namespaces(tx: &Transaction<'_>, prefix: &[String]) -> Result<Vec<Vec<String>>, Failure> {
    let (condition, mut values) = with_prefix(prefix)?;
    values.push(tx.now.as_micros().into());
    let sql = format!(
        "SELECT DISTINCT namespace FROM items WHERE {condition} AND (expires_at IS NULL OR expires_at > ?{})",
        values.len()
    );
    let mut found: Vec<Vec<String>> =
        tx.all(&sql, params_from_iter(values), |row| Ok(serde_json::from_str(&row.get::<_, String>("namespace")?)?))?;
    // The order of the JSON texts is not that of the names.
    found.sort();
    Ok(found)
}
