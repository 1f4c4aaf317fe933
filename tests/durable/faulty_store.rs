//! A store that fails, or dies, at a chosen operation.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use agentflow::{RunId, store::*};
use serde_json::{Map, Value};
use tokio::sync::SetOnce;

/// The fault of an operation.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The process dies: neither this operation nor a later one is answered.
    Death,
    /// The operation fails.
    Error(StoreErrorKind),
}

/// The moment at which an operation fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    /// Nothing was carried out.
    Before,
    /// The operation was carried out, and its answer is lost.
    After,
}

pub(crate) const BOTH: [When; 2] = [When::Before, When::After];

/// A plan of faults.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    fault: Fault,
    when: When,
    /// The operations that count; all of them if there is none.
    operation: Option<&'static str>,
    /// The number of operations that succeed before.
    after: usize,
    /// The number of operations that fail.
    count: usize,
}

impl Faults {
    pub(crate) fn death(when: When) -> Self {
        Self { fault: Fault::Death, when, operation: None, after: 0, count: 1 }
    }

    pub(crate) fn error(when: When, kind: StoreErrorKind) -> Self {
        Self { fault: Fault::Error(kind), ..Self::death(when) }
    }

    /// Selects the operations of this name.
    pub(crate) fn at(self, operation: &'static str) -> Self {
        Self { operation: Some(operation), ..self }
    }

    /// Lets this number of operations succeed before.
    pub(crate) fn after(self, after: usize) -> Self {
        Self { after, ..self }
    }

    /// Lets this number of operations fail.
    pub(crate) fn times(self, count: usize) -> Self {
        Self { count, ..self }
    }
}

#[derive(Debug, Default)]
struct Plan {
    faults: Option<Faults>,
    /// The names of the operations that were called.
    called: Vec<&'static str>,
}

/// A store that fails, or dies, at a chosen operation. The renewal of its lease, its waits and its clock count as no
/// operations, because their number depends on the time.
///
/// It says that it is durable: its data outlive the process that the test lets die.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: Mutex<Plan>,
    died: SetOnce<()>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { inner, plan: Mutex::default(), died: SetOnce::new() })
    }

    /// Replaces the plan. Operations are counted from now on.
    pub(crate) fn plan(&self, faults: Faults) {
        self.plan.lock().unwrap().faults = Some(faults);
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.plan.lock().unwrap().faults = None;
    }

    /// Answers nothing from now on.
    pub(crate) fn die(&self) {
        let _ = self.died.set(());
    }

    pub(crate) fn has_died(&self) -> bool {
        self.died.initialized()
    }

    pub(crate) async fn death(&self) {
        self.died.wait().await;
    }

    /// Returns how often an operation was called.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.plan.lock().unwrap().called.iter().filter(|called| **called == operation).count()
    }

    /// Returns how often any operation was called.
    pub(crate) fn all_calls(&self) -> usize {
        self.plan.lock().unwrap().called.len()
    }

    /// Returns the handle that is wrapped.
    pub(crate) fn inner(&self) -> Arc<dyn Store> {
        Arc::clone(&self.inner)
    }

    fn next_fault(&self, operation: &'static str) -> Option<Faults> {
        let mut plan = self.plan.lock().unwrap();
        plan.called.push(operation);
        let faults = plan.faults.as_mut().filter(|faults| faults.operation.is_none_or(|only| only == operation))?;
        if faults.after > 0 {
            faults.after -= 1;
            return None;
        }
        faults.count = faults.count.checked_sub(1)?;
        Some(faults.clone())
    }

    fn carry_out<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        carried_out: StoreFuture<'a, T>,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            if self.has_died() {
                pending::<()>().await;
            }
            let Some(Faults { fault, when, .. }) = self.next_fault(operation) else { return carried_out.await };
            if when == When::After {
                carried_out.await?;
            }
            match fault {
                Fault::Death => {
                    self.die();
                    pending().await
                }
                Fault::Error(kind) => Err(StoreError::new(operation, kind).with_source("planned by the test")),
            }
        })
    }

    fn unless_dead<'a, T: Send + 'a>(&'a self, carried_out: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move {
            if self.has_died() {
                pending::<()>().await;
            }
            carried_out.await
        })
    }
}

