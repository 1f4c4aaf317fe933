//! The reference interpreter: runs a program in plain recursive code on a clock of its own, without a runtime.
//!
//! The states, errors and times are those that the documentation promises. Everything that can happen at an instant happens
//! before a timeout of that instant. At a fork, branches run in written order until they first wait. What is not defined,
//! the order of two branches at the same later instant, is marked in the prediction.
#![allow(
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "the interpreter is plain code, a function for each part of the documentation"
)]

use std::{fmt, time::Duration};

use super::{
    events::{Lines, end_line, error_line},
    program::{
        Access, Act, ActEnd, Arrived, Branch, ChosenRoute, Decision, Graph, Group, GroupKind, Items, MapPanic, Mapped,
        Next, Options, POISON, ParallelWork, Program, Retry, Script, Step, Trace, When, Work, log_line,
    },
};

const NEVER: u64 = u64::MAX;

/// The number of events at one instant from which on a run may wait for its reader.
const MANY_EVENTS: usize = 60;

/// The end, the events and the duration of a run.
#[derive(Clone, Debug)]
pub(super) struct Prediction {
    pub(super) end: End,
    pub(super) lines: Lines,
    pub(super) elapsed: u64,
    /// `true` if the events of an instant may come in another order.
    pub(super) is_unordered: bool,
    /// `true` if the result depends on an order that is not defined.
    pub(super) is_undefined: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    Reached(Trace),
    Failed {
        error: String,
        /// The nodes that the error may name.
        nodes: Vec<String>,
        is_committed: bool,
        state: Trace,
    },
}

/// Predicts a run that is cancelled at an instant, or not at all.
pub(super) fn predict(program: &Program, cancel_at: Option<u64>) -> Prediction {
    let Program { graph, run_timeout } = program;
    let mut machine = Machine {
        now: 0,
        cut: cancel_at.unwrap_or(NEVER).min(run_timeout.unwrap_or(NEVER)),
        cancel_at: cancel_at.unwrap_or(NEVER),
        run_timeout: *run_timeout,
        is_cancelled: false,
        lines: Lines::default(),
        is_unordered: false,
        is_undefined: false,
    };
    let limit = graph.recursion_limit.unwrap_or_else(|| nodes(graph).max(25));
    let mut scope = Scope { prefix: String::new(), items: String::new(), limit, limit_of: None, left: limit };
    let mut state = Trace::default();
    machine.emit("run started".to_owned());
    let end = match machine.walk(graph, &mut scope, &mut state, None) {
        Ok(()) => End::Reached(state),
        Err(Stop::Failed(Failure { kind, is_committed })) => {
            End::Failed { error: end_line(&kind.to_string()), nodes: vec![kind.node().to_owned()], is_committed, state }
        }
        Err(Stop::Dropped { running, is_committed }) => {
            let kind = machine.signal(String::new()).unwrap();
            End::Failed { error: end_line(&kind.to_string()), nodes: running, is_committed, state }
        }
    };
    let error = match &end {
        End::Reached(_) => None,
        End::Failed { error, .. } => Some(&**error),
    };
    machine.push(format!("run ended: {error:?}"));
    let forks = machine.lines.times_of("fork ");
    if forks.iter().any(|time| machine.lines.count_at(*time) >= MANY_EVENTS) {
        machine.is_unordered = true;
        let ends = machine.lines.times_of_drops();
        machine.is_undefined |= ends.iter().any(|time| forks.contains(time));
    }
    let Machine { now, lines, is_unordered, is_undefined, .. } = machine;
    Prediction { end, lines, elapsed: now, is_unordered, is_undefined }
}

/// Returns the number of nodes, including those of nested graphs.
fn nodes(graph: &Graph) -> usize {
    let steps = graph.steps.iter().map(|step| match &step.work {
        Work::Node(..) => 1,
        Work::Graph(graph) | Work::Mapped(Mapped { graph, .. }) => 1 + nodes(graph),
        Work::Group(group) => members(group),
    });
    steps.sum()
}

fn members(group: &Group) -> usize {
    let members = group.branches.iter().flatten().map(|step| match &step.work {
        ParallelWork::Node(_) => 1,
        ParallelWork::Mapped(mapped) => 1 + nodes(&mapped.graph),
        ParallelWork::Group(group) => members(group),
    });
    members.sum()
}

/// The reason for which a part of a run ends early.
enum Stop {
    Failed(Failure),
    /// Dropped in a wait, by a timeout, a failed branch or an interrupt of the run.
    Dropped {
        /// The innermost running nodes.
        running: Vec<String>,
        /// `true` if the state is as the last successful node left it.
        is_committed: bool,
    },
}

struct Failure {
    kind: Kind,
    is_committed: bool,
}

