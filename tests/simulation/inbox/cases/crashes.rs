//! Connections that are cut, answers that are lost.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use triage_service::intake::inbox::{InboxError, InboxTransaction};

use crate::inbox::subject::{
    NOTHING, Subject, aside, begin, claim, claimed, id, row, seen, seen_by, standing, taken_over,
};

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
