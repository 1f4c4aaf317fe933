//! Stored items.

use agentflow::store::{ItemFilter, ItemRow, PutItem, PutOutcome, StoreError};
use bytes::Bytes;
use tokio_postgres::Row;

use crate::{
    error,
    rows::Columns,
    transaction::{Read, Session},
    value::{args, count, labels, limit, to_json},
};

/// Ends a name. Within a name it stands after [`ESCAPE`].
const END: u8 = 0x01;
/// Stands before each byte of a name that is not greater than itself.
const ESCAPE: u8 = 0x02;

/// Writes the names of a namespace one after the other. The order of the results is that of the namespaces, and the result
/// for a prefix is a prefix.
fn encode(namespace: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in namespace {
        for byte in name.bytes() {
            if byte <= ESCAPE {
                bytes.push(ESCAPE);
            }
            bytes.push(byte);
        }
        bytes.push(END);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut name = Vec::new();
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match *byte {
            END => names.push(String::from_utf8(std::mem::take(&mut name)).ok()?),
            ESCAPE => name.push(*bytes.next()?),
            byte => name.push(byte),
        }
    }
    Some(names)
}

/// Returns the first bytes after all that begin with `prefix`. No byte of UTF-8 is the greatest.
fn after(prefix: &[u8]) -> Vec<u8> {
    [prefix, &[0xFF]].concat()
}

fn row(operation: &'static str, row: &Row) -> Result<ItemRow, StoreError> {
    let columns = Columns::new(operation, row);
    let namespace = decode(&columns.get::<Bytes>("namespace")?);
    let namespace = namespace.ok_or_else(|| error::corrupt(operation, "a namespace cannot be read"))?;
    let mut item = ItemRow::new(namespace, columns.get("key")?, columns.json("value")?, columns.get("created")?);
    item.version = columns.get("version")?;
    item.updated_at = columns.get("updated")?;
    item.expires_at = columns.get("expires")?;
    Ok(item)
}

pub(crate) async fn put(mut session: Session, put: PutItem) -> Result<PutOutcome, StoreError> {
    let operation = session.operation;
    let PutItem { namespace, key, value, time_to_live, expected_version, .. } = put;
    let labels = labels(operation, value.as_object().unwrap_or(&serde_json::Map::new()))?;
    let namespace = encode(&namespace);
    let value = to_json(operation, &value)?;
    // One that has expired is as good as none.
    let write =
        "INSERT INTO agentflow_items AS i (namespace, key, value, labels, version, created, updated, expires, sequence)
        SELECT $1, $2, $3, agentflow_labels($4), 1, now, now, agentflow_after($5), nextval('agentflow_item_writes')
            FROM agentflow_now() AS now
        ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, labels = excluded.labels,
            version = CASE WHEN i.expires <= excluded.updated THEN 1 ELSE i.version + 1 END,
            created = CASE WHEN i.expires <= excluded.updated THEN excluded.created ELSE i.created END,
            updated = excluded.updated, expires = excluded.expires, sequence = excluded.sequence
            WHERE $6::bigint IS NULL OR i.expires <= excluded.updated
        RETURNING version";
    let update = "UPDATE agentflow_items SET value = $3, labels = agentflow_labels($4), version = version + 1,
            updated = agentflow_now(), expires = agentflow_after($5), sequence = nextval('agentflow_item_writes')
        WHERE namespace = $1 AND key = $2 AND version = $6 AND (expires IS NULL OR expires > agentflow_now())
        RETURNING version";
    let sql = if expected_version.is_some_and(|version| version > 0) { update } else { write };
    let present = "SELECT version FROM agentflow_items
        WHERE namespace = $1 AND key = $2 AND (expires IS NULL OR expires > agentflow_now())";
    let arguments = args![namespace.clone(), &*key, value, labels, time_to_live, expected_version];
    let [written, present] = session.read([(sql, arguments), (present, args![namespace, &*key])]).await?;
    let version = |row: &Row| Columns::new(operation, row).get("version");
    Ok(match written.first() {
        Some(row) => PutOutcome::Written(version(row)?),
        None => PutOutcome::OtherVersion(present.first().map(version).transpose()?.unwrap_or_default()),
    })
}

