//! `policy`: the rules, as data. The default is the sample policy of TriageMate.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use shared::config::Problems;

use crate::domain::case::Case;
use crate::domain::decision::{Priority, Ruling};
use crate::domain::policy::{CostGuard, Policy, PolicyError, PolicySet};
use crate::domain::rule::{Condition, Effect, Field, Rule};

/// `policy`: who decides, in which order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// Name of this set of rules, on every decision. Raise it when you change a rule.
    pub version: String,
    /// What is too expensive to judge.
    pub cost: CostSettings,
    /// The rules in their order: the first that matches decides.
    pub rules: Vec<Rule>,
    /// What is said when none matches. It has no conditions.
    pub default: Rule,
    /// For drills: an input whose text holds this makes the first policy panic, so that operators see a
    /// record set aside.
    pub drill_panic_text: Option<String>,
}

/// `policy.cost`: what is too expensive to judge. It is rejected with `COST_LIMIT_EXCEEDED`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CostSettings {
    /// Largest record value.
    pub input_bytes_max: usize,
    /// Largest estimate, in tokens of four bytes of subject and text.
    pub estimated_tokens_max: usize,
}

impl Default for CostSettings {
    fn default() -> Self {
        Self {
            input_bytes_max: 512 * 1024,
            estimated_tokens_max: 32_000,
        }
    }
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            version: "triagemate-sample-1".to_owned(),
            cost: CostSettings::default(),
            rules: vec![error_keywords(), urgent_email(), weak_signal()],
            default: rule(
                "RULE_DEFAULT_ACCEPT",
                Effect::Allow,
                Priority::P1,
                "no rule objected",
                "general",
                "route-to-queue",
            ),
            drill_panic_text: None,
        }
    }
}

fn error_keywords() -> Rule {
    let words = ["error", "fail", "broken", "not working"];
    Rule {
        any_of: vec![contains(Field::Text, &words)],
        ..rule(
            "RULE_ERROR_KEYWORDS",
            Effect::Deny,
            Priority::P3,
            "the text speaks of a failure",
            "failure",
            "send-to-support",
        )
    }
}

fn urgent_email() -> Rule {
    let email = Condition {
        field: Field::Channel,
        contains: Vec::new(),
        equals: vec!["email".to_owned()],
    };
    Rule {
        all_of: vec![email, contains(Field::Subject, &["urgent", "asap", "immediate"])],
        ..rule(
            "RULE_URGENT_EMAIL",
            Effect::Deny,
            Priority::P3,
            "urgency by email is not taken on",
            "urgent",
            "ask-to-call",
        )
    }
}

fn weak_signal() -> Rule {
    let words = ["maybe", "not sure", "first day"];
    Rule {
        any_of: vec![contains(Field::Text, &words)],
        ..rule(
            "RULE_WEAK_SIGNAL",
            Effect::Allow,
            Priority::P1,
            "the sender is unsure",
            "unsure",
            "review-by-a-person",
        )
    }
}

fn contains(field: Field, words: &[&str]) -> Condition {
    Condition {
        field,
        contains: words.iter().map(|&word| word.to_owned()).collect(),
        equals: Vec::new(),
    }
}

fn rule(id: &str, effect: Effect, priority: Priority, reason: &str, category: &str, action: &str) -> Rule {
    Rule {
        id: id.to_owned(),
        effect,
        all_of: Vec::new(),
        any_of: Vec::new(),
        priority: Some(priority),
        categories: vec![category.to_owned()],
        actions: vec![action.to_owned()],
        reason: reason.to_owned(),
    }
}

impl PolicySettings {
    pub(super) fn check(&self, problems: &mut Problems) {
        if self.version.trim().is_empty() || self.version.len() > 200 {
            problems.add("policy.version", "must be 1 to 200 bytes of text");
        }
        let mut ids = BTreeSet::new();
        for (index, rule) in self.rules.iter().enumerate() {
            if let Some(problem) = rule.problem() {
                problems.add("policy.rules", format!("rule {} ({}) {problem}", index + 1, rule.id));
            }
            if !ids.insert(&rule.id) {
                problems.add(
                    "policy.rules",
                    format!("rule {} ({}) has the id of an earlier one", index + 1, rule.id),
                );
            }
        }
        if self.default.id.trim().is_empty() {
            problems.add("policy.default.id", "must not be blank");
        }
        if !self.default.all_of.is_empty() || !self.default.any_of.is_empty() {
            problems.add("policy.default", "must have no conditions");
        }
        if self.drill_panic_text.as_ref().is_some_and(String::is_empty) {
            problems.add("policy.drill_panic_text", "must not be empty: every text holds it");
        }
        for (key, value) in [
            ("policy.cost.input_bytes_max", self.cost.input_bytes_max),
            ("policy.cost.estimated_tokens_max", self.cost.estimated_tokens_max),
        ] {
            if value == 0 {
                problems.add(key, "must be at least 1");
            }
        }
    }

    /// The policies in force.
    pub fn policies(&self) -> PolicySet {
        let guard = CostGuard {
            input_bytes_max: self.cost.input_bytes_max,
            estimated_tokens_max: self.cost.estimated_tokens_max,
        };
        let policies = PolicySet::from_rules(self.version.clone(), guard, self.rules.clone(), self.default.clone());
        match &self.drill_panic_text {
            Some(text) => policies.with_first(Box::new(PanicDrill { text: text.clone() })),
            None => policies,
        }
    }
}

/// Panics over the text of a drill, and has no opinion on anything else.
struct PanicDrill {
    text: String,
}

impl Policy for PanicDrill {
    fn name(&self) -> &str {
        "DRILL_PANIC"
    }

    fn judge(&self, case: &Case) -> Result<Option<Ruling>, PolicyError> {
        assert!(
            !case.input.text.contains(&self.text),
            "drill: the input asks for a panic"
        );
        Ok(None)
    }
}
