//! Our images, each by itself: who runs in it, what it says of itself, and that it needs neither a file to
//! write nor a right nor a shell. No server is needed, since a service starts without any and says what it lacks.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::folders;
use serde_json::{Value, json};

/// The images of services: binary, prefix of its settings.
const SERVICES: [(&str, &str); 2] = [("triage-service", "TRIAGE"), ("outbox-publisher", "OUTBOX")];
/// Every image that `make images` makes.
const IMAGES: [&str; 4] = ["triage-service", "outbox-publisher", "claimfirst", "load"];
/// How an image should be deployed. What works so needs nothing more.
const CONFINED: [&str; 5] = [
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
];
/// Nobody answers there, and the password must not be seen.
const DATABASE: &str = "postgres://me:secret@127.0.0.1:1/app";
const SOON: Duration = Duration::from_secs(30);

/// False, with the reason said, where containers are not what is asked for.
fn is_asked_for(test: &str) -> bool {
    let is_asked_for = std::env::var("STACK").is_ok_and(|stack| stack == "containers");
    if !is_asked_for {
        eprintln!("SKIPPED {test}: containers are started on STACK=containers only");
    }
    is_asked_for
}

fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.with_context(|| format!("run {} {}", program.display(), arguments.join(" ")))
}

/// What a command of the engine prints; it must succeed.
fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = run(Path::new("docker"), arguments)?;
    ensure!(
        output.status.success(),
        "docker {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn name_of(image: &str) -> String {
    let tag = std::env::var("CLAIMFIRST_TAG").unwrap_or_else(|_| "dev".to_owned());
    format!("claimfirst/{image}:{tag}")
}

/// The configuration of an image. An image of other sources than those at hand would prove nothing.
fn configuration_of(image: &str) -> anyhow::Result<Value> {
    let name = name_of(image);
    let text =
        docker(&["image", "inspect", "--format", "{{json .Config}}", &name]).context("`make images` makes it")?;
    let configuration: Value = serde_json::from_str(&text)?;
    let sources = run(&folders::workspace().join("docker/sources"), &[image])?;
    ensure!(sources.status.success(), "docker/sources {image} failed");
    ensure!(
        configuration["Labels"]["claimfirst.sources"] == String::from_utf8_lossy(&sources.stdout).trim(),
        "{name} was made of other sources than those at hand; `make images` makes it anew"
    );
    Ok(configuration)
}

/// Runs an image confined, without a network, until it ends; one that does not end is told to and counts as failed.
fn run_confined(image: &str, environment: &[String], arguments: &[&str]) -> anyhow::Result<Output> {
    configuration_of(image)?;
    let name = name_of(image);
    let mut all = vec!["30", "docker", "run", "--rm", "--network", "none"];
    all.extend(CONFINED);
    all.extend(environment.iter().flat_map(|variable| ["--env", variable]));
    all.push(&name);
    all.extend(arguments);
    run(Path::new("timeout"), &all)
}

/// A service that runs confined, with no server in reach. Removed when dropped.
struct Alone {
    container: String,
    binary: String,
}

impl Alone {
    fn start(image: &str, prefix: &str) -> anyhow::Result<Self> {
        configuration_of(image)?;
        let (name, database) = (name_of(image), format!("{prefix}__DATABASE__URL={DATABASE}"));
        let mut all = vec!["run", "--detach", "--network", "none", "--env", &database];
        all.extend(CONFINED);
        all.push(&name);
        let alone = Self {
            container: docker(&all)?,
            binary: format!("/usr/local/bin/{image}"),
        };
        let began = Instant::now();
        // The health check answers as soon as the service listens, and says what the service lacks.
        while alone.health()?.stdout.is_empty() {
            ensure!(
                began.elapsed() < SOON,
                "it never listened: {}",
                docker(&["logs", &alone.container])?
            );
            thread::sleep(Duration::from_millis(50));
        }
        Ok(alone)
    }

    fn health(&self) -> anyhow::Result<Output> {
        run(
            Path::new("docker"),
            &["exec", &self.container, &self.binary, "--healthcheck"],
        )
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", "--volumes", &self.container]);
    }
}

#[test]
fn each_image_runs_its_binary_as_nobody_in_particular() -> anyhow::Result<()> {
    if !is_asked_for("each_image_runs_its_binary_as_nobody_in_particular") {
        return Ok(());
    }
    for image in IMAGES {
        // when
        let configuration = configuration_of(image)?;

        // then
        let binary = format!("/usr/local/bin/{image}");
        assert_eq!(configuration["User"], "10001:10001", "{image}");
        assert_eq!(configuration["Entrypoint"], json!([binary]), "{image}: without a shell");
        assert!(configuration["Cmd"].is_null(), "{image}: {}", configuration["Cmd"]);
        assert_eq!(configuration["StopSignal"], "SIGTERM", "{image}");
        assert!(configuration["Volumes"].is_null(), "{image} keeps nothing");
        if SERVICES.iter().any(|(service, _)| *service == image) {
            assert_eq!(
                configuration["Healthcheck"]["Test"],
                json!(["CMD", binary, "--healthcheck"])
            );
            assert_eq!(configuration["ExposedPorts"], json!({"8080/tcp": {}}), "{image}");
        }
    }
    Ok(())
}

