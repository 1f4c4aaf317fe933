//! Durable tasks that are spawned: what is handed to the store, and when. A list stands for the store.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use agentflow::{
    __private::{DurableSink, set_durable_sink},
    AgentState, BackgroundTaskManager, CompileOptions, CompiledGraph, END, NodeError, Provide, RetryPolicy, RunConfig,
    StateGraph, graph,
    graph::{BuildProblemKind, Node, NodeContext, NodeInfo},
    node,
    store::{KeyPolicy, NewTask},
    task,
    task::{
        DurableTaskContext, OnDuplicateKey, RegisteredTask, SpawnError, Task, TaskAttempt, TaskError, TaskPolicy,
        TaskRegistry,
    },
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

/// A list in the place of a store.
#[derive(Default)]
struct Stored(Mutex<Vec<Vec<NewTask>>>);

impl DurableSink for Stored {
    fn check(&self, name: &'static str) -> Result<(), SpawnError> {
        assert_ne!(name, "unknown", "refused by the test's registry");
        Ok(())
    }

    fn spawn(&self, tasks: Vec<NewTask>) -> Result<(), SpawnError> {
        self.0.lock().unwrap().push(tasks);
        Ok(())
    }
}

impl Stored {
    fn with<S: agentflow::State, C: Send + Sync + 'static>(app: &CompiledGraph<S, C>) -> Arc<Self> {
        let stored = Arc::new(Self::default());
        set_durable_sink(app.task_manager(), Arc::clone(&stored) as _);
        stored
    }

    /// Returns the arguments of the tasks of each transaction.
    fn args(&self) -> Vec<Vec<String>> {
        let text = |task: &NewTask| serde_json::from_slice(&task.args).unwrap();
        self.0.lock().unwrap().iter().map(|tasks| tasks.iter().map(text).collect()).collect()
    }
}

#[task]
async fn note(args: String) {
    drop(args);
}

fn spawn(manager: &BackgroundTaskManager, text: &str) -> Result<(), SpawnError> {
    manager.create_durable_task::<note>(text.to_owned()).spawn().map(drop)
}

fn state() -> AgentState {
    AgentState::default()
}

#[tokio::test]
async fn a_task_is_stored_with_the_result_of_its_node() {
    #[node]
    async fn first(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        spawn(task_manager, "one")?;
        Ok(spawn(task_manager, "two")?)
    }
    #[node]
    async fn second(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "three")?)
    }
    let app = graph! { first -> second -> END; tasks { note } };
    let stored = Stored::with(&app);
    app.invoke(state(), RunConfig::new()).await.unwrap();
    assert_eq!(stored.args(), [vec!["one", "two"], vec!["three"]]);
    let tasks = stored.0.lock().unwrap();
    assert_eq!((&*tasks[1][0].name, tasks[1][0].node.as_deref()), ("note", Some("second")));
    assert!(tasks[1][0].run.is_some());
}

#[tokio::test]
async fn an_attempt_that_fails_has_spawned_nothing() {
    #[node]
    async fn flaky(attempt: u32, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        spawn(task_manager, &format!("attempt {attempt}"))?;
        if attempt < 3 { Err("not yet".into()) } else { Ok(()) }
    }
    #[node]
    async fn fails(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        spawn(task_manager, "failed")?;
        Err("never".into())
    }
    #[node]
    async fn panics(task_manager: &BackgroundTaskManager) {
        spawn(task_manager, "panicked").unwrap();
        panic!("in the node");
    }
    #[node]
    async fn recover(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "recovered")?)
    }
    let app = graph! {
        node FLAKY = flaky { retry: 2 };
        node FAILS = fails { on_error: recover };
        FLAKY -> FAILS -> END;
        recover -> panics -> END;
        tasks { note }
    };
    let stored = Stored::with(&app);
    app.invoke(state(), RunConfig::new()).await.unwrap_err();
    assert_eq!(stored.args(), [["attempt 3"], ["recovered"]]);
}

