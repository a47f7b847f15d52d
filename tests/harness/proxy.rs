//! A TCP proxy on 127.0.0.1 that is a bad network: it delays, stalls, swallows, cuts and holds back.
//!
//! Each direction of a connection is a reader, a gate and a writer. For Kafka the gate sees whole
//! requests and answers, so that it can swallow the answer to a Produce, hold a Produce back until its
//! producer is dead, or leave the brokers out of the answer to a Metadata. The proxy has a thread of its own: a test that blocks does not slow it down.

mod carry;
mod metadata;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kafka::{Hop, Route};
use crate::wait::{self, Seen};

/// How long brokers are hidden at a time, and how long they are not.
const HIDDEN: Duration = Duration::from_millis(700);
const SHOWN: Duration = Duration::from_millis(1_500);

/// What the proxy understands of what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Bytes.
    Raw,
    /// Kafka's protocol: frames of four bytes length and a body.
    Kafka,
}

/// How one direction flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// As it comes.
    #[default]
    Pass,
    /// Later by this much, in order.
    Delay(Duration),
    /// Nothing moves and nothing is lost: a network that is away for a while.
    Stall,
    /// What comes is lost. A connection that lost something is cut once this is over.
    BlackHole,
}

/// How the network behaves now.
#[derive(Debug, Clone, Default)]
struct Weather {
    to_server: Flow,
    to_client: Flow,
    refuses: bool,
    /// The answer to each n-th Produce is swallowed and its connection cut.
    swallow_each: Option<u64>,
    holds_produce: bool,
    /// Answers to Metadata name no broker.
    hides_brokers: bool,
    /// Raised to cut every connection that is older.
    cuts: u64,
}

/// A proxy; its connections and its thread end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addresses: Vec<SocketAddr>,
    network: Arc<Network>,
    end: CancellationToken,
}

#[derive(Debug)]
struct Network {
    framing: Framing,
    weather: watch::Sender<Weather>,
    /// Produce requests that have passed.
    produced: AtomicU64,
    swallowed: AtomicU64,
    /// Answers that named no broker.
    emptied: AtomicU64,
    /// Connections taken.
    connections: AtomicU64,
    held: Mutex<Vec<Held>>,
}

/// A request that waits in the proxy, with the way that it would have gone.
#[derive(Debug)]
struct Held {
    frame: Frame,
    to_server: mpsc::Sender<Frame>,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    arrived_at: Instant,
}

impl Proxy {
    /// A proxy at a free port in front of one server.
    pub fn to(upstream: u16, framing: Framing) -> anyhow::Result<Self> {
        Self::start(&[Hop { listen: 0, upstream }], framing)
    }

    /// A proxy in front of all brokers of a cluster; they name the proxy's addresses to its clients.
    pub fn for_kafka(route: &Route<'_>) -> anyhow::Result<Self> {
        Self::start(&route.hops, Framing::Kafka)
    }

    /// The same where the way is encrypted: it carries bytes and understands none of them.
    pub fn for_encrypted_kafka(route: &Route<'_>) -> anyhow::Result<Self> {
        Self::start(&route.hops, Framing::Raw)
    }

    fn start(hops: &[Hop], framing: Framing) -> anyhow::Result<Self> {
        let network = Arc::new(Network {
            framing,
            weather: watch::Sender::default(),
            produced: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
            emptied: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            held: Mutex::default(),
        });
        let mut listeners = Vec::new();
        for hop in hops {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, hop.listen))
                .with_context(|| format!("listen at port {}", hop.listen))?;
            listener.set_nonblocking(true)?;
            listeners.push((listener, SocketAddr::from((Ipv4Addr::LOCALHOST, hop.upstream))));
        }
        let addresses = listeners
            .iter()
            .map(|(listener, _)| listener.local_addr())
            .collect::<Result<_, _>>()?;
        let end = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (served, ended) = (Arc::clone(&network), end.clone());
        std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            runtime.block_on(async move {
                for (listener, upstream) in listeners {
                    let listener = TcpListener::from_std(listener).expect("the runtime has IO enabled");
                    tokio::spawn(carry::accept(listener, upstream, Arc::clone(&served)));
                }
                ended.cancelled().await;
            });
        })?;
        Ok(Self {
            addresses,
            network,
            end,
        })
    }

    /// Where clients connect, as a list for `bootstrap.servers`.
    pub fn address(&self) -> String {
        self.addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Changes the flow of both directions.
    pub fn both(&self, flow: Flow) {
        self.change(|weather| (weather.to_server, weather.to_client) = (flow, flow));
    }

    /// Changes the flow from clients to the server.
    pub fn to_server(&self, flow: Flow) {
        self.change(|weather| weather.to_server = flow);
    }

    /// Changes the flow from the server to clients.
    pub fn to_client(&self, flow: Flow) {
        self.change(|weather| weather.to_client = flow);
    }

    /// Ends every connection. New ones are taken.
    pub fn cut(&self) {
        self.change(|weather| weather.cuts += 1);
    }

    /// Ends every connection and each new one until `false`.
    pub fn refuse(&self, refuses: bool) {
        self.change(|weather| {
            weather.refuses = refuses;
            weather.cuts += u64::from(refuses);
        });
    }

    /// Swallows the answer to each n-th Produce and cuts its connection; 0 ends it. The count starts now.
    pub fn swallow_each_produce_answer(&self, n: u64) {
        self.network.produced.store(0, Ordering::SeqCst);
        self.change(|weather| weather.swallow_each = (n > 0).then_some(n));
    }

    /// How many answers were swallowed.
    pub fn swallowed(&self) -> u64 {
        self.network.swallowed.load(Ordering::SeqCst)
    }

    /// Keeps Produce requests in the proxy. Their connections to the server stay open, also when the
    /// client's is gone: so the server sees them late, from a producer that may be dead.
    pub fn hold_produce(&self, holds: bool) {
        self.change(|weather| weather.holds_produce = holds);
    }

    /// How many requests are held.
    pub fn held(&self) -> usize {
        self.network.held().len()
    }

    /// Sends the held requests to the server, in the order in which they came.
    pub fn release_held(&self) {
        for Held { frame, to_server } in self.network.held().drain(..) {
            // The server may have closed the connection meanwhile; then the request is lost, as it would be.
            let _ = to_server.try_send(frame);
        }
    }

    /// Drops the held requests.
    pub fn forget_held(&self) {
        self.network.held().clear();
    }

    /// Lets answers to Metadata name no broker until `false`, as one that was just fenced may.
    pub fn hide_brokers(&self, hides: bool) {
        self.change(|weather| weather.hides_brokers = hides);
    }

    /// Does so for a moment, then not for a while, and again, until the condition holds.
    pub async fn hide_brokers_until(
        &self,
        what: &str,
        within: Duration,
        holds: impl Fn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        wait::until(what, within, || async {
            self.hide_brokers(true);
            tokio::time::sleep(HIDDEN).await; // a fault has a length, and no condition
            self.hide_brokers(false);
            tokio::time::sleep(SHOWN).await; // as above
            Ok(if holds()? {
                Seen::Yes(())
            } else {
                Seen::NotYet(format!("{} answers named no broker", self.emptied()))
            })
        })
        .await
    }

    /// How many answers named no broker because of that.
    pub fn emptied(&self) -> u64 {
        self.network.emptied.load(Ordering::SeqCst)
    }

    /// How many connections were taken.
    pub fn connections(&self) -> u64 {
        self.network.connections.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.network.weather.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Network {
    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
