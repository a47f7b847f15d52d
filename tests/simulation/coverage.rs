//! How often runs met what they are meant to meet: a simulation that never crashes proves nothing.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Counts by what was met. A name that begins with `group: ` stands in the table under that group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    /// Met once more.
    #[inline]
    pub fn hit(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    /// Met so many times more.
    #[inline]
    pub fn add(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// Each of these once more.
    pub fn hit_all(&mut self, all: impl IntoIterator<Item = &'static str>) {
        for what in all {
            self.hit(what);
        }
    }

    /// Both together.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.add(what, *times);
        }
    }

    /// How often.
    pub fn times(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// What of these was never met.
    pub fn missed(&self, wanted: impl IntoIterator<Item = &'static str>) -> Vec<&'static str> {
        wanted.into_iter().filter(|what| self.times(what) == 0).collect()
    }

    /// A line for each, those that were wanted and never met included, by group.
    pub fn table(&self, wanted: impl IntoIterator<Item = &'static str>) -> String {
        let mut counts = self.0.clone();
        for what in wanted {
            counts.entry(what).or_insert(0);
        }
        let mut groups: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
        for (what, times) in counts {
            let (group, name) = what.split_once(": ").unwrap_or(("met", what));
            groups.entry(group).or_default().push((name, times));
        }
        let mut table = String::new();
        for (group, lines) in groups {
            let _ = writeln!(table, "  {group}");
            for (name, times) in lines {
                let mark = if times == 0 { "  <- never" } else { "" };
                let _ = writeln!(table, "    {times:>12}  {name}{mark}");
            }
        }
        table
    }
}
