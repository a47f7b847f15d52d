//! The read rule: each interleaving that loses or overtakes an event without one of its clauses.
//!
//! Everywhere `a` and `b` are events of one key, and `a`'s transaction has committed before `b` is
//! inserted; `x` moves the cursor of their bucket. Each test runs its interleaving under the rule, and
//! again without the clause, which must be caught: so the test is known to see what it is there to see.
//!
//! They have servers of their own: any transaction on a server that a snapshot names, other databases'
//! included, gives a read a floor, and so may save what a wrong rule would have lost.

mod late_commits;
mod long_transactions;
mod low_ids;
mod marks;

use crate::outbox::fixture::Writer;
use crate::outbox::rig::Rig;

/// What became of `a` and `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seq {
    InOrder,
    Inverted,
    Lost,
    Twice,
}

fn judge(sent: &[String]) -> Seq {
    let places = |label: &str| -> Vec<usize> { (0..sent.len()).filter(|at| sent[*at] == label).collect() };
    match (&places("a")[..], &places("b")[..]) {
        ([a], [b]) if a < b => Seq::InOrder,
        ([_], [_]) => Seq::Inverted,
        ([], _) | (_, []) => Seq::Lost,
        _ => Seq::Twice,
    }
}

/// The end of most interleavings: `a` commits, `b` follows it, and all that can be found is found.
async fn commit_and_follow(rig: &mut Rig, first: &mut Writer, then: &mut Writer) -> anyhow::Result<Seq> {
    first.commit().await?;
    then.insert("K", "b").await?;
    rig.until_sent("b").await?;
    rig.go_round().await?;
    if judge(rig.sent()) == Seq::InOrder {
        assert_eq!(rig.swept(), 0, "the sweep is a net that must catch nothing");
    }
    Ok(judge(rig.sent()))
}
