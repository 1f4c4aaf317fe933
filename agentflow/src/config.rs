//! [`RunConfig`]: the configuration of one run.

use std::{
    any::{Any, TypeId, type_name},
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{
    run_id::RunId,
    store::{OnBusyThread, Timestamp},
};

/// The configuration of one run: its user, thread, id and timeout, and custom values for its nodes.
///
/// ```
/// use agentflow::RunConfig;
///
/// let config = RunConfig::new().with_user_id("ada").with_value("language", "en");
///
/// assert_eq!(config.user_id(), Some("ada"));
/// assert_eq!(config.value::<String>("language")?.as_deref(), Some("en"));
/// assert_eq!(config.value::<u32>("pages")?, None);
/// # Ok::<_, agentflow::run::ConfigValueError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a config does nothing until a run is started with it"]
pub struct RunConfig {
    /// The settings, shared by all clones; `None` for the default settings.
    shared: Option<Arc<Shared>>,
    /// Not shared, so that setting the id of a run copies no settings.
    run_id: Option<RunId>,
}

#[derive(Clone, Debug, Default)]
struct Shared {
    user_id: Option<String>,
    thread_id: Option<String>,
    run_timeout: Option<Duration>,
    cancellation_token: Option<CancellationToken>,
    values: BTreeMap<String, Value>,
    services: HashMap<TypeId, RunService>,
    thread_options: ThreadOptions,
}

/// The options of a run that is on a thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ThreadOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) on_busy: Option<OnBusyThread>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_before: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stop_before: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stop_after: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_ephemeral: bool,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(crate) metadata: Map<String, Value>,
}

/// The part of a configuration that a store holds: all but the token, the services and the thread.
#[derive(Debug, Serialize, Deserialize)]
struct StoredConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_timeout: Option<Duration>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, Value>,
    #[serde(default)]
    thread_options: ThreadOptions,
}

/// A service of one run.
#[derive(Clone)]
struct RunService {
    name: &'static str,
    value: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for RunService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl RunConfig {
    /// Creates a configuration with default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the user for whom the run is.
    pub fn with_user_id(self, user_id: impl Into<String>) -> Self {
        self.set(|shared| shared.user_id = Some(user_id.into()))
    }

    /// Sets the thread (the conversation) that the run belongs to.
    pub fn with_thread_id(self, thread_id: impl Into<String>) -> Self {
        self.set(|shared| shared.thread_id = Some(thread_id.into()))
    }

    /// Sets the id of the run. Without this, each run gets a new id.
    pub fn with_run_id(self, run_id: RunId) -> Self {
        Self { run_id: Some(run_id), ..self }
    }

    /// Limits the duration of the run, including the time that a streamed run waits for its reader. There is no limit by
    /// default.
    pub fn with_run_timeout(self, timeout: Duration) -> Self {
        self.set(|shared| shared.run_timeout = Some(timeout))
    }

    /// Sets a token that cancels the run.
    pub fn with_cancellation_token(self, token: CancellationToken) -> Self {
        self.set(|shared| shared.cancellation_token = Some(token))
    }

    /// Sets a custom value, which nodes read with [`value`](Self::value). It replaces an earlier value of `key`.
    ///
    /// Convert other types to JSON first, so that a failure can be handled: `serde_json::to_value(&limits)?`.
    ///
    /// ```
    /// use agentflow::RunConfig;
    /// use serde_json::json;
    ///
    /// let config = RunConfig::new()
    ///     .with_value("language", "en")
    ///     .with_value("limits", json!({ "pages": 3 }));
    /// ```
    pub fn with_value(self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(|shared| _ = shared.values.insert(key.into(), value.into()))
    }

    /// Sets a service of this run, which nodes read by its type with [`service`](Self::service): a tenant's pool, a
    /// request's client. It replaces an earlier service of the same type.
    ///
    /// Services that all runs share belong to the app: see [`Provide`](trait@crate::Provide).
    ///
    /// ```
    /// use agentflow::{AgentState, NodeError, RunConfig, graph, node};
    ///
    /// struct Tenant {
    ///     region: &'static str,
    /// }
    ///
    /// #[node]
    /// async fn store(_state: &mut AgentState, config: &RunConfig) -> Result<(), NodeError> {
    ///     let tenant = config.service::<Tenant>().ok_or("the run has no tenant")?;
    ///     assert_eq!(tenant.region, "eu");
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), agentflow::RunError> {
    /// let app = graph! { store -> END };
    /// app.invoke(AgentState::default(), RunConfig::new().with_service(Tenant { region: "eu" })).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_service<T: Send + Sync + 'static>(self, service: T) -> Self {
        let service = RunService { name: type_name::<T>(), value: Arc::new(service) };
        self.set(|shared| _ = shared.services.insert(TypeId::of::<T>(), service))
    }

    /// Sets what a run on a [thread](crate::thread) does if another run of the thread is unfinished. By default it is
    /// refused, and a run that brings an answer is queued.
    pub fn on_busy_thread(self, policy: OnBusyThread) -> Self {
        self.set(|shared| shared.thread_options.on_busy = Some(policy))
    }

    /// Sets the earliest time at which a run on a thread may start. It is queued until then.
    pub fn not_before(self, time: SystemTime) -> Self {
        self.set(|shared| shared.thread_options.not_before = Some(time.into()))
    }

