//! What an error of Postgres means for the event in hand.

use sqlx::error::DatabaseError;

/// Whose fault an error is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The event's own: its data cannot be stored, now or ever. Bisect, then set it aside.
    Event {
        /// The constraint of ours that refused it, where one did.
        constraint: Option<String>,
        /// SQLSTATE.
        code: String,
    },
    /// Anything else: wait and try again for ever; no attempt is spent, nothing is dead-lettered.
    Infrastructure,
}

/// Constraints of our schema that an event's data can break. A class 23 error that names none of them
/// comes from a missing leaf, a foreign trigger or a broken schema, and must not dead-letter events.
const CONSTRAINTS_ON_EVENTS: [&str; 4] = [
    "processed_events_digest_check",
    "outbox_events_bucket_check",
    "outbox_events_lane_check",
    "outbox_events_topic_check",
];

/// Tells event trouble from infrastructure trouble, by SQLSTATE.
///
/// Event trouble is class 22 (data), 54000 (a value too large for an index), and class 23 naming a
/// constraint of ours. "No partition found" is 23514 without a constraint's name: infrastructure.
pub fn classify(error: &sqlx::Error) -> Trouble {
    let Some(database) = error.as_database_error() else {
        return Trouble::Infrastructure;
    };
    let Some(code) = database.code() else {
        return Trouble::Infrastructure;
    };
    let constraint = database.constraint();
    let is_events = match &code[..code.len().min(2)] {
        "22" => true,
        "23" => constraint.is_some_and(is_on_events),
        _ => code == "54000",
    };
    if is_events {
        Trouble::Event {
            constraint: constraint.map(str::to_owned),
            code: code.into_owned(),
        }
    } else {
        Trouble::Infrastructure
    }
}

/// Whether a constraint speaks about an event's data. The leaves of `decisions` name their key after
/// themselves: a decision stored a second time, after its claim went past retention.
fn is_on_events(constraint: &str) -> bool {
    CONSTRAINTS_ON_EVENTS.contains(&constraint)
        || (constraint.starts_with("decisions_") && constraint.ends_with("_pkey"))
}

/// Whether a failed `COMMIT` certainly stored nothing. `false` means unknown: ask the data.
///
/// Only a server that is still in the session and says so counts. A connection that broke, and a
/// server that is going down, may have committed before they did.
pub fn certainly_not_committed(error: &sqlx::Error) -> bool {
    let Some(code) = error.as_database_error().and_then(DatabaseError::code) else {
        return false;
    };
    // 40003 is "statement completion unknown".
    code != "40003"
        && matches!(
            &code[..code.len().min(2)],
            "22" | "23" | "25" | "40" | "53" | "54" | "55"
        )
}

/// Whether the connection is gone, and with it whatever its session held.
pub fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| {
            // Connection exceptions; the server's ends of a session: shutdown, crash, start-up, idle,
            // idle in transaction, transaction too long.
            code.starts_with("08") || ["57P01", "57P02", "57P03", "57P05", "25P03", "25P04"].contains(&&*code)
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
