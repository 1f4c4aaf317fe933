//! Runs, as they are listed, cancelled and deleted.

use super::{
    super::{
        run::{CancelKind, CancelRequested, RunFilter, RunRow, RunStatus},
        thread::Deleted,
        value::Timestamp,
    },
    data::Data,
    run_table::Run,
};
use crate::run_id::RunId;

impl Data {
    pub(super) fn request_cancel(&mut self, id: RunId, kind: CancelKind, now: Timestamp) -> CancelRequested {
        let Some(run) = self.runs.get(id) else { return CancelRequested::NotFound };
        if run.row.status.has_ended() {
            return CancelRequested::AlreadyEnded(run.row.status);
        }
        if run.has_started() {
            let answer = CancelRequested::Marked { owner: run.row.owner, is_alive: self.is_driven(run, now) };
            if let Some(Run { row, .. }) = self.runs.get_mut(id) {
                row.cancel = row.cancel.max(Some(kind));
                row.updated_at = now;
            }
            return answer;
        }
        match kind {
            CancelKind::Cancel => self.runs.end(id, RunStatus::Cancelled, now),
            CancelKind::Rollback => self.trash.put(self.runs.remove(id)),
        }
        CancelRequested::Cancelled
    }

    pub(super) fn runs(&self, filter: &RunFilter) -> Vec<RunRow> {
        let is_selected = |run: &&Run| {
            let RunRow { run, status, owner, .. } = &run.row;
            filter.graph.as_ref().is_none_or(|graph| *graph == run.graph)
                && filter.status.is_none_or(|wanted| wanted == *status)
                && filter.owner.is_none_or(|wanted| wanted == *owner)
        };
        let runs: Box<dyn Iterator<Item = &Run>> = match &filter.thread {
            Some(thread) => Box::new(self.runs.of_thread(thread).rev()),
            None => Box::new(self.runs.iter().rev()),
        };
        let limit = filter.limit.unwrap_or(usize::MAX);
        runs.filter(is_selected).skip(filter.offset).take(limit).map(|run| run.row.clone()).collect()
    }

    pub(super) fn delete_run(&mut self, id: RunId) -> Deleted {
        let Some(run) = self.runs.get(id) else { return Deleted::NotFound };
        if !run.row.status.has_ended() && run.has_started() {
            return Deleted::Busy(id);
        }
        self.trash.put(self.runs.remove(id));
        Deleted::Yes
    }
}
