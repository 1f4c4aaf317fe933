//! Stored items: JSON values that threads share.

use std::time::Duration;

use agentflow::{
    AgentState, Items, graph, node,
    store::{ItemFilter, MemoryStore, PutOutcome},
};
use serde_json::json;

#[node]
async fn idle(_state: &mut AgentState) {}

#[tokio::test(start_paused = true)]
async fn items_are_written_read_found_and_deleted() {
    let store = MemoryStore::new();
    let app = graph! { name = "chat"; type State = AgentState; idle -> END; compile { store: store.clone() } };
    let in_memory = graph! { type State = AgentState; idle -> END };
    for items in [app.items(), in_memory.items()] {
        assert_eq!(items.put(["users", "ada"], "profile", &json!({"city": "London"})).await.unwrap(), 1);
        assert_eq!(items.put(["users", "bob"], "profile", &json!({"city": "Berlin"})).await.unwrap(), 1);
        assert_eq!(items.put(["users", "ada"], "profile", &json!({"city": "Paris"})).await.unwrap(), 2);
        let item = items.get(["users", "ada"], "profile").await.unwrap().unwrap();
        assert_eq!((item.value, item.version), (json!({"city": "Paris"}), 2));

        let mut filter = ItemFilter::default();
        filter.namespace_prefix = vec!["users".to_owned()];
        assert_eq!(items.search(filter.clone()).await.unwrap().len(), 2);
        filter.fields.insert("city".to_owned(), "Berlin".into());
        let found = items.search(filter).await.unwrap();
        assert_eq!(found.iter().map(|item| &*item.namespace[1]).collect::<Vec<_>>(), ["bob"]);
        assert_eq!(items.namespaces(["users"]).await.unwrap(), [["users", "ada"], ["users", "bob"]]);

        assert!(items.delete(["users", "bob"], "profile").await.unwrap());
        assert!(items.get(["users", "bob"], "profile").await.unwrap().is_none());
    }
    // The items belong to the store, and not to an app.
    assert!(Items::new(store).get(["users", "ada"], "profile").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn of_two_writers_with_one_version_one_succeeds() {
    let items = Items::new(MemoryStore::new());
    assert_eq!(items.put_if(["counters"], "visits", &1, 0).await.unwrap(), PutOutcome::Written(1));
    assert_eq!(items.put_if(["counters"], "visits", &2, 1).await.unwrap(), PutOutcome::Written(2));
    assert_eq!(items.put_if(["counters"], "visits", &2, 1).await.unwrap(), PutOutcome::OtherVersion(2));
}

#[tokio::test(start_paused = true)]
async fn an_item_is_gone_after_its_time() {
    let store = MemoryStore::new();
    let items = Items::new(store.clone());
    items.put_for(["sessions"], "ada", "token", Duration::from_mins(5)).await.unwrap();
    store.advance(Duration::from_mins(4));
    assert!(items.get(["sessions"], "ada").await.unwrap().is_some());
    store.advance(Duration::from_mins(2));
    assert!(items.get(["sessions"], "ada").await.unwrap().is_none());
}
