//! Tasks whose futures or closures are large, on threads with the usual stack of two MiB.
#![allow(
    clippy::large_futures,
    clippy::large_stack_arrays,
    clippy::large_types_passed_by_value,
    clippy::manual_async_fn,
    reason = "the tests are about work that lies on the stack"
)]

use std::{hint::black_box, thread, time::Duration};

use agentflow::{
    BackgroundTaskManager, RetryPolicy,
    task::{OnDuplicateKey, OnRunEnd, TaskBuilder, TaskGroup, TaskHandle},
};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
};

const SECOND: Duration = Duration::from_secs(1);

type Large = [u8; 128 * 1024];

/// Calls `test` with a manager on a runtime, on threads that all have a stack of two MiB.
fn on_usual_stacks(test: fn(&Runtime, &BackgroundTaskManager)) {
    const STACK: usize = 2 * 1024 * 1024;
    let run = move || {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_stack_size(STACK).enable_time().build().unwrap();
        let tasks = runtime.block_on(async { BackgroundTaskManager::new() });
        test(&runtime, &tasks);
        runtime.block_on(tasks.wait_for_all(None)).unwrap();
    };
    thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap();
}

/// Sets every option that all kinds of tasks have.
fn with_options<T, W>(task: TaskBuilder<'_, T, W>) -> TaskBuilder<'_, T, W> {
    task.name("large")
        .timeout(60 * SECOND)
        .context("size", size_of::<Large>() as u64)
        .queue_timeout(60 * SECOND)
        .idle_timeout(60 * SECOND)
        .grace_period(SECOND)
        .key("large", OnDuplicateKey::Queue)
        .on_run_end(OnRunEnd::Detach)
        .cancel_last()
}

/// Returns a future that is as large as `bytes`; that of an `async fn` would be twice as large.
fn sum(bytes: Large) -> impl Future<Output = Result<usize, std::io::Error>> {
    async move {
        yield_now().await;
        Ok(black_box(&bytes).len())
    }
}

fn completed(runtime: &Runtime, handle: TaskHandle<usize>) {
    assert_eq!(runtime.block_on(handle).unwrap(), size_of::<Large>());
}

#[test]
fn a_large_future_is_spawned_with_any_options() {
    on_usual_stacks(|runtime, tasks| {
        completed(runtime, with_options(tasks.create_task(sum([1; _]))).spawn().unwrap());
        let chained = tasks
            .create_task(sum([1; _]))
            .name("large")
            .timeout(SECOND)
            .context("size", "large")
            .queue_timeout(60 * SECOND)
            .idle_timeout(60 * SECOND)
            .grace_period(SECOND)
            .key("large", OnDuplicateKey::Queue)
            .on_run_end(OnRunEnd::Detach)
            .cancel_last();
        completed(runtime, chained.spawn().unwrap());
    });
}

#[test]
fn a_large_future_waits_for_its_slot() {
    on_usual_stacks(|runtime, tasks| {
        let spawn = with_options(tasks.create_task(sum([1; _]))).spawn_wait();
        assert!(size_of_val(&spawn) < 4 * 1024, "{} bytes", size_of_val(&spawn));
        completed(runtime, runtime.block_on(spawn).unwrap());
    });
}

#[test]
fn large_closures_and_large_futures_of_small_closures_are_spawned() {
    on_usual_stacks(|runtime, tasks| {
        let bytes: Large = [1; _];
        let closure = tasks.create_task_with_context(move |_| sum(bytes));
        completed(runtime, with_options(closure).spawn().unwrap());
        let future = tasks.create_task_with_context(|_| sum([1; _]));
        completed(runtime, with_options(future).spawn().unwrap());
        let blocking = tasks.create_blocking_task(move |_| Ok::<_, std::io::Error>(black_box(&bytes).len()));
        completed(runtime, with_options(blocking).spawn().unwrap());
    });
}

#[test]
fn a_large_task_is_tried_again() {
    on_usual_stacks(|runtime, tasks| {
        let bytes: Large = [1; _];
        let retrying = tasks.create_retrying_task(move |attempt| async move {
            yield_now().await;
            if attempt < 3 { Err(std::io::Error::other("again")) } else { Ok(black_box(&bytes).len()) }
        });
        let retrying = with_options(retrying).retry(RetryPolicy::new(5)).attempt_timeout(SECOND);
        completed(runtime, retrying.spawn().unwrap());
    });
}

#[test]
fn a_group_takes_large_tasks() {
    on_usual_stacks(|runtime, tasks| {
        runtime.block_on(async {
            let mut group = TaskGroup::new().max_running(2);
            for _ in 0..5 {
                group.spawn(with_options(tasks.create_task(sum([1; _])))).await.unwrap();
            }
            assert_eq!(group.wait().await.len(), 5);
        });
    });
}
