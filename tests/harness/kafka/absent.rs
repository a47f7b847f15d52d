//! Brokers in containers, where the harness was compiled without those: there are none.

use super::KafkaOptions;
use super::node::Seat;
use crate::docker::{Container, left_out};

#[derive(Debug)]
pub(super) enum InContainer {}

impl InContainer {
    pub(super) fn name_for(seat: &Seat) -> String {
        seat.name.clone()
    }

    pub(super) async fn start_new(_: &Seat, _: &[String], _: Option<&str>, _: &KafkaOptions) -> anyhow::Result<Self> {
        Err(left_out())
    }

    pub(super) fn private_address(&self) -> String {
        match *self {}
    }

    pub(super) fn container(&self) -> &Container {
        match *self {}
    }

    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        match *self {}
    }

    pub(super) async fn ended(&self) -> anyhow::Result<Option<String>> {
        match *self {}
    }
}