#[tokio::test]
async fn an_attempt_whose_decision_fails_has_spawned_nothing() {
    #[node]
    async fn spawns(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "undecided")?)
    }
    #[node]
    async fn reads(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "of a group")?)
    }
    #[node]
    async fn inner(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "of a subgraph")?)
    }
    #[node]
    async fn done(_state: &mut AgentState) {}
    fn undecided(_: &AgentState) -> bool {
        panic!("in the router")
    }
    let app = graph! {
        node SPAWNS = spawns { on_error: GROUP_OR_NOT };
        node GROUP_OR_NOT = done;
        node SUB_OR_NOT = done;
        graph SUB { inner -> END }
        SPAWNS -> match undecided { true => END, false => done };
        GROUP_OR_NOT -> { reads, reads2 } { on_error: SUB_OR_NOT } -> match undecided { true => END, false => done };
        node reads2 = reads;
        SUB_OR_NOT -> SUB -> match undecided { true => END, false => done };
        done -> END;
        tasks { note }
    };
    let stored = Stored::with(&app);
    app.invoke(state(), RunConfig::new()).await.unwrap_err();
    assert_eq!(stored.args(), Vec::<Vec<String>>::new());
}

#[node]
async fn named(_state: &AgentState, input: String, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    // The last item ends first.
    for _ in input.len()..4 {
        tokio::task::yield_now().await;
    }
    Ok(spawn(task_manager, &input)?)
}

fn names(_: &AgentState) -> [String; 3] {
    ["a", "bb", "ccc"].map(str::to_owned)
}

#[tokio::test]
async fn the_tasks_of_a_group_are_stored_at_its_join_in_the_written_order() {
    #[node]
    async fn slow(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        spawn(task_manager, "slow 1")?;
        tokio::task::yield_now().await;
        Ok(spawn(task_manager, "slow 2")?)
    }
    #[node]
    async fn fast(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "fast")?)
    }
    let app = graph! {
        START -> { slow -> each names { named }, fast } -> each names { SECOND } -> END;
        node SECOND = named;
        tasks { note }
    };
    let stored = Stored::with(&app);
    app.invoke(state(), RunConfig::new()).await.unwrap();
    assert_eq!(stored.args(), [vec!["slow 1", "slow 2", "a", "bb", "ccc", "fast"], vec!["a", "bb", "ccc"]]);
}

#[tokio::test]
async fn a_branch_that_loses_or_fails_has_spawned_nothing() {
    #[node]
    async fn wins(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        tokio::task::yield_now().await;
        Ok(spawn(task_manager, "winner")?)
    }
    #[node]
    async fn loses(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        spawn(task_manager, "loser")?;
        std::future::pending().await
    }
    #[node]
    async fn before(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "before")?)
    }
    #[node]
    async fn fails() -> Result<(), NodeError> {
        Err("failed".into())
    }
    #[node]
    async fn done(_state: &mut AgentState) {}
    let app = graph! {
        START -> any { loses, wins, before2 -> loses2 } -> { before -> fails, before3 } { on_error: done } -> END;
        node loses2 = loses;
        node before2 = before;
        node before3 = before;
        done -> END;
        tasks { note }
    };
    let stored = Stored::with(&app);
    app.invoke(state(), RunConfig::new()).await.unwrap();
    assert_eq!(stored.args(), [["winner"]]);
}

#[tokio::test]
async fn a_fallback_in_a_branch_keeps_what_succeeded_before_it() {
    #[node]
    async fn before(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "before")?)
    }
    #[node]
    async fn inner(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "undone")?)
    }
    #[node]
    async fn fails() -> Result<(), NodeError> {
        Err("failed".into())
    }
    #[node]
    async fn recover(_state: &AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "recovered")?)
    }
    #[node]
    async fn beside(_state: &AgentState) {}
    let app = graph! {
        START -> { before -> { inner -> fails, beside } { on_error: recover }, beside2 } -> END;
        node beside2 = beside;
        tasks { note }
    };
    let stored = Stored::with(&app);
    app.invoke(state(), RunConfig::new()).await.unwrap();
    assert_eq!(stored.args(), [["before", "recovered"]]);
}