#[test]
fn each_image_says_what_it_is_and_of_which_sources() -> anyhow::Result<()> {
    if !is_asked_for("each_image_says_what_it_is_and_of_which_sources") {
        return Ok(());
    }
    for image in IMAGES {
        // when
        let configuration = configuration_of(image)?;

        // then
        let label = |name: &str| configuration["Labels"][format!("org.opencontainers.image.{name}")].as_str();
        assert_eq!(label("title"), Some(image));
        assert_eq!(label("version"), Some(env!("CARGO_PKG_VERSION")), "{image}");
        assert_eq!(label("licenses"), Some("MIT OR Apache-2.0"), "{image}");
        for name in ["description", "revision", "source"] {
            assert!(
                label(name).is_some_and(|text| !text.is_empty()),
                "{image} has no {name}"
            );
        }
    }
    Ok(())
}

#[test]
fn each_image_has_roots_of_trust() -> anyhow::Result<()> {
    if !is_asked_for("each_image_has_roots_of_trust") {
        return Ok(());
    }
    for image in IMAGES {
        // when
        configuration_of(image)?;
        let roots = "/etc/ssl/certs/ca-certificates.crt";
        let file = docker(&["run", "--rm", "--entrypoint", "cat", &name_of(image), roots])?;

        // then
        let count = file.matches("BEGIN CERTIFICATE").count();
        assert!(count > 100, "{image} has {count}");
    }
    Ok(())
}

#[test]
fn a_confined_service_shows_its_settings_and_hides_the_password() -> anyhow::Result<()> {
    if !is_asked_for("a_confined_service_shows_its_settings_and_hides_the_password") {
        return Ok(());
    }
    for (image, prefix) in SERVICES {
        // given
        let environment = [format!("{prefix}__DATABASE__URL={DATABASE}")];

        // when
        let output = run_confined(image, &environment, &["--check-config"])?;

        // then
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{image}: {output:?}");
        assert!(said.contains(r#"http.listen = "0.0.0.0:8080""#), "{image}: {said}");
        assert!(said.contains("postgres://me:***@127.0.0.1:1/app"), "{image}: {said}");
        assert!(!said.contains("secret"), "{image}: {said}");
    }
    Ok(())
}

#[test]
fn a_refused_configuration_ends_with_2_and_the_setting() -> anyhow::Result<()> {
    if !is_asked_for("a_refused_configuration_ends_with_2_and_the_setting") {
        return Ok(());
    }
    for (image, prefix) in SERVICES {
        // given
        let environment = [
            format!("{prefix}__DATABASE__URL={DATABASE}"),
            format!("{prefix}__KAFKA__BROKER=kafka:9092"),
        ];

        // when
        let output = run_confined(image, &environment, &[])?;

        // then
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{image}: {output:?}");
        assert!(said.contains("the configuration is refused"), "{image}: {said}");
        assert!(
            said.contains(&format!("did you mean {prefix}__KAFKA__BROKERS?")),
            "{image}: {said}"
        );
    }
    Ok(())
}

#[test]
fn a_confined_service_answers_its_health_check_and_drains_as_the_only_process() -> anyhow::Result<()> {
    if !is_asked_for("a_confined_service_answers_its_health_check_and_drains_as_the_only_process") {
        return Ok(());
    }
    for (image, prefix) in SERVICES {
        // given
        let alone = Alone::start(image, prefix)?;

        // when
        let health = alone.health()?;
        let processes = docker(&["top", &alone.container, "-eo", "pid,args"])?;
        let began = Instant::now();
        docker(&["stop", "--time", "20", &alone.container])?;

        // then
        let said = String::from_utf8_lossy(&health.stdout);
        assert_eq!(
            health.status.code(),
            Some(1),
            "{image} without servers is not ready: {said}"
        );
        assert!(said.contains("postgres"), "{image} does not say what it lacks: {said}");
        let running: Vec<_> = processes.lines().skip(1).collect();
        assert_eq!(running.len(), 1, "{image}: {processes}");
        assert!(running[0].ends_with(&alone.binary), "{image}: {processes}");
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &alone.container])?;
        assert_eq!(
            code,
            "0",
            "{image} after {:?}: {}",
            began.elapsed(),
            docker(&["logs", &alone.container])?
        );
    }
    Ok(())
}
