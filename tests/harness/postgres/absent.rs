//! Servers in containers, where the harness was compiled without those: there are none.

use std::collections::BTreeMap;
use std::path::Path;

use super::Stop;
use crate::docker::{Container, left_out};

#[derive(Debug)]
pub(super) enum InContainer {}

impl InContainer {
    pub(super) async fn start_new(
        _: Option<&str>,
        _: &str,
        _: u16,
        _: BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        Err(left_out())
    }

    pub(super) fn container(&self) -> &Container {
        match *self {}
    }

    pub(super) async fn ended(&self) -> anyhow::Result<Option<String>> {
        match *self {}
    }

    pub(super) async fn stop(&self, _: Stop) -> anyhow::Result<()> {
        match *self {}
    }

    pub(super) async fn freeze_process(&self, _: u32) -> anyhow::Result<()> {
        match *self {}
    }
}

pub(super) async fn give(_: &Path) -> anyhow::Result<()> {
    Err(left_out())
}
