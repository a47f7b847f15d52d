//! Ends of containers that no test has asked for.
//!
//! Somebody may kill a container while tests stand on it, or the machine may run out of memory. What the
//! tests say then (a time-out here, a refused connection there) is not the reason. This is.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use futures_util::StreamExt;
use testcontainers::bollard::models::EventMessage;
use testcontainers::bollard::query_parameters::EventsOptionsBuilder;
use testcontainers::core::client::docker_client_instance;

use super::container::{End, in_lasting_runtime};
use super::run;

/// Containers that tests hold, by id.
static HELD: Mutex<BTreeMap<String, Watched>> = Mutex::new(BTreeMap::new());

/// Lines of its log that are shown of a container that has ended unasked.
const LINES_SHOWN: usize = 40;

#[derive(Debug)]
struct Watched {
    name: String,
    /// Ends that a test has asked for and that were not seen yet.
    asked: usize,
}

/// A test holds this container from now on.
pub(super) fn hold(id: &str, name: &str) {
    let watched = Watched {
        name: name.to_owned(),
        asked: 0,
    };
    held().insert(id.to_owned(), watched);
}

/// The test is about to end it.
pub(super) fn ask_for_end(id: &str) {
    if let Some(watched) = held().get_mut(id) {
        watched.asked += 1;
    }
}

/// The test gives it up.
pub(super) fn let_go(id: &str) {
    held().remove(id);
}

fn held() -> std::sync::MutexGuard<'static, BTreeMap<String, Watched>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens to the engine as long as the process lives.
pub(super) async fn begin() -> anyhow::Result<()> {
    in_lasting_runtime(async {
        let engine = docker_client_instance().await.context("reach the container engine")?;
        let filters = HashMap::from([
            ("label", vec![run::label()]),
            ("type", vec!["container".to_owned()]),
            ("event", vec!["die".to_owned()]),
        ]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        tokio::spawn(async move {
            let mut events = std::pin::pin!(engine.events(Some(options)));
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => judge(&event),
                    Err(error) => {
                        eprintln!("ends of containers are not noticed any more: {error}");
                        return;
                    }
                }
            }
        });
        Ok(())
    })
    .await?
}

/// An end that nobody asked for ends the run: nothing that a test says after it would be true.
fn judge(event: &EventMessage) {
    let Some(actor) = &event.actor else { return };
    let attribute = |name| actor.attributes.as_ref()?.get(name);
    let (Some(id), Some(code)) = (&actor.id, attribute("exitCode").and_then(|code| code.parse().ok())) else {
        return;
    };
    let name = match held().get_mut(id) {
        None => return,
        Some(watched) if watched.asked > 0 => {
            watched.asked -= 1;
            return;
        }
        Some(watched) => watched.name.clone(),
    };
    let end = End {
        code,
        out_of_memory: false,
    };
    let log = crate::folders::logs().unwrap_or_default().join(format!("{name}.log"));
    // Not by `eprintln!`: the listener was started by a test, so what it prints is kept with what that test has
    // printed, and nobody sees either once the process is gone.
    let _ = writeln!(
        std::io::stderr(),
        "\ncontainer {name} has ended ({end}), and no test has asked for that. The tests that stood on it have \
         nothing to say, so the run ends here. The last lines of {}:\n{}",
        log.display(),
        last_lines(&log)
    );
    std::process::exit(1);
}

/// What it has said at its end, which the machine that ran it may take with it.
fn last_lines(log: &Path) -> String {
    let log = fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}
