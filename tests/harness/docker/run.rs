//! Whose a container is: each one, and each network and volume, carries the label of the run that made it.
//!
//! A run is a process. What it leaves behind is removed by a shell that outlives it for that purpose, and
//! where that was killed as well, by the next run on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::Context;
use tokio::sync::OnceCell;

use super::docker;
#[cfg(feature = "containers")]
use super::watch;
use crate::sweeper;

/// The name of the label.
pub const LABEL: &str = "claimfirst.run";

/// Lists, one kind of thing after the other, and removes: containers first, which hold the others.
const KINDS: [(&[&str], &[&str]); 3] = [
    (&["ps", "-a", "--format", "{{.ID}}"], &["rm", "-fv"]),
    (&["network", "ls", "--format", "{{.ID}}"], &["network", "rm"]),
    (&["volume", "ls", "--format", "{{.Name}}"], &["volume", "rm", "-f"]),
];

/// Removes all that carries a label. Several rounds, since the engine may be making a container at that moment.
const REMOVE: &str = r#"for round in 1 2 3; do
    docker ps -aq --filter "label=$1" | xargs -r docker rm -fv
    docker network ls -q --filter "label=$1" | xargs -r docker network rm
    docker volume ls -q --filter "label=$1" | xargs -r docker volume rm -f
    sleep 1
done"#;

/// Which process on which boot of which machine: a process id alone comes again, and is another one in
/// another container that talks to the same engine.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    boot: String,
    namespace: String,
    process: u32,
    started: u64,
}

static OURS: LazyLock<Run> = LazyLock::new(|| {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let namespace = namespace.to_string_lossy();
    Run {
        boot: boot.chars().take(8).collect(),
        namespace: namespace.chars().filter(char::is_ascii_digit).collect(),
        process: std::process::id(),
        started: start_of(std::process::id()).unwrap_or_default(),
    }
});

/// Label and value, as `docker run --label` takes them.
pub fn label() -> String {
    format!("{LABEL}={}", id())
}

/// The value of the label.
pub fn id() -> String {
    let Run {
        boot,
        namespace,
        process,
        started,
    } = &*OURS;
    format!("{boot}-{namespace}-{process}-{started}")
}

/// Once per process, before anything is made: removes what dead runs have left, and provides for our end.
pub async fn begin() -> anyhow::Result<()> {
    static BEGUN: OnceCell<()> = OnceCell::const_new();
    BEGUN
        .get_or_try_init(|| async {
            remove_leftovers().await?;
            sweeper::at_our_end(REMOVE, label()).context("start the sweeper of the containers")?;
            #[cfg(feature = "containers")]
            watch::begin().await?;
            anyhow::Ok(())
        })
        .await
        .copied()
}

async fn remove_leftovers() -> anyhow::Result<()> {
    for (list, remove) in KINDS {
        let format = format!(r#"{} {{{{.Label "{LABEL}"}}}}"#, list[list.len() - 1]);
        let filter = format!("label={LABEL}");
        let arguments = [&list[..list.len() - 1], &[&format, "--filter", &filter]].concat();
        let listed = docker(&arguments).await?;
        let mut by_run: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (thing, run) in listed.lines().filter_map(|line| line.split_once(' ')) {
            by_run.entry(run).or_default().push(thing);
        }
        for (run, things) in by_run {
            if Run::parse(run).is_some_and(|run| run.is_gone()) {
                eprintln!(
                    "removing what a run that was killed has left behind: {}",
                    things.join(" ")
                );
                // Its own sweeper may be at it.
                let _ = docker(&[remove, &things].concat()).await;
            }
        }
    }
    Ok(())
}

impl Run {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let run = Self {
            boot: parts.next()?.to_owned(),
            namespace: parts.next()?.to_owned(),
            process: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(run)
    }

    /// Whether its process has certainly ended. Of another namespace we cannot know.
    fn is_gone(&self) -> bool {
        self.boot != OURS.boot || (self.namespace == OURS.namespace && start_of(self.process) != Some(self.started))
    }
}

/// When a process began, in ticks since the boot; nothing if there is none.
fn start_of(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    // "pid (name) state ppid ...": the name may hold spaces, and the start is the 20th field behind it.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_gone_once_its_process_is() {
        let ours = Run::parse(&id()).unwrap();
        assert_eq!(ours, *OURS);
        assert!(!ours.is_gone());
        let later = Run {
            started: ours.started + 1,
            ..ours
        };
        assert!(later.is_gone(), "the id belongs to another process by now");
        let foreign = Run {
            namespace: "1".to_owned(),
            ..later
        };
        assert!(!foreign.is_gone(), "of another namespace nothing is known");
        let earlier = Run {
            boot: "an earlier boot".to_owned(),
            ..foreign
        };
        assert!(earlier.is_gone());
    }

    #[test]
    fn what_is_no_run_of_ours_is_left_alone() {
        assert_eq!(Run::parse("somebody-elses"), None);
        assert_eq!(Run::parse(""), None);
    }
}
