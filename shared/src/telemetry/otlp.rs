//! The exporter of traces: OTLP over HTTP, in batches, beside the work.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;

use super::{TelemetryError, attr};
use crate::config::TelemetrySettings;

/// How long one batch may take to send.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The source of traces, if an endpoint is named.
pub(super) fn provider(
    settings: &TelemetrySettings,
    service_name: &'static str,
) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok(None);
    };
    let exporter = OtlpExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let instance = settings
        .service_instance
        .clone()
        .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let resource = Resource::builder()
        .with_service_name(service_name)
        .with_attributes([
            KeyValue::new(attr::SERVICE_INSTANCE_ID, instance),
            KeyValue::new(attr::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
        ])
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio)));
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(sampler)
        .with_batch_exporter(OnRuntime {
            exporter: Arc::new(exporter),
            runtime: Handle::current(),
        })
        .build();
    Ok(Some(provider))
}

/// Sends through the process's runtime: the batches come from a thread outside of it, and the HTTP
/// client needs one.
#[derive(Debug)]
struct OnRuntime {
    exporter: Arc<OtlpExporter>,
    runtime: Handle,
}

impl SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let sent = self.runtime.spawn(async move { exporter.export(batch).await }).await;
        sent.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())))
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called while the provider is built, before a batch shares the exporter.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::http::{HeaderMap, header};
    use axum::routing::post;
    use opentelemetry::trace::{Tracer, TracerProvider};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    use super::*;
    use crate::telemetry::Telemetry;

    type Received = (HeaderMap, Bytes);

    async fn collect(State(received): State<UnboundedSender<Received>>, headers: HeaderMap, body: Bytes) {
        received.send((headers, body)).expect("the test still listens");
    }

    fn settings(endpoint: String) -> TelemetrySettings {
        TelemetrySettings {
            otlp_endpoint: Some(endpoint),
            sample_ratio: 1.0,
            ..TelemetrySettings::default()
        }
    }

    #[tokio::test]
    async fn a_flush_sends_the_last_span() {
        let (sender, mut received) = unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
        let address = listener.local_addr().expect("bound");
        let collector = axum::Router::new()
            .route("/v1/traces", post(collect))
            .with_state(sender);
        tokio::spawn(async { axum::serve(listener, collector).await });

        let traces = provider(&settings(format!("http://{address}/")), "example")
            .expect("builds")
            .expect("is on");
        drop(traces.tracer("test").start("decide"));
        Telemetry { traces: Some(traces) }.flush().await;

        let (headers, body) = received.recv().await.expect("the collector got a batch");
        assert_eq!(headers[header::CONTENT_TYPE], "application/x-protobuf");
        let holds = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("decide") && holds("service.name") && holds("example"));
    }

    #[tokio::test]
    async fn a_collector_that_is_away_does_not_hold_up_the_end() {
        let traces = provider(&settings("http://127.0.0.1:1".to_owned()), "example")
            .expect("builds")
            .expect("is on");
        drop(traces.tracer("test").start("decide"));
        let flush = Telemetry { traces: Some(traces) }.flush();
        tokio::time::timeout(2 * EXPORT_TIMEOUT, flush)
            .await
            .expect("the flush is bounded");
    }

    #[tokio::test]
    async fn without_an_endpoint_there_are_no_traces() {
        assert!(
            provider(&TelemetrySettings::default(), "example")
                .expect("builds")
                .is_none()
        );
    }
}
