//! What a client's error says: about the row, about the destination, or nothing yet.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::ports::SendError;

/// What a failed delivery report says.
pub(super) fn of_report(error: &KafkaError) -> SendError {
    let Some(code) = error.rdkafka_error_code() else {
        return SendError::Unknown;
    };
    match code {
        // What a purge, a fatal state or an end of the client leaves behind: the cause is another report.
        Code::PurgeQueue | Code::PurgeInflight | Code::Fatal | Code::GaplessGuarantee => SendError::Unknown,
        // These say something about a record of the batch.
        Code::MessageSizeTooLarge
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::BadMessage => SendError::Row(error.to_string()),
        // Everything else is the destination's: unknown topic or partition, not authorised, policy, storage.
        _ => SendError::Destination(error.to_string()),
    }
}

/// What a client says that did not take a record.
pub(super) fn of_send(error: &KafkaError) -> SendError {
    match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidArgument) => SendError::NotSent(error.to_string()),
        Some(Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition) => {
            SendError::Destination(error.to_string())
        }
        _ => SendError::Unknown, // a full queue, a fatal state: nothing that the row could help
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_about_records_are_a_rows() {
        let report = |code| of_report(&KafkaError::MessageProduction(code));
        assert!(matches!(report(Code::MessageSizeTooLarge), SendError::Row(_)));
        assert!(matches!(
            report(Code::TopicAuthorizationFailed),
            SendError::Destination(_)
        ));
        assert!(matches!(
            report(Code::UnknownTopicOrPartition),
            SendError::Destination(_)
        ));
        assert_eq!(report(Code::PurgeQueue), SendError::Unknown);
        assert_eq!(
            of_send(&KafkaError::MessageProduction(Code::QueueFull)),
            SendError::Unknown
        );
    }
}
