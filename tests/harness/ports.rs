//! Ports on 127.0.0.1 for servers that must know theirs before they start.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use anyhow::bail;
use rand::Rng;

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up): a client
/// that retries against a stopped server can then neither take the server's port nor connect to itself.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Ports that were given out: whoever got one may not listen there yet.
static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port that nobody held a moment ago, and that this process has not given out before. The server that takes it is
/// asked who it is (Kafka by its cluster id, Postgres by its data folder), since somebody else may have been quicker.
pub fn free() -> anyhow::Result<u16> {
    let mut random = rand::rng();
    for _ in 0..200 {
        let port = random.random_range(RANGE);
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if !given.get_or_insert_default().insert(port) {
            continue;
        }
        drop(given);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port among 200 tried in {RANGE:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_out_twice() {
        let ports: Vec<u16> = (0..500).map(|_| free().expect("there is room")).collect();
        let different: HashSet<&u16> = ports.iter().collect();
        assert_eq!(different.len(), ports.len());
    }
}
