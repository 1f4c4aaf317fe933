//! [`RunConfig`]: what the caller says about one run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::run_id::RunId;

/// What the caller says about one run: for whom, in which thread, for how long, and values of the caller's own.
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
#[must_use = "a config does nothing unless a run is given it"]
pub struct RunConfig {
    /// Shared, as every node of every run gets to see it; absent while nothing is said.
    said: Option<Arc<Said>>,
    /// Each run's own, so that giving a run one copies nothing that is shared.
    run_id: Option<RunId>,
}

#[derive(Clone, Debug, Default)]
struct Said {
    user_id: Option<String>,
    thread_id: Option<String>,
    run_timeout: Option<Duration>,
    cancellation_token: Option<CancellationToken>,
    values: BTreeMap<String, Value>,
}

impl RunConfig {
    /// A config that says nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// For whom the run is.
    pub fn with_user_id(self, user_id: impl Into<String>) -> Self {
        self.with(|said| said.user_id = Some(user_id.into()))
    }

    /// Which conversation the run belongs to.
    pub fn with_thread_id(self, thread_id: impl Into<String>) -> Self {
        self.with(|said| said.thread_id = Some(thread_id.into()))
    }

    /// The run's id, if the caller has one already; otherwise the run gets a new one.
    pub fn with_run_id(self, run_id: RunId) -> Self {
        Self { run_id: Some(run_id), ..self }
    }

    /// How long the run may take.
    pub fn with_run_timeout(self, timeout: Duration) -> Self {
        self.with(|said| said.run_timeout = Some(timeout))
    }

    /// What cancels the run from outside.
    pub fn with_cancellation_token(self, token: CancellationToken) -> Self {
        self.with(|said| said.cancellation_token = Some(token))
    }

    /// A value of the caller's own, for nodes to read with [`value`](Self::value); it replaces the one that `key` had.
    ///
    /// What isn't JSON yet becomes it before, where a failure can be handled: `serde_json::to_value(&limits)?`.
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
        self.with(|said| _ = said.values.insert(key.into(), value.into()))
    }

    /// For whom the run is.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.said.as_ref()?.user_id.as_deref()
    }

    /// Which conversation the run belongs to.
    #[must_use]
    pub fn thread_id(&self) -> Option<&str> {
        self.said.as_ref()?.thread_id.as_deref()
    }

    /// The run's id.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        self.run_id
    }

    /// How long the run may take.
    #[must_use]
    pub fn run_timeout(&self) -> Option<Duration> {
        self.said.as_ref()?.run_timeout
    }

    /// What cancels the run from outside.
    #[must_use]
    pub fn cancellation_token(&self) -> Option<&CancellationToken> {
        self.said.as_ref()?.cancellation_token.as_ref()
    }

    /// The caller's value for `key`, `None` if there is none, an error if it is not a `T`.
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
        let Some(value) = self.said.as_ref().and_then(|said| said.values.get(key)) else {
            return Ok(None);
        };
        T::deserialize(value).map(Some).map_err(|cause| ConfigValueError {
            key: key.to_owned(),
            expected: std::any::type_name::<T>(),
            cause,
        })
    }

    fn with(mut self, say: impl FnOnce(&mut Said)) -> Self {
        say(Arc::make_mut(self.said.get_or_insert_default()));
        self
    }
}

/// A value of a [`RunConfig`] is there, but not of the type that the node asks for.
#[derive(Debug, thiserror::Error)]
#[error("the config value `{key}` is not a `{expected}`: {cause}")]
#[non_exhaustive]
pub struct ConfigValueError {
    /// The value's key.
    pub key: String,
    /// The type that was asked for.
    pub expected: &'static str,
    /// What doesn't fit. It is in this error's text, and so no `source` besides: a report would say it twice.
    pub cause: serde_json::Error,
}
