//! What a case needs of a store.

use std::sync::Arc;

use shared::headers::Headers;
use shared::id::EventId;
use triage_service::domain::dead_letter::Reason;
use triage_service::domain::outcome::OutboxEvent;
use triage_service::domain::record::Coordinates;
use triage_service::intake::inbox::{Claim, Inbox, InboxTransaction, StandingClaim};
use uuid::Uuid;

/// The topic of all records here.
pub const TOPIC: &str = "in";

/// A store that is asked, and what is known of it beside its port.
pub trait Subject {
    /// The port of the intake.
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

/// No rows.
pub(crate) const NOTHING: [i64; 0] = [];

/// The id that the record at an offset would have of its own; cases use those of other records as well.
pub fn id(number: i64) -> EventId {
    EventId::from_uuid(Uuid::from_u128(0x8000_4000_8000_0000_0000_0000 + number as u128))
}

/// Where that record lies.
pub fn source(offset: i64) -> Coordinates {
    Coordinates {
        topic: Arc::from(TOPIC),
        partition: 0,
        offset,
    }
}

/// A claim of the record at `offset`, for a decision.
pub(crate) fn claim(number: i64, offset: i64) -> Claim {
    Claim {
        event_id: id(number),
        event_id_text: None,
        source: source(offset),
        digest: [offset as u8; 16],
        set_aside: None,
    }
}

/// The same, of a record that is set aside.
pub(crate) fn aside(number: i64, offset: i64) -> Claim {
    Claim {
        set_aside: Some(Reason::Undecodable),
        ..claim(number, offset)
    }
}

pub(crate) fn standing(claim: &Claim) -> StandingClaim {
    StandingClaim {
        event_id: claim.event_id,
        source: claim.source.clone(),
        digest: claim.digest,
        is_set_aside: claim.set_aside.is_some(),
    }
}

pub(crate) fn row(offset: i64) -> OutboxEvent {
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

pub(crate) async fn begin<S: Subject>(store: &S) -> <S::Inbox as Inbox>::Transaction {
    store.worker().begin().await.expect("a transaction begins")
}

/// What a transaction of its own claims of these.
pub(crate) async fn claimed<S: Subject>(store: &S, claims: &[Claim]) -> Vec<EventId> {
    let mut transaction = begin(store).await;
    let mut ours = transaction.claim(claims).await.expect("nobody is in the way");
    transaction.commit().await.expect("it commits");
    ours.sort_unstable();
    ours
}

/// Whether a transaction of its own takes the claim over.
pub(crate) async fn taken_over<S: Subject>(store: &S, claim: &Claim) -> bool {
    let mut transaction = begin(store).await;
    let is_taken = transaction.take_over(claim).await.expect("nobody is in the way");
    transaction.commit().await.expect("it commits");
    is_taken
}

/// The claims as a transaction of its own sees them.
pub(crate) async fn seen<S: Subject>(store: &S, numbers: &[i64]) -> Vec<StandingClaim> {
    let mut transaction = begin(store).await;
    let seen = seen_by(&mut transaction, numbers).await;
    transaction.roll_back().await;
    seen
}

pub(crate) async fn seen_by<T: InboxTransaction>(transaction: &mut T, numbers: &[i64]) -> Vec<StandingClaim> {
    let ids: Vec<EventId> = numbers.iter().copied().map(id).collect();
    let mut seen = transaction.conflicts(&ids).await.expect("claims can be read");
    seen.sort_unstable_by_key(|claim| claim.event_id);
    seen
}
