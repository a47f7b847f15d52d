//! Leaves of claims, decisions and outbox: late, missing, old.

use harness::{Record, Stack};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::scene::{
    self, CLAIMS, DECISIONS, SET_ASIDE, SOON, Scene, days_from_now, event, events, id_of_day, metric, until_not_ready,
};

#[tokio::test]
async fn the_same_id_a_month_apart_is_one_event() -> anyhow::Result<()> {
    // given: ids that hold no day, first seen forty days ago by their records' time
    let scene = Scene::new("month_apart", 1).await?;
    let ids = [
        Uuid::new_v4().to_string(),
        "ticket-4711".to_owned(),
        Uuid::new_v4().simple().to_string(),
    ];
    let at = |days: i64| -> Vec<Record> {
        let aged = |id: &String| Record {
            timestamp: Some(days_from_now(days)),
            ..event(id, "customer-1", "again?")
        };
        ids.iter().map(aged).collect()
    };
    scene.send(at(-40)).await?;
    let service = scene.start("triage").await?;
    scene.until_passed().await?;

    // when
    scene.send(at(0)).await?;
    scene.until_passed().await?;

    // then
    assert_eq!(scene.number(DECISIONS).await?, 3);
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 3);
    assert_eq!(scene.number("select count(*) from processed_events_undated").await?, 3);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn an_id_from_a_clock_ahead_is_one_event_before_and_after_its_leaf_is_made() -> anyhow::Result<()> {
    // given: an id of a day that has no leaf yet
    let scene = Scene::new("clock_ahead", 1).await?;
    let (early, late) = (id_of_day(8), id_of_day(8));
    let service = scene.start("triage").await?;
    let early = event(early, "customer-1", "early");
    scene.send(vec![early.clone(), early.clone()]).await?;
    scene.until_passed().await?;
    let strays = "select count(*) from processed_events_default";
    assert_eq!(scene.number(strays).await?, 1);

    // when: the leaf is made under the service, and both ids come again
    const MAKE: &str = "select claims_make_leaf((clock_timestamp() at time zone 'UTC')::date + 8)::int::bigint";
    scene.until(MAKE, |made| made == 1).await?;
    let late = event(late, "customer-1", "late");
    scene.send(vec![early, late.clone(), late]).await?;
    scene.until_passed().await?;

    // then
    assert_eq!(scene.number(strays).await?, 0, "strays move to their leaf");
    assert_eq!((scene.number(CLAIMS).await?, scene.number(DECISIONS).await?), (2, 2));
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 3);
    assert_eq!(metric(&service, "triage_payload_mismatches_total").await?, 0);
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_leaf_of_decisions_is_waited_for_and_sets_nothing_aside() -> anyhow::Result<()> {
    const TAKE_AWAY: &str = "do $$ begin execute 'drop table decisions_' || \
        to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD'); end $$";
    const GIVE_BACK: &str = "delete from decision_leaves where day = (clock_timestamp() at time zone 'UTC')::date; \
        select decisions_make_leaf((clock_timestamp() at time zone 'UTC')::date)";
    a_missing_leaf_is_waited_for("no_decisions", TAKE_AWAY, GIVE_BACK).await
}

#[tokio::test]
async fn a_missing_leaf_of_the_outbox_is_waited_for_and_sets_nothing_aside() -> anyhow::Result<()> {
    const TAKE_AWAY: &str = "alter table outbox_events detach partition outbox_events_000000000000";
    const GIVE_BACK: &str =
        "alter table outbox_events attach partition outbox_events_000000000000 for values from (0) to (5000000)";
    a_missing_leaf_is_waited_for("no_outbox", TAKE_AWAY, GIVE_BACK).await
}

