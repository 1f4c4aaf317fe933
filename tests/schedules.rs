//! Schedules: durable tasks that are made at the times of a calendar.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use agentflow::{
    AgentState, CompiledGraph, Provide, ScheduleError, graph, node,
    store::{MemoryStore, Overlap, StoredTaskFilter, TaskStatus},
    task,
    task::DurableTaskContext,
};
use tokio::sync::Semaphore;

#[derive(Clone, Default, Provide)]
struct Services {
    due: Arc<Mutex<Vec<SystemTime>>>,
    open: Gate,
}

#[derive(Clone)]
struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

#[task]
async fn report(args: String, task: &DurableTaskContext, #[inject] due: &Arc<Mutex<Vec<SystemTime>>>) {
    assert_eq!(args, "sales");
    due.lock().unwrap().push(task.scheduled_for().unwrap());
}

#[task]
async fn slow(#[inject] open: &Gate) {
    open.0.acquire().await.unwrap().forget();
}

#[node]
async fn idle(_state: &mut AgentState) {}

fn app_on(store: &MemoryStore, services: &Services) -> CompiledGraph<AgentState, Services> {
    graph! {
        name = "office";
        type State = AgentState;
        idle -> END;
        tasks { report, slow }
        compile { services: services.clone(), store: store.clone() }
    }
}

fn sales() -> String {
    "sales".to_owned()
}

fn minutes(time: SystemTime) -> u64 {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds % 60, 0, "a due time is a whole minute");
    seconds / 60
}

async fn statuses(app: &CompiledGraph<AgentState, Services>) -> Vec<TaskStatus> {
    let tasks = app.tasks().list(StoredTaskFilter::default()).await.unwrap();
    tasks.iter().map(|row| row.status).collect()
}

#[tokio::test(start_paused = true)]
async fn each_time_fires_once_in_all_processes() {
    let (store, services) = (MemoryStore::new(), Services::default());
    let apps = [app_on(&store, &services), app_on(&store, &services)];
    for app in &apps {
        app.schedule::<report>("* * * * *", sales()).register().await.unwrap();
    }
    tokio::time::sleep(Duration::from_mins(5)).await;
    let due: Vec<_> = services.due.lock().unwrap().iter().copied().map(minutes).collect();
    assert_eq!(due.len(), 5);
    assert!(due.windows(2).all(|pair| pair[1] == pair[0] + 1), "{due:?}");
    let schedules = apps[0].schedules().await.unwrap();
    assert_eq!((schedules.len(), &*schedules[0].name, schedules[0].is_stale), (1, "report", false));
    assert_eq!(minutes(schedules[0].next_due), due[4] + 1);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_latest_missed_time_fires_once() {
    let (store, services) = (MemoryStore::new(), Services::default());
    let app = app_on(&store, &services);
    app.schedule::<report>("*/10 * * * *", sales()).register().await.unwrap();
    let first = minutes(app.schedules().await.unwrap()[0].next_due);
    app.aclose().await;
    store.advance(Duration::from_mins(35));

    let app = app_on(&store, &services);
    assert!(app.schedules().await.unwrap()[0].is_stale, "nothing has registered it in this process");
    app.schedule::<report>("*/10 * * * *", sales()).register().await.unwrap();
    while services.due.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let due: Vec<_> = services.due.lock().unwrap().iter().copied().map(minutes).collect();
    assert_eq!(due.len(), 1);
    assert!([first + 20, first + 30].contains(&due[0]), "{due:?} after {first}");
    assert_eq!(minutes(app.schedules().await.unwrap()[0].next_due), due[0] + 10);
}

#[tokio::test(start_paused = true)]
async fn a_firing_is_left_out_while_the_task_of_the_last_one_runs_unless_it_queues() {
    let (store, services) = (MemoryStore::new(), Services::default());
    let app = app_on(&store, &services);
    app.schedule::<slow>("* * * * *", ()).register().await.unwrap();
    tokio::time::sleep(Duration::from_mins(3)).await;
    assert_eq!(statuses(&app).await, [TaskStatus::Running]);
    assert!(app.delete_schedule("slow").await.unwrap());
    services.open.0.add_permits(1);

    let queued = app.schedule::<slow>("* * * * *", ()).name("queued").overlap(Overlap::Queue);
    queued.register().await.unwrap();
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(statuses(&app).await, [TaskStatus::Pending, TaskStatus::Running, TaskStatus::Done]);
}

#[tokio::test]
async fn a_schedule_that_cannot_be_kept_is_refused() {
    #[task]
    async fn unregistered() {}

    let app = app_on(&MemoryStore::new(), &Services::default());
    let error = app.schedule::<report>("61 * * * *", sales()).register().await.unwrap_err();
    assert!(matches!(error, ScheduleError::Calendar(_)));
    let error = app.schedule::<report>("@daily", sales()).time_zone("Mars/Base").register().await.unwrap_err();
    assert!(matches!(error, ScheduleError::Calendar(_)));
    let error = app.schedule::<unregistered>("@daily", ()).register().await.unwrap_err();
    assert!(error.to_string().starts_with("the app does not register the durable task `unregistered`"));
    let without_store = graph! { type State = AgentState; idle -> END; tasks { unregistered } };
    let error = without_store.schedule::<unregistered>("@daily", ()).register().await.unwrap_err();
    assert!(error.to_string().contains("needs a store"));
}
