//! Names of attributes on spans and log lines: OpenTelemetry's where it has one, ours else.

/// Which messaging system: always `kafka`.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// Topic.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// Partition, as text.
pub const MESSAGING_DESTINATION_PARTITION_ID: &str = "messaging.destination.partition.id";
/// Offset inside the partition.
pub const MESSAGING_KAFKA_OFFSET: &str = "messaging.kafka.offset";
/// Consumer group.
pub const MESSAGING_CONSUMER_GROUP_NAME: &str = "messaging.consumer.group.name";
/// How many records a batch holds.
pub const MESSAGING_BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";
/// `receive`, `process`, `send` or `settle`.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// Which database: always `postgresql`.
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// SQLSTATE of an error.
pub const DB_RESPONSE_STATUS_CODE: &str = "db.response.status_code";
/// What kind of failure.
pub const ERROR_TYPE: &str = "error.type";
/// Name of the service.
pub const SERVICE_NAME: &str = "service.name";
/// Which instance of it.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// Version of it.
pub const SERVICE_VERSION: &str = "service.version";

/// Id of an event.
pub const EVENT_ID: &str = "event.id";
/// Type of an event.
pub const EVENT_TYPE: &str = "event.type";
/// Id of a decision.
pub const DECISION_ID: &str = "decision.id";
/// Outcome of a decision.
pub const DECISION_OUTCOME: &str = "decision.outcome";
/// Reason code of a decision or a dead letter.
pub const REASON_CODE: &str = "reason.code";
/// Id of an outbox row.
pub const OUTBOX_ID: &str = "outbox.id";
/// Bucket of an outbox row or lease.
pub const OUTBOX_BUCKET: &str = "outbox.bucket";
/// Epoch of a lease.
pub const OUTBOX_EPOCH: &str = "outbox.epoch";
