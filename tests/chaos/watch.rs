//! What the services say and hold while Kafka is out of reach, and what must be true of it. Pure, so that each bound
//! can be shown to fail.

use std::collections::BTreeMap;

use harness::report::Goal;
use serde::Serialize;

/// Within so many seconds readiness must tell the truth about what has changed.
pub(crate) const TOLD_WITHIN: f64 = 15.0;
/// Most bytes resident, the bound of `make floor`.
const RESIDENT_MAX_MB: f64 = 100.0;
/// What the last quarter of an outage may add, in megabytes: what an allocator moves, and no more.
const GROWTH_MAX_MB: f64 = 8.0;
/// Within so many seconds of Kafka's return the services are in their group, ready, and at work.
const RECOVERY_MAX: f64 = 30.0;

/// One look at one service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Seconds since Kafka went out of reach.
    pub(crate) at: f64,
    pub(crate) service: String,
    pub(crate) resident_mb: f64,
    /// Parts that readiness says are away, each with its second since Kafka went out of reach.
    pub(crate) away: BTreeMap<String, f64>,
    /// Age of the oldest row that waits, of a publisher that owns one.
    pub(crate) oldest_seconds: Option<f64>,
}

/// What was seen of an outage.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Watched {
    /// How long Kafka was out of reach, in seconds.
    pub(crate) lasted: f64,
    /// Looks at services while it was.
    pub(crate) samples: Vec<Sample>,
    /// Seconds from its return until all were ready, in their group, and at work.
    pub(crate) recovery: f64,
    /// Partitions that the triage instances hold at the end, less those there are.
    pub(crate) partitions_missing: i64,
}

impl Watched {
    /// Each bound with its value.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let mut goals = vec![
            Goal::at_most("seconds to recover", round(self.recovery), RECOVERY_MAX),
            Goal::at_most("partitions without an owner", self.partitions_missing as f64, 0.0),
            Goal::at_most(
                "looks at readiness that did not say kafka is away",
                self.untrue() as f64,
                0.0,
            ),
            Goal::at_most(
                "looks at readiness that called postgres away",
                self.slandered() as f64,
                0.0,
            ),
            Goal::at_most("seconds by which `since` was off", round(self.off()), TOLD_WITHIN),
            Goal::at_most(
                "seconds by which the oldest row's age was off",
                round(self.age_off()),
                TOLD_WITHIN,
            ),
        ];
        for service in ["triage", "publisher"] {
            let resident = |from: f64, to: f64| {
                let of_service = self.samples.iter().filter(|sample| sample.service.starts_with(service));
                let within = of_service.filter(|sample| (from..=to).contains(&(sample.at / self.lasted)));
                within.map(|sample| sample.resident_mb).fold(0.0, f64::max)
            };
            goals.push(Goal::at_most(
                &format!("{service}: resident, MB"),
                round(resident(0.0, 1.0)),
                RESIDENT_MAX_MB,
            ));
            goals.push(Goal::at_most(
                &format!("{service}: growth in the last quarter, MB"),
                round(resident(0.75, 1.0) - resident(0.5, 0.75)),
                GROWTH_MAX_MB,
            ));
        }
        goals
    }

    fn told(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.at > TOLD_WITHIN)
    }

    fn untrue(&self) -> usize {
        self.told().filter(|sample| !sample.away.contains_key("kafka")).count()
    }

    fn slandered(&self) -> usize {
        self.told()
            .filter(|sample| sample.away.contains_key("postgres"))
            .count()
    }

    /// Kafka went away at second 0.
    fn off(&self) -> f64 {
        let since = self.told().filter_map(|sample| sample.away.get("kafka"));
        since.map(|since| since.abs()).fold(0.0, f64::max)
    }

    /// Rows are written all the time, so the oldest that waits is as old as the outage.
    fn age_off(&self) -> f64 {
        let ages = self
            .told()
            .filter_map(|sample| Some((sample.at, sample.oldest_seconds?)));
        ages.map(|(at, age)| (at - age).abs()).fold(0.0, f64::max)
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_the_truth() -> Watched {
        let sample = |at: u32, service: &str| Sample {
            at: at.into(),
            service: service.to_owned(),
            resident_mb: 40.0,
            away: [("kafka".to_owned(), 4.0)].into(),
            oldest_seconds: service.starts_with("publisher").then(|| f64::from(at) - 3.0),
        };
        let times = (20..100).step_by(5);
        Watched {
            lasted: 100.0,
            samples: times
                .flat_map(|at| [sample(at, "triage-1"), sample(at, "publisher-1")])
                .collect(),
            recovery: 4.0,
            partitions_missing: 0,
        }
    }

    fn missed(break_it: impl FnOnce(&mut Watched)) -> Vec<String> {
        let mut watched = told_the_truth();
        break_it(&mut watched);
        watched
            .goals()
            .into_iter()
            .filter(|goal| !goal.met)
            .map(|goal| goal.name)
            .collect()
    }

    #[test]
    fn an_outage_that_everybody_told_truly_is_passed() {
        assert_eq!(missed(|_| {}), [] as [String; 0]);
    }

    #[test]
    fn each_bound_of_an_outage_fails_alone_when_it_is_broken() {
        assert_eq!(missed(|watched| watched.recovery = 31.0), ["seconds to recover"]);
        assert_eq!(
            missed(|watched| watched.partitions_missing = 1),
            ["partitions without an owner"]
        );
        assert_eq!(
            missed(|watched| watched.samples[9].away.clear()),
            ["looks at readiness that did not say kafka is away"]
        );
        assert_eq!(
            missed(|watched| watched.samples[9].away.extend([("postgres".to_owned(), 5.0)])),
            ["looks at readiness that called postgres away"]
        );
        assert_eq!(
            missed(|watched| watched.samples[9].away.extend([("kafka".to_owned(), 40.0)])),
            ["seconds by which `since` was off"]
        );
        assert_eq!(
            missed(|watched| watched.samples[9].oldest_seconds = Some(1.0)),
            ["seconds by which the oldest row's age was off"]
        );
        assert_eq!(
            missed(|watched| watched.samples.iter_mut().for_each(|sample| sample.resident_mb += 65.0)),
            ["triage: resident, MB", "publisher: resident, MB"]
        );
        assert_eq!(
            missed(|watched| watched.samples.last_mut().expect("there are samples").resident_mb = 49.0),
            ["publisher: growth in the last quarter, MB"]
        );
    }
}
