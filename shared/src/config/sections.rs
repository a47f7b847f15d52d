//! Sections that both services have. Their fields are the documentation of their keys.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

use super::{DatabaseUrl, Problems, Properties, Secret};
use crate::kafka::{Role, check_properties};

/// `kafka`: the cluster, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// The consumer group. A binary without one has no such key: see [`KafkaSettings::in_group`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Makes topics that do not exist. Off outside demo and tests; readiness names what is missing.
    pub create_topics: bool,
    /// Partitions of a topic that is made here.
    pub partitions: i32,
    /// Replicas of a topic that is made here.
    pub replication: i32,
    /// How long an administrative request may take, in milliseconds.
    pub request_timeout_ms: u64,
    /// Raw librdkafka properties, passed through except those that the guarantees forbid.
    /// In an environment variable `_` stands for the dot: `KAFKA__PROPERTIES__LINGER_MS`.
    pub properties: Properties,
    /// Encryption and client certificates.
    pub tls: TlsSettings,
    /// Who we are to the brokers.
    pub sasl: SaslSettings,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            group: None,
            create_topics: false,
            partitions: 6,
            replication: 1,
            request_timeout_ms: 10_000,
            properties: Properties::default(),
            tls: TlsSettings::default(),
            sasl: SaslSettings::default(),
        }
    }
}

impl KafkaSettings {
    /// The defaults of a binary that consumes in `group`.
    pub fn in_group(group: &str) -> Self {
        Self {
            group: Some(group.to_owned()),
            ..Self::default()
        }
    }

    /// Checks the section for a binary that has these roles.
    pub fn check(&self, roles: &[Role], problems: &mut Problems) {
        let brokers: Vec<_> = self.brokers.split(',').map(str::trim).collect();
        if !brokers.iter().all(|broker| has_port(broker)) {
            problems.add("kafka.brokers", "must be a list of host:port, separated by commas");
        }
        if self.group.as_ref().is_some_and(|group| group.trim().is_empty()) {
            problems.add("kafka.group", "must not be blank");
        }
        if self.partitions < 1 {
            problems.add("kafka.partitions", "must be at least 1");
        }
        if !(1..=i32::from(i16::MAX)).contains(&self.replication) {
            problems.add("kafka.replication", "must be from 1 to 32767");
        }
        if self.request_timeout_ms == 0 {
            problems.add("kafka.request_timeout_ms", "must be at least 1");
        }
        self.tls.check(problems);
        self.sasl.check(problems);
        check_properties(self, roles, problems);
    }
}

/// `kafka.tls`: encryption and client certificates. All files are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Talks TLS to the brokers.
    pub enabled: bool,
    /// Who signed the brokers' certificates; the system's list when absent.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, for brokers that ask for one.
    pub certificate_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
    /// Password of that key.
    pub key_password: Secret,
}

impl TlsSettings {
    fn check(&self, problems: &mut Problems) {
        let files = [
            ("kafka.tls.ca_file", &self.ca_file),
            ("kafka.tls.certificate_file", &self.certificate_file),
            ("kafka.tls.key_file", &self.key_file),
        ];
        for (key, file) in files {
            let Some(file) = file else { continue };
            if !self.enabled {
                problems.add(key, "has no effect while kafka.tls.enabled is false");
            } else if let Err(error) = std::fs::File::open(file) {
                problems.add(key, format!("cannot be read: {error}"));
            }
        }
        match (&self.certificate_file, &self.key_file) {
            (Some(_), None) => problems.add("kafka.tls.certificate_file", "needs kafka.tls.key_file"),
            (None, Some(_)) => problems.add("kafka.tls.key_file", "needs kafka.tls.certificate_file"),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

/// `kafka.sasl`: who we are to the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaslSettings {
    /// How we prove it; absent, we do not.
    pub mechanism: Option<SaslMechanism>,
    /// Our name.
    pub username: String,
    /// Our password.
    pub password: Secret,
}

impl SaslSettings {
    fn check(&self, problems: &mut Problems) {
        if self.mechanism.is_none() {
            if !self.username.is_empty() {
                problems.add("kafka.sasl.username", "has no effect without kafka.sasl.mechanism");
            }
            if !self.password.is_empty() {
                problems.add("kafka.sasl.password", "has no effect without kafka.sasl.mechanism");
            }
            return;
        }
        if self.username.is_empty() {
            problems.add("kafka.sasl.username", "is required by kafka.sasl.mechanism");
        }
        if self.password.is_empty() {
            problems.add("kafka.sasl.password", "is required by kafka.sasl.mechanism");
        }
    }
}

/// How a client proves who it is. Others need raw properties, where the build has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// The password itself; only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Challenge and response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// Its name in the protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// `database`: Postgres.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host/database`. Required.
    pub url: DatabaseUrl,
    /// Brings the schema up at start. Off, an older schema is refused.
    pub migrate: bool,
    /// Address for migrations, where the service's own user may not make tables.
    pub migrate_url: Option<DatabaseUrl>,
    /// How long opening a connection may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a statement waits for a lock, in milliseconds.
    pub lock_timeout_ms: u64,
    /// After how many idle milliseconds inside a transaction the server ends the session, so that
    /// the successor of a stalled instance does not wait for its claims.
    pub idle_in_transaction_timeout_ms: u64,
    /// How often the server looks whether the client of a running statement is still there, in
    /// milliseconds.
    pub connection_check_interval_ms: u64,
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: DatabaseUrl::default(),
            migrate: true,
            migrate_url: None,
            connect_timeout_ms: 5_000,
            lock_timeout_ms: 5_000,
            idle_in_transaction_timeout_ms: 10_000,
            connection_check_interval_ms: 2_000,
        }
    }
}

