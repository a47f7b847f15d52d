//! Logs to stderr, traces to an OTLP collector where one is named.

pub mod attr;
mod otlp;
mod trace_context;

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::{LogFormat, TelemetrySettings};

pub use trace_context::{TraceContext, current, format_traceparent, parse_traceparent, set_parent};

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of the logs cannot be read.
    #[error("read the log filter")]
    Filter(#[from] ParseError),
    /// The exporter cannot be built.
    #[error("build the OTLP exporter")]
    Exporter(#[from] ExporterBuildError),
    /// The process already has telemetry.
    #[error("telemetry was started twice")]
    Twice(#[from] TryInitError),
}

/// The telemetry of this process, to be flushed at its end.
#[derive(Debug)]
#[must_use = "spans that are not flushed at the end are lost"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Starts logs and, where an endpoint is named, traces. Must be called inside a tokio runtime, once.
pub fn start(settings: &TelemetrySettings, service_name: &'static str) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::try_new(&settings.log_filter)?;
    let logs = lines(settings.log_format, std::io::stderr).with_filter(filter);
    let traces = otlp::provider(settings, service_name)?;
    // Spans do not follow the filter of the logs: whoever silences logs still wants traces.
    let spans = traces.as_ref().map(|provider| {
        let tracer = provider.tracer(service_name);
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_filter(LevelFilter::INFO)
    });
    tracing_subscriber::registry().with(logs).with(spans).try_init()?;
    Ok(Telemetry { traces })
}

/// Events as lines, without the files that they come from: a line reads alone, and a path of the machine
/// that built the service says nothing to its operator.
fn lines<W>(format: LogFormat, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer()
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Pretty => lines.compact().boxed(),
    }
}

impl Telemetry {
    /// Sends what is left. Bounded by the exporter's own time limit; trouble is only logged.
    pub async fn flush(self) {
        let Some(traces) = self.traces else { return };
        // The provider blocks until its thread has sent the last batch through this runtime.
        match tokio::task::spawn_blocking(move || traces.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the last traces may be lost: {error}"),
            Err(error) => tracing::warn!("the last traces may be lost: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_line_names_no_source_file() {
        for format in [LogFormat::Json, LogFormat::Pretty] {
            let page = Page::default();
            let writer = page.clone();
            let subscriber = tracing_subscriber::registry().with(lines(format, move || writer.clone()));
            tracing::subscriber::with_default(subscriber, || tracing::info!("said"));
            let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
            assert!(text.contains("said") && !text.contains(".rs"), "{format:?}: {text}");
        }
    }
}
