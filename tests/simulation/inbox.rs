//! What the intake relies on, asked of every store that stands behind it: one suite for the store of the
//! simulation and for Postgres, so that they cannot drift apart.

#![allow(missing_docs)] // a case's name says what it shows

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use shared::headers::Headers;
use shared::id::EventId;
use triage_service::domain::dead_letter::Reason;
use triage_service::domain::outcome::OutboxEvent;
use triage_service::domain::record::Coordinates;
use triage_service::intake::inbox::{Claim, Inbox, InboxError, InboxTransaction, StandingClaim};
use uuid::Uuid;

/// The topic of all records here.
pub const TOPIC: &str = "in";

/// A store that is asked, and what is known of it beside its port.
pub trait Subject {
    type Inbox: Inbox;

    /// A worker of its own.
    fn worker(&self) -> Self::Inbox;

    /// Whether a statement that was sent is still waiting when everything else has been done.
    fn waits(&self, statement: impl Future + Unpin) -> impl Future<Output = bool>;

    /// The same row with something in it that the store refuses to take.
    fn spoilt(&self, row: OutboxEvent) -> OutboxEvent;

    /// The connections of all open transactions are cut, and the server has noticed.
    fn cut(&self) -> impl Future<Output = ()>;

    /// The offsets of the committed outbox rows, in the order of their ids.
    fn appended(&self) -> impl Future<Output = Vec<i64>>;
}

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
/// No rows.
const NOTHING: [i64; 0] = [];

/// The id that the record at an offset would have of its own; cases use those of other records as well.
pub fn id(number: i64) -> EventId {
    EventId::from_uuid(Uuid::from_u128(0x8000_4000_8000_0000_0000_0000 + number as u128))
}

pub fn source(offset: i64) -> Coordinates {
    Coordinates {
        topic: Arc::from(TOPIC),
        partition: 0,
        offset,
    }
}

/// A claim of the record at `offset`, for a decision.
fn claim(number: i64, offset: i64) -> Claim {
    Claim {
        event_id: id(number),
        event_id_text: None,
        source: source(offset),
        digest: [offset as u8; 16],
        set_aside: None,
    }
}

/// The same, of a record that is set aside.
fn aside(number: i64, offset: i64) -> Claim {
    Claim {
        set_aside: Some(Reason::Undecodable),
        ..claim(number, offset)
    }
}

fn standing(claim: &Claim) -> StandingClaim {
    StandingClaim {
        event_id: claim.event_id,
        source: claim.source.clone(),
        digest: claim.digest,
        is_set_aside: claim.set_aside.is_some(),
    }
}

fn row(offset: i64) -> OutboxEvent {
    OutboxEvent {
        event_id: EventId::from_uuid(Uuid::from_u128(0x9000_4000_8000_0000_0000_0000 + offset as u128)),
        topic: "conformance".to_owned(),
        key: Some(b"key".to_vec()),
        event_type: "test".to_owned(),
        content_type: "application/json".to_owned(),
        payload: Some(b"{}".to_vec()),
        headers: Headers::new(),
        traceparent: None,
        tracestate: None,
        source: source(offset),
    }
}

async fn begin<S: Subject>(store: &S) -> <S::Inbox as Inbox>::Transaction {
    store.worker().begin().await.expect("a transaction begins")
}

/// What a transaction of its own claims of these.
async fn claimed<S: Subject>(store: &S, claims: &[Claim]) -> Vec<EventId> {
    let mut transaction = begin(store).await;
    let mut ours = transaction.claim(claims).await.expect("nobody is in the way");
    transaction.commit().await.expect("it commits");
    ours.sort_unstable();
    ours
}

/// Whether a transaction of its own takes the claim over.
async fn taken_over<S: Subject>(store: &S, claim: &Claim) -> bool {
    let mut transaction = begin(store).await;
    let is_taken = transaction.take_over(claim).await.expect("nobody is in the way");
    transaction.commit().await.expect("it commits");
    is_taken
}

/// The claims as a transaction of its own sees them.
async fn seen<S: Subject>(store: &S, numbers: &[i64]) -> Vec<StandingClaim> {
    let mut transaction = begin(store).await;
    let seen = seen_by(&mut transaction, numbers).await;
    transaction.roll_back().await;
    seen
}

