//! When the events of a steady stream are due, whatever becomes of the ones before.

use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The due times of a stream at a steady rate, as offsets from its start, up to its end.
///
/// A latency counts from the time at which its event was due, not from when it was sent: a sender that
/// waits for a system that stands still would else leave out the very events that the stand-still delays
/// (coordinated omission). Whoever is late sends what is due at once and does not move the rest.
#[derive(Debug, Clone)]
pub struct OpenLoop {
    rate_per_second: u64,
    next: u64,
    count: u64,
}

impl OpenLoop {
    /// The first event is due at once, the last one before `duration` is over; at a rate of 0 there is none.
    pub fn new(rate_per_second: u64, duration: Duration) -> Self {
        let nano_events = duration.as_nanos().saturating_mul(rate_per_second.into());
        let count = nano_events.div_ceil(NANOS_PER_SECOND);
        Self {
            rate_per_second,
            next: 0,
            count: u64::try_from(count).unwrap_or(u64::MAX), // more than any run lives to see
        }
    }
}

impl Iterator for OpenLoop {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.next == self.count {
            return None;
        }
        // From the number, not from the time before: the rounding of a pause would add up.
        let (rate, number) = (self.rate_per_second, self.next);
        let nanos = u128::from(number % rate) * NANOS_PER_SECOND / u128::from(rate);
        self.next += 1;
        Some(Duration::from_secs(number / rate) + Duration::from_nanos(nanos as u64))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.count - self.next);
        (left.unwrap_or(usize::MAX), left.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_at_even_distances() {
        let due: Vec<Duration> = OpenLoop::new(4, Duration::from_secs(1)).collect();
        assert_eq!(due, [0, 250, 500, 750].map(Duration::from_millis));
    }

    #[test]
    fn what_is_due_at_the_end_is_left_out() {
        let count = |rate, ms| OpenLoop::new(rate, Duration::from_millis(ms)).count();
        assert_eq!(count(1_000, 2_000), 2_000);
        assert_eq!(count(2, 1_001), 3, "at 0, 0.5 and 1 s");
        assert_eq!(count(2, 0), 0);
        assert_eq!(count(0, 1_000), 0);
    }

    #[test]
    fn a_pause_that_is_no_whole_nanosecond_does_not_add_up() {
        let due = OpenLoop::new(3, Duration::from_secs(1_000_001));
        assert_eq!(due.clone().nth(1), Some(Duration::from_nanos(333_333_333)));
        assert_eq!(due.clone().nth(3_000_000), Some(Duration::from_secs(1_000_000)));
    }

    #[test]
    fn due_times_never_go_back_and_their_count_is_known() {
        let mut due = OpenLoop::new(7_919, Duration::from_secs(3));
        assert_eq!(due.size_hint(), (3 * 7_919, Some(3 * 7_919)));
        let mut before = due.next().expect("there is a first");
        assert_eq!(due.size_hint().0, 3 * 7_919 - 1);
        for at in due {
            assert!(before < at && at < Duration::from_secs(3), "{before:?}, then {at:?}");
            before = at;
        }
    }
}
