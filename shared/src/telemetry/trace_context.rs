//! W3C trace context as text: it crosses the outbox row and the headers of records.

use std::str::FromStr;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The two headers of a trace context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// `traceparent`.
    pub traceparent: String,
    /// `tracestate`, where there is one.
    pub tracestate: Option<String>,
}

/// The trace context of the current span; `None` where no trace is recorded or passed through.
pub fn current() -> Option<TraceContext> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    let traceparent = format_traceparent(span)?;
    let state = span.trace_state().header();
    Some(TraceContext {
        traceparent,
        tracestate: Some(state).filter(|state| !state.is_empty()),
    })
}

/// Makes `span` a child of the span that a record or row came from. What is malformed is ignored: a
/// broken header must not stop an event.
pub fn set_parent(span: &Span, traceparent: &str, tracestate: Option<&str>) {
    if let Some(parent) = parse_traceparent(traceparent) {
        let state = tracestate
            .and_then(|state| TraceState::from_str(state).ok())
            .unwrap_or_default();
        let parent = SpanContext::new(parent.trace_id(), parent.span_id(), parent.trace_flags(), true, state);
        // Fails only once the span has started or has no trace: then there is nothing to tie.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// Reads a `traceparent`: version, trace, span, flags, in lower-case hex. Later versions may add more
/// fields behind; `ff`, an id of zeros and everything else is `None`.
pub fn parse_traceparent(text: &str) -> Option<SpanContext> {
    let mut fields = text.trim().split('-');
    let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_shape = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    if !is_shape || version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(flags) & TraceFlags::SAMPLED, // the only flag that version 00 knows
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

/// The `traceparent` of a span; `None` for a span without a trace.
pub fn format_traceparent(span: &SpanContext) -> Option<String> {
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags() & TraceFlags::SAMPLED
        )
    })
}

fn hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    proptest! {
        #[test]
        fn a_traceparent_survives_the_round_trip(trace in 1u128.., span in 1u64.., sampled: bool) {
            let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let context = SpanContext::new(trace.into(), span.into(), flags, true, TraceState::default());
            let text = format_traceparent(&context).expect("the ids are not zero");
            prop_assert_eq!(parse_traceparent(&text), Some(context));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            parse_traceparent(&text);
        }
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        assert!(parse_traceparent(EXAMPLE).is_some());
        for broken in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        ] {
            assert_eq!(parse_traceparent(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_later_version_may_have_more_fields() {
        assert!(parse_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
    }
}