enum Kind {
    Node { node: String, attempt: u32, elapsed: u64, cause: Cause },
    Conflict { field: &'static str, nodes: [String; 2] },
    Cancelled { node: String },
    TimedOut { limit: u64, node: String },
    RecursionLimit { limit: usize, graph: Option<String>, node: String, nodes: Vec<String> },
}

enum Cause {
    Failed,
    Panicked(&'static str),
    TimedOut(u64),
    /// The text of the route.
    NoRoute(String),
    TooManyItems(usize),
    /// The texts of the failures of all branches.
    AllFailed(Vec<String>),
}

/// The fault of an attempt.
enum Fault {
    /// A fault of the node itself.
    Own(Cause),
    /// A fault inside the node, which is a graph, or around it.
    Stop(Stop),
}

/// The output of a successful attempt, with the fields that it reports as changed.
struct Output<T> {
    value: T,
    fields: Option<String>,
}

/// The data of a node that its attempts work on.
trait Target {
    /// Restores the state after a failed attempt, if there is a copy. Returns whether the state is committed.
    fn roll_back(&mut self) -> bool;
}

/// The state of a node outside of groups.
struct Held<'s> {
    state: &'s mut Trace,
    before: Option<Trace>,
    /// `true` if an attempt may have changed the state.
    is_exposed: bool,
}

/// The state of a node of a group, which only reads it.
struct Shared;

impl Target for Held<'_> {
    fn roll_back(&mut self) -> bool {
        if let Some(before) = &self.before {
            self.state.clone_from(before);
            return true;
        }
        !self.is_exposed
    }
}

impl Target for Shared {
    fn roll_back(&mut self) -> bool {
        true
    }
}

/// The node that failed, and its last attempt.
type Seen<'a> = Option<(&'a str, u32)>;

/// The nodes of one path: their names' prefix, and the number of steps that they have left.
#[derive(Clone)]
struct Scope {
    prefix: String,
    /// The index of the item in each `each`.
    items: String,
    limit: usize,
    limit_of: Option<String>,
    left: usize,
}

#[derive(Clone)]
struct Update {
    log: Option<Vec<String>>,
    title: Option<String>,
    total: Option<u32>,
}

/// The update of a node of a group.
#[derive(Clone)]
struct Slot {
    node: String,
    update: Update,
}

/// A branch of a fork, or the branch of an item.
struct Lane<'p> {
    branch: &'p Branch,
    scope: Scope,
    arrived: Arrived<'p>,
    /// The instant at which the branch begins.
    start: u64,
}

/// The end of a lane: its updates, and the steps that it has left.
type LaneEnd = Result<(Vec<Slot>, usize), Stop>;

/// The updates of a group.
struct Joined {
    slots: Vec<Slot>,
    /// The text of the event that ends the group.
    line: String,
}

#[derive(Clone)]
struct Machine {
    now: u64,
    /// The instant at which this part of the run is dropped if it waits longer.
    cut: u64,
    cancel_at: u64,
    run_timeout: Option<u64>,
    /// `true` if a node cancelled the run.
    is_cancelled: bool,
    lines: Lines,
    is_unordered: bool,
    is_undefined: bool,
}

impl Machine {
    fn push(&mut self, line: String) {
        self.lines.push(self.now, line);
    }

    /// Writes an event for which the run waits if its reader is too far behind.
    fn emit(&mut self, line: String) {
        self.push(line);
        let may_be_dropped = self.is_cancelled || self.cut <= self.now;
        self.is_undefined |= may_be_dropped && self.lines.count_at(self.now) >= MANY_EVENTS;
    }

    /// Returns `false` if this part of the run is dropped before the wait ends.
    fn wait(&mut self, millis: u64) -> bool {
        if millis == 0 {
            return true;
        }
        if self.is_cancelled {
            return false;
        }
        let is_over = self.now + millis <= self.cut;
        self.now = self.cut.min(self.now + millis);
        is_over
    }

    /// Returns the interrupt that stops the run before the node.
    fn signal(&self, node: String) -> Option<Kind> {
        if self.is_cancelled || self.cancel_at <= self.now {
            return Some(Kind::Cancelled { node });
        }
        let limit = self.run_timeout.filter(|limit| *limit <= self.now)?;
        Some(Kind::TimedOut { limit, node })
    }

    fn check(&self, node: &str) -> Result<(), Stop> {
        self.signal(node.to_owned()).map_or(Ok(()), |kind| Err(Stop::committed(kind)))
    }

    fn walk(&mut self, graph: &Graph, scope: &mut Scope, state: &mut Trace, seen: Seen<'_>) -> Result<(), Stop> {
        let mut at = 0;
        let mut inherited = seen;
        let mut failed: Option<(String, u32)> = None;
        let mut input = None;
        let mut visited: Vec<usize> = Vec::new();
        loop {
            let step = &graph.steps[at];
            let seen = failed.as_ref().map(|(node, attempt)| (&**node, *attempt)).or(inherited);
            let to = match self.step(step, &graph.steps, scope, state, Arrived { seen, input }) {
                Ok(taken) => {
                    visited.push(at);
                    (failed, inherited) = (None, None);
                    input = taken.value;
                    self.route(step, &graph.steps, &taken, scope, "END")
                }
                Err(stop) => {
                    let (fallback, seen) = self.fall_back(step, &graph.steps, scope, &visited, stop)?;
                    visited.push(at);
                    (failed, input) = (Some(seen), None);
                    Some(fallback)
                }
            };
            let Some(to) = to else { return Ok(()) };
            at = to;
        }
    }

    /// Writes the event of a decision, and returns the next step.
    fn route<W>(
        &mut self,
        step: &Step<W>,
        steps: &[Step<W>],
        taken: &Taken,
        scope: &Scope,
        end: &str,
    ) -> Option<usize> {
        let decision = match &step.next {
            Next::Edge(to) => return *to,
            Next::Decision(decision) => decision,
        };
        let to = decision.arms[taken.arm];
        let name = scope.path(to.map_or(end, |to| &steps[to].name));
        let carries = if taken.value.is_some() { ", with u32" } else { "" };
        self.push(format!("{} routed {} to {name}{carries}", scope.path(&step.name), taken.arm));
        to
    }

