//! The judge sees what a fault would leave behind. The rows are written by hand, on real Postgres.

use sqlx::Connection;
use uuid::Uuid;

use super::*;
use crate::kafka::KafkaOptions;
use crate::stack::{Choice, Stack, StackKind};
use crate::topics::Record;

/// A finished run of three records: an event, its duplicate, and a record that is none.
struct Finished {
    stack: Stack,
    database: Database,
    triage: Triage,
}

impl Finished {
    async fn new() -> Self {
        let choice = Choice {
            kind: StackKind::Embedded,
            reason: "a test of the judge".to_owned(),
        };
        let stack = Stack::start_chosen(choice, "judge", &KafkaOptions::default(), &[])
            .await
            .unwrap();
        let database = stack.database("judge").await.unwrap();
        let triage = Triage {
            consumer: "triage".to_owned(),
            group: "triage".to_owned(),
            inputs: vec![stack.topic("in", 1, &[]).await.unwrap()],
            output: stack.topic("out", 1, &[]).await.unwrap(),
            dead_letter: stack.topic("in.dlt", 1, &[]).await.unwrap(),
        };
        let finished = Self {
            stack,
            database,
            triage,
        };
        finished.fill().await;
        finished
    }

    async fn fill(&self) {
        let event = br#"{"eventId":"3F0C1E8A-7d2b-4c55-9a53-1d7a33f4c001"}"#;
        let inputs = vec![
            Record::new("k", *event),
            Record::new("k", *event),
            Record::new("k", "broken"),
        ];
        topics::produce(&self.stack.brokers(), &self.triage.inputs[0], inputs)
            .await
            .unwrap();
        let outcome = self.row(&self.triage.output, 0, true).await;
        let dead_letter = self.row(&self.triage.dead_letter, 2, false).await;
        self.claim("3f0c1e8a-7d2b-4c55-9a53-1d7a33f4c001", 0, "DECIDED").await;
        self.claim("3f0c1e8a-7d2b-5c55-9a53-1d7a33f4c002", 2, "SET_ASIDE").await;
        self.decide("3f0c1e8a-7d2b-4c55-9a53-1d7a33f4c001").await;
        self.publish(&self.triage.output, outcome).await;
        self.publish(&self.triage.dead_letter, dead_letter).await;
    }

    async fn claim(&self, event_id: &str, offset: i64, outcome: &str) {
        self.run("insert into consumers (name) values ('triage') on conflict do nothing")
            .await;
        self.run(&format!(
            "insert into kafka_topics (name) values ('{}') on conflict do nothing",
            self.triage.inputs[0]
        ))
        .await;
        self.run(&format!(
            "insert into processed_events (event_id, claim_day, consumer_id, topic_id, kafka_partition, kafka_offset, \
                                           outcome, payload_digest) \
             select '{event_id}', '-infinity', consumer_id, topic_id, 0, {offset}, '{outcome}', decode(repeat('00', 16), 'hex') \
               from consumers c, kafka_topics t where c.name = 'triage' and t.name = '{}'",
            self.triage.inputs[0]
        ))
        .await;
    }

    async fn decide(&self, event_id: &str) {
        self.run(&format!(
            "insert into decisions (decision_id, event_id, consumer_id, outcome, reason_code, rule, reasons, \
                                    policy_version, policy_digest, input_id, input_digest, output_digest) \
             select gen_random_uuid(), '{event_id}', consumer_id, 'ACCEPT', 'r', 'r', 'r', 'v', '', 'i', '', '' \
               from consumers where name = 'triage'"
        ))
        .await;
    }

    /// A PUBLISHED row about the input record at `offset`; its event id.
    async fn row(&self, topic: &str, offset: i64, is_ordered: bool) -> Uuid {
        let event_id = Uuid::new_v4();
        self.run(&format!(
            "insert into kafka_topics (name) values ('{}') on conflict do nothing",
            self.triage.inputs[0]
        ))
        .await;
        self.run(&format!(
            "insert into outbox_events (lane_hash, bucket, event_id, topic, key, event_type, payload, status, is_ordered, \
                                        source_topic_id, source_partition, source_offset) \
             select 0, 0, '{event_id}', '{topic}', 'k', 'e', '{{}}', 'PUBLISHED', {is_ordered}, topic_id, 0, {offset} \
               from kafka_topics where name = '{}'",
            self.triage.inputs[0]
        ))
        .await;
        event_id
    }

    async fn publish(&self, topic: &str, event_id: Uuid) {
        let mut record = Record::new("k", "{}");
        record.headers = vec![("event-id".to_owned(), Some(event_id.to_string().into_bytes()))];
        topics::produce(&self.stack.brokers(), topic, vec![record])
            .await
            .unwrap();
    }

    async fn run(&self, statement: &str) {
        let mut connection = self.database.connect().await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    async fn judged(&self) -> Verdict {
        let audit = Audit::new(&self.stack.brokers(), &self.database).triage(self.triage.clone());
        audit.still_running().run().await.unwrap()
    }
}

#[tokio::test]
async fn the_judge_passes_what_is_right_and_finds_what_is_not() {
    let finished = Finished::new().await;
    let verdict = finished.judged().await;
    verdict.assert_clean();
    assert_eq!(
        (verdict.records_in, verdict.events_unique, verdict.duplicates_suppressed),
        (3, 2, 1)
    );
    assert_eq!(
        (verdict.dead_lettered, verdict.published, verdict.decisions["ACCEPT"]),
        (1, 2, 1)
    );

    // A second outcome about the same record, published ahead of the first one's repeat.
    let again = finished.row(&finished.triage.output, 0, true).await;
    finished.publish(&finished.triage.output, again).await;
    finished.publish(&finished.triage.output, again).await;
    let verdict = finished.judged().await;
    assert_eq!(
        (verdict.decided_twice, verdict.publish_duplicates, verdict.lost),
        (1, 1, 0),
        "{verdict:#?}"
    );

    // Rows that were never sent, a record without a claim, and a record that no row knows.
    finished.row(&finished.triage.output, 7, true).await;
    finished.publish(&finished.triage.output, Uuid::new_v4()).await;
    topics::produce(
        &finished.stack.brokers(),
        &finished.triage.inputs[0],
        vec![Record::new("k", "new")],
    )
    .await
    .unwrap();
    let verdict = finished.judged().await;
    assert_eq!(verdict.lost, 2, "{verdict:#?}");
    assert!(
        verdict
            .problems
            .iter()
            .any(|problem| problem.contains("which no row has")),
        "{verdict:#?}"
    );
}

#[tokio::test]
async fn after_a_shutdown_offsets_are_committed_and_leases_are_free() {
    let finished = Finished::new().await;
    finished.run("update outbox_leases set lock_owner = gen_random_uuid(), locked_until = now() + interval '1 hour' where bucket < 3").await;
    let audit = Audit::new(&finished.stack.brokers(), &finished.database).triage(finished.triage.clone());
    let verdict = audit.run().await.unwrap();
    assert_eq!(verdict.problems.len(), 2, "{verdict:#?}");
    assert!(verdict.problems[0].contains("3 leases"), "{verdict:#?}");
    assert!(verdict.problems[1].contains("group triage stands"), "{verdict:#?}");
}
