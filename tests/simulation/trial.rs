//! The simulation of the intake with a decision logic of your own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use shared::headers::Headers;
use triage_service::config::Settings;
use triage_service::domain::case::{Accepted, Case, Reading};
use triage_service::domain::policy::PolicySet;
use triage_service::domain::record::{Coordinates, Record};

use crate::campaign::{SHRINK_RUNS_MAX, told_of};
use crate::intake::setup::{Faults, Setup, envelope};
use crate::runs::{Frame, Part, Seeds, run_many};
use crate::shrink::shrink;

/// Who decides, and about what.
#[derive(Clone)]
pub(crate) struct Logic {
    pub(crate) policies: Arc<dyn Fn() -> PolicySet + Send + Sync>,
    /// Payloads of records, and whether they can be decided.
    pub(crate) inputs: Arc<[(Value, bool)]>,
}

impl fmt::Debug for Logic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logic")
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

impl Default for Logic {
    fn default() -> Self {
        Self {
            policies: Arc::new(|| Settings::default().policy.policies()),
            inputs: Arc::new([(json!({"text": "hello 0"}), true), (json!({"text": "hello 1"}), true)]),
        }
    }
}

/// Runs a decision logic through crashes, rebalances, lost answers and outages, and checks what is promised of it:
/// each event is decided once or set aside in the open, in the order of its key, and decided again after a fault
/// the same comes out.
///
/// `tests/simulation/own_logic.rs` is an example to start from.
#[derive(Debug, Clone)]
pub struct Trial {
    logic: Logic,
    from: u64,
    seeds: u64,
}

impl Trial {
    /// Of these policies, which every simulated process makes for itself. They decide about the texts that the
    /// project's own simulation uses, 1,000 seeds from 0 on, until told otherwise.
    pub fn of(policies: impl Fn() -> PolicySet + Send + Sync + 'static) -> Self {
        let usual = Logic::default();
        let inputs: Vec<Value> = usual.inputs.iter().map(|(input, _)| input.clone()).collect();
        let logic = Logic {
            policies: Arc::new(policies),
            ..usual
        };
        Self {
            logic,
            from: 0,
            seeds: 1_000,
        }
        .about(inputs)
    }

    /// The payloads of the records to be decided: members of the input, of which the simulation sets `inputId`.
    /// Those that the policies refuse to judge are expected on the dead-letter topic.
    ///
    /// # Panics
    /// Without any, and where one is no valid input.
    #[must_use]
    pub fn about(mut self, inputs: impl IntoIterator<Item = Value>) -> Self {
        let policies = (self.logic.policies)();
        let judged = |input: Value| {
            let is_decided = policies.decide(&case_of(&input)).is_ok();
            (input, is_decided)
        };
        self.logic.inputs = inputs.into_iter().map(judged).collect();
        assert!(!self.logic.inputs.is_empty(), "a trial needs at least one input");
        self
    }

    /// Which seeds.
    #[must_use]
    pub fn seeds(mut self, from: u64, count: u64) -> Self {
        (self.from, self.seeds) = (from, count);
        self
    }

    /// Runs every seed without faults, with those of processes and of the group, and with those of the database.
    /// Answers what was met.
    ///
    /// # Errors
    /// The first promise that was broken, with its seed and what is left of its schedule.
    pub fn run(&self) -> anyhow::Result<String> {
        let frame = |faults, seed| {
            Frame::Intake(Setup {
                logic: self.logic.clone(),
                ..Setup::drawn(faults, seed)
            })
        };
        let frames = |seed| [Faults::None, Faults::Group, Faults::Database].map(|faults| frame(faults, seed));
        let seeds = Seeds {
            first: self.from,
            count: self.seeds,
            time: Duration::MAX,
        };
        let summary = run_many(seeds, |seed| frames(seed).to_vec(), |_| {});
        match &summary.failure {
            None => Ok(summary.of(Part::Intake).table([])),
            Some(failure) => {
                let told = told_of(failure, &shrink(failure, SHRINK_RUNS_MAX), None);
                // That line runs the project's own policies; the same seed of this trial is what repeats it.
                let again = format!("the same trial with .seeds({}, 1)", failure.seed);
                let told = told
                    .lines()
                    .map(|line| if line.contains("make simulate") { &again } else { line });
                anyhow::bail!("{}", told.collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

fn case_of(input: &Value) -> Case {
    let record = Record {
        at: Coordinates {
            topic: Arc::from("in"),
            partition: 0,
            offset: 0,
        },
        timestamp_ms: None,
        key: None,
        value: Some(envelope("event-0", "input-0", input.clone()).to_string().into_bytes()),
        headers: Headers::new(),
    };
    let reading = Reading::of(&record, &Accepted::default());
    reading
        .case
        .unwrap_or_else(|set_aside| panic!("{input} is no valid input: {}", set_aside.message))
}