    /// Stops a run on a thread before each of these nodes, with [`Outcome::Stopped`](crate::thread::Outcome::Stopped); `*`
    /// stands for all nodes. The node at which the run begins is not one of them.
    pub fn stop_before<N: Into<Arc<str>>>(self, nodes: impl IntoIterator<Item = N>) -> Self {
        let nodes = nodes.into_iter().map(Into::into).collect();
        self.set(|shared| shared.thread_options.stop_before = nodes)
    }

    /// Stops a run on a thread after each of these nodes, with [`Outcome::Stopped`](crate::thread::Outcome::Stopped); `*`
    /// stands for all nodes.
    pub fn stop_after<N: Into<Arc<str>>>(self, nodes: impl IntoIterator<Item = N>) -> Self {
        let nodes = nodes.into_iter().map(Into::into).collect();
        self.set(|shared| shared.thread_options.stop_after = nodes)
    }

    /// Deletes the thread of the run when the run reaches its end.
    pub fn ephemeral(self) -> Self {
        self.set(|shared| shared.thread_options.is_ephemeral = true)
    }

    /// Sets a value of the metadata of a run on a thread, by which it can be found.
    pub fn with_metadata(self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(|shared| _ = shared.thread_options.metadata.insert(key.into(), value.into()))
    }

    /// Returns the options of a run that is on a thread.
    pub(crate) fn thread_options(&self) -> &ThreadOptions {
        static DEFAULT: LazyLock<ThreadOptions> = LazyLock::new(ThreadOptions::default);
        self.shared.as_ref().map_or_else(|| &*DEFAULT, |shared| &shared.thread_options)
    }

    /// Returns the JSON of the settings that outlive the process.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let shared = self.shared.as_deref().cloned().unwrap_or_default();
        let Shared { user_id, run_timeout, values, thread_options, .. } = shared;
        // All keys are strings, and all values JSON already.
        serde_json::to_vec(&StoredConfig { user_id, run_timeout, values, thread_options }).unwrap_or_default()
    }

    /// Reads the settings that [`to_json`](Self::to_json) wrote.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let StoredConfig { user_id, run_timeout, values, thread_options } = serde_json::from_slice(json)?;
        Ok(Self::new()
            .set(|shared| *shared = Shared { user_id, run_timeout, values, thread_options, ..Shared::default() }))
    }

    /// Returns the configuration of a run that is started inside this one: with the same user, thread, cancellation
    /// token, values and services, but with an id of its own and without a timeout.
    ///
    /// A clone keeps the id, so that a run inside a run would have the id of the outer one.
    ///
    /// ```
    /// use agentflow::{RunConfig, RunId};
    ///
    /// let outer = RunConfig::new().with_user_id("ada").with_run_id(RunId::new());
    /// let inner = outer.child();
    /// assert_eq!((inner.user_id(), inner.run_id()), (Some("ada"), None));
    /// ```
    pub fn child(&self) -> Self {
        let child = Self { shared: self.shared.clone(), run_id: None };
        let is_limited = self
            .shared
            .as_ref()
            .is_some_and(|shared| shared.run_timeout.is_some() || shared.thread_options != ThreadOptions::default());
        if !is_limited {
            return child;
        }
        child.set(|shared| {
            shared.run_timeout = None;
            shared.thread_options = ThreadOptions::default();
        })
    }

    /// Returns the user for whom the run is.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.shared.as_ref()?.user_id.as_deref()
    }

    /// Returns the thread (the conversation) that the run belongs to.
    #[must_use]
    pub fn thread_id(&self) -> Option<&str> {
        self.shared.as_ref()?.thread_id.as_deref()
    }

    /// Returns the id of the run. Inside a node it is always set.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        self.run_id
    }

    /// Returns the limit on the duration of the run.
    #[must_use]
    pub fn run_timeout(&self) -> Option<Duration> {
        self.shared.as_ref()?.run_timeout
    }

    /// Returns the token that cancels the run.
    #[must_use]
    pub fn cancellation_token(&self) -> Option<&CancellationToken> {
        self.shared.as_ref()?.cancellation_token.as_ref()
    }

    /// Returns the custom value of `key`, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ConfigValueError`] if the value is not a `T`.
    ///
    /// ```
    /// use agentflow::RunConfig;
    ///
    /// let config = RunConfig::new().with_value("pages", "three");
    /// let error = config.value::<u32>("pages").unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "the config value `pages` is not a `u32`: invalid type: string \"three\", expected u32",
    /// );
    /// ```
    pub fn value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ConfigValueError> {
        let Some(value) = self.shared.as_ref().and_then(|shared| shared.values.get(key)) else {
            return Ok(None);
        };
        T::deserialize(value).map(Some).map_err(|cause| ConfigValueError {
            key: key.to_owned(),
            expected: std::any::type_name::<T>(),
            cause,
        })
    }

    /// Returns the run's service of type `T`, or `None` if the caller set none.
    #[must_use]
    pub fn service<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.shared.as_ref()?.services.get(&TypeId::of::<T>())?.value.downcast_ref()
    }

    fn set(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(self.shared.get_or_insert_default()));
        self
    }
}

/// The error for a custom value of a [`RunConfig`] that has another type than the one asked for.
#[derive(Debug, thiserror::Error)]
#[error("the config value `{key}` is not a `{expected}`: {cause}")]
#[non_exhaustive]
pub struct ConfigValueError {
    /// The key of the value.
    pub key: String,
    /// The type that was asked for.
    pub expected: &'static str,
    /// The error of the conversion. It is part of this error's text and therefore not its `source`, or a report would
    /// contain it twice.
    pub cause: serde_json::Error,
}
