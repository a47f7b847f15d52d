//! Who has a claim, who waits for it, and what is stored with it.

use std::pin::pin;

use triage_service::domain::dead_letter::Reason;
use triage_service::intake::inbox::{InboxError, InboxTransaction};

use crate::inbox::subject::{
    NOTHING, Subject, aside, begin, claim, claimed, id, row, seen, seen_by, standing, taken_over,
};

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

/// The order of a key rests on it: the first has an earlier record of the key, whatever began before.
pub async fn who_waited_for_a_claim_has_the_later_rows<S: Subject>(store: &S) {
    let (mut second, mut first) = (begin(store).await, begin(store).await);
    first.claim(&[claim(1, 1)]).await.expect("it is free");
    let wanted = [claim(1, 1), claim(2, 2)];
    let ours = {
        let mut waiting = pin!(second.claim(&wanted));
        assert!(store.waits(&mut waiting).await);
        first.append(&[], &[row(1)]).await.expect("rows are taken");
        first.commit().await.expect("it commits");
        waiting.await.expect("the way is free")
    };
    assert_eq!(ours, [id(2)]);
    second.append(&[], &[row(2)]).await.expect("rows are taken");
    second.commit().await.expect("it commits");
    assert_eq!(store.appended().await, [1, 2]);
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
