//! Each planted fault makes the suite fail at the check whose name says what is wrong.

use std::{sync::Arc, time::Duration};

use agentflow::store::{
    Store,
    conformance::{self, Fixture, FixtureFuture},
};

use crate::faulty::{Fault, Faulty};

impl Fixture for Faulty {
    fn open(&self) -> FixtureFuture<'_, Arc<dyn Store>> {
        Box::pin(async { Arc::new(self.clone()) as Arc<dyn Store> })
    }

    fn advance(&self, duration: Duration) -> FixtureFuture<'_, ()> {
        Box::pin(async move { self.store.advance(duration) })
    }
}

/// Fails unless the suite finds the fault by these checks.
async fn find(fault: Fault, checks: &[&str]) {
    let failed = conformance::run(async || Faulty::new(fault)).await.unwrap_err();
    for check in checks {
        assert!(
            failed.failures.iter().any(|failure| failure.check == *check),
            "{check} passes with {fault:?}: {failed}"
        );
    }
    // A fault breaks what it is about, not the whole suite.
    assert!(failed.failures.len() <= conformance::checks().len() / 3, "{failed}");
}

macro_rules! faults {
    ($($test:ident: $fault:ident, $($check:ident),+;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $test() {
            find(Fault::$fault, &[$(stringify!($check)),+]).await;
        }
    )*};
}

faults! {
    a_lost_update: LostUpdate, an_item_has_a_version, writers_of_one_item_lose_no_update;
    a_commit_in_two_parts: CommitInTwoParts, a_commit_is_seen_whole;
    an_ignored_epoch: IgnoredEpoch, a_commit_of_a_former_epoch_is_fenced;
    a_repeated_commit_applied_twice: RepeatedCommitAppliedTwice, a_repeated_commit_changes_nothing;
    a_claim_given_twice: ClaimGivenTwice, a_task_is_claimed_once, no_task_is_claimed_by_two_owners;
    an_outcome_overwritten_by_a_late_takeover: OutcomeOverwritten, a_late_outcome_changes_nothing, a_task_ends_once;
    a_head_moved_without_compare:
        HeadMovedWithoutCompare, an_edit_of_a_moved_head_is_refused, of_two_edits_of_one_head_one_wins;
    a_question_answered_twice:
        QuestionAnsweredTwice, a_question_is_answered_once, of_two_answers_to_one_question_one_wins;
    a_queue_order_by_clock: QueueOrderByClock, queued_runs_start_in_the_order_of_acceptance;
    a_prune_that_breaks_a_delta_chain: PruneBreaksDeltas, pruning_keeps_the_state_of_what_is_kept;
    a_fork_that_sees_its_siblings_deltas: ForkSeesSibling, branches_share_only_their_ancestors;
    a_rollback_that_takes_a_fork_along: RollbackTakesFork, a_rollback_leaves_a_copy_of_the_thread;
    an_ignored_due_time: IgnoredDueTime, a_task_is_claimed_when_it_is_due, a_claim_knows_the_next_due_time;
    an_ignored_key:
        IgnoredKey, a_key_can_skip_a_new_task, a_key_can_replace_a_pending_task, a_key_can_replace_a_running_task,
        a_key_can_queue_tasks;
    a_refusal_that_undoes_its_batch: RefusalUndoesBatch, a_refusal_undoes_no_other_operation;
    history_out_of_order: HistoryOutOfOrder, history_is_newest_first;
    nan_as_null: NanAsNull, a_value_that_is_no_json_is_refused_or_comes_back;
    an_ignored_lease: LeaseIgnored, a_run_of_a_living_owner_is_not_taken_over;
    a_release_that_counts_as_a_crash: ReleaseIsACrash, a_released_run_is_the_first_of_its_thread;
    crashes_that_are_not_forgotten: CrashesNotForgotten, a_commit_forgets_the_crashes;
}
