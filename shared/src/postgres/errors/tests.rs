use std::borrow::Cow;
use std::fmt;

use sqlx::error::ErrorKind;

use super::*;

/// What a server could have said.
#[derive(Debug)]
struct Answer {
    code: &'static str,
    constraint: Option<&'static str>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl std::error::Error for Answer {}

impl DatabaseError for Answer {
    fn message(&self) -> &str {
        self.code
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.code))
    }

    fn constraint(&self) -> Option<&str> {
        self.constraint
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
}

fn answer(code: &'static str, constraint: Option<&'static str>) -> sqlx::Error {
    sqlx::Error::Database(Box::new(Answer { code, constraint }))
}

fn is_event(code: &'static str, constraint: Option<&'static str>) -> bool {
    matches!(classify(&answer(code, constraint)), Trouble::Event { .. })
}

#[test]
fn data_errors_are_the_events_own() {
    for code in ["22P02", "22021", "22003", "54000"] {
        assert!(is_event(code, None), "{code}");
    }
    let trouble = classify(&answer("23514", Some("outbox_events_topic_check")));
    let expected = Trouble::Event {
        constraint: Some("outbox_events_topic_check".to_owned()),
        code: "23514".to_owned(),
    };
    assert_eq!(trouble, expected);
    assert!(is_event("23505", Some("decisions_20251121_pkey")));
}

#[test]
fn everything_else_is_infrastructure() {
    // No partition found, lock timeout, idle in transaction, cancelled, missing table, not null,
    // serialisation, deadlock, disk full, too many connections, shutdown, other program limits.
    for code in [
        "23514", "55P03", "25P03", "57014", "42P01", "23502", "40001", "40P01", "53100", "53300", "57P01", "54001",
        "XX000",
    ] {
        assert!(!is_event(code, None), "{code}");
    }
    assert!(
        !is_event("23503", Some("audit_of_somebody_else_fkey")),
        "a foreign constraint"
    );
    assert!(
        !is_event("23505", Some("outbox_events_000000000000_pkey")),
        "ids drawn twice are no fault of the event"
    );
    assert_eq!(classify(&sqlx::Error::PoolTimedOut), Trouble::Infrastructure);
    assert_eq!(classify(&sqlx::Error::WorkerCrashed), Trouble::Infrastructure);
}

/// A new constraint must be put on the list or left out of it on purpose.
#[test]
fn the_list_knows_every_check_of_the_migrations() {
    // These say nothing about an event's data.
    let others = ["outbox_leases_bucket_check", "outbox_events_possible_check"];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    let mut checks = 0;
    for file in std::fs::read_dir(folder).expect("the migrations lie beside the crates") {
        let sql = std::fs::read_to_string(file.expect("is listed").path()).expect("is text");
        for constraint in sql.split("constraint ").skip(1) {
            let name = constraint
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .expect("one at least");
            if name.ends_with("_check") {
                assert_ne!(is_on_events(name), others.contains(&name), "{name}");
                checks += 1;
            }
        }
    }
    assert_eq!(checks, CONSTRAINTS_ON_EVENTS.len() + others.len());
}

#[test]
fn only_a_server_that_says_so_has_certainly_not_committed() {
    for code in ["40001", "40P01", "23505", "53100"] {
        assert!(certainly_not_committed(&answer(code, None)), "{code}");
    }
    for code in ["40003", "57P01", "08006", "XX000", "58030"] {
        assert!(!certainly_not_committed(&answer(code, None)), "{code}");
    }
    let broken = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
    assert!(!certainly_not_committed(&broken));
}

#[test]
fn a_lost_connection_is_recognised() {
    assert!(is_connection_lost(&sqlx::Error::Io(
        std::io::ErrorKind::BrokenPipe.into()
    )));
    for code in ["57P01", "57P02", "25P03", "08006"] {
        assert!(is_connection_lost(&answer(code, None)), "{code}");
    }
    for code in ["55P03", "40001", "57014", "23505"] {
        assert!(!is_connection_lost(&answer(code, None)), "{code}");
    }
}
