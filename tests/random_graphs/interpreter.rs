//! The reference interpreter: runs a program in plain recursive code on a clock of its own, without a runtime.
//!
//! The states, errors and times are those that the documentation promises. Everything that can happen at an instant happens
//! before a timeout of that instant. At a fork, branches run in written order until they first wait. What is not defined,
//! the order of two branches at the same later instant, is marked in the prediction.

use std::{fmt, time::Duration};

use super::{
    events::{Lines, end_line, error_line},
    program::{
        Access, Act, ActEnd, Branches, Decision, Graph, MapPanic, Mapped, Member, Next, Options, POISON, ParallelWork,
        Program, Retry, Script, Step, Trace, When, Work, log_line,
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
    let mut scope = Scope { prefix: String::new(), limit, limit_of: None, left: limit };
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
        machine.is_undefined |= machine.lines.times_of("fork failed").iter().any(|time| forks.contains(time));
    }
    let Machine { now, lines, is_unordered, is_undefined, .. } = machine;
    Prediction { end, lines, elapsed: now, is_unordered, is_undefined }
}

/// Returns the number of nodes, including those of nested graphs.
fn nodes(graph: &Graph) -> usize {
    let steps = graph.steps.iter().map(|step| match &step.work {
        Work::Node(..) => 1,
        Work::Graph(graph) | Work::Mapped(Mapped { graph, .. }) => 1 + nodes(graph),
        Work::Group(branches) => members(branches),
    });
    steps.sum()
}