impl DatabaseSettings {
    /// Checks the section.
    pub fn check(&self, problems: &mut Problems) {
        if self.url.is_empty() {
            problems.add("database.url", "is required: postgres://user:password@host/database");
        } else {
            check_url("database.url", &self.url, problems);
        }
        if let Some(url) = &self.migrate_url {
            check_url("database.migrate_url", url, problems);
        }
        let bounds = [
            ("database.connect_timeout_ms", self.connect_timeout_ms),
            ("database.lock_timeout_ms", self.lock_timeout_ms),
            (
                "database.idle_in_transaction_timeout_ms",
                self.idle_in_transaction_timeout_ms,
            ),
            (
                "database.connection_check_interval_ms",
                self.connection_check_interval_ms,
            ),
        ];
        for (key, value) in bounds {
            // Postgres takes 0 as "for ever" and keeps these in 32 bits.
            if !(1..=i32::MAX as u64).contains(&value) {
                problems.add(key, "must be from 1 to 2147483647");
            }
        }
    }
}

fn check_url(key: &str, url: &DatabaseUrl, problems: &mut Problems) {
    let is_ours = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.expose().starts_with(scheme));
    // The parser's own text is left out: it may quote a part of the password.
    if !is_ours || PgConnectOptions::from_str(url.expose()).is_err() {
        problems.add(key, "is no address of the form postgres://user:password@host/database");
    }
}

/// `http`: health and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// `host:port` to listen on; port 0 lets the system choose one.
    pub listen: String,
    /// Where to write the address that is listened on, for whoever started us with port 0.
    pub address_file: Option<PathBuf>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8080".to_owned(),
            address_file: None,
        }
    }
}

impl HttpSettings {
    /// Checks the section.
    pub fn check(&self, problems: &mut Problems) {
        if !has_port(&self.listen) {
            problems.add("http.listen", "must be host:port");
        }
        let folder = self.address_file.as_deref().and_then(Path::parent);
        if folder.is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
            problems.add("http.address_file", "must lie in a folder that exists");
        }
    }
}

/// `telemetry`: logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// `json` for machines, `pretty` for people.
    pub log_format: LogFormat,
    /// What is logged, as tracing's `EnvFilter` has it: `info,sqlx=warn`.
    pub log_filter: String,
    /// Base address of an OTLP collector over HTTP, for example `http://collector:4318`. Absent, no
    /// traces are sent.
    pub otlp_endpoint: Option<String>,
    /// Which share of new traces is kept, from 0 to 1. A trace that began elsewhere keeps its choice.
    pub sample_ratio: f64,
    /// Name of this instance in traces; a random one when absent.
    pub service_instance: Option<String>,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Json,
            log_filter: "info".to_owned(),
            otlp_endpoint: None,
            sample_ratio: 0.01,
            service_instance: None,
        }
    }
}

impl TelemetrySettings {
    /// Checks the section.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log_filter) {
            problems.add("telemetry.log_filter", format!("is no filter: {error}"));
        }
        let endpoint = self.otlp_endpoint.as_deref();
        if endpoint.is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            problems.add("telemetry.otlp_endpoint", "must begin with http:// or https://");
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            problems.add("telemetry.sample_ratio", "must be from 0 to 1");
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Several lines per event, coloured on a terminal.
    Pretty,
}

/// A host, a colon and a port. IPv6 hosts stand in brackets.
fn has_port(address: &str) -> bool {
    let port = address.rsplit_once(':').filter(|(host, _)| {
        !host.is_empty() && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
    });
    port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}
