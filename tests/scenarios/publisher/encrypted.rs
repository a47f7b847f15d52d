//! Servers that encrypt and want to know who is there.

use harness::Stack;
use harness::certificates::Certificates;
use harness::kafka::KafkaOptions;
use harness::proxy::Proxy;

use crate::publisher::{Outbox, SOON, until_readiness};

const LOGIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required user_publisher=\"right\";";

/// Kafka by SASL over TLS, Postgres by TLS with the server's name verified.
#[tokio::test]
async fn a_publisher_works_over_tls_and_says_so_when_its_password_is_wrong() -> anyhow::Result<()> {
    // given: servers whose certificates an authority of our own has signed
    let files = Certificates::make("encrypted").await?;
    harness::postgres::give(&files.key).await?;
    let kafka = KafkaOptions {
        routes: 1,
        ..KafkaOptions::default()
    }
    .property(
        "listener.security.protocol.map",
        "CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT,PLAINTEXT:PLAINTEXT,VIA0:SASL_SSL",
    )
    .property("listener.name.via0.ssl.keystore.type", "PEM")
    .property("listener.name.via0.ssl.keystore.location", files.bundle.display())
    .property("listener.name.via0.sasl.enabled.mechanisms", "PLAIN")
    .property("listener.name.via0.plain.sasl.jaas.config", LOGIN);
    let (certificate, key) = (files.certificate.display().to_string(), files.key.display().to_string());
    let postgres = [
        ("ssl", "on"),
        ("ssl_cert_file", certificate.as_str()),
        ("ssl_key_file", key.as_str()),
    ];
    let stack = Stack::start("encrypted", &kafka, &postgres).await?;
    let Some(cluster) = stack.kafka() else {
        return Ok(());
    };
    let route = cluster.route()?;
    let proxy = Proxy::for_encrypted_kafka(&route)?;
    let outbox = Outbox::on(&stack, "encrypted").await?;
    let topic = outbox.topic("encrypted", 3, &[]).await?;
    let service = outbox
        .publisher("encrypted")
        .set(
            "DATABASE__URL",
            format!(
                "{}?sslmode=verify-full&sslrootcert={}",
                outbox.database.url,
                files.authority.display()
            ),
        )
        .set("KAFKA__BROKERS", proxy.address())
        .set("KAFKA__TLS__ENABLED", true)
        .set("KAFKA__TLS__CA_FILE", files.authority.display())
        .set("KAFKA__SASL__MECHANISM", "PLAIN")
        .set("KAFKA__SASL__USERNAME", "publisher")
        .set("KAFKA__SASL__PASSWORD", "right");

    // when: the password is wrong
    let stranger = service.clone().set("KAFKA__SASL__PASSWORD", "wrong").start().await?;
    outbox.write_rounds(&topic, &["a", "b"], 10).await?;
    let says = |status, body: &str| status == 503 && body.contains("uthentication failed");
    let said = until_readiness(&stranger, SOON, "that its password is wrong", says).await?;
    eprintln!("{said}");
    assert!(!said.contains("\"wrong\""), "a secret is shown: {said}");
    stranger.terminate(SOON).await?;
    assert_eq!(outbox.attempts().await?, 0);

    // when: it trusts another authority
    let others = Certificates::make("others").await?;
    let doubter = service
        .clone()
        .set("KAFKA__TLS__CA_FILE", others.authority.display())
        .start()
        .await?;
    let says = |status, body: &str| status == 503 && body.contains("certificate");
    eprintln!(
        "{}",
        until_readiness(&doubter, SOON, "that the certificate is not trusted", says).await?
    );
    doubter.terminate(SOON).await?;

    // then: with everything right it publishes, and every session with Postgres is encrypted
    let publisher = service.start().await?;
    outbox.until_statuses(&[("PUBLISHED", 20)]).await?;
    publisher.ready(SOON).await?;
    const PLAIN: &str = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where application_name like 'outbox-publisher%' and not ssl";
    const ENCRYPTED: &str = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where application_name like 'outbox-publisher%' and ssl";
    assert!(outbox.number(ENCRYPTED).await? > 0);
    assert_eq!(outbox.number(PLAIN).await?, 0);
    outbox.end(vec![publisher], outbox.audit()).await?;
    Ok(())
}
