//! How Postgres runs the publisher's statements: on their index also while a leaf is empty, and the
//! settle as a HOT update.

use std::time::Duration;

use harness::wait::{self, Seen};
use outbox_publisher::ports::{OutboxStore, SettleRow};
use shared::postgres::{self, Session};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::outbox::fixture::Outbox;
use crate::outbox::store::Owner;

/// A statement with the types of its parameters and an example of them.
const STATEMENTS: [(&str, &str, &str, &str); 6] = [
    (
        "read",
        include_str!("../../../outbox-publisher/queries/read.sql"),
        "smallint[], bigint[], bigint[], bigint[], integer[], bigint[], bigint[], boolean",
        "'{1,2}', '{1,1}', '{0,0}', '{0,0}', '{9,9}', '{}', '{}', false",
    ),
    (
        "look",
        include_str!("../../../outbox-publisher/queries/look.sql"),
        "smallint[], bigint[], bigint[], bigint, bigint",
        "'{1,2}', '{1,1}', '{-3000000000,-3000000000}', 9, 9",
    ),
    (
        "settle",
        include_str!("../../../outbox-publisher/queries/settle.sql"),
        "smallint[], bigint[], uuid[], bigint, bigint",
        "array_fill(1::smallint, '{1000}'), array_fill(1::bigint, '{1000}'), \
         array_fill('00000000-0000-0000-0000-000000000000'::uuid, '{1000}'), 1, 400",
    ),
    (
        "change",
        include_str!("../../../outbox-publisher/queries/change.sql"),
        "smallint, bigint, bigint[], uuid[], smallint[], integer[], bigint[], text[]",
        "1, 1, '{1}', '{00000000-0000-0000-0000-000000000000}', '{1}', '{0}', '{null}', '{null}'",
    ),
    (
        "halted",
        include_str!("../../../outbox-publisher/queries/halted.sql"),
        "smallint[], boolean, text[]",
        "'{1,2}', true, '{}'",
    ),
    (
        "backlog",
        include_str!("../../../outbox-publisher/queries/backlog.sql"),
        "smallint[], bigint[], bigint",
        "'{1,2}', '{0,0}', 9",
    ),
];

/// The plan of a statement in this session: that for the values of a settle, which is planned each time, and the kept
/// one of the others.
async fn plan(connection: &mut PgConnection, statement: &(&str, &str, &str, &str)) -> anyhow::Result<String> {
    let (name, sql, types, example) = statement;
    let kind = if *name == "settle" { "custom" } else { "generic" };
    for text in [
        format!("set plan_cache_mode = force_{kind}_plan"),
        format!("prepare p_{name} ({types}) as {sql}"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *connection).await?;
    }
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
        "explain (costs off) execute p_{name}({example})"
    )))
    .fetch_all(&mut *connection)
    .await?;
    Ok(lines.join("\n"))
}

fn scans_a_leaf(plan: &str) -> bool {
    // A leaf is named by its lowest id; the sequence of the ids is no leaf.
    let is_leaf = |scanned: &str| scanned.starts_with(|c: char| c.is_ascii_digit());
    plan.lines()
        .filter_map(|line| line.split_once("Seq Scan on outbox_events_"))
        .any(|(_, scanned)| is_leaf(scanned))
}

#[tokio::test]
async fn statements_keep_to_their_index_while_a_leaf_is_empty() -> anyhow::Result<()> {
    // given leaves that nobody has written to or analysed
    let outbox = Outbox::new("plans").await?;
    outbox.small_leaves(500, 4).await?;
    let session = Session::default();
    let mut kept = postgres::connect(&outbox.options(), &session.indexed()).await?;
    for statement in &STATEMENTS {
        // then
        let plan = plan(&mut kept, statement).await?;
        assert!(!scans_a_leaf(&plan), "{} scans a leaf:\n{plan}", statement.0);
    }
    // and one that has no index is seen to scan
    let by_event = (
        "by_event",
        "select from outbox_events where event_id = $1",
        "uuid",
        "'00000000-0000-0000-0000-000000000000'",
    );
    let plan = plan(&mut kept, &by_event).await?;
    assert!(scans_a_leaf(&plan), "{plan}");
    outbox.remove().await
}

#[tokio::test]
async fn settle_of_a_lane_0_row_is_a_hot_update() -> anyhow::Result<()> {
    // given 20,000 events
    const ROWS: i64 = 20_000;
    let outbox = Outbox::new("hot").await?;
    outbox
        .run(
            "insert into outbox_events (lane_hash, bucket, event_id, topic, key, event_type, payload) \
             select outbox_lane_hash('t', key, id), outbox_bucket(key, id), id, 't', key, 'x', convert_to(repeat('p', 300), 'UTF8') \
               from (select gen_random_uuid() as id, convert_to('key ' || n % 97, 'UTF8') as key from generate_series(1, $1) n) e",
            ROWS,
        )
        .await?;
    let mut connection = outbox.connect().await?;
    let rows: Vec<(i16, i64, uuid::Uuid)> =
        sqlx::query_as("select bucket, id, event_id from outbox_events order by id")
            .fetch_all(&mut connection)
            .await?;
    connection.close().await?;
    // when they are settled as a publisher does
    let owner = Owner::take_over(&outbox).await?;
    for some in rows.chunks(1000) {
        let some: Vec<SettleRow> = some
            .iter()
            .map(|&(bucket, id, event_id)| SettleRow { bucket, id, event_id })
            .collect();
        assert_eq!(owner.store.settle(some).await?, 1000);
    }
    drop(owner); // sessions hand in their counts when they end
    // then
    let counts = || async {
        let mut connection = outbox.connect().await?;
        let counts: (i64, i64) = sqlx::query_as(
            "select sum(n_tup_upd)::bigint, sum(n_tup_hot_upd)::bigint from pg_stat_user_tables where relname like 'outbox\\_events\\_%'",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(Seen::when(counts, |(updates, _)| *updates == ROWS))
    };
    let (updates, hot) = wait::until("the counts of all updates", Duration::from_secs(20), counts).await?;
    assert!(hot * 100 >= updates * 99, "{hot} of {updates} updates were HOT");
    outbox.finish().await
}
