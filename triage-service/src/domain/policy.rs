//! Who decides: an ordered list of policies, a cost guard before them, a default behind them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sha2::{Digest, Sha256};

use super::case::Case;
use super::dead_letter::{Reason, SetAside, shorten};
use super::decision::{Decision, Outcome, ReasonCode, Ruling};
use super::rule::{Rule, RulePolicy};

/// Name of the guard in decisions.
pub const RULE_COST_GUARD: &str = "RULE_COST_GUARD";

/// Decides cases that it has an opinion on. Pure: the same case gives the same answer for ever, since
/// a decision may be repeated after a crash and compared years later.
pub trait Policy: Send + Sync {
    /// The rule's name, for the reason of a failure.
    fn name(&self) -> &str;

    /// A ruling, or `None` to ask the next policy.
    fn judge(&self, case: &Case) -> Result<Option<Ruling>, PolicyError>;
}

/// A policy cannot judge a case. The record is set aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub String);

/// Refuses inputs that would cost more to judge than they are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostGuard {
    /// Largest record value.
    pub input_bytes_max: usize,
    /// Largest estimate, in tokens of four bytes of subject and text.
    pub estimated_tokens_max: usize,
}

/// The policies in force.
pub struct PolicySet {
    version: String,
    digest: [u8; 32],
    guard: CostGuard,
    policies: Vec<Box<dyn Policy>>,
    default: Ruling,
}

impl PolicySet {
    /// Rules in their order; `default` speaks when none matches.
    pub fn from_rules(version: String, guard: CostGuard, rules: Vec<Rule>, default: Rule) -> Self {
        let source = serde_json::to_vec(&(&rules, &default)).expect("rules are plain data");
        let policies = rules
            .into_iter()
            .map(|rule| Box::new(RulePolicy::new(rule)) as Box<dyn Policy>)
            .collect();
        Self::new(version, &source, guard, policies, default.ruling())
    }

    /// Policies in their order. `source` is what they were made from: its digest is kept with each
    /// decision.
    pub fn new(
        version: String,
        source: &[u8],
        guard: CostGuard,
        policies: Vec<Box<dyn Policy>>,
        default: Ruling,
    ) -> Self {
        let mut digest = Sha256::new();
        digest.update(version.as_bytes());
        digest.update([0]);
        digest.update(guard.input_bytes_max.to_be_bytes());
        digest.update(guard.estimated_tokens_max.to_be_bytes());
        digest.update(source);
        Self {
            version,
            digest: digest.finalize().into(),
            guard,
            policies,
            default,
        }
    }

    /// Puts a policy before all others.
    pub fn with_first(mut self, policy: Box<dyn Policy>) -> Self {
        self.policies.insert(0, policy);
        self
    }

    /// Version that stands on every decision.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Decides a case, or says why it cannot be decided. A panic ends with this case: it is caught
    /// here, so that one poisonous event does not stop its partition.
    pub fn decide(&self, case: &Case) -> Result<Decision, SetAside> {
        if let Some(ruling) = self.guard.judge(case) {
            return Ok(self.decision(ruling, 0));
        }
        for (asked, policy) in self.policies.iter().enumerate() {
            // Policies are shared and immutable; what a panic leaves behind is dropped with the answer.
            let judged = catch_unwind(AssertUnwindSafe(|| policy.judge(case)));
            match judged {
                Ok(Ok(Some(ruling))) => return Ok(self.decision(ruling, asked + 1)),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    return Err(failed(Reason::PolicyError, policy.name(), &error.to_string()));
                }
                Err(panic) => {
                    return Err(failed(Reason::PolicyPanic, policy.name(), panic_text(&*panic)));
                }
            }
        }
        Ok(self.decision(self.default.clone(), self.policies.len()))
    }

    fn decision(&self, ruling: Ruling, policies_asked: usize) -> Decision {
        Decision {
            ruling,
            policy_version: self.version.clone(),
            policy_digest: self.digest,
            policies_asked,
        }
    }
}

impl CostGuard {
    fn judge(&self, case: &Case) -> Option<Ruling> {
        let tokens = (case.input.text.len() + case.input.subject.as_ref().map_or(0, String::len)).div_ceil(4);
        let reason = if case.input_bytes > self.input_bytes_max {
            format!(
                "{} bytes, at most {} are judged",
                case.input_bytes, self.input_bytes_max
            )
        } else if tokens > self.estimated_tokens_max {
            format!(
                "about {tokens} tokens, at most {} are judged",
                self.estimated_tokens_max
            )
        } else {
            return None;
        };
        Some(Ruling {
            outcome: Outcome::Reject,
            reason_code: ReasonCode::CostLimitExceeded,
            rule: RULE_COST_GUARD.to_owned(),
            reason,
            priority: Outcome::Reject.usual_priority(),
            categories: vec!["oversize".to_owned()],
            actions: vec!["ask-for-a-shorter-message".to_owned()],
        })
    }
}

fn failed(reason: Reason, policy: &str, detail: &str) -> SetAside {
    SetAside {
        reason,
        message: format!("policy {policy}: {}", shorten(detail, 500)),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panicked without a text")
}
