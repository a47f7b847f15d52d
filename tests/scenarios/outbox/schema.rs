//! What the database computes and whom it lets do what.

use insta::assert_snapshot;
use outbox_publisher::ports::{ChangeKind, LookBucket, OutboxStore};
use outbox_publisher::relay::Halt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::hash;
use shared::headers::Headers;
use shared::outbox::{self, NewEvent};
use sqlx::Connection;
use uuid::Uuid;

use crate::outbox::fixture::{Outbox, TOPIC, store};
use crate::outbox::store::{Owner, Row, control, look};

#[tokio::test]
async fn hashes_of_the_database_are_those_of_the_services() -> anyhow::Result<()> {
    // given keys of every length, and none
    let outbox = Outbox::new("hashes").await?;
    let mut random = StdRng::seed_from_u64(1);
    let mut inputs: Vec<(Option<Vec<u8>>, Uuid, String)> = Vec::new();
    for n in 0..2_000_usize {
        let key = (n % 17 != 0).then(|| (0..n % 41).map(|_| random.random()).collect());
        let topic = format!("{TOPIC}.ü.{}", n % 5);
        inputs.push((key, Uuid::from_u128(random.random()), topic));
    }
    // when
    let mut connection = outbox.connect().await?;
    let found: Vec<(Option<i32>, i16, i32)> = sqlx::query_as(
        "select kafka_murmur2(key), outbox_bucket(key, id), outbox_lane_hash(topic, key, id) \
           from unnest($1::bytea[], $2::uuid[], $3::text[]) with ordinality u (key, id, topic, place) order by place",
    )
    .bind(inputs.iter().map(|(key, ..)| key.as_deref()).collect::<Vec<_>>())
    .bind(inputs.iter().map(|(_, id, _)| *id).collect::<Vec<_>>())
    .bind(inputs.iter().map(|(.., topic)| topic.as_str()).collect::<Vec<_>>())
    .fetch_all(&mut connection)
    .await?;
    // then
    assert_eq!(found.len(), inputs.len());
    for ((key, id, topic), found) in inputs.iter().zip(found) {
        let key = key.as_deref();
        let expected = (
            key.map(hash::murmur2),
            hash::bucket_of(key, *id),
            hash::lane_hash(topic, key, *id),
        );
        assert_eq!(found, expected, "of key {key:?}, event {id}, topic {topic}");
    }
    outbox.remove().await
}

#[tokio::test]
async fn headers_that_people_see_are_those_that_were_stored() -> anyhow::Result<()> {
    let outbox = Outbox::new("headers").await?;
    let mut connection = outbox.connect().await?;
    let mut random = StdRng::seed_from_u64(2);
    for n in 0..200_usize {
        let mut headers = Headers::new();
        for at in 0..n % 7 {
            let name = format!("{}-ü-{at}", "n".repeat(random.random_range(0..300)));
            let value = random
                .random_bool(0.8)
                .then(|| vec![random.random::<u8>(); random.random_range(0..400)]);
            headers.push(name, value);
        }
        let seen: Vec<(String, Option<Vec<u8>>)> = sqlx::query_as("select name, value from outbox_headers($1)")
            .bind(headers.encode())
            .fetch_all(&mut connection)
            .await?;
        assert_eq!(seen.into_iter().collect::<Headers>(), headers);
    }
    outbox.remove().await
}

#[tokio::test]
async fn roles_have_the_rights_of_their_statements_and_no_more() -> anyhow::Result<()> {
    let outbox = Outbox::new("rights").await?;
    let mut connection = outbox.connect().await?;
    let rights: Vec<String> = sqlx::query_scalar(
        "select format('%s: %s %s', role, string_agg(distinct right_, ' ' order by right_), object) from ( \
             select grantee::regrole::text as role, lower(privilege_type) as right_, oid::regclass::text as object \
               from pg_class, aclexplode(relacl) where relnamespace in ('public'::regnamespace, 'triagemate'::regnamespace) \
             union all \
             select grantee::regrole::text, lower(privilege_type), oid::regprocedure::text \
               from pg_proc, aclexplode(proacl) where pronamespace = 'public'::regnamespace \
             union all \
             select grantee::regrole::text, lower(privilege_type), 'schema ' || nspname \
               from pg_namespace, aclexplode(nspacl) where nspname = 'triagemate') r \
          where role like 'claimfirst%' group by role, object order by 1",
    )
    .fetch_all(&mut connection)
    .await?;
    assert_snapshot!(rights.join("\n"));
    outbox.remove().await
}