macro_rules! operations {
    ($(fn $operation:ident(&self $(, $name:ident: $type:ty)*) -> $answer:ty;)*) => {
        $(
            fn $operation(&self $(, $name: $type)*) -> StoreFuture<'_, $answer> {
                self.carry_out(stringify!($operation), self.inner.$operation($($name),*))
            }
        )*
    };
}

impl Store for FaultyStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.is_durable = true;
        capabilities
    }

    fn renew(&self, owner: OwnerId, lease: Duration) -> StoreFuture<'_, ()> {
        self.unless_dead(self.inner.renew(owner, lease))
    }

    fn now(&self) -> StoreFuture<'_, Timestamp> {
        self.unless_dead(self.inner.now())
    }

    fn changes(&self, since: u64, timeout: Duration) -> StoreFuture<'_, u64> {
        self.unless_dead(self.inner.changes(since, timeout))
    }

    operations! {
        fn open(&self) -> ();
        fn close(&self) -> ();
        fn join(&self, owner: OwnerId, lease: Duration) -> ();
        fn leave(&self, owner: OwnerId) -> ();
        fn begin_run(&self, request: BeginRun) -> Begun;
        fn start_run(&self, run: RunId, owner: OwnerId, start: RunStart) -> Begun;
        fn commit(&self, commit: Commit) -> Committed;
        fn record(&self, run: RunId, epoch: u64, progress: Vec<ProgressRecord>) -> ();
        fn release_run(&self, run: RunId, epoch: u64, consumed: Duration) -> ();
        fn take_over(&self, request: TakeOver) -> Vec<TakenRun>;
        fn request_cancel(&self, run: RunId, kind: CancelKind) -> CancelRequested;
        fn run(&self, run: RunId) -> Option<RunRow>;
        fn runs(&self, filter: RunFilter) -> Vec<RunRow>;
        fn delete_run(&self, run: RunId) -> Deleted;
        fn create_thread(&self, thread: NewThread) -> (ThreadRow, bool);
        fn thread(&self, thread: &ThreadId) -> Option<ThreadRow>;
        fn threads(&self, filter: ThreadFilter) -> ThreadPage;
        fn patch_metadata(&self, thread: &ThreadId, patch: Map<String, Value>) -> Option<ThreadRow>;
        fn load(&self, thread: &ThreadId, at: Option<CheckpointId>) -> Option<CheckpointRow>;
        fn history(&self, thread: &ThreadId, filter: HistoryFilter) -> Vec<CheckpointRow>;
        fn questions(&self, thread: &ThreadId, status: Option<QuestionStatus>) -> Vec<QuestionRow>;
        fn progress(&self, thread: &ThreadId) -> Vec<ProgressRecord>;
        fn edit(&self, edit: Edit) -> Edited;
        fn copy_thread(&self, from: &ThreadId, to: &ThreadId) -> Option<ThreadRow>;
        fn delete_thread(&self, thread: &ThreadId) -> Deleted;
        fn prune(&self, thread: &ThreadId, keep: usize) -> usize;
        fn enqueue(&self, tasks: Vec<NewTask>) -> Vec<Enqueued>;
        fn claim(&self, claim: Claim) -> Claimed;
        fn finish_task(&self, finish: FinishTask) -> ();
        fn release_task(&self, release: ReleaseTask) -> ();
        fn cancel_task(&self, task: StoredTaskId) -> TaskChanged;
        fn retry_task(&self, task: StoredTaskId) -> TaskChanged;
        fn delete_task(&self, task: StoredTaskId) -> TaskChanged;
        fn tasks(&self, filter: StoredTaskFilter) -> Vec<TaskRow>;
        fn retain_tasks(&self, retention: TaskRetention) -> usize;
        fn put_schedule(&self, schedule: ScheduleRow) -> ();
        fn delete_schedule(&self, name: &str) -> bool;
        fn schedules(&self) -> Vec<ScheduleRow>;
        fn fire(&self, fire: Fire) -> Fired;
        fn put_item(&self, put: PutItem) -> PutOutcome;
        fn item(&self, namespace: &[String], key: &str) -> Option<ItemRow>;
        fn delete_item(&self, namespace: &[String], key: &str) -> bool;
        fn items(&self, filter: ItemFilter) -> Vec<ItemRow>;
        fn namespaces(&self, prefix: &[String]) -> Vec<Vec<String>>;
    }
}