    /// Returns the fallback and the failure that it sees, or the reason for which the path ends.
    fn fall_back<W: Member>(
        &mut self,
        step: &Step<W>,
        steps: &[Step<W>],
        scope: &mut Scope,
        visited: &[usize],
        stop: Stop,
    ) -> Result<(usize, (String, u32)), Stop> {
        let path = scope.path(&step.name);
        let mut stop = match (stop, step.on_error) {
            (Stop::Failed(Failure { kind: Kind::Node { node, attempt, .. }, is_committed: true }), Some(fallback)) => {
                // A visit of a group counts, even if the group fails, or two groups could recover by each other for ever.
                let counted = if step.work.group().is_some() { scope.count(&path) } else { Ok(()) };
                match counted {
                    Ok(()) => {
                        self.push(format!("{path} fell back to {}", scope.path(&steps[fallback].name)));
                        return Ok((fallback, (node, attempt)));
                    }
                    Err(limit) => limit,
                }
            }
            (stop, _) => stop,
        };
        if let Stop::Failed(Failure { kind: Kind::RecursionLimit { nodes, .. }, .. }) = &mut stop
            && nodes.is_empty()
        {
            *nodes = latest_loop(steps, scope, visited);
        }
        Err(stop)
    }

    /// Runs a step.
    fn step(
        &mut self,
        step: &Step,
        steps: &[Step],
        scope: &mut Scope,
        state: &mut Trace,
        arrived: Arrived<'_>,
    ) -> Result<Taken, Stop> {
        let path = scope.path(&step.name);
        let (from_node, router) = step.decision();
        let is_restorable = step.options.retry.is_some() || step.on_error.is_some();
        let before = is_restorable.then(|| state.clone());
        if let Work::Group(group) = &step.work {
            let ended = self.group(group, &path, scope, state, arrived).and_then(|()| {
                let taken = router.map_or(Ok(Taken::default()), |decision| decision.taken(state, steps));
                taken.map_err(|cause| Stop::committed(Kind::of_step(path, cause)))
            });
            return ended.map_err(|stop| match (stop, before) {
                // The group is undone as a whole, with its decision.
                (Stop::Failed(failure), Some(before)) => {
                    *state = before;
                    Stop::Failed(Failure { is_committed: true, ..failure })
                }
                (stop, _) => stop,
            });
        }
        self.check(&path)?;
        scope.count(&path)?;
        let is_exposed = matches!(step.work, Work::Node(Access::InPlace, _) | Work::Graph(_));
        let mut held = Held { state, before, is_exposed };
        self.attempts(&path, &step.options, &mut held, |machine, held, attempt| {
            let mut output = match &step.work {
                Work::Node(access, script) => {
                    let visit = Visit { script, path: &path, attempt, arrived, left: scope.left };
                    machine.node(*access, &visit, from_node, steps, held)?
                }
                Work::Graph(inner) => {
                    machine.nested(inner, scope, held.state, &path, arrived.seen).map_err(Fault::Stop)?;
                    Output { value: Taken::default(), fields: None }
                }
                Work::Mapped(inner) => {
                    let update = machine.mapped(inner, scope, held.state, &path, arrived.seen)?;
                    let fields = update.fields();
                    held.apply(&update)?;
                    Output { value: Taken::default(), fields: Some(fields.join(", ")) }
                }
                Work::Group(_) => unreachable!("a group has no attempts"),
            };
            if let Some(decision) = router {
                output.value = decision.taken(held.state, steps).map_err(Fault::Own)?;
            }
            Ok(output)
        })
    }

    /// Runs a node until an attempt succeeds or its policy gives up.
    fn attempts<D: Target, T>(
        &mut self,
        path: &str,
        options: &Options,
        data: &mut D,
        mut body: impl FnMut(&mut Self, &mut D, u32) -> Result<Output<T>, Fault>,
    ) -> Result<T, Stop> {
        let began = self.now;
        let mut retries = 0;
        loop {
            let attempt = retries + 1;
            self.emit(format!("{path}#{attempt} started"));
            let started = self.now;
            let ended = self.attempt(options.timeout, |machine| body(machine, data, attempt));
            let elapsed = self.now - started;
            let failure = match ended {
                Ok(Output { value, fields }) => {
                    if let Some(fields) = fields {
                        self.push(format!("{path} updated [{fields}]"));
                    }
                    self.push(format!("{path}#{attempt} ended after {elapsed}"));
                    return Ok(value);
                }
                Err((Fault::Own(cause), is_committed)) => Failure {
                    kind: Kind::Node { node: path.to_owned(), attempt, elapsed, cause },
                    is_committed: data.roll_back() || is_committed,
                },
                Err((Fault::Stop(Stop::Failed(inner)), _)) => {
                    Failure { is_committed: data.roll_back() || inner.is_committed, ..inner }
                }
                Err((Fault::Stop(Stop::Dropped { running, is_committed }), _)) => {
                    let is_committed = data.roll_back() || is_committed;
                    let running = if running.is_empty() { vec![path.to_owned()] } else { running };
                    return Err(Stop::Dropped { running, is_committed });
                }
            };
            let delay = match (&failure, options.retry) {
                (Failure { kind: Kind::Node { cause, .. }, is_committed: true }, Some(retry)) => {
                    retry.delay(retries, cause, self.now - began)
                }
                _ => None,
            };
            let error = match &failure.kind {
                Kind::Node { node, cause, .. } if node == path => cause.to_string(),
                kind => error_line(&kind.to_string()),
            };
            self.push(format!("{path}#{attempt} failed after {elapsed}, next in {delay:?}: {error}"));
            let Some(delay) = delay else { return Err(Stop::Failed(failure)) };
            if !self.wait(delay) {
                return Err(Stop::Dropped { running: vec![path.to_owned()], is_committed: true });
            }
            self.check(path)?;
            retries += 1;
        }
    }