async fn seen_by<T: InboxTransaction>(transaction: &mut T, numbers: &[i64]) -> Vec<StandingClaim> {
    let ids: Vec<EventId> = numbers.iter().copied().map(id).collect();
    let mut seen = transaction.conflicts(&ids).await.expect("claims can be read");
    seen.sort_unstable_by_key(|claim| claim.event_id);
    seen
}

pub async fn a_claim_is_its_first_owners_for_ever<S: Subject>(store: &S) {
    assert_eq!(claimed(store, &[claim(1, 1)]).await, [id(1)]);
    assert_eq!(claimed(store, &[claim(1, 2)]).await, []);
    assert_eq!(seen(store, &[1]).await, [standing(&claim(1, 1))]);
}

pub async fn only_what_was_claimed_now_comes_back<S: Subject>(store: &S) {
    claimed(store, &[claim(2, 2), claim(4, 4)]).await;
    let all = [claim(1, 11), claim(2, 12), claim(3, 13), claim(4, 14), claim(5, 15)];
    assert_eq!(claimed(store, &all).await, [id(1), id(3), id(5)]);
    let expected = [claim(1, 11), claim(2, 2), claim(4, 4)];
    assert_eq!(seen(store, &[1, 2, 4, 9]).await, expected.each_ref().map(standing));
}

pub async fn a_claim_under_way_is_waited_for_and_lost_to_its_commit<S: Subject>(store: &S) {
    let (mut first, mut second) = (begin(store).await, begin(store).await);
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    let wanted = [claim(1, 2), claim(2, 3)];
    let ours = {
        let mut waiting = pin!(second.claim(&wanted));
        assert!(store.waits(&mut waiting).await);
        first.commit().await.expect("it commits");
        waiting.await.expect("the way is free")
    };
    assert_eq!(ours, [id(2)]);
    // The winner is seen by a statement after the wait, within the same transaction.
    let expected = [claim(1, 1), claim(2, 3)];
    assert_eq!(seen_by(&mut second, &[1, 2]).await, expected.each_ref().map(standing));
    second.commit().await.expect("it commits");
}

pub async fn a_claim_under_way_is_waited_for_and_won_when_it_is_given_up<S: Subject>(store: &S) {
    let (mut first, mut second) = (begin(store).await, begin(store).await);
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    let wanted = [claim(1, 2)];
    let ours = {
        let mut waiting = pin!(second.claim(&wanted));
        assert!(store.waits(&mut waiting).await);
        first.roll_back().await;
        waiting.await.expect("the way is free")
    };
    second.commit().await.expect("it commits");
    assert_eq!(ours, [id(1)]);
    assert_eq!(seen(store, &[1]).await, [standing(&claim(1, 2))]);
}

pub async fn a_transaction_that_is_dropped_stores_nothing<S: Subject>(store: &S) {
    let mut first = begin(store).await;
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    first.append(&[], &[row(1)]).await.expect("rows are taken");
    drop(first);
    assert_eq!(claimed(store, &[claim(1, 2)]).await, [id(1)]);
    assert_eq!(store.appended().await, NOTHING);
}

pub async fn claims_under_way_are_seen_by_their_own_transaction_only<S: Subject>(store: &S) {
    let mut first = begin(store).await;
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    assert_eq!(seen_by(&mut first, &[1]).await, [standing(&claim(1, 1))]);
    assert_eq!(seen(store, &[1]).await, []);
    first.commit().await.expect("it commits");
    assert_eq!(seen(store, &[1]).await, [standing(&claim(1, 1))]);
}

pub async fn what_is_set_aside_later_is_set_aside<S: Subject>(store: &S) {
    let mut first = begin(store).await;
    first.claim(&[claim(1, 1), claim(2, 2)]).await.expect("they are free");
    first
        .set_aside(&[(id(2), Reason::Undecodable)])
        .await
        .expect("it is ours");
    let expected = [claim(1, 1), aside(2, 2)];
    assert_eq!(seen_by(&mut first, &[1, 2]).await, expected.each_ref().map(standing));
    first.commit().await.expect("it commits");
    assert_eq!(seen(store, &[1, 2]).await, expected.each_ref().map(standing));
}