fn members(branches: &Branches) -> usize {
    let members = branches.iter().flatten().map(|member| match &member.work {
        ParallelWork::Node(_) => 1,
        ParallelWork::Mapped(mapped) => 1 + nodes(&mapped.graph),
        ParallelWork::Group(branches) => members(branches),
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
    NoRoute(u32),
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
    limit: usize,
    limit_of: Option<String>,
    left: usize,
}

struct Update {
    log: Option<Vec<String>>,
    title: Option<String>,
    total: Option<u32>,
}

/// The update of a node of a group.
struct Slot {
    node: String,
    update: Update,
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
        let mut visited: Vec<usize> = Vec::new();
        loop {
            let step = &graph.steps[at];
            let seen = failed.as_ref().map(|(node, attempt)| (&**node, *attempt)).or(inherited);
            let failure = match self.step(step, scope, state, seen) {
                Ok(arm) => {
                    visited.push(at);
                    (failed, inherited) = (None, None);
                    let to = match &step.next {
                        Next::Edge(to) => *to,
                        Next::Decision(decision) => {
                            let to = decision.arms[arm];
                            let name = to.map_or("END", |to| &graph.steps[to].name);
                            self.push(format!("{} routed {arm} to {}{name}", scope.path(&step.name), scope.prefix));
                            to
                        }
                    };
                    let Some(to) = to else { return Ok(()) };
                    at = to;
                    continue;
                }
                Err(Stop::Failed(failure)) => failure,
                Err(dropped) => return Err(dropped),
            };
            match (failure, step.on_error) {
                (Failure { kind: Kind::Node { node, attempt, .. }, is_committed: true }, Some(fallback)) => {
                    visited.push(at);
                    let to = scope.path(&graph.steps[fallback].name);
                    self.push(format!("{} fell back to {to}", scope.path(&step.name)));
                    failed = Some((node, attempt));
                    at = fallback;
                }
                (mut failure, _) => {
                    if let Kind::RecursionLimit { nodes, .. } = &mut failure.kind
                        && nodes.is_empty()
                    {
                        *nodes = latest_loop(graph, scope, &visited);
                    }
                    return Err(Stop::Failed(failure));
                }
            }
        }
    }

    /// Runs a step. Returns the index of the arm.
    fn step(&mut self, step: &Step, scope: &mut Scope, state: &mut Trace, seen: Seen<'_>) -> Result<usize, Stop> {
        let path = scope.path(&step.name);
        let (from_node, router) = match &step.next {
            Next::Edge(_) => (None, None),
            Next::Decision(decision) if decision.is_from_node => (Some(decision), None),
            Next::Decision(decision) => (None, Some(decision)),
        };
        if let Work::Group(branches) = &step.work {
            self.group(branches, scope, state, seen)?;
            let arm = router.map_or(Ok(0), |decision| decision.arm(state));
            return arm.map_err(|cause| Stop::committed(Kind::Node { node: path, attempt: 1, elapsed: 0, cause }));
        }
        self.check(&path)?;
        scope.count(&path)?;
        let before = (step.options.retry.is_some() || step.on_error.is_some()).then(|| state.clone());
        let is_exposed = matches!(step.work, Work::Node(Access::InPlace, _) | Work::Graph(_));
        let mut held = Held { state, before, is_exposed };
        self.attempts(&path, &step.options, &mut held, |machine, held, attempt| {
            let mut output = match &step.work {
                Work::Node(access, script) => {
                    let visit = Visit { script, path: &path, attempt, seen };
                    machine.node(*access, &visit, from_node, held)?
                }
                Work::Graph(inner) => {
                    machine.nested(inner, scope, held.state, &path, seen).map_err(Fault::Stop)?;
                    Output { value: 0, fields: None }
                }
                Work::Mapped(inner) => {
                    let update = machine.mapped(inner, scope, held.state, &path, seen)?;
                    let fields = update.fields();
                    held.apply(&update)?;
                    Output { value: 0, fields: Some(fields.join(", ")) }
                }
                Work::Group(_) => unreachable!("a group has no attempts"),
            };
            if let Some(decision) = router {
                output.value = decision.arm(held.state).map_err(Fault::Own)?;
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

    /// Runs an attempt of a node outside of groups. Its output is the index of the arm.
    fn node(
        &mut self,
        access: Access,
        visit: &Visit<'_>,
        decision: Option<&Decision>,
        held: &mut Held<'_>,
    ) -> Result<Output<usize>, Fault> {
        let act = visit.act(held.state);
        if access == Access::InPlace {
            held.state.log.push(visit.line());
            held.state.total += act.adds;
            self.act(act, visit.path, false)?;
            if act.sets_title {
                visit.path.clone_into(&mut held.state.title);
            }
            self.end(act)?;
            let value = decision.map_or(Ok(0), |decision| decision.arm(held.state)).map_err(Fault::Own)?;
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
        let value =
            decision.zip(route).map_or(Ok(0), |(decision, route)| decision.arm_of(route)).map_err(Fault::Own)?;
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
    fn group(&mut self, branches: &Branches, scope: &mut Scope, state: &mut Trace, seen: Seen<'_>) -> Result<(), Stop> {
        let slots = self.fork(branches, scope, state, seen)?;
        let fields = changed_fields(&slots);
        for Slot { node, update } in slots {
            if update.apply(state).is_err() {
                self.push(format!("fork failed {}", first_names(branches, scope)));
                return Err(Stop::Failed(Failure { kind: Kind::poisoned(node), is_committed: false }));
            }
        }
        self.push(format!("fork joined {} changed {fields}", first_names(branches, scope)));
        Ok(())
    }

    /// Runs the branches side by side, up to the join. Returns their updates.
    fn fork(
        &mut self,
        branches: &Branches,
        scope: &mut Scope,
        state: &Trace,
        seen: Seen<'_>,
    ) -> Result<Vec<Slot>, Stop> {
        let names = first_names(branches, scope);
        self.emit(format!("fork started {names}"));
        let ended = self.check(&scope.path(first_node(branches))).and_then(|()| {
            let lanes = self.lanes(branches, scope, state, seen)?;
            let (slots, left): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
            scope.left = left.into_iter().min().unwrap();
            conflict(&slots)
                .map_or_else(|| Ok(slots.into_iter().flatten().collect()), |kind| Err(Stop::committed(kind)))
        });
        if ended.is_err() {
            self.push(format!("fork failed {names}"));
        }
        ended
    }

    /// Runs the branches side by side. Returns the updates of each, and the steps that it has left.
    fn lanes(
        &mut self,
        branches: &Branches,
        scope: &Scope,
        state: &Trace,
        seen: Seen<'_>,
    ) -> Result<Vec<(Vec<Slot>, usize)>, Stop> {
        let fork = self.now;
        let start = Self { lines: Lines::default(), ..self.clone() };
        let run = |branch: &[Member], cut: u64| {
            let mut lane = Self { cut, ..start.clone() };
            let mut scope = scope.clone();
            let ended = lane.branch(branch, &mut scope, state, seen);
            (lane, ended.map(|slots| (slots, scope.left)))
        };
        let mut lanes: Vec<_> = branches.iter().map(|branch| run(branch, self.cut)).collect();
        let failures = lanes.iter().enumerate().filter(|(_, (_, ended))| matches!(ended, Err(Stop::Failed(_))));
        let failed = failures.map(|(index, (lane, _))| (lane.now, index)).min();
        if let Some((end, first)) = failed {
            // The first failure ends the others.
            for (index, branch) in branches.iter().enumerate().filter(|(index, _)| *index != first) {
                lanes[index] = run(branch, end);
                if end == fork && index > first {
                    // The branch never began.
                    lanes[index].0 = Self { now: end, ..start.clone() };
                }
                self.is_undefined |= end > fork && lanes[index].0.lines.progresses_at(end);
            }
        }
        for (index, (lane, _)) in lanes.iter().enumerate() {
            let others = lanes[..index].iter().map(|(other, _)| &other.lines);
            self.is_unordered |= lane.is_unordered || lane.lines.meets(others, fork);
            self.is_undefined |= lane.is_undefined;
        }
        let drops: Vec<_> = match failed {
            // The others are dropped after the failure.
            Some((end, _)) => lanes
                .iter_mut()
                .filter(|(_, ended)| matches!(ended, Err(Stop::Dropped { .. })))
                .map(|(lane, _)| lane.lines.take_drops(end))
                .collect(),
            None => Vec::new(),
        };
        self.lines.merge(lanes.iter_mut().map(|(lane, _)| std::mem::take(&mut lane.lines)));
        self.lines.merge(drops.into_iter());
        if let Some((end, first)) = failed {
            self.now = end;
            let (_, ended) = lanes.swap_remove(first);
            return Err(ended.err().unwrap());
        }
        self.now = lanes.iter().map(|(lane, _)| lane.now).max().unwrap();
        let (ended, dropped): (Vec<_>, Vec<_>) = lanes.into_iter().map(|(_, ended)| ended).partition(Result::is_ok);
        if dropped.is_empty() {
            return Ok(ended.into_iter().flatten().collect());
        }
        let running = dropped.into_iter().flat_map(|ended| match ended {
            Err(Stop::Dropped { running, .. }) => running,
            _ => Vec::new(),
        });
        Err(Stop::Dropped { running: running.collect(), is_committed: true })
    }

    fn branch(
        &mut self,
        branch: &[Member],
        scope: &mut Scope,
        state: &Trace,
        seen: Seen<'_>,
    ) -> Result<Vec<Slot>, Stop> {
        let mut own = state.clone();
        let mut slots = Vec::new();
        for (position, member) in branch.iter().enumerate() {
            let path = scope.path(&member.name);
            let seen = seen.filter(|_| position == 0);
            if let ParallelWork::Group(branches) = &member.work {
                let inner = self.fork(branches, scope, &own, seen)?;
                let fields = changed_fields(&inner);
                self.push(format!("fork joined {} changed {fields}", first_names(branches, scope)));
                slots.push(inner);
            } else {
                if position > 0 {
                    self.check(&path)?;
                }
                scope.count(&path)?;
                let update = self.attempts(&path, &member.options, &mut Shared, |machine, _, attempt| {
                    let value = match &member.work {
                        ParallelWork::Node(script) => {
                            let visit = Visit { script, path: &path, attempt, seen };
                            let act = visit.act(&own);
                            machine.act(act, &path, true)?;
                            machine.end(act)?;
                            act.read_update(&visit)
                        }
                        ParallelWork::Mapped(mapped) => machine.mapped(mapped, scope, &own, &path, seen)?,
                        ParallelWork::Group(_) => unreachable!("a group has no attempts"),
                    };
                    Ok(Output { value, fields: None })
                })?;
                slots.push(vec![Slot { node: path, update }]);
            }
            if position + 1 < branch.len() {
                for Slot { node, update } in slots.last().unwrap() {
                    update.apply(&mut own).map_err(|()| Stop::committed(Kind::poisoned(node.clone())))?;
                }
            }
        }
        Ok(slots.into_iter().flatten().collect())
    }
}

/// An attempt of a scripted node.
struct Visit<'a> {
    script: &'a Script,
    path: &'a str,
    attempt: u32,
    seen: Seen<'a>,
}

impl Visit<'_> {
    fn act(&self, state: &Trace) -> Act {
        self.script.act(state.total, self.attempt)
    }

    fn line(&self) -> String {
        log_line(self.path, self.attempt, self.seen)
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
    fn arm(&self, state: &Trace) -> Result<usize, Cause> {
        self.arm_of(self.formula.route(state).map_err(Cause::Panicked)?)
    }

    fn arm_of(&self, route: u32) -> Result<usize, Cause> {
        let arm = route as usize;
        if arm < self.arms.len() { Ok(arm) } else { Err(Cause::NoRoute(route)) }
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
        format!("{}{name}", self.prefix)
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
        let prefix = format!("{path}/");
        match limit {
            Some(limit) if limit < self.left => Self { prefix, limit, limit_of: Some(path.to_owned()), left: limit },
            _ => Self { prefix, ..self.clone() },
        }
    }
}

impl Stop {
    fn committed(kind: Kind) -> Self {
        Self::Failed(Failure { kind, is_committed: true })
    }
}

impl Kind {
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

fn first_names(branches: &Branches, scope: &Scope) -> String {
    let names: Vec<_> = branches.iter().map(|branch| scope.path(&branch[0].name)).collect();
    format!("[{}]", names.join(", "))
}

fn first_node(branches: &Branches) -> &str {
    match &branches[0][0] {
        Member { work: ParallelWork::Group(branches), .. } => first_node(branches),
        Member { name, .. } => name,
    }
}

/// Returns the nodes between the two latest visits of the step that was visited twice last.
fn latest_loop(graph: &Graph, scope: &Scope, visited: &[usize]) -> Vec<String> {
    let Some(end) = (0..visited.len()).rfind(|index| visited[..*index].contains(&visited[*index])) else {
        return Vec::new();
    };
    let start = visited[..end].iter().rposition(|step| *step == visited[end]).unwrap();
    let round = &visited[start + 1..=end];
    let is_latest = |index: &usize| !round[index + 1..].contains(&round[*index]);
    let mut names = Vec::new();
    for index in (0..round.len()).filter(is_latest) {
        match &graph.steps[round[index]] {
            Step { work: Work::Group(branches), .. } => add_names(branches, scope, &mut names),
            Step { name, .. } => names.push(scope.path(name)),
        }
    }
    names
}

fn add_names(branches: &Branches, scope: &Scope, names: &mut Vec<String>) {
    for member in branches.iter().flatten() {
        match &member.work {
            ParallelWork::Group(branches) => add_names(branches, scope, names),
            _ => names.push(scope.path(&member.name)),
        }
    }
}
