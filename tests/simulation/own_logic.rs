//! The simulation with a decision logic of one's own: an example to start from.

// begin
use serde_json::json;
use simulation::trial::Trial;
use triage_service::domain::case::Case;
use triage_service::domain::decision::{Outcome, Ruling};
use triage_service::domain::policy::{CostGuard, Policy, PolicyError, PolicySet};
use triage_service::domain::rule::{Effect, Rule};

/// Defers what is long, and cannot judge what is empty.
struct Length;

impl Policy for Length {
    fn name(&self) -> &str {
        "length"
    }

    fn judge(&self, case: &Case) -> Result<Option<Ruling>, PolicyError> {
        match case.input.text.trim().len() {
            0 => Err(PolicyError("there is no text".to_owned())),
            1..20 => Ok(None),
            _ => Ok(Some(usual(Effect::Defer).ruling())),
        }
    }
}

fn policies() -> PolicySet {
    let guard = CostGuard {
        input_bytes_max: 10_000,
        estimated_tokens_max: 1_000,
    };
    let default = usual(Effect::Allow).ruling();
    PolicySet::new("1".to_owned(), b"length", guard, vec![Box::new(Length)], default)
}

#[test]
fn my_logic_decides_once_in_order_and_repeatably() -> anyhow::Result<()> {
    let inputs = [
        json!({"text": "hello"}),
        json!({"text": "a text of some length"}),
        json!({"text": " "}),
    ];
    println!("{}", Trial::of(policies).about(inputs).seeds(0, 300).run()?);
    Ok(())
}
// end

fn usual(effect: Effect) -> Rule {
    Rule {
        id: "length".to_owned(),
        effect,
        all_of: Vec::new(),
        any_of: Vec::new(),
        priority: None,
        categories: Vec::new(),
        actions: Vec::new(),
        reason: String::new(),
    }
}

/// Decides by what it decided before: after a crash it says something else of the same event.
struct Moody(std::sync::atomic::AtomicUsize);

impl Policy for Moody {
    fn name(&self) -> &str {
        "moody"
    }

    fn judge(&self, _: &Case) -> Result<Option<Ruling>, PolicyError> {
        let count = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let effect = if count.is_multiple_of(2) {
            Effect::Allow
        } else {
            Effect::Deny
        };
        let ruling = usual(effect).ruling();
        assert_ne!(ruling.outcome, Outcome::Defer);
        Ok(Some(ruling))
    }
}

#[test]
fn a_logic_that_answers_differently_the_next_time_is_caught_and_told_with_its_seed() {
    let moody = || policies().with_first(Box::new(Moody(Default::default())));
    let told = Trial::of(moody).run().expect_err("it is not repeatable").to_string();
    assert!(told.contains("IMPURE") && told.contains(".seeds("), "{told}");
    assert!(told.contains("what is left of its schedule"), "{told}");
}

#[test]
fn the_page_shows_this_example() {
    let page = include_str!("../../docs/simulation.md");
    let example = include_str!("own_logic.rs");
    let (_, rest) = example.split_once("// begin\n").expect("it has a beginning");
    let (shown, _) = rest.split_once("// end\n").expect("it has an end");
    assert!(
        page.contains(shown.trim_end()),
        "docs/simulation.md shows another example"
    );
}
