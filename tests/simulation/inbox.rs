//! What the intake relies on, asked of every store that stands behind it: one suite for the store of the
//! simulation and for Postgres, so that they cannot drift apart.
//!
//! [`Subject`] is what a case needs of a store; [`cases`] are the cases; `inbox_cases!` names them.

pub mod cases;
mod subject;

pub use subject::{Subject, TOPIC, id, source};

/// Calls a macro of the caller's with the names of all cases.
#[macro_export]
macro_rules! inbox_cases {
    ($each:ident) => {
        $each! {
            a_claim_is_its_first_owners_for_ever
            only_what_was_claimed_now_comes_back
            a_claim_under_way_is_waited_for_and_lost_to_its_commit
            a_claim_under_way_is_waited_for_and_won_when_it_is_given_up
            a_transaction_that_is_dropped_stores_nothing
            claims_under_way_are_seen_by_their_own_transaction_only
            what_is_set_aside_later_is_set_aside
            a_claim_that_was_set_aside_is_taken_over_once_and_by_another_record
            a_decided_claim_is_not_taken_over
            a_take_over_under_way_is_waited_for_and_lost_to_its_commit
            a_take_over_under_way_is_waited_for_and_won_when_it_is_given_up
            a_claim_waits_for_a_take_over_under_way_and_loses
            who_waited_for_a_claim_has_the_later_rows
            a_data_error_stores_nothing_and_frees_the_claims
            rows_are_there_after_the_commit_in_the_order_given
            a_transaction_whose_connection_is_cut_stores_nothing_and_frees_its_claims
            a_cut_in_mid_statement_is_trouble_of_the_store
            a_claim_that_waits_for_an_owner_that_is_cut_off_is_won
            a_take_over_that_is_cut_off_leaves_the_claim_set_aside
            a_commit_whose_answer_is_lost_is_found_again_as_its_own_duplicate
            a_commit_that_nobody_waits_for_is_whole_or_nothing
        }
    };
}