pub async fn a_claim_that_was_set_aside_is_taken_over_once_and_by_another_record<S: Subject>(store: &S) {
    claimed(store, &[aside(1, 1)]).await;
    assert!(
        !taken_over(store, &claim(1, 1)).await,
        "a redelivery is no other record"
    );
    assert!(taken_over(store, &aside(1, 2)).await, "set aside again");
    assert!(taken_over(store, &claim(1, 3)).await);
    assert!(!taken_over(store, &claim(1, 4)).await);
    assert_eq!(seen(store, &[1]).await, [standing(&claim(1, 3))]);
}

pub async fn a_decided_claim_is_not_taken_over<S: Subject>(store: &S) {
    claimed(store, &[claim(1, 1)]).await;
    assert!(!taken_over(store, &claim(1, 2)).await);
    assert!(!taken_over(store, &claim(2, 2)).await, "nobody has claimed it");
    assert_eq!(seen(store, &[1, 2]).await, [standing(&claim(1, 1))]);
}

pub async fn a_take_over_under_way_is_waited_for_and_lost_to_its_commit<S: Subject>(store: &S) {
    claimed(store, &[aside(1, 1)]).await;
    let (mut first, mut second) = (begin(store).await, begin(store).await);
    assert!(first.take_over(&claim(1, 2)).await.expect("nobody is in the way"));
    assert_eq!(seen(store, &[1]).await, [standing(&aside(1, 1))]);
    let wanted = claim(1, 3);
    let is_taken = {
        let mut waiting = pin!(second.take_over(&wanted));
        assert!(store.waits(&mut waiting).await);
        first.commit().await.expect("it commits");
        waiting.await.expect("the way is free")
    };
    second.commit().await.expect("it commits");
    assert!(!is_taken);
    assert_eq!(seen(store, &[1]).await, [standing(&claim(1, 2))]);
}

pub async fn a_take_over_under_way_is_waited_for_and_won_when_it_is_given_up<S: Subject>(store: &S) {
    claimed(store, &[aside(1, 1)]).await;
    let (mut first, mut second) = (begin(store).await, begin(store).await);
    assert!(first.take_over(&claim(1, 2)).await.expect("nobody is in the way"));
    let wanted = claim(1, 3);
    let is_taken = {
        let mut waiting = pin!(second.take_over(&wanted));
        assert!(store.waits(&mut waiting).await);
        first.roll_back().await;
        waiting.await.expect("the way is free")
    };
    second.commit().await.expect("it commits");
    assert!(is_taken);
    assert_eq!(seen(store, &[1]).await, [standing(&claim(1, 3))]);
}

pub async fn a_claim_waits_for_a_take_over_under_way_and_loses<S: Subject>(store: &S) {
    claimed(store, &[aside(1, 1)]).await;
    let (mut first, mut second) = (begin(store).await, begin(store).await);
    assert!(first.take_over(&claim(1, 2)).await.expect("nobody is in the way"));
    let wanted = [claim(1, 3)];
    let ours = {
        let mut waiting = pin!(second.claim(&wanted));
        assert!(store.waits(&mut waiting).await);
        first.commit().await.expect("it commits");
        waiting.await.expect("the way is free")
    };
    assert_eq!(ours, []);
    assert_eq!(seen_by(&mut second, &[1]).await, [standing(&claim(1, 2))]);
    second.roll_back().await;
}

pub async fn a_data_error_stores_nothing_and_frees_the_claims<S: Subject>(store: &S) {
    let mut first = begin(store).await;
    first.claim(&[claim(1, 1), claim(2, 2)]).await.expect("they are free");
    let refused = first.append(&[], &[row(1), store.spoilt(row(2))]).await;
    assert!(matches!(refused, Err(InboxError::Data { .. })), "{refused:?}");
    assert_eq!(claimed(store, &[claim(1, 3)]).await, [id(1)]);
    assert_eq!(seen(store, &[1, 2]).await, [standing(&claim(1, 3))]);
    assert_eq!(store.appended().await, NOTHING);
}

