//! Edits of a thread outside of a run.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{
    begin::Base,
    codec::{self, Values},
    error::ThreadError,
    position::Position,
};
use crate::{
    carried::Slot,
    error::NodeError,
    graph::{
        app::App,
        plan::{Plan, Work},
        topology::Next,
    },
    session::{Session, patiently, repeatedly},
    state::State,
    store::{
        CancelKind, CheckpointId, Deleted, Edit, Edited, HistoryFilter, NewCheckpoint, NewValues, Rest, Source,
        StoreError, Stored, ThreadId, ThreadStatus,
    },
};

/// The time that a deletion waits for the run that it cancels.
const DELETE_PATIENCE: Duration = Duration::from_secs(30);

/// Makes a checkpoint with an update.
pub(super) async fn update<S: State + Default, C: Send + Sync + 'static>(
    app: &App<S, C>,
    session: &Session,
    values: Values<S>,
    thread: &ThreadId,
    update: S::Update,
    as_node: Option<&str>,
) -> Result<CheckpointId, ThreadError> {
    loop {
        let head = patiently(|| session.store.load(thread, None)).await?;
        let row = patiently(|| session.store.thread(thread)).await?;
        let base = Base::load(head.as_ref(), &values)?;
        let (mut state, json) = (base.state, base.json);
        // The reducers are user code.
        let merged = catch_unwind(AssertUnwindSafe(|| state.apply(update.clone())));
        merged.map_err(|panic| ThreadError::WrongInput { error: NodeError::panicked(panic).to_string() })?;
        let position = match as_node {
            Some(node) => after(&app.plan, node, &state)?,
            None => base.position.unwrap_or_else(Position::end),
        };
        let nodes =
            if position.is_end() { Vec::new() } else { app.nodes_at(&position.path).map_err(super::unreadable)? };
        let whole = values.json(&state)?.map(Bytes::from);
        let new = match &whole {
            None => NewValues::Snapshot(Values::kept(&state)),
            Some(new) => {
                let (old, bytes) = json.map_or((None, 0), |(json, bytes)| (Some(json), bytes));
                codec::difference(old.as_ref(), new, bytes)?.0
            }
        };
        let mut checkpoint = NewCheckpoint::new(Source::Update, new, nodes, position.stored(values.are_kept())?);
        checkpoint.state_version = Values::<S>::version();
        checkpoint.graph_hash = app.hash;
        let rest = match row.map(|row| row.status) {
            _ if position.is_end() => Rest::Idle,
            Some(ThreadStatus::Failed) if as_node.is_none() => Rest::Failed,
            _ => Rest::Paused,
        };
        let head = head.map(|head| head.id);
        let mut edit = Edit::new(thread.clone(), Arc::clone(&app.name), head, checkpoint, rest);
        edit.drops_questions = as_node.is_some();
        let (edited, was_repeated) = repeatedly(|| session.store.edit(edit.clone())).await;
        let edited = edited?;
        // An attempt whose answer was lost may have made the checkpoint, which must not be made twice.
        if was_repeated
            && !matches!(edited, Edited::Made(_))
            && let Some(made) = made_before(session, &edit, whole.as_ref()).await?
        {
            return Ok(made);
        }
        match edited {
            Edited::Made(checkpoint) => return Ok(checkpoint),
            Edited::Busy(run) => return Err(ThreadError::Busy { run, is_driven: true }),
            Edited::OtherGraph(graph) => return Err(ThreadError::OtherGraph { graph }),
            Edited::HeadMoved(_) => {}
        }
    }
}

/// Returns the checkpoint that an earlier attempt of an edit has made. `whole` is the JSON of its state.
async fn made_before(
    session: &Session,
    edit: &Edit,
    whole: Option<&Bytes>,
) -> Result<Option<CheckpointId>, StoreError> {
    let value = |json: Option<&Bytes>| json.and_then(|json| serde_json::from_slice::<serde_json::Value>(json).ok());
    let (values, position) = (value(whole), value(edit.checkpoint.position.json()));
    let filter = HistoryFilter { source: Some(Source::Update), ..HistoryFilter::default() };
    let history = patiently(|| session.store.history(&edit.thread, filter.clone())).await?;
    let made = history.into_iter().find(|row| {
        row.parent == edit.parent
            && row.run.is_none()
            && value(row.values.json()) == values
            && value(Stored::json(&row.position)) == position
    });
    Ok(made.map(|row| row.id))
}

/// Returns the position after a node, if it follows from the state.
fn after<S: State, C>(plan: &Plan<S, C>, node: &str, state: &S) -> Result<Position, ThreadError> {
    let wrong = |reason| ThreadError::WrongNode { node: node.into(), reason };
    let step = plan.steps.iter().find(|step| &*step.name == node);
    let step = step.ok_or_else(|| wrong("the graph has no such node of its own"))?;
    let is_in_group = plan.steps.iter().any(|group| match &group.work {
        Work::Group(group) => {
            group.branches.iter().flat_map(|branch| &branch.steps).any(|member| std::ptr::eq(plan.step(*member), step))
        }
        Work::Node(_) | Work::Branch(_) => false,
    });
    if is_in_group {
        return Err(wrong("it is inside a group"));
    }
    let edge = match (&step.router, step.has_decision()) {
        (None, false) => 0,
        (None, true) => return Err(wrong("it returns its route, which the state does not tell")),
        (Some(router), _) => {
            let edge = catch_unwind(AssertUnwindSafe(|| router.route(state, &Slot::default())));
            let edge = edge.unwrap_or_else(|panic| Err(NodeError::panicked(panic)));
            edge.map_err(|error| ThreadError::WrongInput { error: error.to_string() })?
        }
    };
    match step.edges.get(edge) {
        Some(edge) if edge.carries.is_some() => Err(wrong("what follows it takes an `input`")),
        Some(edge) => match edge.to {
            Next::Step(next) => Ok(Position::at(vec![Arc::clone(&plan.step(next).name)])),
            Next::End => Ok(Position::end()),
        },
        None => Ok(Position::end()),
    }
}

/// Deletes a thread, after its runs were cancelled.
pub(super) async fn delete(session: &Session, thread: &ThreadId) -> Result<bool, ThreadError> {
    let began = Instant::now();
    loop {
        let (deleted, was_repeated) = repeatedly(|| session.store.delete_thread(thread)).await;
        match deleted? {
            Deleted::Yes => return Ok(true),
            // An attempt whose answer was lost may have deleted it.
            Deleted::NotFound => return Ok(was_repeated),
            Deleted::Busy(run) if began.elapsed() > DELETE_PATIENCE => {
                return Err(ThreadError::Busy { run, is_driven: true });
            }
            Deleted::Busy(run) => {
                if !session.cancel(run, CancelKind::Cancel) {
                    patiently(|| session.store.request_cancel(run, CancelKind::Cancel)).await?;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
