//! Where a member was when it ended, lost its connection or was overtaken: what the coverage is made of.

use crate::intake::store::Store;
use crate::intake::transactions::Call;
use crate::intake::world::World;

/// The points of a statement at which something else can happen first: it is sent, half done, or its answer has
/// not been heard; for a process that ends, and for a connection that is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Points {
    crash: [&'static str; 3],
    cut: [&'static str; 3],
}

macro_rules! statement {
    ($what:literal) => {
        Points {
            crash: [
                concat!("crash: ", $what, " sent"),
                concat!("crash: ", $what, " half done"),
                concat!("crash: ", $what, " done, answer unheard"),
            ],
            cut: [
                concat!("cut: ", $what, " sent"),
                concat!("cut: ", $what, " half done"),
                concat!("cut: ", $what, " done, answer unheard"),
            ],
        }
    };
}

const BEGIN: Points = statement!("begin");
const CLAIM: Points = statement!("claim");
const TAKE_OVER: Points = statement!("take-over of a claim");
const SET_ASIDE: Points = statement!("set aside");
const CONFLICTS: Points = statement!("read of conflicts");
const APPEND: Points = statement!("append");
const COMMIT: Points = statement!("commit");
const ROLL_BACK: Points = statement!("roll back");

impl Points {
    pub(crate) const fn of(call: &Call) -> Self {
        match call {
            Call::Begin => BEGIN,
            Call::Claim(_) => CLAIM,
            Call::TakeOver(_) => TAKE_OVER,
            Call::SetAside(_) => SET_ASIDE,
            Call::Conflicts(_) => CONFLICTS,
            Call::Append(..) => APPEND,
            Call::Commit => COMMIT,
            Call::RollBack => ROLL_BACK,
        }
    }
}

/// What every set of seeds must have met, by how much goes wrong: nothing but records that cannot be decided;
/// processes and the group; connections and the database, too.
pub(crate) const WANTED: [&[&str]; 3] = [
    &[
        "committed",
        "take over",
        "data error",
        "dead letters",
        "conflict: claim waits for another's",
        "conflict: duplicate inside a batch",
        "conflict: duplicate of an earlier commit",
        "conflict: duplicate with another body",
        "conflict: revoke while a transaction runs",
        "fault: rebalance",
        "fault: poison key",
        "take-over: after a revoke",
        "take-over: of the member that had it before",
    ],
    &[
        BEGIN.crash[0],
        BEGIN.crash[2],
        CLAIM.crash[0],
        CLAIM.crash[1],
        CLAIM.crash[2],
        TAKE_OVER.crash[0],
        TAKE_OVER.crash[2],
        SET_ASIDE.crash[0],
        SET_ASIDE.crash[2],
        CONFLICTS.crash[0],
        CONFLICTS.crash[2],
        APPEND.crash[0],
        APPEND.crash[1],
        APPEND.crash[2],
        COMMIT.crash[0],
        COMMIT.crash[2],
        ROLL_BACK.crash[0],
        ROLL_BACK.crash[2],
        "crash: waiting for another's claim",
        "crash: committed, offset not sent",
        "crash: offset under way",
        "crash: facts not taken in",
        "crash: pause before another attempt",
        "crash: giving partitions back",
        "crash: draining",
        "crash: nothing under way",
        "conflict: claim lost to the commit that it waited for",
        "conflict: claim won from a transaction that gave up",
        "conflict: take-over of a claim waits for another's",
        "conflict: take-over of a claim lost",
        "conflict: lock timeout",
        "conflict: offset of an assignment that is over",
        "take-over: of a crashed member",
        "take-over: of a member that does not know it",
        "take-over: a transaction of the old owner open",
        "take-over: records committed, offset not",
        "take-over: an offset of the old owner under way",
        "fault: crash",
        "fault: slow ack",
        "fault: lost ack",
        "fault: duplicate delivery",
        "fault: zombie owner",
        "fault: clock jump of a host",
        "fault: broker outage",
        "fault: session lost",
        "fault: revoke not answered in time",
    ],
    &[
        BEGIN.cut[0],
        BEGIN.cut[2],
        CLAIM.cut[0],
        CLAIM.cut[1],
        CLAIM.cut[2],
        TAKE_OVER.cut[0],
        TAKE_OVER.cut[2],
        SET_ASIDE.cut[0],
        SET_ASIDE.cut[2],
        CONFLICTS.cut[0],
        CONFLICTS.cut[2],
        APPEND.cut[0],
        APPEND.cut[1],
        APPEND.cut[2],
        COMMIT.cut[0],
        COMMIT.cut[2],
        ROLL_BACK.cut[0],
        ROLL_BACK.cut[2],
        "commit after its client left",
        "conflict: claim gone",
        "fault: database crash",
        "fault: database outage",
        "fault: session ended",
        "unavailable",
        "unclear",
    ],
];

/// Where the client of a transaction stands in its statement.
fn stage(store: &Store, x: usize) -> Option<(Points, usize)> {
    let transaction = &store.transactions[x];
    let points = transaction.points?;
    match (&transaction.call, &transaction.answer) {
        (_, Some(Ok(_))) => Some((points, 2)),
        (Some(_), None) => Some((points, usize::from(transaction.progress > 0))),
        (_, Some(Err(_))) | (None, None) => None,
    }
}

/// The point at which a connection is cut.
pub(crate) fn cut_point(store: &Store, x: usize) -> Option<&'static str> {
    stage(store, x).map(|(points, stage)| points.cut[stage])
}