#[tokio::test]
async fn no_service_can_delete_a_claim_or_forge_an_event_of_the_other() -> anyhow::Result<()> {
    let outbox = Outbox::new("forbidden").await?;
    let mut connection = outbox.connect().await?;
    for (role, statement) in [
        ("claimfirst_triage", "delete from processed_events"),
        ("claimfirst_triage", "update outbox_events set status = 'PUBLISHED'"),
        ("claimfirst_triage", "update decisions set reasons = ''"),
        ("claimfirst_triage", "delete from outbox_events"),
        ("claimfirst_publisher", "delete from outbox_events"),
        ("claimfirst_publisher", "insert into outbox_events (bucket) values (1)"),
        ("claimfirst_publisher", "delete from outbox_leases"),
        ("claimfirst_publisher", "select * from processed_events"),
        ("claimfirst_publisher", "select outbox_redrive(null, 't')"),
        ("claimfirst_reader", "update outbox_events set lane = 0"),
        ("claimfirst_reader", "select outbox_drop_leaf('0')"),
    ] {
        let mut tx = connection.begin().await?;
        sqlx::query("select set_config('role', $1, true)")
            .bind(role)
            .execute(&mut *tx)
            .await?;
        let refused = sqlx::raw_sql(statement).execute(&mut *tx).await;
        let code = refused
            .err()
            .and_then(|e| e.as_database_error().and_then(|e| e.code().map(|c| c.into_owned())));
        assert_eq!(code.as_deref(), Some("42501"), "{role}: {statement}");
        tx.rollback().await?;
    }
    outbox.remove().await
}

#[tokio::test]
async fn publisher_and_library_do_all_their_work_under_their_roles() -> anyhow::Result<()> {
    // given an event of a library user without other rights
    let outbox = Outbox::new("roles").await?;
    let mut user = sqlx::PgConnection::connect_with(&outbox.options().options([("role", "claimfirst_triage")])).await?;
    let mut tx = user.begin().await?;
    outbox::enqueue_ordered(
        &mut tx,
        &[
            NewEvent::new(TOPIC, "x", "head").key("K"),
            NewEvent::new(TOPIC, "x", "next").key("K"),
        ],
    )
    .await?;
    tx.commit().await?;
    // when a publisher of its role does whatever it may have to
    let owner = Owner::take(store(&outbox.options().options([("role", "claimfirst_publisher")]))).await?;
    let head = Row::find(&outbox, "head").await?;
    assert_eq!(owner.read(head.bucket).await?.map(|rows| rows.len()), Some(2));
    owner.change(head, ChangeKind::Park).await?;
    let asked = LookBucket {
        bucket: head.bucket,
        epoch: owner.held[&head.bucket].epoch,
        after: None,
    };
    assert_eq!(owner.store.look(look(asked, Halt::Everywhere)).await?.rows.len(), 1);
    assert_eq!(owner.store.mark().await?, 2);
    owner.store.locks(vec![1]).await?;
    assert_eq!(owner.settle(head).await?, 1);
    let mut renewal = control(0);
    renewal.renew = owner.held.values().copied().collect();
    assert_eq!(owner.store.control(renewal).await?.kept.len(), 64);
    owner.store.leave().await?;
    // then all was done, and housekeeping is allowed, too
    assert_eq!(outbox.rows().await?, ["head 0 PUBLISHED", "next 0 PENDING"]);
    let mut keeper =
        sqlx::PgConnection::connect_with(&outbox.options().options([("role", "claimfirst_publisher")])).await?;
    sqlx::raw_sql("select outbox_make_leaves(5000000, 7); select outbox_drop_leaf('0')")
        .execute(&mut keeper)
        .await?;
    outbox.remove().await
}
