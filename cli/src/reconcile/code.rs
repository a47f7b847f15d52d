//! What can be found, under names that scripts may rely on.

use serde::Serialize;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A guarantee is broken, or somebody has changed the data. The verdict is no.
    Wrong,
    /// Work that is still to be done; on a running system there always is some.
    NotFinished,
    /// Retention has removed what would tell. Nothing follows from it.
    Gone,
    /// Allowed, and worth knowing: no promise covers it.
    Apart,
}

impl Class {
    /// The classes in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Wrong, Self::NotFinished, Self::Gone, Self::Apart];

    /// Its name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::NotFinished => "not finished yet",
            Self::Gone => "gone: removed by retention, nothing can be said",
            Self::Apart => "apart: allowed, and listed for your information",
        }
    }
}

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each one's meaning is data: see `about`")]
pub enum Code {
    OffsetPastUnclaimed,
    OffsetPastEnd,
    ClaimWithoutDecision,
    ClaimWithoutOutcome,
    ClaimWithoutDeadLetter,
    DeadLetterDiffers,
    DecidedTwice,
    OutcomeTwice,
    DecisionWithoutClaim,
    PublishedWithoutRecord,
    RecordWithoutRow,
    KeyDiffers,
    PayloadDiffers,
    OrderInverted,
    PendingTooLong,
    LeaseOfNobody,
    InputUnclaimed,
    RowPending,
    RowUnsettled,
    LeaseRunsOut,
    ClaimGone,
    DecisionGone,
    OutcomeGone,
    RecordGone,
    RowGone,
    OrderGone,
    PublishedAgain,
    AnotherBody,
    DecidedAgain,
    RowFailed,
    FailedOnTopic,
    RowRedriven,
    RowBehindFailed,
    KeyOnTwoPartitions,
    EventEnqueuedTwice,
    ForeignRecord,
}

/// What a code says to people.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name, fixed for scripts.
    pub name: &'static str,
    /// How grave it is.
    pub class: Class,
    /// One sentence: what was found.
    pub meaning: &'static str,
    /// The command that mends it, or what to look at; empty where nothing is to be done.
    pub remedy: &'static str,
}

impl Code {
    /// All codes, in the order in which they are told.
    pub const ALL: [Self; 36] = [
        Self::OffsetPastUnclaimed,
        Self::OffsetPastEnd,
        Self::ClaimWithoutDecision,
        Self::ClaimWithoutOutcome,
        Self::ClaimWithoutDeadLetter,
        Self::DeadLetterDiffers,
        Self::DecidedTwice,
        Self::OutcomeTwice,
        Self::DecisionWithoutClaim,
        Self::PublishedWithoutRecord,
        Self::RecordWithoutRow,
        Self::KeyDiffers,
        Self::PayloadDiffers,
        Self::OrderInverted,
        Self::PendingTooLong,
        Self::LeaseOfNobody,
        Self::InputUnclaimed,
        Self::RowPending,
        Self::RowUnsettled,
        Self::LeaseRunsOut,
        Self::ClaimGone,
        Self::DecisionGone,
        Self::OutcomeGone,
        Self::RecordGone,
        Self::RowGone,
        Self::OrderGone,
        Self::PublishedAgain,
        Self::AnotherBody,
        Self::DecidedAgain,
        Self::RowFailed,
        Self::FailedOnTopic,
        Self::RowRedriven,
        Self::RowBehindFailed,
        Self::KeyOnTwoPartitions,
        Self::EventEnqueuedTwice,
        Self::ForeignRecord,
    ];

