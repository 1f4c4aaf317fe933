//! Events as lines of text, which the interpreter and the runs write in the same form.

use agentflow::run::EventKind;

/// Events in their order, each with its instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Lines(Vec<(u64, String)>);

impl Lines {
    pub(super) fn push(&mut self, time: u64, line: String) {
        self.0.push((time, line));
    }

    /// Adds the events of branches: those of one instant in the order of the branches.
    pub(super) fn merge(&mut self, branches: impl Iterator<Item = Self>) {
        let mut merged: Vec<_> = branches.flat_map(|lines| lines.0).collect();
        merged.sort_by_key(|(time, _)| *time);
        self.0.extend(merged);
    }

    /// Takes the last lines, which close the groups of a branch that is dropped at the instant.
    pub(super) fn take_drops(&mut self, instant: u64) -> Self {
        let is_drop = |(time, line): &(u64, String)| *time == instant && line.starts_with("fork failed");
        let kept = self.0.iter().rposition(|line| !is_drop(line)).map_or(0, |last| last + 1);
        Self(self.0.split_off(kept))
    }

    /// Returns the instants of the lines that begin with the text.
    pub(super) fn times_of(&self, start: &str) -> Vec<u64> {
        self.0.iter().filter(|(_, line)| line.starts_with(start)).map(|(time, _)| *time).collect()
    }

    /// Returns the instants at which a group may have dropped branches.
    pub(super) fn times_of_drops(&self) -> Vec<u64> {
        let is_drop = |line: &str| line.starts_with("fork failed") || line.contains(", won by ");
        self.0.iter().filter(|(_, line)| is_drop(line)).map(|(time, _)| *time).collect()
    }

    pub(super) fn count_at(&self, instant: u64) -> usize {
        self.0.iter().filter(|(time, _)| *time == instant).count()
    }

    /// Returns whether anything happens at the instant, except that dropped groups are closed.
    pub(super) fn progresses_at(&self, instant: u64) -> bool {
        self.0.iter().any(|(time, line)| *time == instant && !line.starts_with("fork failed"))
    }

    /// Returns whether one of the others has an event at the same instant, after this one.
    pub(super) fn meets<'a>(&self, others: impl Iterator<Item = &'a Self>, after: u64) -> bool {
        let times: Vec<_> = self.0.iter().map(|(time, _)| *time).filter(|time| *time > after).collect();
        others.into_iter().any(|other| times.iter().any(|time| other.count_at(*time) > 0))
    }

    /// Returns the lines with those of one instant in the order of their text, for runs whose order is not defined.
    pub(super) fn sorted(&self) -> Self {
        let mut lines = self.clone();
        lines.0.sort();
        lines
    }

    /// Returns the lines that belong to one node, or to the forks that start with one.
    pub(super) fn of_subject(&self, subject: &str) -> Vec<&(u64, String)> {
        self.0.iter().filter(|(_, line)| subject_of(line) == subject).collect()
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, line)| subject_of(line))
    }

    pub(super) fn count_of(&self, start: &str) -> usize {
        self.times_of(start).len()
    }
}

fn subject_of(line: &str) -> &str {
    if line.starts_with("fork") {
        return line.split(['{', '}']).nth(1).unwrap_or_default();
    }
    line.split([' ', '#']).next().unwrap_or_default()
}

/// Returns the line of an event.
pub(super) fn event_line(kind: &EventKind) -> String {
    match kind {
        EventKind::RunStarted { .. } => "run started".to_owned(),
        EventKind::NodeStarted { node, attempt, .. } => format!("{node}#{attempt} started"),
        EventKind::NodeEnded { node, attempt, elapsed, .. } => {
            format!("{node}#{attempt} ended after {}", elapsed.as_millis())
        }
        EventKind::NodeFailed { node, attempt, elapsed, error, retry_in, .. } => {
            let (elapsed, delay) = (elapsed.as_millis(), retry_in.map(|delay| delay.as_millis()));
            format!("{node}#{attempt} failed after {elapsed}, next in {delay:?}: {}", error_line(error))
        }
        EventKind::Updated { node, fields, .. } => format!("{node} updated [{}]", fields.join(", ")),
        EventKind::RouteTaken { node, route, to, carries, .. } => {
            let carries = carries.as_deref().map(|carried| format!(", with {carried}")).unwrap_or_default();
            format!("{node} routed {route} to {to}{carries}")
        }
        EventKind::GroupStarted { nodes, items, .. } => {
            let items = items.map(|items| format!(" for {items} items")).unwrap_or_default();
            format!("fork started {{{}}}{items}", nodes.join(", "))
        }
        EventKind::GroupJoined { nodes, fields, winner, .. } => {
            let winner = winner.as_deref().map(|winner| format!(", won by {winner}")).unwrap_or_default();
            format!("fork joined {{{}}} changed [{}]{winner}", nodes.join(", "), fields.join(", "))
        }
        EventKind::GroupFailed { nodes, .. } => format!("fork failed {{{}}}", nodes.join(", ")),
        EventKind::FallbackTaken { node, to, .. } => format!("{node} fell back to {to}"),
        EventKind::Custom { node, data, .. } => format!("{node} wrote {data}"),
        EventKind::RunEnded { error, .. } => format!("run ended: {:?}", error.as_deref().map(end_line)),
        other => format!("{other:?}"),
    }
}

/// Returns the text of an error without its advice.
pub(super) fn error_line(error: &str) -> String {
    error.split("; ").next().unwrap_or_default().to_owned()
}

/// Returns the text of a run's error. An interrupt of a group may name any of its running nodes, so that the name is left
/// out; the tests compare it apart.
pub(super) fn end_line(error: &str) -> String {
    let line = error_line(error);
    let is_interrupt = line.starts_with("cancelled at") || line.starts_with("timed out after");
    if is_interrupt { line.split(" at node").next().unwrap_or_default().to_owned() } else { line }
}
