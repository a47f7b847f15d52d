//! Ports on 127.0.0.1 for servers that must know theirs before they start.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;
use rand::Rng;

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up): a client
/// that retries against a stopped server can then neither take the server's port nor connect to itself.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port that nobody held a moment ago. The server that takes it is asked who it is (Kafka by its
/// cluster id, Postgres by its data folder), since somebody else may have been quicker.
pub fn free() -> anyhow::Result<u16> {
    let mut random = rand::rng();
    for _ in 0..200 {
        let port = random.random_range(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port among 200 tried in {RANGE:?}")
}
