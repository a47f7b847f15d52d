//! When to try again: pure, so that the pause is a law and not a habit of each loop.

use std::time::Duration;

/// Exponential pauses with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest pause after the first failure.
    pub initial: Duration,
    /// No pause is longer, however many failures came before it.
    pub max: Duration,
}

impl Backoff {
    /// Doubles from `initial` up to `max`.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max }
    }

    /// The pause after failure number `attempt`, counted from 1.
    ///
    /// `jitter` is drawn by the caller from `0.0..=1.0` and scales the whole pause: instances
    /// that failed together must not return together. Anything outside that range is clamped.
    pub fn pause(&self, attempt: u32, jitter: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let ceiling = self.initial.saturating_mul(1 << doublings).min(self.max);
        let share = if jitter.is_nan() { 1.0 } else { jitter.clamp(0.0, 1.0) };
        ceiling.mul_f64(share).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pause_never_exceeds_its_maximum(
            initial in 0u64..10_000, max in 0u64..100_000, attempt: u32, jitter: f64,
        ) {
            let backoff = Backoff::new(Duration::from_millis(initial), Duration::from_millis(max));
            prop_assert!(backoff.pause(attempt, jitter) <= backoff.max);
        }

        #[test]
        fn the_ceiling_never_falls(initial in 1u64..10_000, max in 1u64..100_000, attempt in 1u32..100) {
            let backoff = Backoff::new(Duration::from_millis(initial), Duration::from_millis(max));
            prop_assert!(backoff.pause(attempt, 1.0) <= backoff.pause(attempt + 1, 1.0));
        }

        #[test]
        fn more_jitter_is_never_a_shorter_pause(attempt in 1u32..40, a in 0.0f64..=1.0, b in 0.0f64..=1.0) {
            let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
            let (less, more) = if a <= b { (a, b) } else { (b, a) };
            prop_assert!(backoff.pause(attempt, less) <= backoff.pause(attempt, more));
        }
    }

    #[test]
    fn pauses_double_until_the_maximum() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        let pauses: Vec<_> = (1..=5).map(|attempt| backoff.pause(attempt, 1.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 500, 500]);
    }
}
