//! A trace that crosses both services.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use harness::wait::{self, Seen};
use harness::{Record, topics};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::scene::{DECISIONS, SOON, Scene, drain, event, start};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// An OTLP receiver that keeps the bodies it got.
struct Collector {
    endpoint: String,
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    async fn start() -> anyhow::Result<Self> {
        let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
        let keep = |State(bodies): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| async move {
            bodies.lock().unwrap_or_else(PoisonError::into_inner).push(body);
        };
        let routes = axum::Router::new()
            .route("/v1/traces", post(keep))
            .with_state(Arc::clone(&bodies));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async { axum::serve(listener, routes).await });
        Ok(Self { endpoint, bodies })
    }

    fn has_all(&self, parts: &[&[u8]]) -> bool {
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |body: &Bytes, part: &[u8]| body.windows(part.len()).any(|window| window == part);
        bodies.iter().any(|body| parts.iter().all(|part| holds(body, part)))
    }
}

#[tokio::test]
async fn a_trace_goes_from_its_record_through_the_decision_to_the_outcome() -> anyhow::Result<()> {
    // given
    let collector = Collector::start().await?;
    let scene = Scene::new("traces", 1).await?;
    let service = scene
        .service("traced")
        .set("TELEMETRY__OTLP_ENDPOINT", &collector.endpoint)
        .set("TELEMETRY__SAMPLE_RATIO", 0);
    let service = start(&service).await?;
    let traced = Record {
        headers: vec![
            (
                "traceparent".to_owned(),
                Some(format!("00-{TRACE}-{CALLER}-01").into_bytes()),
            ),
            ("tracestate".to_owned(), Some(b"vendor=1".to_vec())),
        ],
        ..event(Uuid::new_v4(), "traced", "hello")
    };

    // when: one record with a sampled trace, one without any
    scene
        .send(vec![traced, event(Uuid::new_v4(), "untraced", "hello")])
        .await?;
    scene.until(DECISIONS, |count| count == 2).await?;
    drain(vec![service]).await?;
    scene.publish().await?;

    // then: the outcome names the span of the decision, which the collector knows as a child of the caller's
    let outcomes = topics::read_all(&scene.brokers, &scene.triage.output).await?;
    let of = |key: &str| outcomes.iter().find(|read| read.key.as_deref() == Some(key.as_bytes()));
    let parent = of("traced")
        .and_then(|read| read.header("traceparent"))
        .unwrap_or_default();
    let parts: Vec<&str> = parent.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"));
    let decided = parts[2];
    assert_ne!(decided, CALLER);
    assert_eq!(
        of("traced").and_then(|read| read.header("tracestate")),
        Some("vendor=1")
    );
    let bytes = |hex: &str| -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        (0..hex.len()).step_by(2).map(digit).collect()
    };
    let (trace, caller, decided) = (bytes(TRACE), bytes(CALLER), bytes(decided));
    wait::until("the span of the decision at the collector", SOON, || async {
        let parts: [&[u8]; 5] = [b"triage-service", b"decide", &trace, &caller, &decided];
        Ok(if collector.has_all(&parts) {
            Seen::Yes(())
        } else {
            Seen::NotYet("not there".to_owned())
        })
    })
    .await?;
    scene.end(Vec::new()).await?;
    Ok(())
}