pub(crate) async fn get(mut session: Session, namespace: &[String], key: &str) -> Result<Option<ItemRow>, StoreError> {
    let sql = "SELECT * FROM agentflow_items
        WHERE namespace = $1 AND key = $2 AND (expires IS NULL OR expires > agentflow_now())";
    let [found] = session.read([(sql, args![encode(namespace), key])]).await?;
    found.first().map(|found| row(session.operation, found)).transpose()
}

pub(crate) async fn delete(mut session: Session, namespace: &[String], key: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM agentflow_items WHERE namespace = $1 AND key = $2
        RETURNING coalesce(expires > agentflow_now(), true) AS was_there";
    let operation = session.operation;
    let [gone] = session.read([(sql, args![encode(namespace), key])]).await?;
    gone.first().map_or(Ok(false), |row| Columns::new(operation, row).get("was_there"))
}

pub(crate) async fn list(mut session: Session, filter: ItemFilter) -> Result<Vec<ItemRow>, StoreError> {
    let operation = session.operation;
    let prefix = encode(&filter.namespace_prefix);
    let sql =
        "SELECT * FROM agentflow_items WHERE namespace >= $1 AND namespace < $2 AND labels @> agentflow_labels($3)
            AND (expires IS NULL OR expires > (SELECT agentflow_now()))
        ORDER BY updated DESC, sequence DESC OFFSET $4 LIMIT $5";
    let labels = labels(operation, &filter.fields)?;
    let arguments = args![prefix.clone(), after(&prefix), labels, count(filter.offset), limit(filter.limit)];
    let [found] = session.read([(sql, arguments)]).await?;
    found.iter().map(|found| row(operation, found)).collect()
}

pub(crate) async fn namespaces(mut session: Session, prefix: &[String]) -> Result<Vec<Vec<String>>, StoreError> {
    let operation = session.operation;
    let prefix = encode(prefix);
    let sql = "SELECT DISTINCT namespace FROM agentflow_items WHERE namespace >= $1 AND namespace < $2
            AND (expires IS NULL OR expires > (SELECT agentflow_now())) ORDER BY namespace";
    let [found] = session.read([(sql, args![prefix.clone(), after(&prefix)])]).await?;
    let read = |row: &Row| {
        let namespace: Bytes = Columns::new(operation, row).get("namespace")?;
        decode(&namespace).ok_or_else(|| error::corrupt(operation, "a namespace cannot be read"))
    };
    found.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::{after, decode, encode};

    fn namespaces() -> Vec<Vec<String>> {
        let names = ["", "\0", "\u{1}", "\u{2}", "\u{3}", "a", "a\0", "a\u{1}b", "ab", "ä", "\u{10FFFF}"];
        let pairs = names.iter().flat_map(|left| names.iter().map(move |right| vec![(*left).into(), (*right).into()]));
        names.iter().map(|name| vec![(*name).into()]).chain(pairs).chain([vec![]]).collect()
    }

    #[test]
    fn the_bytes_of_namespaces_are_in_their_order() {
        let mut namespaces = namespaces();
        namespaces.sort();
        let encoded: Vec<_> = namespaces.iter().map(|namespace| encode(namespace)).collect();
        assert!(encoded.is_sorted_by(|left, right| left < right));
        for (namespace, bytes) in namespaces.iter().zip(encoded) {
            assert_eq!(decode(&bytes).as_ref(), Some(namespace));
        }
    }

    #[test]
    fn a_prefix_selects_the_namespaces_that_begin_with_it() {
        for prefix in namespaces() {
            let (low, high) = (encode(&prefix), after(&encode(&prefix)));
            for namespace in namespaces() {
                let bytes = encode(&namespace);
                assert_eq!(low <= bytes && bytes < high, namespace.starts_with(&prefix), "{prefix:?} {namespace:?}");
            }
        }
    }
}
