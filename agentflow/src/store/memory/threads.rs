//! Threads: their list, history, edits, copies and deletion.

use std::cmp::Reverse;

use serde_json::{Map, Value};

use super::{
    super::{
        error::{StoreError, StoreErrorKind},
        id::ThreadId,
        thread::{
            CheckpointRow, Deleted, Edit, Edited, HistoryFilter, NewThread, Rest, ThreadFilter, ThreadOrder,
            ThreadPage, ThreadRow,
        },
        value::Timestamp,
    },
    data::{Data, Thread},
    fields::has_fields,
    run_table::Run,
};

impl Data {
    pub(super) fn create_thread(&mut self, new: &NewThread, now: Timestamp) -> (ThreadRow, bool) {
        if let Some(row) = self.thread_row(&new.id, now) {
            return (row, false);
        }
        let mut thread = Thread::new(new.graph.clone(), now);
        thread.metadata.clone_from(&new.metadata);
        let row = thread.row(&new.id, false);
        self.threads.insert(new.id.clone(), thread);
        self.enforce_limits(&new.id);
        (row, true)
    }

    pub(super) fn list_threads(&self, filter: &ThreadFilter, now: Timestamp) -> ThreadPage {
        let is_selected = |(id, thread): &(&ThreadId, &Thread)| {
            filter.graph.as_ref().is_none_or(|graph| *graph == thread.graph)
                && filter.ids.as_ref().is_none_or(|ids| ids.contains(id))
                && has_fields(&thread.metadata, &filter.metadata)
                && filter.updated_before.is_none_or(|time| thread.updated_at < time)
                && (!filter.without_questions || thread.questions.open().next().is_none())
        };
        let rows = self.threads.iter().filter(is_selected).filter_map(|(id, _)| self.thread_row(id, now));
        let mut rows: Vec<ThreadRow> =
            rows.filter(|row| filter.status.is_none_or(|status| status == row.status)).collect();
        match filter.order {
            ThreadOrder::Updated => rows.sort_by_key(|row| Reverse(row.updated_at)),
            ThreadOrder::Created => rows.sort_by_key(|row| Reverse(row.created_at)),
            ThreadOrder::Id => {}
        }
        let total = rows.len();
        let page = rows.into_iter().skip(filter.offset).take(filter.limit.unwrap_or(usize::MAX));
        ThreadPage::new(page.collect(), total)
    }

    pub(super) fn patch_metadata(
        &mut self,
        id: &ThreadId,
        patch: &Map<String, Value>,
        now: Timestamp,
    ) -> Option<ThreadRow> {
        let thread = self.threads.get_mut(id)?;
        for (field, value) in patch {
            if value.is_null() {
                thread.metadata.remove(field);
            } else {
                thread.metadata.insert(field.clone(), value.clone());
            }
        }
        thread.updated_at = now;
        self.thread_row(id, now)
    }

    pub(super) fn history(&self, id: &ThreadId, filter: &HistoryFilter) -> Vec<CheckpointRow> {
        let Some(thread) = self.threads.get(id) else { return Vec::new() };
        let selected = thread.checkpoints.iter().rev().filter(|row| {
            filter.before.is_none_or(|before| row.id < before)
                && filter.run.is_none_or(|run| row.run == Some(run))
                && filter.source.is_none_or(|source| row.source == source)
        });
        selected.take(filter.limit.unwrap_or(usize::MAX)).cloned().collect()
    }

    pub(super) fn edit(&mut self, edit: &Edit, now: Timestamp) -> Result<Edited, StoreError> {
        let mut new_thread = None;
        let thread = match self.threads.get_mut(&edit.thread) {
            Some(thread) => thread,
            None => new_thread.insert(Thread::new(edit.graph.clone(), now)),
        };
        if thread.graph != edit.graph {
            return Ok(Edited::OtherGraph(thread.graph.clone()));
        }
        if let Some(first) = self.runs.first_of(&edit.thread, now) {
            return Ok(Edited::Busy(first.id()));
        }
        if thread.head != edit.expected_head {
            return Ok(Edited::HeadMoved(thread.head));
        }
        if edit.parent.is_some_and(|parent| !thread.checkpoints.contains(parent)) {
            let reason = "the parent is no checkpoint of the thread";
            return Err(StoreError::new("edit", StoreErrorKind::Invalid).with_source(reason));
        }
        let new = std::slice::from_ref(&edit.checkpoint);
        let built = thread.checkpoints.build("edit", new, edit.parent, None, now)?;

        if edit.drops_questions || edit.parent != thread.head {
            thread.questions.drop_all(None);
            thread.progress.clear(&mut self.trash);
        }
        let made = built[0].row.id;
        thread.checkpoints.insert(built);
        thread.head = Some(made);
        thread.rest = edit.rest;
        thread.updated_at = now;
        if let Some(thread) = new_thread {
            self.threads.insert(edit.thread.clone(), thread);
        }
        self.enforce_limits(&edit.thread);
        Ok(Edited::Made(made))
    }

    pub(super) fn copy_thread(
        &mut self,
        from: &ThreadId,
        to: &ThreadId,
        now: Timestamp,
    ) -> Result<Option<ThreadRow>, StoreError> {
        if self.threads.contains_key(to) {
            let reason = "the thread to copy to exists";
            return Err(StoreError::new("copy_thread", StoreErrorKind::Invalid).with_source(reason));
        }
        let Some(source) = self.threads.get(from) else { return Ok(None) };
        let mut copy = Thread::new(source.graph.clone(), now);
        copy.head = source.head;
        copy.metadata.clone_from(&source.metadata);
        copy.checkpoints = source.checkpoints.clone();
        copy.questions = source.questions.copy_open();
        let is_at_end = |id| source.checkpoints.get(id).is_none_or(|row| row.next.is_empty());
        copy.rest = match self.runs.unfinished_of(from).any(Run::has_started) {
            false => source.rest,
            true if source.head.is_none_or(is_at_end) => Rest::Idle,
            true => Rest::Paused,
        };
        self.threads.insert(to.clone(), copy);
        self.enforce_limits(to);
        Ok(self.thread_row(to, now))
    }

    pub(super) fn delete_thread(&mut self, id: &ThreadId, now: Timestamp) -> Deleted {
        if !self.threads.contains_key(id) {
            return Deleted::NotFound;
        }
        let is_driven = |run: &&Run| run.is_running() && self.owners.is_alive(run.row.owner, now);
        if let Some(run) = self.runs.unfinished_of(id).find(is_driven) {
            return Deleted::Busy(run.id());
        }
        self.remove_thread(id);
        Deleted::Yes
    }

    pub(super) fn prune(&mut self, id: &ThreadId, keep: usize) -> usize {
        let needed = self.needed_checkpoints(id);
        let Some(thread) = self.threads.get_mut(id) else { return 0 };
        let removed = thread.checkpoints.prune(keep, &needed);
        let count = removed.len();
        self.trash.put(removed);
        count
    }
}
