//! Whether this process lives, whether it gets on with its work, and its metrics, over HTTP.
//!
//! Ready means progress: each part of a service says that it gets on, or why not and since when.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, SecondsFormat};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::HttpSettings;

/// A reason that changes while a part is not ready is logged so often at most: a client that loses its brokers
/// words it anew several times a second.
const RETELL_MILLIS: i64 = 10_000;
/// How long a health check waits for its answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether a part of the service gets on with its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does.
    Ready,
    /// It does not.
    NotReady {
        /// Why, for people: what is waited for.
        reason: String,
    },
}

/// What the parts of a service say about themselves. Clones share it.
#[derive(Debug, Clone)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<&'static str, Part>>>,
}

#[derive(Debug, Clone)]
struct Part {
    state: State,
    /// Milliseconds since 1970 of the last change between ready and not ready.
    since: i64,
    /// Likewise, of its last line in the log.
    told: i64,
}

impl Part {
    /// Whether people want a line about what this part says now.
    fn is_news(&self, state: &State, now: i64) -> bool {
        let has_turned = (self.state == State::Ready) != (*state == State::Ready);
        has_turned || now - self.told >= RETELL_MILLIS
    }
}

impl Health {
    /// A service of these parts, none of which has begun.
    pub fn new(parts: &[&'static str]) -> Self {
        let since = clock::unix_millis();
        let begin = |name: &&'static str| {
            (
                *name,
                Part {
                    state: State::NotReady {
                        reason: "starting".to_owned(),
                    },
                    since,
                    told: 0,
                },
            )
        };
        Self {
            parts: Arc::new(Mutex::new(parts.iter().map(begin).collect())),
        }
    }

    /// Notes what a part says about itself. A changed reason does not restart its time.
    pub fn set(&self, part: &'static str, state: State) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = parts.get(part);
        if before.is_some_and(|before| before.state == state) {
            return;
        }
        let now = clock::unix_millis();
        let told = before
            .filter(|before| !before.is_news(&state, now))
            .map(|before| before.told);
        match &state {
            State::Ready => tracing::info!("{part} is ready"),
            State::NotReady { reason } if told.is_none() => tracing::warn!("{part} is not ready: {reason}"),
            State::NotReady { reason } => tracing::debug!("{part} is not ready: {reason}"),
        }
        let since = before
            .filter(|before| (before.state == State::Ready) == (state == State::Ready))
            .map_or(now, |before| before.since);
        let told = told.unwrap_or(now);
        parts.insert(part, Part { state, since, told });
    }

    /// Notes that a part gets on with its work.
    pub fn ready(&self, part: &'static str) {
        self.set(part, State::Ready);
    }

    /// Notes that a part does not, and why.
    pub fn not_ready(&self, part: &'static str, reason: impl Into<String>) {
        self.set(part, State::NotReady { reason: reason.into() });
    }

    /// Whether every part is ready. A service without parts is not.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    fn report(&self) -> Report {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = !parts.is_empty() && parts.values().all(|part| part.state == State::Ready);
        Report {
            ready,
            parts: parts
                .iter()
                .map(|(name, part)| (*name, PartReport::new(part)))
                .collect(),
        }
    }
}

/// The JSON of `/readyz`.
#[derive(Debug, Serialize)]
struct Report {
    ready: bool,
    parts: BTreeMap<&'static str, PartReport>,
}

#[derive(Debug, Serialize)]
struct PartReport {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    since: String,
}

impl PartReport {
    fn new(part: &Part) -> Self {
        let since = DateTime::from_timestamp_millis(part.since).unwrap_or_default();
        let reason = match &part.state {
            State::Ready => None,
            State::NotReady { reason } => Some(reason.clone()),
        };
        Self {
            ready: reason.is_none(),
            reason,
            since: since.to_rfc3339_opts(SecondsFormat::Millis, true),
        }
    }
}

/// An HTTP server that is bound, and answers once it runs.
#[derive(Debug)]
pub struct Server {
    /// Where it listens, the port as the system chose it.
    pub address: SocketAddr,
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Answers until `end`. Hand it a token of its own, so that it outlasts the drain.
    pub async fn run(self, end: CancellationToken) -> io::Result<()> {
        let ended = async move { end.cancelled().await };
        axum::serve(self.listener, self.router)
            .with_graceful_shutdown(ended)
            .await
    }
}

/// Binds the address of `settings` for `/livez`, `/readyz` and `/metrics`.
pub async fn serve(settings: &HttpSettings, health: Health, registry: Registry) -> io::Result<Server> {
    let listener = TcpListener::bind(&settings.listen).await?;
    let address = listener.local_addr()?;
    tracing::info!("listening on http://{address}");
    if let Some(file) = &settings.address_file {
        write_address(file, reachable(address))?;
    }
    let router = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz).with_state(health))
        .route("/metrics", get(metrics).with_state(registry));
    Ok(Server {
        address,
        listener,
        router,
    })
}

async fn readyz(Shared(health): Shared<Health>) -> impl IntoResponse {
    let report = health.report();
    let code = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(report))
}

async fn metrics(Shared(registry): Shared<Registry>) -> impl IntoResponse {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, encoder.format_type().to_owned())],
            text,
        ),
        Err(error) => {
            let kind = "text/plain; charset=utf-8".to_owned();
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                [(header::CONTENT_TYPE, kind)],
                error.to_string().into_bytes(),
            )
        }
    }
}

/// Whoever waits for the file must never read half of it.
fn write_address(file: &Path, address: SocketAddr) -> io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".tmp");
    std::fs::write(&unfinished, format!("{address}\n"))?;
    std::fs::rename(&unfinished, file)
}

/// "All addresses" is no address to connect to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

/// What a running service answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it is ready.
    pub is_ready: bool,
    /// Its JSON.
    pub body: String,
}

/// Asks the service that runs with `settings` on this machine whether it is ready.
pub async fn probe(settings: &HttpSettings) -> io::Result<Readiness> {
    let address = own_address(settings).await?;
    tokio::time::timeout(PROBE_TIMEOUT, ask(address))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

async fn own_address(settings: &HttpSettings) -> io::Result<SocketAddr> {
    if let Some(file) = &settings.address_file {
        let text = tokio::fs::read_to_string(file).await?;
        return text.trim().parse().map_err(io::Error::other);
    }
    let mut addresses = tokio::net::lookup_host(&settings.listen).await?;
    addresses
        .next()
        .map(reachable)
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// One request without a client library: the answer is ours, short, and closes the connection.
async fn ask(address: SocketAddr) -> io::Result<Readiness> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let is_ready = head.split_whitespace().nth(1) == Some("200");
    Ok(Readiness {
        is_ready,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests;