#[tokio::test]
async fn the_tasks_of_a_subgraph_are_stored_with_its_result() {
    #[node]
    async fn one(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        Ok(spawn(task_manager, "one")?)
    }
    #[node]
    async fn two(
        _state: &mut AgentState,
        task_manager: &BackgroundTaskManager,
        #[inject] fails: &bool,
    ) -> Result<(), NodeError> {
        spawn(task_manager, "two")?;
        if *fails { Err("failed".into()) } else { Ok(()) }
    }
    #[node]
    async fn recover() {}
    for fails in [false, true] {
        let app = graph! {
            node INNER_OR_NOT = (graph! { one -> two -> END; tasks { note } compile { services: fails } }) { on_error: recover };
            graph SUB { one -> END }
            INNER_OR_NOT -> SUB -> END;
            recover -> END;
            tasks { note }
        };
        let stored = Stored::with(&app);
        app.invoke(state(), RunConfig::new()).await.unwrap();
        let expected: &[&[&str]] = if fails { &[] } else { &[&["one", "two"], &["one"]] };
        assert_eq!(stored.args(), expected);
    }
}

#[tokio::test]
async fn a_task_that_is_spawned_after_the_attempt_is_stored_at_once() {
    struct Channels {
        handles: mpsc::UnboundedSender<BackgroundTaskManager>,
        go_on: Notify,
    }
    #[node]
    async fn leaks(task_manager: &BackgroundTaskManager, #[inject] channels: &Channels) -> Result<(), NodeError> {
        channels.handles.send(task_manager.clone())?;
        Ok(spawn(task_manager, "with the node")?)
    }
    #[node]
    async fn waits(#[inject] channels: &Channels) {
        channels.go_on.notified().await;
    }
    let (handles, mut leaked) = mpsc::unbounded_channel();
    let app = graph! {
        type State = AgentState;
        leaks -> waits -> END;
        tasks { note }
        compile { services: Channels { handles, go_on: Notify::new() } }
    };
    let stored = Stored::with(&app);
    let run = tokio::spawn({
        let app = app.clone();
        async move { app.invoke(state(), RunConfig::new()).await.map(drop) }
    });
    let manager = leaked.recv().await.unwrap();
    while stored.args().is_empty() {
        tokio::task::yield_now().await;
    }
    spawn(&manager, "after the node").unwrap();
    assert_eq!(stored.args(), [["with the node"], ["after the node"]]);
    app.services().go_on.notify_one();
    run.await.unwrap().unwrap();
    assert_eq!(spawn(&manager, "after the run"), Err(SpawnError::RunEnded));
    spawn(app.task_manager(), "from outside").unwrap();
    assert_eq!(stored.args().len(), 3);
}

#[tokio::test]
async fn an_ordinary_task_of_a_node_stores_its_own_tasks_at_once() {
    #[node]
    async fn starts(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        let work = |cx: agentflow::TaskContext| async move { spawn(cx.manager(), "of the task") };
        task_manager.create_task_with_context(work).spawn()?.await?;
        Err("the node fails".into())
    }
    let app = graph! { type State = AgentState; starts -> END; tasks { note } };
    let stored = Stored::with(&app);
    app.invoke(state(), RunConfig::new()).await.unwrap_err();
    assert_eq!(stored.args(), [["of the task"]]);
    assert!(stored.0.lock().unwrap()[0][0].run.is_some());
}

