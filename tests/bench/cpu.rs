//! CPU time of processes, by /proc.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// What a process has used so far: itself and the children that it has waited for.
///
/// # Errors
/// If there is no such process.
pub fn used_by(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    ticks_of(&stat)
        .map(duration_of)
        .with_context(|| format!("/proc/{pid}/stat has no times: {stat:?}"))
}

/// What a server and its processes have used so far. Of a child that has ended the parent knows.
///
/// # Errors
/// If there is no such process.
pub fn used_by_family(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = used_by(pid)?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .with_context(|| format!("children of process {pid}"))?;
    for child in children.split_whitespace() {
        // One that ends between these lines is missing once: its parent's times were read before.
        sum += used_by(child.parse()?).unwrap_or_default();
    }
    Ok(sum)
}

/// How often the threads of a process that live have woken up so far: each wait that they entered by themselves ended
/// once. A thread that ends takes its count with it.
///
/// # Errors
/// If there is no such process.
pub fn wakeups(pid: u32) -> anyhow::Result<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("threads of process {pid}"))?;
    let mut sum = 0;
    for thread in threads {
        let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        sum += wakeups_of(&status).unwrap_or(0);
    }
    Ok(sum)
}

fn wakeups_of(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}

/// What the calling thread has used so far.
///
/// # Errors
/// If the system does not say.
pub fn used_by_this_thread() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").context("times of this thread")?;
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    nanos
        .map(Duration::from_nanos)
        .with_context(|| format!("/proc/thread-self/schedstat has no times: {stat:?}"))
}

/// utime, stime, cutime and cstime together. The name before them may hold anything, so it is skipped from its end.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn duration_of(ticks: u64) -> Duration {
    /// USER_HZ, which Linux promises to programs on every architecture that we build for.
    const TICKS_PER_SECOND: u64 = 100;
    Duration::from_millis(ticks * (1_000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{fs, ticks_of, used_by, used_by_family, used_by_this_thread, wakeups, wakeups_of};

    #[test]
    fn times_stand_behind_a_name_that_may_hold_anything() {
        let stat = "7 (a) 1 2 (b) S 1 1 1 0 -1 4 5 6 7 8 300 40 5 1 20 0 1 0 9";
        assert_eq!(ticks_of(stat), Some(346));
        assert_eq!(ticks_of("7 (a) S 1"), None);
    }

    #[test]
    fn work_is_seen() {
        let pid = std::process::id();
        let before = used_by_family(pid).expect("we are there");
        let began = Instant::now();
        let mut sum = 0_u64;
        while began.elapsed() < Duration::from_millis(300) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let after = used_by_family(pid).expect("we are there");
        assert!(after > before, "{sum}");
        assert!(used_by(u32::MAX).is_err());
    }

    #[test]
    fn a_thread_that_sleeps_wakes_up_and_uses_little() {
        let woken = || wakeups_of(&fs::read_to_string("/proc/thread-self/status").expect("we are there"));
        let (before, used) = (woken().expect("it is counted"), used_by_this_thread());
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(woken().expect("it is counted") >= before + 10);
        let used = used_by_this_thread().expect("we are there") - used.expect("we are there");
        assert!(used < Duration::from_millis(20), "{used:?} of twenty");
        assert!(wakeups(std::process::id()).is_ok() && wakeups(u32::MAX).is_err());
    }
}
