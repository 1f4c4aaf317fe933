//! Checks of stored items, and of the hint that something has changed.

use std::time::Duration;

use serde_json::json;

use super::{
    super::{ItemFilter, PutItem, PutOutcome},
    check::list_checks,
    harness::{Checked, Harness, ensure, same},
};

list_checks![
    an_item_is_written_and_read,
    an_item_has_a_version,
    an_item_expires,
    items_are_listed_by_prefix_and_fields,
    namespaces_are_listed_sorted,
    a_change_is_announced_in_time,
];

fn namespace<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).into()
}

async fn an_item_is_written_and_read(h: &mut Harness<'_>) -> Checked {
    let users = namespace(["users", "ada"]);
    h.a.store.put_item(PutItem::new(users.clone(), "tea", json!({"green": true}))).await?;
    h.a.store.put_item(PutItem::new(namespace(["users"]), "tea", json!(1))).await?;
    let row = h.b.store.item(&users, "tea").await?.ok_or("the item is not there")?;
    same("the item", (&row.namespace, &*row.key, &row.value), (&users, "tea", &json!({"green": true})))?;
    h.advance(Duration::from_secs(1)).await?;
    h.b.store.put_item(PutItem::new(users.clone(), "tea", json!(null))).await?;
    let changed = h.a.store.item(&users, "tea").await?.ok_or("the item is not there")?;
    same("the changed item", (changed.value, changed.created_at), (json!(null), row.created_at))?;
    ensure(changed.updated_at > row.updated_at, "the time of the change has not gone on")?;
    ensure(h.a.store.item(&users, "coffee").await?.is_none(), "an item that is not there was found")?;
    ensure(h.a.store.delete_item(&users, "tea").await?, "the item was not there")?;
    ensure(!h.b.store.delete_item(&users, "tea").await?, "the item was deleted twice")?;
    ensure(h.b.store.item(&users, "tea").await?.is_none(), "a deleted item is there")?;
    ensure(h.b.store.item(&namespace(["users"]), "tea").await?.is_some(), "an item of another namespace is gone")
}

async fn an_item_has_a_version(h: &mut Harness<'_>) -> Checked {
    let put = |expected: Option<u64>| {
        let mut put = PutItem::new(namespace(["n"]), "k", json!(expected));
        put.expected_version = expected;
        put
    };
    same("an item that is not there", h.a.store.put_item(put(Some(1))).await?, PutOutcome::OtherVersion(0))?;
    ensure(h.a.store.item(&namespace(["n"]), "k").await?.is_none(), "the refused item is there")?;
    same("a new item", h.a.store.put_item(put(Some(0))).await?, PutOutcome::Written(1))?;
    same("a second new item", h.b.store.put_item(put(Some(0))).await?, PutOutcome::OtherVersion(1))?;
    same("the version", h.b.store.put_item(put(Some(1))).await?, PutOutcome::Written(2))?;
    same("a former version", h.a.store.put_item(put(Some(1))).await?, PutOutcome::OtherVersion(2))?;
    same("any version", h.a.store.put_item(put(None)).await?, PutOutcome::Written(3))?;
    let row = h.b.store.item(&namespace(["n"]), "k").await?.ok_or("the item is not there")?;
    same("the item", (row.value, row.version), (json!(null), 3))?;
    h.b.store.delete_item(&namespace(["n"]), "k").await?;
    same("after the deletion", h.b.store.put_item(put(Some(0))).await?, PutOutcome::Written(1))
}