async fn a_missing_leaf_is_waited_for(
    test: &str,
    take_away: &'static str,
    give_back: &'static str,
) -> anyhow::Result<()> {
    // given: a night in which nobody has made the leaf
    let scene = Scene::new(test, 2).await?;
    let service = scene.start("triage").await?;
    scene.run(take_away).await?;

    // when
    scene.send(events(50, 5)).await?;
    until_not_ready(&service, "no partition of relation").await?;
    let meanwhile = (scene.number(CLAIMS).await?, scene.number(SET_ASIDE).await?);
    scene.run(give_back).await?;

    // then
    assert_eq!(meanwhile, (0, 0));
    scene.until_passed().await?;
    service.ready(SOON).await?;
    assert_eq!(
        (scene.number(DECISIONS).await?, scene.number(SET_ASIDE).await?),
        (50, 0)
    );
    assert_eq!(metric(&service, "triage_dead_letters_total").await?, 0);
    assert_eq!(
        metric(&service, r#"triage_attempts_total{result="data_error"}"#).await?,
        0
    );
    scene.end(vec![service]).await?;
    Ok(())
}

#[tokio::test]
async fn a_leaf_of_claims_goes_by_its_newest_claim_and_never_comes_back() -> anyhow::Result<()> {
    // given: a leaf forty days old by its day, with a claim of today: its producer's clock was behind
    let scene = Scene::new("old_leaf", 1).await?;
    scene
        .run("select claims_make_leaf((clock_timestamp() at time zone 'UTC')::date - 40)")
        .await?;
    let service = scene.start("triage").await?;
    let behind = event(id_of_day(-40), "customer-1", "from a clock that is behind");
    scene.send(vec![behind.clone()]).await?;
    scene.until_passed().await?;
    // Old only now: an old leaf without claims goes with the upkeep that a service begins with.
    scene
        .run(
            "update claim_leaves set made_at = clock_timestamp() - interval '41 days' \
              where day = (clock_timestamp() at time zone 'UTC')::date - 40",
        )
        .await?;
    const DROP: &str = "select count(claims_drop_leaf('30 days'))";

    // when, then: by its day it would go; by its newest claim it stays, and the event is known
    assert_eq!(scene.number(DROP).await?, 0);
    scene.send(vec![behind]).await?;
    scene.until_passed().await?;
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 1);

    // when: a month later it goes
    scene
        .run("update processed_events set processed_at = processed_at - interval '31 days'")
        .await?;
    assert_eq!(scene.number(DROP).await?, 1);

    // then: it is never made again, and its late ids are claimed all the same
    let make = "select claims_make_leaf((clock_timestamp() at time zone 'UTC')::date - 40)::int::bigint";
    assert_eq!(scene.number(make).await?, 0);
    let late = event(id_of_day(-40), "customer-1", "late");
    scene.send(vec![late.clone(), late]).await?;
    scene.until_passed().await?;
    assert_eq!(scene.number("select count(*) from processed_events_default").await?, 1);
    assert_eq!(metric(&service, "triage_duplicates_total").await?, 2);
    assert_eq!(scene.number(DECISIONS).await?, 2);

    // and: only the claim that retention took is gone, which the judge would call lost
    scene::drain(vec![service]).await?;
    assert_eq!((scene.number(CLAIMS).await?, scene.number(SET_ASIDE).await?), (1, 0));
    scene.stack.drop_database(&scene.database).await
}

#[tokio::test]
async fn undated_and_stray_claims_past_the_retention_go_a_few_at_a_time() -> anyhow::Result<()> {
    // given: in both leaves that are never dropped, claims of every age up to 49 days
    let stack = Stack::shared().await?;
    let database = stack.database("thinning").await?;
    let mut keeper = database.connect().await?;
    const FILL: &str = "insert into consumers (name) values ('c'); insert into kafka_topics (name) values ('t'); \
        insert into processed_events (event_id, claim_day, consumer_id, topic_id, kafka_partition, kafka_offset, \
                                      processed_at, outcome, payload_digest) \
        select gen_random_uuid(), d.day, 1, 1, 0, age, clock_timestamp() - interval '1 minute' - age * interval '1 day', \
               'DECIDED', decode(repeat('00', 16), 'hex') \
          from generate_series(0, 49) age, (values ('-infinity'::date), ('2999-01-01')) as d (day)";
    sqlx::raw_sql(FILL).execute(&mut keeper).await?;
    let thin = async |keeper: &mut PgConnection| -> sqlx::Result<i64> {
        sqlx::query_scalar("select claims_thin('30 days', 15)")
            .fetch_one(keeper)
            .await
    };
    let left = async |keeper: &mut PgConnection| -> sqlx::Result<Vec<(String, i64, i64)>> {
        const LEFT: &str = "select tableoid::regclass::text, count(*), max(kafka_offset) from processed_events \
             group by 1 order by 1 desc";
        sqlx::query_as(LEFT).fetch_all(keeper).await
    };

    // when, then: never more than asked for, and the oldest first
    let (undated, stray) = (
        "processed_events_undated".to_owned(),
        "processed_events_default".to_owned(),
    );
    assert_eq!(thin(&mut keeper).await?, 15);
    assert_eq!(
        left(&mut keeper).await?,
        [(undated.clone(), 35, 34), (stray.clone(), 50, 49)]
    );
    assert_eq!(thin(&mut keeper).await?, 15);
    assert_eq!(
        left(&mut keeper).await?,
        [(undated.clone(), 30, 29), (stray.clone(), 40, 39)]
    );
    assert_eq!(thin(&mut keeper).await?, 10);

    // then: what is younger than the retention stays
    assert_eq!(left(&mut keeper).await?, [(undated, 30, 29), (stray, 30, 29)]);
    assert_eq!(thin(&mut keeper).await?, 0);
    keeper.close().await?;
    stack.drop_database(&database).await
}
