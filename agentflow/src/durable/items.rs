//! [`Items`]: JSON values under a namespace and a key, which threads share.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    graph::CompiledGraph,
    session::patiently,
    state::State,
    store::{IntoStore, ItemFilter, PutItem, PutOutcome, Store, StoreError, StoreErrorKind},
};

pub use crate::store::ItemRow as Item;

/// Gives the store when it is open.
type Open = dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Store>, StoreError>> + Send + Sync;

/// The stored items of a store: JSON values under a namespace and a key, which all threads and processes share.
///
/// [`CompiledGraph::items`] has those of an app's store. For nodes, make them of the store and provide them as a service:
///
/// ```
/// use std::sync::Arc;
/// use agentflow::{AgentState, Items, NodeError, Provide, RunConfig, graph, node, store::MemoryStore};
///
/// #[derive(Provide)]
/// struct Services {
///     items: Items,
/// }
///
/// #[node]
/// async fn remember(_state: &mut AgentState, config: &RunConfig, #[inject] items: &Items) -> Result<(), NodeError> {
///     let user = config.user_id().unwrap_or("anon");
///     items.put(["users", user], "language", &"de").await?;
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Arc::new(MemoryStore::new());
/// let app = graph! {
///     name = "chat";
///     remember -> END;
///     compile { services: Services { items: Items::new(store.clone()) }, store: store }
/// };
/// app.invoke(AgentState::default(), RunConfig::new().with_user_id("ada")).await?;
///
/// let item = app.items().get(["users", "ada"], "language").await?.expect("the node has put it");
/// assert_eq!(item.value, "de");
/// # Ok(())
/// # }
/// ```
///
/// An item is written at once, and is no part of the step of a node: a step that runs again writes again.
///
/// # Errors
///
/// Each method fails if the store fails for 30 s, or with an error that does not pass.
///
/// # Cancel safety
///
/// A write whose future is dropped happens or not.
#[derive(Clone)]
pub struct Items {
    open: Arc<Open>,
}

impl<S: State, C: Send + Sync + 'static> CompiledGraph<S, C> {
    /// Returns the stored items of the app's store.
    #[must_use]
    pub fn items(&self) -> Items {
        let graph = self.clone();
        let open = move || -> BoxFuture<'static, _> {
            let graph = graph.clone();
            Box::pin(async move { Ok(Arc::clone(&graph.app.session().await?.store)) })
        };
        Items { open: Arc::new(open) }
    }
}

impl Items {
    /// Returns the items of a store, for use without an app, or as a service of its nodes.
    #[must_use]
    pub fn new(store: impl IntoStore) -> Self {
        let store = store.into_store();
        let opened = Arc::new(OnceCell::new());
        let open = move || -> BoxFuture<'static, _> {
            let (store, opened) = (Arc::clone(&store), Arc::clone(&opened));
            Box::pin(async move {
                opened.get_or_try_init(|| patiently(|| store.open())).await?;
                Ok(store)
            })
        };
        Self { open: Arc::new(open) }
    }

    /// Writes an item, whatever its version. Returns the new version.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn put(
        &self,
        namespace: impl IntoIterator<Item = impl Into<String>>,
        key: impl Into<String>,
        value: &(impl Serialize + ?Sized),
    ) -> Result<u64, StoreError> {
        self.write(PutItem::new(names(namespace), key, json(value)?)).await.map(version)
    }

    /// Writes an item that is gone after some time. Returns the new version.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn put_for(
        &self,
        namespace: impl IntoIterator<Item = impl Into<String>>,
        key: impl Into<String>,
        value: &(impl Serialize + ?Sized),
        time_to_live: Duration,
    ) -> Result<u64, StoreError> {
        let mut put = PutItem::new(names(namespace), key, json(value)?);
        put.time_to_live = Some(time_to_live);
        self.write(put).await.map(version)
    }

    /// Writes an item if it has this version; zero means that there is none yet. Of several writers that have read the same
    /// version, one succeeds.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn put_if(
        &self,
        namespace: impl IntoIterator<Item = impl Into<String>>,
        key: impl Into<String>,
        value: &(impl Serialize + ?Sized),
        version: u64,
    ) -> Result<PutOutcome, StoreError> {
        let mut put = PutItem::new(names(namespace), key, json(value)?);
        put.expected_version = Some(version);
        self.write(put).await
    }

    async fn write(&self, put: PutItem) -> Result<PutOutcome, StoreError> {
        let store = (self.open)().await?;
        patiently(|| store.put_item(put.clone())).await
    }

    /// Returns an item.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn get(
        &self,
        namespace: impl IntoIterator<Item = impl Into<String>>,
        key: &str,
    ) -> Result<Option<Item>, StoreError> {
        let (namespace, store) = (names(namespace), (self.open)().await?);
        patiently(|| store.item(&namespace, key)).await
    }

    /// Deletes an item. Returns whether there was one.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn delete(
        &self,
        namespace: impl IntoIterator<Item = impl Into<String>>,
        key: &str,
    ) -> Result<bool, StoreError> {
        let (namespace, store) = (names(namespace), (self.open)().await?);
        patiently(|| store.delete_item(&namespace, key)).await
    }

    /// Returns the items that the filter selects, by a prefix of their namespace and by fields of their values; the most
    /// recently changed first.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn search(&self, filter: ItemFilter) -> Result<Vec<Item>, StoreError> {
        let store = (self.open)().await?;
        patiently(|| store.items(filter.clone())).await
    }

    /// Returns the namespaces that begin with these names and have items, sorted.
    #[allow(clippy::missing_errors_doc, reason = "the type documents it")]
    pub async fn namespaces(
        &self,
        prefix: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        let (prefix, store) = (names(prefix), (self.open)().await?);
        patiently(|| store.namespaces(&prefix)).await
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

fn names(namespace: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    namespace.into_iter().map(Into::into).collect()
}

fn json(value: &(impl Serialize + ?Sized)) -> Result<Value, StoreError> {
    serde_json::to_value(value).map_err(|error| StoreError::new("put_item", StoreErrorKind::Invalid).with_source(error))
}

/// Returns the version of an item that was written without a condition.
fn version(outcome: PutOutcome) -> u64 {
    match outcome {
        PutOutcome::Written(version) | PutOutcome::OtherVersion(version) => version,
    }
}