impl World {
    /// Everything that a member has under way, as points at which it could end.
    pub(crate) fn crash_points(&self, m: usize) -> Vec<&'static str> {
        let (member, store) = (&self.members[m], self.store.lock());
        let transactions = member.attempts.values().map(|attempt| attempt.transaction);
        let mut points: Vec<&str> = transactions
            .clone()
            .filter_map(|x| stage(&store, x).map(|(points, stage)| points.crash[stage]))
            .collect();
        let mut point = |is_here: bool, name| {
            if is_here {
                points.push(name);
            }
        };
        let is_unsent =
            |held: &crate::intake::member::Held| held.stored.is_some_and(|offset| offset > held.acknowledged);
        point(
            transactions.clone().any(|x| store.is_blocked(x)),
            "crash: waiting for another's claim",
        );
        point(member.held.values().any(is_unsent), "crash: committed, offset not sent");
        point(
            self.requests.iter().any(|request| request.is_of(m, member.epoch)),
            "crash: offset under way",
        );
        point(!member.arrivals.is_empty(), "crash: facts not taken in");
        point(!member.pauses.is_empty(), "crash: pause before another attempt");
        point(member.revoking.is_some(), "crash: giving partitions back");
        point(member.is_draining, "crash: draining");
        if points.is_empty() {
            points.push("crash: nothing under way");
        }
        points
    }

    /// What a partition is in the midst of when a member gets it after another.
    pub(crate) fn take_over_states(&self, p: i32, m: usize) -> Vec<&'static str> {
        let (partition, store) = (&self.partitions[p as usize], self.store.lock());
        let Some((before, epoch, is_given_back)) = partition.before else {
            return Vec::new();
        };
        let old = &self.members[before];
        let is_over = !old.is_alive || old.epoch != epoch;
        let mut states = vec![if is_given_back && before == m {
            "take-over: of the member that had it before"
        } else if is_given_back {
            "take-over: after a revoke"
        } else if is_over {
            "take-over: of a crashed member"
        } else {
            "take-over: of a member that does not know it"
        }];
        let mut open = store.open_ones().map(|(_, transaction)| transaction);
        if open.any(|transaction| transaction.partitions.contains(&p)) {
            states.push("take-over: a transaction of the old owner open");
        }
        if self.requests.iter().any(|request| request.is_for(p)) {
            states.push("take-over: an offset of the old owner under way");
        }
        states
    }
}