    /// Its name, class, meaning and remedy.
    pub const fn about(self) -> About {
        match self {
            Self::OffsetPastUnclaimed => wrong(
                "offset-past-unclaimed",
                "the group's committed offset lies beyond an input record that nobody has claimed: it will not be decided",
                "mend decision-without-claim first, if it is found too. Then stop the triage instances, put the group back \
                 to the lowest of these offsets (kafka-consumer-groups.sh --reset-offsets --to-offset N --execute) and \
                 start them: what was decided is recognised",
            ),
            Self::OffsetPastEnd => wrong(
                "offset-past-end",
                "the group's committed offset lies beyond the end of the partition: new records up to it would be skipped",
                "was the topic made again, or the offset set by hand? Put the group back with kafka-consumer-groups.sh \
                 --reset-offsets --to-earliest --execute while no instance runs",
            ),
            Self::ClaimWithoutDecision => wrong(
                "claim-without-decision",
                "an event is claimed as decided and has no decision, though both are one transaction",
                "somebody has deleted the decision or restored a part: restore it. Without a copy delete the outcome's row, \
                 whose source_* is the claim's place, and the claim, and put the group back to the record's offset: it is \
                 decided again under the same ids, and payload-differs names it, since an outcome says when it was made",
            ),
            Self::ClaimWithoutOutcome => wrong(
                "claim-without-outcome",
                "an event is claimed as decided and no outbox row carries its outcome",
                "delete from decisions where event_id = '...' and consumer_id = (select consumer_id from consumers where \
                 name = 'CONSUMER'); delete from processed_events where event_id = '...' and consumer_id = (select \
                 consumer_id from consumers where name = 'CONSUMER'); then put the group back to the record's offset, as \
                 for offset-past-unclaimed: it is decided again under the same ids, so consumers that have seen the \
                 outcome drop it, and payload-differs names it, since an outcome says when it was made",
            ),
            Self::ClaimWithoutDeadLetter => wrong(
                "claim-without-dead-letter",
                "a record is claimed as set aside and no outbox row carries its dead letter",
                "delete from processed_events where event_id = '...' and consumer_id = (select consumer_id from consumers \
                 where name = 'CONSUMER'); then put the group back to the record's offset, as for offset-past-unclaimed: \
                 it is set aside again",
            ),
            Self::DeadLetterDiffers => wrong(
                "dead-letter-differs",
                "the payload of a dead letter's row is not the value of the record that was set aside",
                "compare the row with the input record; the record on the input topic is the truth",
            ),
            Self::DecidedTwice => wrong(
                "decided-twice",
                "one event has more than one decision while its claim should have been kept",
                "look at both: select * from decisions where event_id = '...'; was the claim deleted, or claims restored \
                 without their decisions?",
            ),
            Self::OutcomeTwice => wrong(
                "outcome-twice",
                "two outbox rows carry the outcome or the dead letter of one input record",
                "consumers that drop known event ids see one; look at both: select * from outbox_events where event_id = '...'",
            ),
            Self::DecisionWithoutClaim => wrong(
                "decision-without-claim",
                "a decision's event is not claimed, though its claim is younger than the retention of claims: a repeated \
                 record would be decided again",
                "put the claim back: its place is source_* of the outbox row, its digest the first 16 bytes of \
                 decisions.input_digest. If claims were thinned by a shorter retention, set \
                 CLAIMFIRST__RETENTION__CLAIMS_DAYS as the triage service has it",
            ),
            Self::PublishedWithoutRecord => wrong(
                "published-without-record",
                "a row is PUBLISHED and its record is not on the topic, nor was it removed by the topic's retention",
                "was the topic made again, or did a broker lose acknowledged records (replication 1, unclean leader \
                 election)? Publish the rows again: update outbox_events set status = 'FAILED', lane = 2 where event_id = \
                 '...'; then select outbox_redrive(p_event_id => '...')",
            ),
            Self::RecordWithoutRow => wrong(
                "record-without-row",
                "a record on an output topic has no outbox row: somebody else wrote it, or the row is lost",
                "look at its headers: outbox-id and event-id name the lost row; without them another producer writes to \
                 the topic, and --foreign-records counts its records apart. After a restore it is what the restore has lost (docs/operations.md)",
            ),
            Self::KeyDiffers => wrong(
                "key-differs",
                "a record's key is not the key of its row",
                "compare the two: select bytes_as_text(key), published_at from outbox_events where event_id = '...'",
            ),
            Self::PayloadDiffers => wrong(
                "payload-differs",
                "a record's bytes are not the payload of its row",
                "compare the two: select payload, published_at from outbox_events where event_id = '...'; the one that \
                 consumers have seen is the record",
            ),
            Self::OrderInverted => wrong(
                "order-inverted",
                "the first occurrence of a record stands before that of another one of its key which it was promised to \
                 follow",
                "consumers have seen them in this order. Keep the topic and the publishers' logs: this is a defect of \
                 ours, or another producer wrote to the topic; please report it",
            ),
            Self::PendingTooLong => wrong(
                "pending-too-long",
                "rows have been PENDING in the main lane for longer than --pending-age",
                "does a publisher run, and what does its /readyz say? select * from outbox_claims order by created_at \
                 limit 20 shows who holds them",
            ),
            Self::LeaseOfNobody => wrong(
                "lease-of-nobody",
                "a bucket is leased to an instance that has given no sign of life for a minute: its rows wait",
                "update outbox_leases set lock_owner = null, locked_until = '-infinity' where bucket = ...; a publisher \
                 takes it within a second, and a newer epoch fences whoever held it",
            ),
            Self::InputUnclaimed => not_finished(
                "input-unclaimed",
                "input records at or above the group's committed offset that are not claimed yet",
            ),
            Self::RowPending => not_finished("row-pending", "rows that wait to be published"),
            Self::RowUnsettled => not_finished(
                "row-unsettled",
                "rows that are PENDING though their record is on the topic: acknowledged, and not written down yet",
            ),
            Self::LeaseRunsOut => not_finished(
                "lease-runs-out",
                "buckets whose publisher has been silent for over ten seconds: others take them when the lease ends",
            ),
            Self::ClaimGone => gone(
                "claim-gone",
                "input records whose claim may be past its retention: nobody can tell whether they were claimed",
            ),
            Self::DecisionGone => gone("decision-gone", "claims whose decision's day was dropped"),
            Self::OutcomeGone => gone(
                "outcome-gone",
                "claims whose outbox row may lie in a leaf that was dropped",
            ),
            Self::RecordGone => gone(
                "record-gone",
                "PUBLISHED rows whose record the topic's retention or compaction may have removed",
            ),
            Self::RowGone => gone(
                "row-gone",
                "records on the topic whose outbox row lay in a leaf that was dropped",
            ),
            Self::OrderGone => gone(
                "order-gone",
                "pairs whose order cannot be told: the first occurrence may lie before what the topic still has",
            ),
            Self::PublishedAgain => apart(
                "published-again",
                "records whose event id stood on the topic before: after a fault that is allowed, without one it is not",
                "consumers drop them by event-id",
            ),
            Self::AnotherBody => apart(
                "another-body",
                "input records with the event id of a claimed one and another body: suppressed, not decided",
                "triage_payload_mismatches_total counts them, the log names both places; ask their producer",
            ),
            Self::DecidedAgain => apart(
                "decided-again",
                "events decided a second time after their claim went past retention; both have the same ids",
                "raise retention.claims_days above what producers resend",
            ),
            Self::RowFailed => apart(
                "row-failed",
                "rows that were set aside as FAILED",
                "select * from outbox_failed has the reasons; then select outbox_redrive(p_topic => '...')",
            ),
            Self::FailedOnTopic => apart(
                "failed-on-topic",
                "FAILED rows whose record is on the topic all the same: a redrive would publish it again",
                "",
            ),
            Self::RowRedriven => apart(
                "row-redriven",
                "rows that were put back by an operator: they come late on purpose, no order is promised",
                "",
            ),
            Self::RowBehindFailed => apart(
                "row-behind-failed",
                "rows that wait in the side lane behind one that fails, to keep their key's order",
                "select topic, key, count(*), max(last_error) from outbox_claims where lane = 1 group by 1, 2",
            ),
            Self::KeyOnTwoPartitions => apart(
                "key-on-two-partitions",
                "events that stand on two partitions: the topic's partition count was changed; no order is promised \
                 across it",
                "",
            ),
            Self::EventEnqueuedTwice => apart(
                "event-enqueued-twice",
                "event ids that a writer has put into the outbox more than once: consumers drop the second one",
                "give each event an id of its own",
            ),
            Self::ForeignRecord => apart(
                "foreign-record",
                "records of other producers, which --foreign-records admits: no header outbox-id or outbox-epoch, no event \
                 and no bytes of a row",
                "",
            ),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// How grave it is.
    pub const fn class(self) -> Class {
        self.about().class
    }
}

const fn wrong(name: &'static str, meaning: &'static str, remedy: &'static str) -> About {
    About {
        name,
        class: Class::Wrong,
        meaning,
        remedy,
    }
}

const fn not_finished(name: &'static str, meaning: &'static str) -> About {
    About {
        name,
        class: Class::NotFinished,
        meaning,
        remedy: "",
    }
}

const fn gone(name: &'static str, meaning: &'static str) -> About {
    About {
        name,
        class: Class::Gone,
        meaning,
        remedy: "",
    }
}

const fn apart(name: &'static str, meaning: &'static str, remedy: &'static str) -> About {
    About {
        name,
        class: Class::Apart,
        meaning,
        remedy,
    }
}

#[cfg(test)]
mod tests;