    /// Runs the body within the timeout. A fault comes with a flag: an expired timeout has left the state committed.
    fn attempt<T>(
        &mut self,
        timeout: Option<u64>,
        body: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, (Fault, bool)> {
        if let Some(0) = timeout {
            return Err((Fault::Own(Cause::TimedOut(0)), false));
        }
        let deadline = timeout.map_or(NEVER, |timeout| self.now + timeout);
        let cut = self.cut;
        self.cut = cut.min(deadline);
        let ended = body(self);
        self.cut = cut;
        ended.map_err(|fault| match (fault, timeout) {
            (Fault::Stop(Stop::Dropped { is_committed, .. }), Some(timeout)) if deadline <= self.now => {
                (Fault::Own(Cause::TimedOut(timeout)), is_committed)
            }
            (fault, _) => (fault, false),
        })
    }

    /// Runs an attempt of a node outside of groups.
    fn node(
        &mut self,
        access: Access,
        visit: &Visit<'_>,
        decision: Option<&Decision>,
        steps: &[Step],
        held: &mut Held<'_>,
    ) -> Result<Output<Taken>, Fault> {
        let act = visit.act(held.state);
        if access == Access::InPlace {
            held.state.log.push(visit.line());
            held.state.total += act.adds;
            self.act(act, visit.path, false)?;
            if act.sets_title {
                visit.path.clone_into(&mut held.state.title);
            }
            self.end(act)?;
            let taken = decision.map_or(Ok(Taken::default()), |decision| decision.taken(held.state, steps));
            let value = taken.map_err(Fault::Own)?;
            return Ok(Output { value, fields: None });
        }
        self.act(act, visit.path, true)?;
        self.end(act)?;
        // The route depends on the state before the update. That it has no arm is found after the update.
        let route = decision.map(|decision| decision.formula.route(held.state)).transpose();
        let route = route.map_err(|message| Fault::Own(Cause::Panicked(message)))?;
        let update = if access == Access::Reading { act.read_update(visit) } else { act.change(visit) };
        let fields = (access == Access::Reading).then(|| update.fields().join(", "));
        held.apply(&update)?;
        let taken = decision.zip(route);
        let taken = taken.map_or(Ok(Taken::default()), |(decision, route)| decision.taken_by(route, steps));
        let value = taken.map_err(Fault::Own)?;
        Ok(Output { value, fields })
    }

    /// Writes the events of an act and waits.
    fn act(&mut self, act: Act, path: &str, is_committed: bool) -> Result<(), Fault> {
        for number in 0..act.events {
            self.emit(format!("{path} wrote {number}"));
        }
        if self.wait(act.wait) { Ok(()) } else { Err(Fault::Stop(Stop::Dropped { running: Vec::new(), is_committed })) }
    }

    fn end(&mut self, act: Act) -> Result<(), Fault> {
        match act.end {
            ActEnd::Succeeds => Ok(()),
            ActEnd::Cancels => {
                self.is_cancelled = true;
                Ok(())
            }
            ActEnd::Fails => Err(Fault::Own(Cause::Failed)),
            ActEnd::Panics => Err(Fault::Own(Cause::Panicked("boom"))),
        }
    }

    /// Walks a graph that is a node.
    fn nested(
        &mut self,
        graph: &Graph,
        scope: &mut Scope,
        state: &mut Trace,
        path: &str,
        seen: Seen<'_>,
    ) -> Result<(), Stop> {
        let mut inner = scope.inside(path, graph.recursion_limit);
        let at_start = inner.left;
        self.walk(graph, &mut inner, state, seen)?;
        // Only a successful attempt counts.
        scope.left -= at_start - inner.left;
        Ok(())
    }

    fn mapped(
        &mut self,
        mapped: &Mapped,
        scope: &mut Scope,
        outer: &Trace,
        path: &str,
        seen: Seen<'_>,
    ) -> Result<Update, Fault> {
        if mapped.panics == Some(MapPanic::Into) {
            return Err(Fault::Own(Cause::Panicked("into")));
        }
        let mut state = Trace { total: outer.total, ..Trace::default() };
        self.nested(&mapped.graph, scope, &mut state, path, seen).map_err(|stop| {
            Fault::Stop(match stop {
                // The outer state is untouched.
                Stop::Failed(failure) => Stop::Failed(Failure { is_committed: true, ..failure }),
                Stop::Dropped { running, .. } => Stop::Dropped { running, is_committed: true },
            })
        })?;
        if mapped.panics == Some(MapPanic::Back) {
            return Err(Fault::Own(Cause::Panicked("back")));
        }
        let total = u32::try_from(state.log.len()).unwrap();
        Ok(Update { log: Some(state.log), title: None, total: Some(total) })
    }

    /// Runs a group and merges its updates.
    fn group(
        &mut self,
        group: &Group,
        path: &str,
        scope: &mut Scope,
        state: &mut Trace,
        arrived: Arrived<'_>,
    ) -> Result<(), Stop> {
        let Joined { slots, line } = self.fork(group, path, scope, state, arrived)?;
        for Slot { node, update } in slots {
            if update.apply(state).is_err() {
                self.push(format!("fork failed {}", first_names(group, scope)));
                return Err(Stop::Failed(Failure { kind: Kind::poisoned(node), is_committed: false }));
            }
        }
        self.push(line);
        Ok(())
    }

    /// Runs the branches side by side, up to the join. Returns their updates.
    fn fork(
        &mut self,
        group: &Group,
        path: &str,
        scope: &mut Scope,
        state: &Trace,
        arrived: Arrived<'_>,
    ) -> Result<Joined, Stop> {
        let names = first_names(group, scope);
        let items = match group.kind {
            GroupKind::Each(items) => Some(items.checked(state)),
            GroupKind::All | GroupKind::Any => None,
        };
        let count = items.as_ref().map(|items| format!(" for {} items", items.as_ref().map_or(0, Vec::len)));
        self.emit(format!("fork started {names}{}", count.unwrap_or_default()));
        let ended = self.check(&scope.path(first_node(group))).and_then(|()| {
            let items = items.transpose().map_err(|cause| Stop::committed(Kind::of_step(path.to_owned(), cause)))?;
            if items.as_ref().is_some_and(Vec::is_empty) {
                // A visit of a group counts, even if no node runs, or a decision could lead to the group for ever.
                scope.count(path)?;
            }
            self.lanes(group, items, path, scope, state, arrived)
        });
        match ended {
            Ok((slots, winner)) => {
                let winner = winner.map(|winner| format!(", won by {}", scope.path(&group.branches[winner][0].name)));
                let line =
                    format!("fork joined {names} changed {}{}", changed_fields(&slots), winner.unwrap_or_default());
                Ok(Joined { slots, line })
            }
            Err(stop) => {
                self.push(format!("fork failed {names}"));
                Err(stop)
            }
        }
    }

    /// Runs the branches side by side. Returns their updates, and the index of the branch that won.
    fn lanes(
        &mut self,
        group: &Group,
        items: Option<Vec<u32>>,
        path: &str,
        scope: &mut Scope,
        state: &Trace,
        arrived: Arrived<'_>,
    ) -> Result<(Vec<Slot>, Option<usize>), Stop> {
        let fork = self.now;
        let is_any = matches!(group.kind, GroupKind::Any);
        let blank = Self { lines: Lines::default(), ..self.clone() };
        let run = |lane: &Lane<'_>, cut: u64| {
            let mut machine = Self { cut, now: lane.start, ..blank.clone() };
            let mut scope = lane.scope.clone();
            let ended = machine.branch(lane.branch, &mut scope, state, lane.arrived);
            (machine, ended.map(|slots| (slots, scope.left)))
        };
        let unbegun = || {
            let dropped = Stop::Dropped { running: Vec::new(), is_committed: true };
            (Self { now: fork, ..blank.clone() }, LaneEnd::Err(dropped))
        };
        let max_parallel = match group.kind {
            GroupKind::Each(Items { max_parallel, .. }) => max_parallel.unwrap_or(256).max(1),
            GroupKind::All | GroupKind::Any => usize::MAX,
        };
        let planned: Vec<_> = match &items {
            None => group.branches.iter().map(|branch| (branch, scope.clone(), arrived)).collect(),
            Some(items) => (0..)
                .zip(items)
                .map(|(index, item)| {
                    let scope = Scope { items: format!("{}[{index}]", scope.items), ..scope.clone() };
                    (&group.branches[0], scope, Arrived { input: Some(*item), ..arrived })
                })
                .collect(),
        };
        // The instants at which the running lanes end and free a place.
        let mut busy: Vec<u64> = Vec::new();
        let mut lanes = Vec::new();
        let mut ends: Vec<(Self, LaneEnd)> = Vec::new();
        for (branch, lane_scope, arrived) in planned {
            let mut start = fork;
            if busy.len() == max_parallel {
                busy.sort_unstable();
                start = busy.remove(0);
            }
            let lane = Lane { branch, scope: lane_scope, arrived, start };
            let ended = if start == NEVER { unbegun() } else { run(&lane, self.cut) };
            busy.push(if ended.1.is_ok() { ended.0.now } else { NEVER });
            lanes.push(lane);
            ends.push(ended);
        }
        let decides = |ended: &LaneEnd| match ended {
            Ok(_) => is_any,
            Err(Stop::Failed(failure)) => !is_any || !failure.is_recoverable(),
            Err(Stop::Dropped { .. }) => false,
        };
        let deciding = ends.iter().enumerate().filter(|(_, (_, ended))| decides(ended));
        let decided = deciding.map(|(index, (machine, _))| (machine.now, index)).min();
        if let Some((end, first)) = decided {
            // The first failure, or the first success, ends the others.
            for (index, lane) in lanes.iter().enumerate().filter(|(index, _)| *index != first) {
                // A branch that comes later in the order of the fork never began.
                let begins = lane.start <= end && !(end == fork && index > first);
                ends[index] = if begins { run(lane, end) } else { unbegun() };
                self.is_undefined |= end > fork && ends[index].0.lines.progresses_at(end);
            }
        }
        for (index, (machine, _)) in ends.iter().enumerate() {
            let others = ends[..index].iter().map(|(other, _)| &other.lines);
            self.is_unordered |= machine.is_unordered || machine.lines.meets(others, fork);
            self.is_undefined |= machine.is_undefined;
        }
        let drops: Vec<_> = match decided {
            // The others are dropped after the end.
            Some((end, _)) => ends
                .iter_mut()
                .filter(|(_, ended)| matches!(ended, Err(Stop::Dropped { .. })))
                .map(|(machine, _)| machine.lines.take_drops(end))
                .collect(),
            None => Vec::new(),
        };
        self.lines.merge(ends.iter_mut().map(|(machine, _)| std::mem::take(&mut machine.lines)));
        self.lines.merge(drops.into_iter());
        if let Some((end, first)) = decided {
            self.now = end;
            let (slots, left) = ends.swap_remove(first).1?;
            scope.left = left;
            return Ok((slots, Some(first)));
        }
        self.now = ends.iter().map(|(machine, _)| machine.now).max().unwrap_or(fork);
        let mut branches = Vec::new();
        let mut failures = Vec::new();
        let mut dropped = Vec::new();
        for (_, ended) in ends {
            match ended {
                Ok((slots, left)) => {
                    scope.left = scope.left.min(left);
                    branches.push(slots);
                }
                Err(Stop::Failed(failure)) => failures.push(failure.kind.to_string()),
                Err(Stop::Dropped { running, .. }) => dropped.push(running),
            }
        }
        if !dropped.is_empty() {
            return Err(Stop::Dropped { running: dropped.concat(), is_committed: true });
        }
        if is_any {
            return Err(Stop::committed(Kind::of_step(path.to_owned(), Cause::AllFailed(failures))));
        }
        match conflict(&branches) {
            None => Ok((branches.concat(), None)),
            Some(kind) => Err(Stop::committed(kind)),
        }
    }