pub async fn rows_are_there_after_the_commit_in_the_order_given<S: Subject>(store: &S) {
    let mut given_up = begin(store).await;
    given_up.claim(&[claim(1, 1)]).await.expect("it is free");
    given_up.append(&[], &[row(1)]).await.expect("rows are taken");
    given_up.roll_back().await;
    let mut first = begin(store).await;
    first
        .claim(&[claim(1, 7), claim(2, 3), claim(3, 5)])
        .await
        .expect("they are free");
    let rows = [row(7), row(3), row(5)];
    first.append(&[], &rows).await.expect("rows are taken");
    assert_eq!(store.appended().await, NOTHING);
    first.commit().await.expect("it commits");
    assert_eq!(store.appended().await, [7, 3, 5]);
}

/// Nothing is known to be stored, and nobody's data is at fault.
fn is_away<T>(result: &Result<T, InboxError>) -> bool {
    matches!(result, Err(InboxError::Unavailable(_) | InboxError::Unclear(_)))
}

pub async fn a_transaction_whose_connection_is_cut_stores_nothing_and_frees_its_claims<S: Subject>(store: &S) {
    let mut first = begin(store).await;
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    first.append(&[], &[row(1)]).await.expect("rows are taken");
    store.cut().await;
    assert!(is_away(&first.commit().await));
    assert_eq!(claimed(store, &[claim(1, 2)]).await, [id(1)]);
    assert_eq!(store.appended().await, NOTHING);
}

pub async fn a_cut_in_mid_statement_is_trouble_of_the_store<S: Subject>(store: &S) {
    let (mut first, mut second) = (begin(store).await, begin(store).await);
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    let wanted = [claim(1, 2)];
    let ended = {
        let mut waiting = pin!(second.claim(&wanted));
        assert!(store.waits(&mut waiting).await);
        store.cut().await;
        waiting.await
    };
    assert!(matches!(ended, Err(InboxError::Unavailable(_))), "{ended:?}");
    drop((first, second));
    assert_eq!(claimed(store, &[claim(1, 3)]).await, [id(1)]);
}

pub async fn a_claim_that_waits_for_an_owner_that_is_cut_off_is_won<S: Subject>(store: &S) {
    let mut first = begin(store).await;
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    store.cut().await;
    let mut second = begin(store).await;
    assert_eq!(second.claim(&[claim(1, 2)]).await.expect("the way is free"), [id(1)]);
    second.commit().await.expect("it commits");
    assert!(is_away(&first.commit().await), "the first has lost its claim");
    assert_eq!(seen(store, &[1]).await, [standing(&claim(1, 2))]);
}

pub async fn a_take_over_that_is_cut_off_leaves_the_claim_set_aside<S: Subject>(store: &S) {
    claimed(store, &[aside(1, 1)]).await;
    let mut first = begin(store).await;
    assert!(first.take_over(&claim(1, 2)).await.expect("nobody is in the way"));
    store.cut().await;
    assert!(is_away(&first.commit().await));
    assert_eq!(seen(store, &[1]).await, [standing(&aside(1, 1))]);
    assert!(taken_over(store, &claim(1, 2)).await);
}

/// Whoever did not hear it attempts it again, and finds the claim of the very same record.
pub async fn a_commit_whose_answer_is_lost_is_found_again_as_its_own_duplicate<S: Subject>(store: &S) {
    let mut first = begin(store).await;
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    first.append(&[], &[row(1)]).await.expect("rows are taken");
    drop(first.commit().await); // committed, and nobody knows
    let mut again = begin(store).await;
    assert_eq!(again.claim(&[claim(1, 1)]).await.expect("nobody is in the way"), []);
    assert_eq!(seen_by(&mut again, &[1]).await, [standing(&claim(1, 1))]);
    again.commit().await.expect("it commits");
    assert_eq!(store.appended().await, [1]);
}

pub async fn a_commit_that_nobody_waits_for_is_whole_or_nothing<S: Subject>(store: &S) {
    let mut first = begin(store).await;
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    first.append(&[], &[row(1)]).await.expect("rows are taken");
    {
        let mut commit = pin!(first.commit());
        // Sent, and dropped before its answer; one that was faster than that is stored.
        let _ = poll_fn(|context| Poll::Ready(commit.as_mut().poll(context))).await;
    }
    // This waits for the end of the first, whichever it is.
    let is_stored = claimed(store, &[claim(1, 2)]).await.is_empty();
    let expected = if is_stored { vec![1] } else { Vec::new() };
    assert_eq!(store.appended().await, expected);
}
