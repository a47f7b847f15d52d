//! What was decided, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What becomes of an input. `RETRY` and `DEFER` are final, published outcomes: nothing decides again
/// by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Taken on.
    Accept,
    /// Turned away.
    Reject,
    /// The sender should try again.
    Retry,
    /// Put off.
    Defer,
}

impl Outcome {
    /// All of them, so that each is a metric from the start.
    pub const ALL: [Self; 4] = [Self::Accept, Self::Reject, Self::Retry, Self::Defer];

    /// The name on the wire and in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "ACCEPT",
            Self::Reject => "REJECT",
            Self::Retry => "RETRY",
            Self::Defer => "DEFER",
        }
    }

    /// The priority where a rule names none, as TriageMate maps it.
    pub const fn usual_priority(self) -> Priority {
        match self {
            Self::Accept => Priority::P1,
            Self::Reject => Priority::P3,
            Self::Retry | Self::Defer => Priority::P2,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How soon somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    /// At once.
    P0,
    /// Soon.
    P1,
    /// In turn.
    P2,
    /// Not at all.
    P3,
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The contract's code for a decision; which rule spoke stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasonCode {
    /// A rule denied it.
    PolicyRejected,
    /// It would cost more than the guard allows.
    CostLimitExceeded,
    /// A rule allowed it, or none objected.
    AcceptedByDefault,
    /// A rule put it off.
    RetryableCondition,
}

impl ReasonCode {
    /// The name on the wire and in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PolicyRejected => "POLICY_REJECTED",
            Self::CostLimitExceeded => "COST_LIMIT_EXCEEDED",
            Self::AcceptedByDefault => "ACCEPTED_BY_DEFAULT",
            Self::RetryableCondition => "RETRYABLE_CONDITION",
        }
    }
}

/// What one policy says about a case it has an opinion on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// What becomes of the input.
    pub outcome: Outcome,
    /// The contract's code.
    pub reason_code: ReasonCode,
    /// Which rule spoke.
    pub rule: String,
    /// Why, for people.
    pub reason: String,
    /// How soon somebody should look.
    pub priority: Priority,
    /// Labels.
    pub categories: Vec<String>,
    /// What to do.
    pub actions: Vec<String>,
}

/// A ruling with the policies it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What was ruled.
    pub ruling: Ruling,
    /// Version of the policies, as their author named it.
    pub policy_version: String,
    /// Digest of the policies as they were: a version can be edited without being raised.
    pub policy_digest: [u8; 32],
    /// How many policies were asked before one spoke.
    pub policies_asked: usize,
}
