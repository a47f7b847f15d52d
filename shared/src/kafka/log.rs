//! What the client library logs.

use rdkafka::config::RDKafkaLogLevel;

/// Passes on a line of the client library; for `ClientContext::log`.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    // Said of a setting that we chose, at every start: docs/adr/0006-gapless-producers.md.
    if facility == "CONFWARN" && message.contains("enable.gapless.guarantee is experimental") {
        return tracing::debug!("librdkafka {facility}: {message}");
    }
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!("librdkafka {facility}: {message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!("librdkafka {facility}: {message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!("librdkafka {facility}: {message}"),
        RDKafkaLogLevel::Debug => tracing::debug!("librdkafka {facility}: {message}"),
    }
}