    /// Walks a branch from its first step to the join.
    fn branch(
        &mut self,
        branch: &Branch,
        scope: &mut Scope,
        state: &Trace,
        arrived: Arrived<'_>,
    ) -> Result<Vec<Slot>, Stop> {
        let mut own = state.clone();
        let mut slots = Vec::new();
        let mut at = 0;
        let mut inherited = arrived;
        let mut failed: Option<(String, u32)> = None;
        let mut visited: Vec<usize> = Vec::new();
        let mut is_first = true;
        loop {
            let step = &branch[at];
            let arrived = match &failed {
                Some((node, attempt)) => Arrived { seen: Some((&**node, *attempt)), input: None },
                None => inherited,
            };
            let ended = self.branch_step(step, branch, scope, &own, arrived, is_first).and_then(|(added, taken)| {
                let mut after = own.clone();
                let to = self.route(step, branch, &taken, scope, "JOIN");
                // The end of the branch leaves its updates to the outermost join.
                for Slot { node, update } in added.iter().filter(|_| to.is_some()) {
                    update.apply(&mut after).map_err(|()| Stop::committed(Kind::poisoned(node.clone())))?;
                }
                own = after;
                Ok((added, taken, to))
            });
            is_first = false;
            let to = match ended {
                Ok((added, taken, to)) => {
                    visited.push(at);
                    slots.extend(added);
                    failed = None;
                    inherited = Arrived { seen: None, input: taken.value };
                    to
                }
                Err(stop) => {
                    let (fallback, seen) = self.fall_back(step, branch, scope, &visited, stop)?;
                    visited.push(at);
                    failed = Some(seen);
                    Some(fallback)
                }
            };
            let Some(to) = to else { return Ok(slots) };
            at = to;
        }
    }

