//! What the proxy does with one connection: two readers, two gates, two writers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metadata::{METADATA, without_brokers};
use super::{Flow, Frame, Framing, Held, Network, Weather};

/// Frames under way in one direction of one connection; beyond it the reader waits, as TCP does.
const FRAMES_UNDER_WAY: usize = 1024;
/// The largest frame that is taken for one; Kafka's own limit is 100 MB.
const FRAME_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Kafka's number for Produce.
const PRODUCE: i16 = 0;

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is lost, and its connection is cut.
    Swallowed,
    /// It is one to Metadata of this version, and names no broker.
    WithoutBrokers(i16),
}

/// Answers that do not pass as they come, by their correlation ids.
type Due = Mutex<HashMap<i32, Fate>>;

/// Takes connections as long as the proxy lasts.
pub(super) async fn accept(listener: TcpListener, upstream: SocketAddr, network: Arc<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        if network.weather.borrow().refuses {
            continue;
        }
        network.connections.fetch_add(1, Ordering::SeqCst);
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
    let due = Arc::new(Mutex::new(HashMap::new()));

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
        Arc::clone(&due),
        is_cut.clone(),
    ));

    tokio::select! {
        () = read_requests(from_client, requests, &network, &due, &is_cut) => {}
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
    due: &Due,
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
                decide(due, id, Fate::Swallowed);
            }
        }
        if network.framing == Framing::Kafka
            && api_key(&frame.bytes) == Some(METADATA)
            && let (Some(version), Some(id)) = (api_version(&frame.bytes), request_id(&frame.bytes))
        {
            decide(due, id, Fate::WithoutBrokers(version));
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
    due: Arc<Due>,
    is_cut: CancellationToken,
) {
    while let Some(mut frame) = read_frame(&mut from, network.framing).await {
        let fate =
            answer_id(&frame.bytes).and_then(|id| due.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        match fate {
            Some(Fate::Swallowed) => {
                network.swallowed.fetch_add(1, Ordering::SeqCst);
                is_cut.cancel();
            }
            Some(Fate::WithoutBrokers(version)) if network.weather.borrow().hides_brokers => {
                if let Some(emptied) = without_brokers(&frame.bytes, version) {
                    frame.bytes = emptied;
                    network.emptied.fetch_add(1, Ordering::SeqCst);
                }
            }
            Some(Fate::WithoutBrokers(_)) | None => {}
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

fn decide(due: &Due, id: i32, fate: Fate) {
    due.lock().unwrap_or_else(PoisonError::into_inner).insert(id, fate);
}

/// A request is length (4), api key (2), api version (2), correlation id (4), ...
fn api_key(request: &[u8]) -> Option<i16> {
    Some(i16::from_be_bytes(request.get(4..6)?.try_into().ok()?))
}

fn api_version(request: &[u8]) -> Option<i16> {
    Some(i16::from_be_bytes(request.get(6..8)?.try_into().ok()?))
}

fn request_id(request: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(request.get(8..12)?.try_into().ok()?))
}

/// An answer is length (4), correlation id (4), ...
fn answer_id(answer: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(answer.get(4..8)?.try_into().ok()?))
}
