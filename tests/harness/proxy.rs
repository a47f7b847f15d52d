//! A TCP proxy on 127.0.0.1 that is a bad network: it delays, stalls, swallows, cuts and holds back.
//!
//! Each direction of a connection is a reader, a gate and a writer. For Kafka the gate sees whole
//! requests and answers, so that it can swallow the answer to a Produce, or hold a Produce back until
//! its producer is dead. The proxy has a thread of its own: a test that blocks does not slow it down.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kafka::{Hop, Route};

/// Frames under way in one direction of one connection; beyond it the reader waits, as TCP does.
const FRAMES_UNDER_WAY: usize = 1024;
/// The largest frame that is taken for one; Kafka's own limit is 100 MB.
const FRAME_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Kafka's number for Produce.
const PRODUCE: i16 = 0;

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

    fn start(hops: &[Hop], framing: Framing) -> anyhow::Result<Self> {
        let network = Arc::new(Network {
            framing,
            weather: watch::Sender::default(),
            produced: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
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
                    tokio::spawn(accept(listener, upstream, Arc::clone(&served)));
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

async fn accept(listener: TcpListener, upstream: SocketAddr, network: Arc<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        if network.weather.borrow().refuses {
            continue;
        }
        let network = Arc::clone(&network);
        tokio::spawn(async move {
            // A server that is down is a refused connection to the client: its end is closed here.
            if let Ok(server) = TcpStream::connect(upstream).await {
                carry(client, server, network).await;
            }
        });
    }
}

/// Carries one connection until an end of it closes or it is cut.
async fn carry(client: TcpStream, server: TcpStream, network: Arc<Network>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (requests, request_queue) = mpsc::channel(FRAMES_UNDER_WAY);
    let (answers, answer_queue) = mpsc::channel(FRAMES_UNDER_WAY);
    let is_cut = CancellationToken::new();
    // Correlation ids of Produce requests whose answers are to be swallowed.
    let doomed = Arc::new(Mutex::new(HashSet::new()));

    // These two end when the last sender is gone; a held request is one of the senders. So the server's
    // end of a connection outlives the client's as long as something of it is held.
    tokio::spawn(write(request_queue, to_server, Arc::clone(&network), |weather| {
        weather.to_server
    }));
    let writer = tokio::spawn(write(answer_queue, to_client, Arc::clone(&network), |weather| {
        weather.to_client
    }));
    let reader = tokio::spawn(read_answers(
        from_server,
        answers,
        Arc::clone(&network),
        Arc::clone(&doomed),
        is_cut.clone(),
    ));

    tokio::select! {
        () = read_requests(from_client, requests, &network, &doomed, &is_cut) => {}
        () = is_cut.cancelled() => {}
        () = cut(&network) => {}
    }
    is_cut.cancel();
    writer.abort();
    // The reader goes on: answers to a held request must be taken, or the server would stop. It ends
    // with the server's end of the connection, which the writer of requests closes.
    drop(reader);
}

/// Returns when every connection of now is to be cut.
async fn cut(network: &Network) {
    let mut weather = network.weather.subscribe();
    let (cuts, began) = (weather.borrow().cuts, weather.borrow().clone());
    let had_hole = |weather: &Weather| [weather.to_server, weather.to_client].contains(&Flow::BlackHole);
    let mut in_hole = had_hole(&began);
    while weather.changed().await.is_ok() {
        let now = weather.borrow_and_update();
        if now.cuts != cuts || (in_hole && !had_hole(&now)) {
            return;
        }
        in_hole = had_hole(&now);
    }
}

async fn read_requests(
    mut from: OwnedReadHalf,
    to_server: mpsc::Sender<Frame>,
    network: &Network,
    doomed: &Mutex<HashSet<i32>>,
    is_cut: &CancellationToken,
) {
    while let Some(frame) = read_frame(&mut from, network.framing).await {
        if network.framing == Framing::Kafka && api_key(&frame.bytes) == Some(PRODUCE) {
            let weather = network.weather.borrow().clone();
            if weather.holds_produce {
                network.held().push(Held {
                    frame,
                    to_server: to_server.clone(),
                });
                continue;
            }
            let number = network.produced.fetch_add(1, Ordering::SeqCst) + 1;
            if weather.swallow_each.is_some_and(|each| number.is_multiple_of(each))
                && let Some(id) = request_id(&frame.bytes)
            {
                doomed.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            }
        }
        if is_cut.is_cancelled() || to_server.send(frame).await.is_err() {
            return;
        }
    }
}

async fn read_answers(
    mut from: OwnedReadHalf,
    to_client: mpsc::Sender<Frame>,
    network: Arc<Network>,
    doomed: Arc<Mutex<HashSet<i32>>>,
    is_cut: CancellationToken,
) {
    while let Some(frame) = read_frame(&mut from, network.framing).await {
        let is_doomed =
            answer_id(&frame.bytes).is_some_and(|id| doomed.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        if network.framing == Framing::Kafka && is_doomed {
            network.swallowed.fetch_add(1, Ordering::SeqCst);
            is_cut.cancel();
        }
        if !is_cut.is_cancelled() {
            // Once the client is gone, answers are read and lost.
            let _ = to_client.send(frame).await;
        }
    }
    is_cut.cancel();
}

/// Writes frames as the weather lets them through.
async fn write(
    mut queue: mpsc::Receiver<Frame>,
    mut to: OwnedWriteHalf,
    network: Arc<Network>,
    direction: fn(&Weather) -> Flow,
) {
    let mut weather = network.weather.subscribe();
    while let Some(frame) = queue.recv().await {
        let Ok(flow) = weather
            .wait_for(|weather| direction(weather) != Flow::Stall)
            .await
            .map(|now| direction(&now))
        else {
            return;
        };
        match flow {
            Flow::BlackHole => continue,
            Flow::Delay(delay) => tokio::time::sleep_until(frame.arrived_at + delay).await,
            Flow::Pass | Flow::Stall => {}
        }
        if to.write_all(&frame.bytes).await.is_err() {
            return;
        }
    }
}

/// The next frame, or `None` at the end of the connection.
async fn read_frame(from: &mut (impl AsyncRead + Unpin), framing: Framing) -> Option<Frame> {
    let bytes = match framing {
        Framing::Raw => {
            let mut chunk = vec![0; 16 * 1024];
            let count = from.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
            chunk.truncate(count);
            chunk
        }
        Framing::Kafka => {
            let mut length = [0; 4];
            from.read_exact(&mut length).await.ok()?;
            let body = usize::try_from(i32::from_be_bytes(length))
                .ok()
                .filter(|body| *body <= FRAME_BYTES_MAX)?;
            let mut frame = vec![0; 4 + body];
            frame[..4].copy_from_slice(&length);
            from.read_exact(&mut frame[4..]).await.ok()?;
            frame
        }
    };
    Some(Frame {
        bytes,
        arrived_at: Instant::now(),
    })
}

/// A request is length (4), api key (2), api version (2), correlation id (4), ...
fn api_key(request: &[u8]) -> Option<i16> {
    Some(i16::from_be_bytes(request.get(4..6)?.try_into().ok()?))
}

fn request_id(request: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(request.get(8..12)?.try_into().ok()?))
}

/// An answer is length (4), correlation id (4), ...
fn answer_id(answer: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(answer.get(4..8)?.try_into().ok()?))
}
