//! What is looked at: topics, partitions, offsets, a span of time.

use std::time::Duration;

/// Milliseconds since 1970.
pub type Millis = i64;

/// A part of topics and tables. Empty, it is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// Only these topics.
    pub topics: Vec<String>,
    /// Only this partition.
    pub partition: Option<i32>,
    /// Only records from this offset on.
    pub from_offset: Option<i64>,
    /// Only records below this offset.
    pub to_offset: Option<i64>,
    /// Only what was made at this moment or later.
    pub since: Option<Millis>,
    /// Only what was made before this moment.
    pub until: Option<Millis>,
}

impl Window {
    /// Whether a topic is looked at.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|wanted| wanted == topic)
    }

    /// Whether a partition is looked at.
    pub fn has_partition(&self, partition: i32) -> bool {
        self.partition.is_none_or(|wanted| wanted == partition)
    }

    /// Whether records are chosen by their place, so that rows, which do not know the place of their record, cannot
    /// be held against them.
    pub const fn is_of_offsets(&self) -> bool {
        self.from_offset.is_some() || self.to_offset.is_some()
    }

    /// Whether something made at this moment is looked at. What has no time is.
    pub fn has_time(&self, made: Option<Millis>) -> bool {
        made.is_none_or(|made| {
            self.since.is_none_or(|since| made >= since) && self.until.is_none_or(|until| made < until)
        })
    }

    /// Whether an offset is looked at.
    pub fn has_offset(&self, offset: i64) -> bool {
        self.from_offset.is_none_or(|from| offset >= from) && self.to_offset.is_none_or(|to| offset < to)
    }

    /// What cannot be, for people; nothing if it is fine.
    pub fn mistake(&self) -> Option<&'static str> {
        if (self.partition.is_some() || self.is_of_offsets()) && self.topics.len() != 1 {
            return Some(
                "--partition, --from-offset and --to-offset need exactly one --topic: offsets are a partition's own",
            );
        }
        if self
            .from_offset
            .zip(self.to_offset)
            .is_some_and(|(from, to)| from >= to)
        {
            return Some("--from-offset must lie below --to-offset, which is exclusive");
        }
        if self.since.zip(self.until).is_some_and(|(since, until)| since >= until) {
            return Some("--since must lie before --until, which is exclusive");
        }
        None
    }
}

/// Reads a duration as people write it: `90s`, `15m`, `2h`, `3d`.
///
/// # Errors
/// With what is wrong, if it is none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let form = || format!("{text:?} is no duration: write a number and s, m, h or d, as in 15m");
    let unit = text.chars().last().ok_or_else(form)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(form()),
    };
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| form())?;
    let total = count.checked_mul(seconds).filter(|total| *total <= 36_500 * 86_400);
    total
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is longer than a hundred years"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_duration("3d"), Ok(Duration::from_secs(259_200)));
        for wrong in [
            "",
            "m",
            "15",
            "-1h",
            "1.5h",
            "1w",
            "15 m",
            "99999999999999999999d",
            "40000d",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn offsets_belong_to_one_topic() {
        let mut window = Window {
            from_offset: Some(3),
            ..Window::default()
        };
        assert!(window.mistake().is_some());
        window.topics = vec!["t".to_owned()];
        assert_eq!(window.mistake(), None);
        window.to_offset = Some(3);
        assert!(window.mistake().is_some());
    }

    #[test]
    fn a_span_ends_before_its_end() {
        let window = Window {
            since: Some(10),
            until: Some(20),
            ..Window::default()
        };
        let inside: Vec<_> = [9, 10, 19, 20]
            .into_iter()
            .filter(|at| window.has_time(Some(*at)))
            .collect();
        assert_eq!(inside, [10, 19]);
        assert!(window.has_time(None));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = parse_duration(&text);
        }
    }
}
