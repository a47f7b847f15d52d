//! How many buckets an instance holds.

use shared::hash::BUCKETS;

/// A fair share: enough that all buckets are held, and no instance holds more than one over the mean.
pub fn fair_share(instances: usize) -> usize {
    (BUCKETS as usize).div_ceil(instances.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_buckets_and_differ_from_the_mean_by_less_than_one() {
        for instances in 1..200 {
            let share = fair_share(instances);
            assert!(share * instances >= BUCKETS as usize);
            assert!((share as f64) < BUCKETS as f64 / instances as f64 + 1.0);
        }
        assert_eq!(
            fair_share(0),
            64,
            "an instance that has not counted itself yet is alone"
        );
    }
}