async fn an_item_expires(h: &mut Harness<'_>) -> Checked {
    let n = namespace(["n"]);
    let mut put = PutItem::new(n.clone(), "k", json!(1));
    put.time_to_live = Some(Duration::from_mins(1));
    h.a.store.put_item(put.clone()).await?;
    h.advance(Duration::from_secs(40)).await?;
    ensure(h.b.store.item(&n, "k").await?.is_some(), "the item expired early")?;
    h.b.store.put_item(put.clone()).await?;
    h.advance(Duration::from_secs(40)).await?;
    ensure(h.b.store.item(&n, "k").await?.is_some(), "a second write did not renew the time")?;
    h.advance(Duration::from_secs(40)).await?;
    ensure(h.b.store.item(&n, "k").await?.is_none(), "the item has not expired")?;
    ensure(h.b.store.items(ItemFilter::default()).await?.is_empty(), "an expired item is listed")?;
    ensure(h.b.store.namespaces(&[]).await?.is_empty(), "the namespace of an expired item is listed")?;
    ensure(!h.a.store.delete_item(&n, "k").await?, "an expired item was deleted")?;
    put.expected_version = Some(0);
    same("a new item", h.a.store.put_item(put.clone()).await?, PutOutcome::Written(1))?;
    (put.time_to_live, put.expected_version) = (None, None);
    h.a.store.put_item(put).await?;
    h.advance(Duration::from_mins(10)).await?;
    ensure(h.b.store.item(&n, "k").await?.is_some(), "an item without a time to live expired")
}

async fn items_are_listed_by_prefix_and_fields(h: &mut Harness<'_>) -> Checked {
    for (names, key, value) in [
        (namespace(["a", "x"]), "1", json!({"kind": "tea", "n": 1})),
        (namespace(["a", "y"]), "2", json!({"kind": "tea", "n": 2})),
        (namespace(["a"]), "3", json!({"kind": ["tea"]})),
        (namespace(["ab"]), "4", json!({"kind": "tea"})),
        (namespace(["a", "x", "z"]), "5", json!("tea")),
    ] {
        h.a.store.put_item(PutItem::new(names, key, value)).await?;
        h.advance(Duration::from_secs(1)).await?;
    }
    h.b.store.put_item(PutItem::new(namespace(["a", "x"]), "1", json!({"kind": "tea", "n": 3}))).await?;
    let list = async |prefix: Vec<String>, fields: serde_json::Value, offset, limit| -> Checked<Vec<String>> {
        let mut filter = ItemFilter::default();
        filter.namespace_prefix = prefix;
        filter.fields = fields.as_object().cloned().unwrap_or_default();
        (filter.offset, filter.limit) = (offset, limit);
        Ok(h.b.store.items(filter).await?.into_iter().map(|row| row.key).collect())
    };
    same("all", list(vec![], json!({}), 0, None).await?, namespace(["1", "5", "4", "3", "2"]))?;
    same("a prefix", list(namespace(["a"]), json!({}), 0, None).await?, namespace(["1", "5", "3", "2"]))?;
    same("a longer one", list(namespace(["a", "x"]), json!({}), 0, None).await?, namespace(["1", "5"]))?;
    same("a field", list(namespace(["a"]), json!({"kind": "tea"}), 0, None).await?, namespace(["1", "2"]))?;
    same("two fields", list(vec![], json!({"kind": "tea", "n": 2}), 0, None).await?, namespace(["2"]))?;
    same("a page", list(vec![], json!({}), 1, Some(2)).await?, namespace(["5", "4"]))?;
    same("a prefix of a name", list(namespace(["b"]), json!({}), 0, None).await?, namespace([]))
}

async fn namespaces_are_listed_sorted(h: &mut Harness<'_>) -> Checked {
    for names in [namespace(["b"]), namespace(["a", "y"]), namespace(["a", "x"]), namespace(["a"]), namespace(["ab"])] {
        for key in ["1", "2"] {
            h.a.store.put_item(PutItem::new(names.clone(), key, json!(1))).await?;
        }
    }
    let [a, x, y] = [namespace(["a"]), namespace(["a", "x"]), namespace(["a", "y"])];
    let all = vec![a.clone(), x.clone(), y.clone(), namespace(["ab"]), namespace(["b"])];
    same("all", h.b.store.namespaces(&[]).await?, all)?;
    same("those with a prefix", h.b.store.namespaces(&a).await?, vec![a.clone(), x.clone(), y])?;
    same("a longer one", h.b.store.namespaces(&x).await?, vec![x])
}

async fn a_change_is_announced_in_time(h: &mut Harness<'_>) -> Checked {
    // The hint may be lost, so that only the end of the wait is certain.
    let since = h.b.store.changes(0, Duration::ZERO).await?;
    let since = h.b.store.changes(since, Duration::from_millis(1)).await?;
    h.a.begin("t").await?;
    h.b.store.changes(since, Duration::from_millis(10)).await?;
    Ok(())
}
