//! [`DurableTaskBuilder`]: the settings of a durable task before it is spawned.

use std::{
    borrow::Cow,
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::Value;

use super::{definition::Task, outbox::DurableSink, policy::TaskPolicy};
use crate::{
    RetryPolicy,
    store::{KeyPolicy, NewTask, StoredTaskId, TaskKey, Timestamp},
    task::{
        SpawnError, TaskOrigin,
        options::OnDuplicateKey,
        registry::{Registry, admission::Spawner},
    },
};

/// The manager through which a durable task is spawned.
pub(in crate::task) struct DurableSpawner<'m> {
    pub(in crate::task) registry: &'m Registry,
    pub(in crate::task) spawner: Spawner<'m>,
    /// The run and the node that spawn the task.
    pub(in crate::task) origin: Option<Arc<TaskOrigin>>,
    /// `None` if the manager's app has no store.
    pub(in crate::task) sink: Option<Arc<dyn DurableSink>>,
}

/// A durable task that is not spawned yet: set its retries, timeouts and due time, and [`spawn`](Self::spawn) it.
///
/// ```no_run
/// use std::time::Duration;
/// use agentflow::{BackgroundTaskManager, RetryPolicy, task};
///
/// #[task]
/// async fn deliver(args: String) -> Result<(), std::io::Error> {
///     println!("to {args}");
///     Ok(())
/// }
///
/// # fn of_node(task_manager: &BackgroundTaskManager) -> Result<(), agentflow::task::SpawnError> {
/// task_manager
///     .create_durable_task::<deliver>("ada@example.com".to_owned())
///     .retry(RetryPolicy::new(5).backoff(Duration::from_secs(60)))
///     .attempt_timeout(Duration::from_secs(30))
///     .context("user", "ada")
///     .spawn()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is stored until `.spawn()` is called"]
pub struct DurableTaskBuilder<'m, T> {
    spawner: DurableSpawner<'m>,
    name: &'static str,
    /// The arguments as JSON, or the mistake of an argument or an option.
    args: Result<Vec<u8>, SpawnError>,
    policy: TaskPolicy,
    due: Due,
    priority: i32,
    key: Option<TaskKey>,
    task: PhantomData<fn() -> T>,
}

/// The time from which on a task may run.
#[derive(Clone, Copy, Debug)]
enum Due {
    After(Duration),
    At(SystemTime),
}

// The methods have no bounds: a type that is no task is one error, where the task is created.
impl<'m, T> DurableTaskBuilder<'m, T> {
    pub(in crate::task) fn new(spawner: DurableSpawner<'m>, args: &T::Args) -> Self
    where
        T: Task,
    {
        Self {
            spawner,
            name: T::NAME,
            args: json(T::NAME, args),
            policy: TaskPolicy::default(),
            due: Due::After(Duration::ZERO),
            priority: 0,
            key: None,
            task: PhantomData,
        }
    }

    /// Limits how long the task may take, counted from its first claim by a worker, with all its attempts. The time passes
    /// only while a live process runs the task: neither a pause between two attempts nor an outage uses it up. A task whose
    /// time is over has failed, whatever its retries.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.policy.set_timeout(timeout);
        self
    }