#[tokio::test]
async fn a_task_that_cannot_be_stored_is_refused() {
    #[derive(Serialize, Deserialize)]
    struct Unstorable(#[serde(serialize_with = "refuse")] u8);
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn refuse<S: serde::Serializer>(_: &u8, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
    #[task]
    async fn unstorable(args: Unstorable) {
        let _ = args.0;
    }
    struct OnlyNote;
    impl DurableSink for OnlyNote {
        fn check(&self, task: &'static str) -> Result<(), SpawnError> {
            let registry: TaskRegistry<()> = [RegisteredTask::of::<note>()].into_iter().collect();
            registry.check(task)
        }
        fn spawn(&self, _: Vec<NewTask>) -> Result<(), SpawnError> {
            unreachable!("every task is refused")
        }
    }

    let manager = BackgroundTaskManager::new();
    let error = spawn(&manager, "").unwrap_err();
    assert_eq!(error.to_string(), "the durable task `note` needs a store: `compile { store: store }`");
    set_durable_sink(&manager, Arc::new(OnlyNote));
    let error = manager.create_durable_task::<unstorable>(Unstorable(1)).spawn().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the app does not register the durable task `unstorable`: add it to the graph, `tasks { .. }`"
    );
    let policy = RetryPolicy::new(1).when(|_| true);
    let error = manager.create_durable_task::<note>(String::new()).retry(policy).spawn().unwrap_err();
    assert_eq!(error.as_str(), "retry_predicate");

    let manager = BackgroundTaskManager::new();
    set_durable_sink(&manager, Arc::new(Stored::default()));
    let error = manager.create_durable_task::<unstorable>(Unstorable(1)).spawn().unwrap_err();
    assert_eq!(error.to_string(), "the arguments of the durable task `unstorable` cannot be written as JSON: no");
    manager.close(None).await;
    assert_eq!(spawn(&manager, ""), Err(SpawnError::Closed));
    assert_eq!(manager.stats().rejected, 2);
}

#[tokio::test]
async fn the_options_of_a_task_are_stored() {
    let manager = BackgroundTaskManager::new();
    let stored = Arc::new(Stored::default());
    set_durable_sink(&manager, Arc::clone(&stored) as _);
    let id = manager
        .create_durable_task::<note>("full".to_owned())
        .timeout(Duration::from_mins(1))
        .attempt_timeout(Duration::from_secs(5))
        .retry(RetryPolicy::new(2).backoff(Duration::from_secs(3)).factor(10.0))
        .context("user", "ada")
        .context("user", "bob")
        .priority(-3)
        .delay(Duration::from_secs(9))
        .key("k", OnDuplicateKey::Replace)
        .spawn()
        .unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
    manager
        .create_durable_task::<note>("rest".to_owned())
        .at(time)
        .key_in("shared", "k", OnDuplicateKey::Queue)
        .spawn()
        .unwrap();
    let stored = stored.0.lock().unwrap();
    let (full, rest) = (&stored[0][0], &stored[1][0]);
    assert_eq!((full.id, full.priority, full.delay, full.due), (id, -3, Duration::from_secs(9), None));
    let key = full.key.as_ref().unwrap();
    assert_eq!((&*key.scope, &*key.key, key.policy), ("note", "k", KeyPolicy::Replace));
    let policy: TaskPolicy = serde_json::from_slice(&full.policy).unwrap();
    assert_eq!(policy.timeout(), Some(Duration::from_mins(1)));
    assert_eq!(policy.attempt_timeout(), Some(Duration::from_secs(5)));
    assert_eq!(policy.next_attempt(2, Duration::ZERO), Some(Duration::from_secs(30)));
    assert_eq!(policy.next_attempt(3, Duration::ZERO), None);
    assert_eq!(policy.context().get("user"), Some(&"bob".into()));
    assert_eq!(rest.due.map(SystemTime::from), Some(time));
    assert_eq!(rest.key.as_ref().map(|key| (&*key.scope, key.policy)), Some(("shared", KeyPolicy::Queue)));
    assert_eq!(&rest.policy[..], b"{}");
}

#[tokio::test]
async fn a_registered_task_decodes_its_arguments_and_runs_with_the_services_of_the_app() {
    struct Smtp(Mutex<Vec<String>>);
    #[task(name = "mail.deliver")]
    async fn deliver(
        attempt: u32,
        #[inject] smtp: &Smtp,
        args: (String, bool),
        task: &DurableTaskContext,
        cancel: &agentflow::CancellationToken,
    ) -> Result<(), std::fmt::Error> {
        let line = format!("{} {attempt} {}", args.0, task.run_id() == cancel_free(task, cancel));
        smtp.0.lock().unwrap().push(line);
        if args.1 { Ok(()) } else { Err(std::fmt::Error) }
    }
    fn cancel_free(task: &DurableTaskContext, cancel: &agentflow::CancellationToken) -> agentflow::RunId {
        assert!(!cancel.is_cancelled() && !task.is_cancelled());
        task.run_id()
    }
    #[derive(Provide)]
    struct Services {
        smtp: Smtp,
    }

    assert_eq!(deliver::NAME, "mail.deliver");
    let registry: TaskRegistry<Services> = [RegisteredTask::of::<deliver>()].into_iter().collect();
    assert_eq!(registry.names().collect::<Vec<_>>(), ["mail.deliver"]);
    assert!(registry.get("deliver").is_none());
    let deliver = registry.get("mail.deliver").unwrap();
    let work = move |cx: agentflow::TaskContext| async move {
        let services = Services { smtp: Smtp(Mutex::default()) };
        let context = DurableTaskContext::new(agentflow::store::StoredTaskId::new(), 3, cx);
        let attempt = TaskAttempt::new(&services, &context);
        deliver.run(br#"["ada",true]"#, attempt).unwrap().await.unwrap();
        let failed = deliver.run(br#"["bob",false]"#, attempt).unwrap().await;
        assert!(matches!(failed, Err(TaskError::Failed(error)) if error.is::<std::fmt::Error>()));
        let Err(undecodable) = deliver.run(b"{}", attempt) else { panic!("decoded") };
        assert_eq!(undecodable.task, "mail.deliver");
        assert_eq!(*services.smtp.0.lock().unwrap(), ["ada 3 true", "bob 3 true"]);
    };
    BackgroundTaskManager::new().create_task_with_context(work).spawn().unwrap().await.unwrap();
}

#[test]
fn the_builder_reports_tasks_of_one_name_and_tasks_that_are_not_registered() {
    mod other {
        #[agentflow::task]
        pub(super) async fn note() {}
    }
    #[node]
    async fn spawns(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        task_manager.create_durable_task::<note>(String::new()).spawn()?;
        Ok(())
    }
    struct ByHand;
    impl Node<AgentState> for ByHand {
        type Output = ();
        const INFO: NodeInfo = NodeInfo::new().durable_tasks(&["by.hand"]);
        async fn run(&self, _: NodeContext<'_, AgentState>) -> Result<(), NodeError> {
            Ok(())
        }
    }
    let build = |register: fn(&mut StateGraph<AgentState>)| {
        let mut graph = StateGraph::<AgentState>::new();
        register(&mut graph);
        graph.add_node("A", spawns {});
        graph.add_node("B", ByHand);
        graph.set_entry_point("A");
        graph.add_edge("A", "B");
        graph.add_edge("B", END);
        let error = graph.compile(CompileOptions::new()).unwrap_err();
        error.problems().iter().map(|problem| problem.kind.clone()).collect::<Vec<_>>()
    };
    let unregistered =
        |node: &str, task: &str| BuildProblemKind::UnregisteredTask { node: node.into(), task: task.into() };
    assert_eq!(build(|_| ()), [unregistered("A", "note"), unregistered("B", "by.hand")]);
    let twice = build(|graph| {
        graph.add_task::<note>().add_task::<other::note>();
    });
    // In the order of the calls in this file.
    assert_eq!(twice, [unregistered("B", "by.hand"), BuildProblemKind::DuplicateTask { name: "note".into() }]);
}
