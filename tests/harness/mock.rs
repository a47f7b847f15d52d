//! librdkafka's mock cluster, in this process, reachable by TCP on 127.0.0.1.
//!
//! The zero-install broker of the demo. What it cannot show is listed at [`crate::Ability`]. Per
//! partition it keeps 5 MiB and drops the oldest beyond, so topics must stay small.

use std::ffi::{CStr, CString};

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::producer::{BaseProducer, Producer};

/// Bytes that the mock keeps of a partition.
pub const KEPT_BYTES_PER_PARTITION: usize = 5 * 1024 * 1024;

/// A mock cluster; it ends when this value is dropped.
///
/// rdkafka's own wrapper hides the pointer that the rebalance delay needs, without which every group
/// starts three seconds late.
#[expect(
    missing_debug_implementations,
    reason = "a client and a pointer say nothing to a reader"
)]
pub struct MockKafka {
    cluster: *mut native::rd_kafka_mock_cluster_t,
    bootstrap: String,
    /// The cluster's threads belong to this client, which must end after it.
    _client: BaseProducer,
}

#[expect(
    unsafe_code,
    reason = "librdkafka locks the cluster in each of the functions that are called here"
)]
// SAFETY: see the reason above; the pointer is never handed out.
unsafe impl Send for MockKafka {}
#[expect(
    unsafe_code,
    reason = "librdkafka locks the cluster in each of the functions that are called here"
)]
// SAFETY: see the reason above; the pointer is never handed out.
unsafe impl Sync for MockKafka {}

#[expect(
    unsafe_code,
    reason = "the mock cluster has no safe interface with a rebalance delay"
)]
impl MockKafka {
    /// Starts a cluster of `brokers` brokers; it answers at once.
    pub fn start(brokers: i32) -> anyhow::Result<Self> {
        let client: BaseProducer = ClientConfig::new().create().context("make the mock's client")?;
        // SAFETY: the client's handle is alive as long as `client`, which outlives the cluster.
        let cluster = unsafe { native::rd_kafka_mock_cluster_new(client.client().native_ptr(), brokers) };
        ensure!(!cluster.is_null(), "librdkafka made no mock cluster");
        // SAFETY: the cluster was made above; the text lives as long as it and is copied here.
        let bootstrap = unsafe {
            native::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
            CStr::from_ptr(native::rd_kafka_mock_cluster_bootstraps(cluster))
        };
        let bootstrap = bootstrap.to_str().context("the mock's address is text")?.to_owned();
        Ok(Self {
            cluster,
            bootstrap,
            _client: client,
        })
    }

    /// The addresses for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Makes a topic; the admin protocol cannot, here.
    pub fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        let text = CString::new(name).context("a topic's name holds no NUL")?;
        // SAFETY: the cluster is alive, the text outlives the call.
        let answer = unsafe { native::rd_kafka_mock_topic_create(self.cluster, text.as_ptr(), partitions, 1) };
        if answer != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            bail!("the mock refused topic {name}: {answer:?}");
        }
        Ok(())
    }

    /// Takes a broker down, or up again; ids start at 1.
    pub fn set_down(&self, broker: i32, down: bool) -> anyhow::Result<()> {
        // SAFETY: the cluster is alive.
        let answer = unsafe {
            if down {
                native::rd_kafka_mock_broker_set_down(self.cluster, broker)
            } else {
                native::rd_kafka_mock_broker_set_up(self.cluster, broker)
            }
        };
        if answer != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            bail!("the mock has no broker {broker}: {answer:?}");
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "the cluster was made by hand and is destroyed by hand")]
impl Drop for MockKafka {
    fn drop(&mut self) {
        // SAFETY: made in `start`, destroyed only here; the client is dropped afterwards.
        unsafe { native::rd_kafka_mock_cluster_destroy(self.cluster) };
    }
}