    /// Limits how long each attempt may take. An attempt that takes longer is dropped where it awaits, and has failed.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.policy.set_attempt_timeout(timeout);
        self
    }

    /// Sets the retries: a number, or a [`RetryPolicy`] with delays. The default is none.
    ///
    /// The due time of the next attempt is stored, so that a backoff of a day survives a restart. The policy is stored too,
    /// so it cannot have a predicate, [`RetryPolicy::when`]: then [`spawn`](Self::spawn) fails.
    pub fn retry(mut self, policy: impl Into<RetryPolicy>) -> Self {
        match policy.into().stored() {
            Some(retry) => self.policy.set_retry(retry),
            None => self.args = Err(SpawnError::RetryPredicate { task: self.name }),
        }
        self
    }

    /// Adds a field to the task's log lines and reports; a second value for a key replaces the first.
    pub fn context(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.policy.set_context(key.into(), value.into());
        self
    }

    /// Makes the task due this long after it is stored. Replaces [`at`](Self::at).
    pub fn delay(mut self, delay: Duration) -> Self {
        self.due = Due::After(delay);
        self
    }

    /// Makes the task due at this time; a time that is over means at once. Replaces [`delay`](Self::delay).
    pub fn at(mut self, time: SystemTime) -> Self {
        self.due = Due::At(time);
        self
    }

    /// Sets the priority. Of the tasks that are due, workers take those of a higher priority first. The default is 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Gives the task a key: of the *unfinished* tasks of one name and key, pending and backing off ones included, only one
    /// may run at a time.
    ///
    /// With [`Skip`](OnDuplicateKey::Skip), the new task is not made if there is another one. With
    /// [`Replace`](OnDuplicateKey::Replace) a pending one gets the new arguments and due time, and a running one is
    /// cancelled, and the new one starts after its end. With [`Queue`](OnDuplicateKey::Queue) they run in order. Keys are
    /// resolved when the task is stored.
    pub fn key(self, key: impl Into<Arc<str>>, on_duplicate: OnDuplicateKey) -> Self {
        let scope = self.name;
        self.key_in(scope, key, on_duplicate)
    }

    /// Gives the task a key, as [`key`](Self::key) does, which tasks of several names share.
    pub fn key_in(
        mut self,
        scope: impl Into<Arc<str>>,
        key: impl Into<Arc<str>>,
        on_duplicate: OnDuplicateKey,
    ) -> Self {
        let policy = match on_duplicate {
            OnDuplicateKey::Skip => KeyPolicy::Skip,
            OnDuplicateKey::Replace => KeyPolicy::Replace,
            OnDuplicateKey::Queue => KeyPolicy::Queue,
        };
        self.key = Some(TaskKey::new(scope, key, policy));
        self
    }

    /// Spawns the task, and returns its id.
    ///
    /// A node's task is stored together with the node's result, and starts after it: a task of an attempt that fails, of a
    /// branch of `any` that does not win, or of a node that asks a question never existed.
    ///
    /// A task that is spawned outside of a node, or by what a node has started, is stored in the background, in a
    /// transaction of its own; if the store fails for 30 s, the task is gone, and an error is logged. Use
    /// [`spawn_stored`](Self::spawn_stored) there to learn when it is stored.
    ///
    /// # Errors
    ///
    /// [`SpawnError::NoStore`] if the app has no store, [`SpawnError::Unregistered`] if it does not register the task, and
    /// [`SpawnError::UnstorableArgs`] or [`SpawnError::RetryPredicate`] for what cannot be stored. The others are as for
    /// ordinary tasks: [`SpawnError::RunEnded`] for a node's manager whose run has ended, and [`SpawnError::Closed`].
    /// Nothing is stored then.
    pub fn spawn(self) -> Result<StoredTaskId, SpawnError> {
        let (registry, name) = (self.spawner.registry, self.name);
        let spawned = self.into_task().and_then(|(task, sink)| {
            let id = task.id;
            sink.spawn(vec![task]).map(|()| id)
        });
        spawned.map_err(|why| registry.reject(name, why))
    }

    /// Spawns the task as [`spawn`](Self::spawn) does, and waits until it is stored: from then on, it outlives the process.
    /// Returns its id, or that of the task which stands for it, because it has the same [key](Self::key).
    ///
    /// In a node there is nothing to wait for: the task is stored with the node's result, by which its key is resolved too.
    ///
    /// ```
    /// use agentflow::{AgentState, graph, node, store::MemoryStore, task};
    ///
    /// #[task]
    /// async fn greet(args: String) {
    ///     println!("hello {args}");
    /// }
    ///
    /// #[node]
    /// async fn answer(_state: &mut AgentState) {}
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = graph! {
    ///     name = "greeter";
    ///     answer -> END;
    ///     tasks { greet }
    ///     compile { store: MemoryStore::new() }
    /// };
    /// let id = app.task_manager().create_durable_task::<greet>("ada".to_owned()).spawn_stored().await?;
    /// let ended = app.tasks().wait(id).await?.expect("the task is stored");
    /// assert!(ended.status.has_ended());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn), and [`SpawnError::NotStored`] if the store fails for 30 s, or with an error that does not
    /// pass.
    ///
    /// # Cancel safety
    ///
    /// The task is stored in the background if the future is dropped after its first poll.
    pub async fn spawn_stored(self) -> Result<StoredTaskId, SpawnError> {
        let (registry, name) = (self.spawner.registry, self.name);
        let stored = match self.into_task() {
            Ok((task, sink)) => {
                let id = task.id;
                sink.store(vec![task]).await.map(|ids| ids.first().copied().unwrap_or(id))
            }
            Err(why) => Err(why),
        };
        stored.map_err(|why| registry.reject(name, why))
    }

    /// Checks the task, and returns it as it is to be stored, with its destination.
    fn into_task(self) -> Result<(NewTask, Arc<dyn DurableSink>), SpawnError> {
        let DurableSpawner { registry, spawner, origin, sink } = self.spawner;
        let sink = sink.ok_or(SpawnError::NoStore { task: self.name })?;
        sink.check(self.name)?;
        let args = self.args?;
        registry.check_right(spawner)?;
        let policy = json(self.name, &self.policy)?;
        let mut task = NewTask::new(StoredTaskId::new(), self.name, args.into(), policy.into());
        match self.due {
            Due::After(delay) => task.delay = delay,
            Due::At(time) => task.due = Some(Timestamp::from(time)),
        }
        task.priority = self.priority;
        task.key = self.key;
        if let Some(origin) = origin {
            task.run = Some(origin.run());
            task.node = Some(origin.node().into());
        }
        Ok((task, sink))
    }
}

fn json(task: &'static str, value: &impl Serialize) -> Result<Vec<u8>, SpawnError> {
    serde_json::to_vec(value).map_err(|error| SpawnError::UnstorableArgs { task, reason: error.to_string().into() })
}

impl<T> fmt::Debug for DurableTaskBuilder<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableTaskBuilder")
            .field("name", &self.name)
            .field("policy", &self.policy)
            .field("due", &self.due)
            .field("priority", &self.priority)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