    /// Runs a step of a branch. Returns its updates.
    fn branch_step(
        &mut self,
        step: &Step<ParallelWork>,
        branch: &Branch,
        scope: &mut Scope,
        own: &Trace,
        arrived: Arrived<'_>,
        is_first: bool,
    ) -> Result<(Vec<Slot>, Taken), Stop> {
        let path = scope.path(&step.name);
        let (from_node, router) = step.decision();
        if let ParallelWork::Group(group) = &step.work {
            let Joined { slots, line } = self.fork(group, &path, scope, own, arrived)?;
            self.push(line);
            let Some(decision) = router else { return Ok((slots, Taken::default())) };
            let mut after = own.clone();
            for Slot { node, update } in &slots {
                update.apply(&mut after).map_err(|()| Stop::committed(Kind::poisoned(node.clone())))?;
            }
            let taken = decision.taken(&after, branch);
            return Ok((slots, taken.map_err(|cause| Stop::committed(Kind::of_step(path, cause)))?));
        }
        if !is_first {
            self.check(&path)?;
        }
        scope.count(&path)?;
        let (update, taken) = self.attempts(&path, &step.options, &mut Shared, |machine, _, attempt| {
            let mut taken = Taken::default();
            let update = match &step.work {
                ParallelWork::Node(script) => {
                    let visit = Visit { script, path: &path, attempt, arrived, left: scope.left };
                    let act = visit.act(own);
                    machine.act(act, &path, true)?;
                    machine.end(act)?;
                    if let Some(decision) = from_node {
                        taken = decision.taken(own, branch).map_err(Fault::Own)?;
                    }
                    act.read_update(&visit)
                }
                ParallelWork::Mapped(mapped) => machine.mapped(mapped, scope, own, &path, arrived.seen)?,
                ParallelWork::Group(_) => unreachable!("a group has no attempts"),
            };
            if let Some(decision) = router {
                // The decision is a part of the attempt, and with it the merge that it needs.
                let mut after = own.clone();
                update.apply(&mut after).map_err(|()| Fault::Own(Cause::Panicked("poison")))?;
                taken = decision.taken(&after, branch).map_err(Fault::Own)?;
            }
            Ok(Output { value: (update, taken), fields: None })
        })?;
        Ok((vec![Slot { node: path, update }], taken))
    }
}

