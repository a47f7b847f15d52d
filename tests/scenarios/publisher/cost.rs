//! What publishing does to the tables, in a real run: one version more of each row, on its page, and nothing to vacuum.

use std::time::Duration;

use harness::wait::{self, Seen};

use crate::publisher::{Load, Outbox};

/// Versions made, those of them that are HOT, and vacuums that somebody ran, of all leaves.
const COUNTS: &str = "select sum(n_tup_upd)::bigint, sum(n_tup_hot_upd)::bigint, \
                             sum(vacuum_count + autovacuum_count)::bigint \
                        from pg_stat_user_tables where relname ~ '^outbox_events_[0-9]'";

#[tokio::test]
async fn a_published_row_costs_one_hot_update_and_its_leaf_no_vacuum() -> anyhow::Result<()> {
    // given
    const ROWS: u64 = 20_000;
    let outbox = Outbox::shared("cost").await?;
    let topic = outbox.topic("cost", 3, &[]).await?;
    let publishers = vec![
        outbox.publisher("first").start().await?,
        outbox.publisher("second").start().await?,
    ];

    // when: rows are written and published at the same time
    let load = Load::start(&outbox, &topic, 4, 97, Duration::from_millis(1));
    load.more(ROWS).await?;
    let written = load.stop().await?;
    outbox.until_nothing_waits().await?;
    outbox.end(publishers, outbox.audit()).await?;

    // then: sessions hand in their counts when they end
    let (updates, hot, vacuums) = wait::until("the counts of all updates", Duration::from_secs(20), || async {
        let mut connection = outbox.connect().await?;
        let counts: (i64, i64, i64) = sqlx::query_as(COUNTS).fetch_one(&mut connection).await?;
        Ok(Seen::when(counts, |(updates, ..)| updates.unsigned_abs() >= written))
    })
    .await?;
    eprintln!("{written} rows: {updates} updates, {hot} of them HOT, {vacuums} vacuums");
    assert_eq!(updates.unsigned_abs(), written, "one update a row");
    assert!(hot * 100 >= updates * 99, "{hot} of {updates} updates were HOT");
    assert_eq!(vacuums, 0);
    Ok(())
}
