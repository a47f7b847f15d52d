//! One triage rule, as data.
//!
//! A rule matches when all conditions of `all_of` hold and, where `any_of` is not empty, at least one
//! of it. The first rule that matches decides.

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::decision::{Outcome, Priority, ReasonCode, Ruling};
use super::policy::{Policy, PolicyError};

/// What a matching rule does with the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Accepts it.
    Allow,
    /// Rejects it.
    Deny,
    /// Tells the sender to try again.
    Retry,
    /// Puts it off.
    Defer,
}

/// A member of the input that a condition looks at. An absent member matches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// The text.
    Text,
    /// The subject line.
    Subject,
    /// The channel.
    Channel,
    /// The sender.
    From,
}

/// What a condition asks of its field. Letters compare without case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Which field.
    pub field: Field,
    /// It holds one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contains: Vec<String>,
    /// It is one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub equals: Vec<String>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, in decisions and outcomes.
    pub id: String,
    /// What it does.
    pub effect: Effect,
    /// All of these must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all_of: Vec<Condition>,
    /// At least one of these must hold, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any_of: Vec<Condition>,
    /// How soon somebody should look; by default what the outcome usually means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Labels of the outcome.
    #[serde(default)]
    pub categories: Vec<String>,
    /// What the outcome suggests to do.
    #[serde(default)]
    pub actions: Vec<String>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// A rule ready to be asked: its texts are folded to lower case once.
#[derive(Debug)]
pub struct RulePolicy {
    rule: Rule,
    all_of: Vec<Folded>,
    any_of: Vec<Folded>,
}

#[derive(Debug)]
struct Folded {
    field: Field,
    contains: Vec<String>,
    equals: Vec<String>,
}

impl Rule {
    /// Why the rule makes no sense, if it does not.
    pub fn problem(&self) -> Option<String> {
        if self.id.trim().is_empty() {
            return Some("has no id".to_owned());
        }
        if self.all_of.is_empty() && self.any_of.is_empty() {
            return Some("has no condition, so it would match everything".to_owned());
        }
        let mut conditions = self.all_of.iter().chain(&self.any_of);
        if conditions.any(|c| c.contains.is_empty() && c.equals.is_empty()) {
            return Some("has a condition without `contains` and without `equals`".to_owned());
        }
        None
    }

    /// What the rule says when it matches.
    pub fn ruling(&self) -> Ruling {
        let (outcome, reason_code) = match self.effect {
            Effect::Allow => (Outcome::Accept, ReasonCode::AcceptedByDefault),
            Effect::Deny => (Outcome::Reject, ReasonCode::PolicyRejected),
            Effect::Retry => (Outcome::Retry, ReasonCode::RetryableCondition),
            Effect::Defer => (Outcome::Defer, ReasonCode::RetryableCondition),
        };
        Ruling {
            outcome,
            reason_code,
            rule: self.id.clone(),
            reason: if self.reason.is_empty() {
                format!("matched {}", self.id)
            } else {
                self.reason.clone()
            },
            priority: self.priority.unwrap_or(outcome.usual_priority()),
            categories: self.categories.clone(),
            actions: self.actions.clone(),
        }
    }
}

impl RulePolicy {
    /// Prepares a rule.
    pub fn new(rule: Rule) -> Self {
        let (all_of, any_of) = (fold(&rule.all_of), fold(&rule.any_of));
        Self { rule, all_of, any_of }
    }
}

impl Policy for RulePolicy {
    fn name(&self) -> &str {
        &self.rule.id
    }

    fn judge(&self, case: &Case) -> Result<Option<Ruling>, PolicyError> {
        let is_match = self.all_of.iter().all(|condition| condition.holds(case))
            && (self.any_of.is_empty() || self.any_of.iter().any(|condition| condition.holds(case)));
        Ok(is_match.then(|| self.rule.ruling()))
    }
}

impl Folded {
    fn holds(&self, case: &Case) -> bool {
        let input = &case.input;
        let value = match self.field {
            Field::Text => Some(&input.text),
            Field::Subject => input.subject.as_ref(),
            Field::Channel => Some(&input.channel),
            Field::From => input.from.as_ref(),
        };
        value.is_some_and(|value| {
            let value = value.to_lowercase();
            self.contains.iter().any(|part| value.contains(part)) || self.equals.contains(&value)
        })
    }
}

fn fold(conditions: &[Condition]) -> Vec<Folded> {
    let lower = |texts: &[String]| texts.iter().map(|text| text.to_lowercase()).collect();
    conditions
        .iter()
        .map(|c| Folded {
            field: c.field,
            contains: lower(&c.contains),
            equals: lower(&c.equals),
        })
        .collect()
}