/// The arm of a decision, and the value that its edge carries.
#[derive(Clone, Copy, Default)]
struct Taken {
    arm: usize,
    value: Option<u32>,
}

/// The work of a step of a graph or of a branch.
trait Member {
    fn group(&self) -> Option<&Group>;
}

impl Member for Work {
    fn group(&self) -> Option<&Group> {
        match self {
            Self::Group(group) => Some(group),
            Self::Node(..) | Self::Graph(_) | Self::Mapped(_) => None,
        }
    }
}

impl Member for ParallelWork {
    fn group(&self) -> Option<&Group> {
        match self {
            Self::Group(group) => Some(group),
            Self::Node(_) | Self::Mapped(_) => None,
        }
    }
}

impl<W> Step<W> {
    /// Returns the decision after the step, as one that the node takes or one that a router takes.
    fn decision(&self) -> (Option<&Decision>, Option<&Decision>) {
        match &self.next {
            Next::Edge(_) => (None, None),
            Next::Decision(decision) if decision.is_from_node => (Some(decision), None),
            Next::Decision(decision) => (None, Some(decision)),
        }
    }
}

impl Items {
    /// Returns the items, or the reason for which the group fails before any of them runs.
    fn checked(self, state: &Trace) -> Result<Vec<u32>, Cause> {
        let items = self.items(state).map_err(Cause::Panicked)?;
        match self.max_items {
            Some(limit) if items.len() > limit => Err(Cause::TooManyItems(limit)),
            _ => Ok(items),
        }
    }
}

/// An attempt of a scripted node.
struct Visit<'a> {
    script: &'a Script,
    path: &'a str,
    attempt: u32,
    arrived: Arrived<'a>,
    left: usize,
}

impl Visit<'_> {
    fn act(&self, state: &Trace) -> Act {
        self.script.act(state.total, self.attempt)
    }

    fn line(&self) -> String {
        log_line(self.path, self.attempt, self.arrived, self.left)
    }
}

impl Act {
    /// Returns the update of a node that reads the state.
    fn read_update(self, visit: &Visit<'_>) -> Update {
        let total = if self.is_poisoned { POISON } else { self.adds };
        Update { total: Some(total).filter(|total| *total > 0), ..self.change(visit) }
    }

    /// Returns the change of a node that owns the state.
    fn change(self, visit: &Visit<'_>) -> Update {
        Update {
            log: Some(vec![visit.line()]),
            title: self.sets_title.then(|| visit.path.to_owned()),
            total: Some(self.adds),
        }
    }
}

impl Update {
    /// Applies the fields in the order of the state's fields, up to the first reducer that panics.
    fn apply(&self, state: &mut Trace) -> Result<(), ()> {
        state.log.extend(self.log.iter().flatten().cloned());
        if let Some(title) = &self.title {
            state.title.clone_from(title);
        }
        match self.total {
            Some(POISON) => return Err(()),
            total => state.total += total.unwrap_or_default(),
        }
        Ok(())
    }

    fn fields(&self) -> Vec<&'static str> {
        let fields = [("log", self.log.is_some()), ("title", self.title.is_some()), ("total", self.total.is_some())];
        fields.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field).collect()
    }
}

impl Held<'_> {
    fn apply(&mut self, update: &Update) -> Result<(), Fault> {
        self.is_exposed = true;
        update.apply(self.state).map_err(|()| Fault::Own(Cause::Panicked("poison")))
    }
}

impl Decision {
    fn taken<W>(&self, state: &Trace, steps: &[Step<W>]) -> Result<Taken, Cause> {
        self.taken_by(self.formula.route(state).map_err(Cause::Panicked)?, steps)
    }

    fn taken_by<W>(&self, route: ChosenRoute, steps: &[Step<W>]) -> Result<Taken, Cause> {
        let arm = route.arm as usize;
        match self.arms.get(arm) {
            Some(to) => {
                let carries = to.is_some_and(|to| steps[to].takes_input);
                Ok(Taken { arm, value: carries.then_some(route.value) })
            }
            // The routes of arms that carry values are not formatted.
            None if self.carries(steps) => Err(Cause::NoRoute(std::any::type_name::<ChosenRoute>().to_owned())),
            None => Err(Cause::NoRoute(format!("{route:?}"))),
        }
    }
}

impl Retry {
    /// Returns the delay before the next attempt, if there is one. `spent` is the time since the first attempt began.
    fn delay(self, retries: u32, cause: &Cause, spent: u64) -> Option<u64> {
        let is_retryable = match self.when {
            When::Always => true,
            When::Panics => matches!(cause, Cause::Panicked(_)),
            When::Faulty => false,
        };
        let delay = self.backoff.map_or(0, |first| first << retries.min(16)).min(self.max_delay.unwrap_or(60_000));
        let is_in_time = self.max_total.is_none_or(|total| spent + delay <= total);
        (is_retryable && retries < self.retries && is_in_time).then_some(delay)
    }
}

impl Scope {
    fn path(&self, name: &str) -> String {
        format!("{}{name}{}", self.prefix, self.items)
    }

