//! When a failed row is tried again, and when it is given up.

use std::time::Duration;

/// How failures of a row's own are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Pause after the first failure.
    pub pause_initial: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
    /// The row is FAILED at this many attempts.
    pub attempts_max: u32,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this pause.
    RetryAfter(Duration),
    /// Set it aside.
    GiveUp,
}

impl RetryPolicy {
    /// What follows when `attempts` have failed, the last one included.
    ///
    /// `jitter` is drawn by the caller from `0.0..=1.0`: rows that failed together must not return
    /// together, and this stays a pure function. The pause is between half and all of what doubling
    /// gives.
    pub fn after(&self, attempts: u32, jitter: f64) -> Next {
        if attempts >= self.attempts_max {
            return Next::GiveUp;
        }
        Next::RetryAfter(pause(self.pause_initial, self.pause_max, attempts, jitter))
    }
}

/// An exponential pause: doubles with each of `attempts` (from 1), never over `max`.
pub fn pause(initial: Duration, max: Duration, attempts: u32, jitter: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    let full = initial.saturating_mul(1 << doublings).min(max);
    full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_is_never_over_its_maximum(attempts in 1_u32.., jitter in 0.0..=1.0_f64, initial in 1_u64..10_000, max in 1_u64..100_000) {
            let max = Duration::from_millis(max);
            prop_assert!(pause(Duration::from_millis(initial), max, attempts, jitter) <= max);
        }

        #[test]
        fn a_row_is_given_up_exactly_at_its_last_attempt(attempts in 1_u32..100, attempts_max in 1_u32..100) {
            let policy = RetryPolicy { pause_initial: Duration::from_secs(1), pause_max: Duration::from_secs(9), attempts_max };
            prop_assert_eq!(policy.after(attempts, 0.5) == Next::GiveUp, attempts >= attempts_max);
        }
    }
}
