//! Texts and bytes come back as they were written.

use std::time::Duration;

use agentflow::store::{
    ItemFilter, KeyPolicy, NewThread, PutItem, Store, StoreErrorKind, Stored, TaskKey, ThreadFilter,
};
use serde_json::json;

use crate::support::{Database, begin, begun, commit, owner, task, thread_id};

/// Texts that `text` and `jsonb` cannot hold, or would change or order in another way.
const TEXTS: [&str; 5] = ["\0", "a\0b", "\u{10FFFF}", "É e\u{301}", "'; DROP TABLE agentflow_runs; --"];

#[tokio::test]
async fn names_may_be_any_text() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().await;
    let owner = owner(&store).await;
    let longest = "é".repeat(127) + "!";
    for text in TEXTS.into_iter().chain([&*longest]) {
        let (run, started) = begun(&store, text, owner).await;
        let mut step = commit(run, &started, 1);
        let mut spawned = task(text);
        spawned.key = Some(TaskKey::new(text, text, KeyPolicy::Skip));
        spawned.node = Some(text.into());
        step.tasks = vec![spawned];
        store.commit(step).await.unwrap();
        let thread = store.thread(&thread_id(text)).await.unwrap().unwrap();
        assert_eq!(thread.id.as_str(), text);
        let claimed = store.claim(agentflow::store::Claim::new(owner, vec![(text.into(), 1)], 1)).await.unwrap();
        let key = claimed.tasks[0].task.key.as_ref().unwrap();
        assert_eq!((&*key.scope, &*key.key), (text, text));
        assert_eq!(claimed.tasks[0].task.node.as_deref(), Some(text));
    }
}

#[tokio::test]
async fn payloads_keep_their_bytes() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().await;
    let owner = owner(&store).await;
    // The order of the fields, the notation of the number, the escape and the repeated field are no longer there in `jsonb`.
    let text = r#"{"z":1e2,"a":"\u0000","a":"é" ,"b":18446744073709551615.0}"#;
    let mut request = begin(agentflow::RunId::new(), "t", owner);
    request.run.input = crate::support::json(text);
    request.start.checkpoints = vec![crate::support::checkpoint(text)];
    let run = request.run.id;
    store.begin_run(request).await.unwrap();
    let row = store.run(run).await.unwrap().unwrap();
    assert_eq!(row.run.input.json().unwrap(), text.as_bytes());
    let head = store.load(&thread_id("t"), None).await.unwrap().unwrap();
    assert_eq!(head.values.json().unwrap(), text.as_bytes());
}

#[tokio::test]
async fn metadata_is_found_by_equal_fields() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().await;
    let metadata = |value: serde_json::Value| value.as_object().unwrap().clone();
    for (id, value) in [("a", json!({"k": "\0", "n": {"b": 1, "a": [2]}})), ("b", json!({"k": "x", "n": 1}))] {
        let mut thread = NewThread::new(thread_id(id), "mail".into());
        thread.metadata = metadata(value);
        store.create_thread(thread).await.unwrap();
    }
    for (fields, found) in [
        (json!({}), vec!["a", "b"]),
        (json!({"k": "\0"}), vec!["a"]),
        (json!({"n": {"a": [2], "b": 1}}), vec!["a"]),
        (json!({"n": {"b": 1}}), vec![]),
        (json!({"n": 1, "k": "x"}), vec!["b"]),
        (json!({"n": 1.0}), vec![]),
        (json!({"absent": null}), vec![]),
    ] {
        let mut filter = ThreadFilter::default();
        filter.metadata = metadata(fields.clone());
        filter.order = agentflow::store::ThreadOrder::Id;
        let page = store.threads(filter).await.unwrap();
        let ids: Vec<_> = page.threads.iter().map(|thread| thread.id.as_str()).collect();
        assert_eq!((ids, page.total), (found.clone(), found.len()), "{fields}");
    }
}

#[tokio::test]
async fn items_are_found_by_prefix_and_fields() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().await;
    let namespace = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (names, key, value) in [
        (vec!["users", "ada"], "\0", json!({"likes": "owls", "large": "x".repeat(10_000)})),
        (vec!["users", "adam"], "k", json!({"likes": "owls"})),
        (vec!["users"], "k", json!("owls")),
        (vec![], "k", json!(null)),
    ] {
        store.put_item(PutItem::new(namespace(&names), key, value)).await.unwrap();
    }
    let mut filter = ItemFilter::default();
    filter.namespace_prefix = namespace(&["users", "ada"]);
    let found = store.items(filter.clone()).await.unwrap();
    assert_eq!(found.iter().map(|item| &*item.key).collect::<Vec<_>>(), ["\0"]);
    filter.namespace_prefix = namespace(&["users"]);
    filter.fields = json!({"likes": "owls"}).as_object().unwrap().clone();
    let found = store.items(filter).await.unwrap();
    assert_eq!(found.iter().map(|item| item.namespace[1].as_str()).collect::<Vec<_>>(), ["adam", "ada"]);
    let expected = [namespace(&[]), namespace(&["users"]), namespace(&["users", "ada"]), namespace(&["users", "adam"])];
    assert_eq!(store.namespaces(&[]).await.unwrap(), expected);
}

#[tokio::test]
async fn a_value_that_is_no_json_text_is_invalid() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().await;
    let owner = owner(&store).await;
    let mut request = begin(agentflow::RunId::new(), "t", owner);
    request.run.input = Stored::Shared(std::sync::Arc::new(1));
    let error = store.begin_run(request).await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::Invalid);
    assert!(store.thread(&thread_id("t")).await.unwrap().is_none(), "a refused request changes nothing");
}

#[tokio::test]
async fn the_longest_durations_end_at_the_end_of_time() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().await;
    let owner = agentflow::store::OwnerId::new();
    store.join(owner, Duration::MAX).await.unwrap();
    store.renew(owner, Duration::MAX).await.unwrap();
    let mut forever = task("forever");
    forever.delay = Duration::MAX;
    store.enqueue(vec![forever]).await.unwrap();
    let claimed = store.claim(agentflow::store::Claim::new(owner, vec![("forever".into(), 1)], 1)).await.unwrap();
    assert!(claimed.tasks.is_empty());
    assert_eq!(claimed.next_due.unwrap().as_micros(), i64::MAX);
}