    fn count(&mut self, path: &str) -> Result<(), Stop> {
        if self.left == 0 {
            return Err(Stop::committed(Kind::RecursionLimit {
                limit: self.limit,
                graph: self.limit_of.clone(),
                node: path.to_owned(),
                nodes: Vec::new(),
            }));
        }
        self.left -= 1;
        Ok(())
    }

    /// The smaller of the limit of the inner graph and of the steps that are left counts.
    fn inside(&self, path: &str, limit: Option<usize>) -> Self {
        let (prefix, items) = (format!("{path}/"), String::new());
        match limit {
            Some(limit) if limit < self.left => {
                Self { prefix, items, limit, limit_of: Some(path.to_owned()), left: limit }
            }
            _ => Self { prefix, items, ..self.clone() },
        }
    }
}

impl Stop {
    fn committed(kind: Kind) -> Self {
        Self::Failed(Failure { kind, is_committed: true })
    }
}

impl Failure {
    /// Returns whether a fallback, or another branch of an `any`, can go on.
    fn is_recoverable(&self) -> bool {
        self.is_committed && matches!(self.kind, Kind::Node { .. })
    }
}

impl Kind {
    /// The failure of a group itself.
    fn of_step(node: String, cause: Cause) -> Self {
        Self::Node { node, attempt: 1, elapsed: 0, cause }
    }

    fn poisoned(node: String) -> Self {
        Self::Node { node, attempt: 1, elapsed: 0, cause: Cause::Panicked("poison") }
    }

    fn node(&self) -> &str {
        match self {
            Self::Node { node, .. }
            | Self::Conflict { nodes: [_, node], .. }
            | Self::Cancelled { node }
            | Self::TimedOut { node, .. }
            | Self::RecursionLimit { node, .. } => node,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { node, attempt, elapsed, cause } => {
                let elapsed = Duration::from_millis(*elapsed);
                write!(f, "node `{node}` failed (attempt {attempt}, after {elapsed:.1?}): {cause}")
            }
            Self::Conflict { field, nodes: [first, second] } => {
                write!(f, "nodes `{first}` and `{second}` run in parallel and both replace `{field}`")
            }
            Self::Cancelled { node } => write!(f, "cancelled at node `{node}`"),
            Self::TimedOut { limit, node } => {
                write!(f, "timed out after {:?} at node `{node}`", Duration::from_millis(*limit))
            }
            Self::RecursionLimit { limit, graph, node, nodes } => {
                write!(f, "the recursion limit of {limit} node executions ")?;
                if let Some(graph) = graph {
                    write!(f, "of the graph `{graph}` ")?;
                }
                write!(f, "was reached before node `{node}`")?;
                if nodes.is_empty() { Ok(()) } else { write!(f, ", in the loop of `{}`", nodes.join("`, `")) }
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("no luck"),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::TimedOut(after) => write!(f, "timed out after {:?}", Duration::from_millis(*after)),
            Self::NoRoute(route) => write!(f, "no arm for the route `{route}`"),
            Self::TooManyItems(limit) => write!(f, "there are more than {limit} items"),
            Self::AllFailed(failures) => write!(f, "all branches failed: {}", failures.join("; ")),
        }
    }
}

/// Returns the first field that two branches replace, with the nodes.
fn conflict(branches: &[Vec<Slot>]) -> Option<Kind> {
    // The last node of a branch that replaces the title stands for the branch, and the first one of the later branch.
    let replaces = |slot: &&Slot| slot.update.title.is_some();
    let mut replacing = branches.iter().filter(|slots| slots.iter().any(|slot| replaces(&slot)));
    let first = replacing.next()?.iter().rfind(replaces)?;
    let second = replacing.next()?.iter().find(replaces)?;
    Some(Kind::Conflict { field: "title", nodes: [first.node.clone(), second.node.clone()] })
}

/// Returns the changed fields in the order in which they were first changed.
fn changed_fields(slots: &[Slot]) -> String {
    let mut fields: Vec<&str> = Vec::new();
    for field in slots.iter().flat_map(|slot| slot.update.fields()) {
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    format!("[{}]", fields.join(", "))
}

fn first_names(group: &Group, scope: &Scope) -> String {
    let names: Vec<_> = group.branches.iter().map(|branch| scope.path(&branch[0].name)).collect();
    format!("{{{}}}", names.join(", "))
}

fn first_node(group: &Group) -> &str {
    match &group.branches[0][0] {
        Step { work: ParallelWork::Group(group), .. } => first_node(group),
        Step { name, .. } => name,
    }
}

/// Returns the nodes between the two latest visits of the step that was visited twice last.
fn latest_loop<W: Member>(steps: &[Step<W>], scope: &Scope, visited: &[usize]) -> Vec<String> {
    let Some(end) = (0..visited.len()).rfind(|index| visited[..*index].contains(&visited[*index])) else {
        return Vec::new();
    };
    let start = visited[..end].iter().rposition(|step| *step == visited[end]).unwrap();
    let round = &visited[start + 1..=end];
    let is_latest = |index: &usize| !round[index + 1..].contains(&round[*index]);
    let mut names = Vec::new();
    for index in (0..round.len()).filter(is_latest) {
        add_names(&steps[round[index]], scope, &mut names);
    }
    names
}

fn add_names<W: Member>(step: &Step<W>, scope: &Scope, names: &mut Vec<String>) {
    match step.work.group() {
        Some(group) => group.branches.iter().flatten().for_each(|step| add_names(step, scope, names)),
        None => names.push(scope.path(&step.name)),
    }
}
