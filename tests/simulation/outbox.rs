//! One conformance suite for every maker of [`outbox_publisher::ports::OutboxStore`]'s statements: the
//! store in memory, whose lies the simulation stands on, and Postgres.
//!
//! [`Subject`] is what a case needs of a store; [`cases`] are the cases; `outbox_cases!` names them.

pub mod cases;
mod subject;

pub use subject::{Subject, Writer};

/// Calls a macro of the caller's with the names of all cases.
#[macro_export]
macro_rules! outbox_cases {
    ($make_tests:ident) => {
        $make_tests! {
            a_take_over_raises_the_epoch
            a_lease_that_lasts_is_not_taken
            what_is_given_back_goes_to_the_next_owner_with_its_low_id
            a_renewal_stores_the_low_id
            own_leases_of_a_lost_connection_begin_anew
            a_server_of_another_life_moves_no_lease
            a_read_sees_what_is_committed_in_id_order
            a_read_keeps_to_bound_low_id_and_limit
            a_read_of_an_older_epoch_sees_nothing
            a_read_goes_down_to_the_floor_of_a_transaction_that_ended
            a_read_over_its_bytes_says_what_it_cut
            a_snapshot_names_running_transactions_below_the_last_completed
            a_mark_makes_every_running_writer_named
            a_mark_samples_what_was_drawn_whether_committed_or_not
            a_settle_names_bucket_id_and_event_id
            a_settle_counts_what_was_not_published_yet
            a_settled_side_or_failed_row_is_back_in_lane_0
            a_change_of_an_older_epoch_changes_nothing
            a_change_touches_pending_rows_only
            a_retry_counts_an_attempt_and_waits_and_a_park_does_neither
            a_look_shows_lane_1_in_id_order
            a_look_of_an_older_epoch_sees_nothing
            a_look_says_which_lanes_it_cut_and_how_far_it_came
            a_look_shows_the_failed_heads_that_halt
            a_writer_that_inserted_holds_a_lock_until_it_ends
            a_writer_that_is_cut_off_leaves_nothing_and_holds_nobody_up
            a_settle_whose_answer_was_lost_is_made_again_and_changes_nothing_more
            a_retry_whose_answer_was_lost_counts_once
            a_take_over_whose_answer_was_lost_is_made_again_under_a_higher_epoch
            an_owner_that_died_with_its_lease_is_succeeded_at_its_stored_low_id_when_the_lease_is_over
        }
    };
}
