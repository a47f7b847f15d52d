//! What people see: a header, a timeline of events, a live line beneath it.
//!
//! On a terminal the live line is redrawn in place. Elsewhere it is printed now and then, so that a log
//! of the demo reads as well.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Pause between two live lines that cannot be redrawn in place.
const PLAIN_PAUSE: Duration = Duration::from_secs(5);

/// Where the demo is shown.
#[derive(Debug)]
pub(crate) struct Screen {
    bar: ProgressBar,
    is_terminal: bool,
    has_colours: bool,
    timeline: Mutex<Timeline>,
}

#[derive(Debug)]
struct Timeline {
    began: Instant,
    plain_at: Option<Instant>,
}

/// How the stream stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Records that the input topic has.
    pub(crate) taken_in: u64,
    /// Decisions in Postgres.
    pub(crate) decided: u64,
    /// Events on the output topics, each counted once.
    pub(crate) published: u64,
    /// Duplicates that the services recognised.
    pub(crate) suppressed: u64,
}

impl Counts {
    /// Records whose outcome is still to come.
    pub(crate) fn waiting(self) -> u64 {
        self.taken_in.saturating_sub(self.published + self.suppressed)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in {}   decided {}   published {}   duplicates suppressed {}   waiting {}",
            grouped(self.taken_in),
            grouped(self.decided),
            grouped(self.published),
            grouped(self.suppressed),
            grouped(self.waiting())
        )
    }
}

impl Screen {
    /// The standard output, whatever it is.
    pub(crate) fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let target = if is_terminal {
            ProgressDrawTarget::stdout()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template("  {spinner:.cyan} {msg}").expect("the template is well formed"));
        Self {
            bar,
            is_terminal,
            has_colours: is_terminal && std::env::var_os("NO_COLOR").is_none(),
            timeline: Mutex::new(Timeline {
                began: Instant::now(),
                plain_at: None,
            }),
        }
    }

    /// Starts the clock of the timeline.
    pub(crate) fn begin_timeline(&self) {
        self.timeline().began = Instant::now();
    }

    /// A line of text; several lines are indented alike.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        for line in text.as_ref().lines() {
            let line = if line.is_empty() {
                String::new()
            } else {
                format!("  {line}")
            };
            self.print(&line);
        }
        if text.as_ref().is_empty() {
            self.print("");
        }
    }

    /// A heading.
    pub(crate) fn heading(&self, text: &str) {
        self.print("");
        self.print(&format!("  {}", self.bold(text)));
        self.print("");
    }

    /// Something happened: a line with the time since the beginning.
    pub(crate) fn event(&self, text: impl AsRef<str>) {
        let seconds = self.timeline().began.elapsed().as_secs();
        let time = format!("{:02}:{:02}", seconds / 60, seconds % 60);
        self.print(&format!("  {}  {}", self.dim(&time), text.as_ref()));
    }

    /// What is being waited for, without a place in the timeline.
    pub(crate) fn doing(&self, text: impl Into<String>) {
        let text = text.into();
        if self.is_terminal {
            self.bar.set_message(format!("{text} ..."));
            self.bar.enable_steady_tick(Duration::from_millis(100));
        } else {
            self.print(&format!("  {text} ..."));
        }
    }

    /// Redraws the live line.
    pub(crate) fn live(&self, counts: Counts) {
        if self.is_terminal {
            let text = counts.to_string();
            self.bar.set_message(if counts.waiting() > 3_000 {
                self.yellow(&text)
            } else {
                text
            });
            return;
        }
        let is_due = {
            let mut timeline = self.timeline();
            let is_due = timeline.plain_at.is_none_or(|at| at.elapsed() >= PLAIN_PAUSE);
            if is_due {
                timeline.plain_at = Some(Instant::now());
            }
            is_due
        };
        if is_due {
            self.event(format!("  {counts}"));
        }
    }

    /// Takes the live line away.
    pub(crate) fn end_live(&self) {
        self.bar.disable_steady_tick();
        self.bar.set_message("");
        self.bar.finish_and_clear();
        self.bar.reset();
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.has_colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn print(&self, line: &str) {
        if self.is_terminal {
            self.bar.suspend(|| println!("{line}"));
        } else {
            println!("{line}");
        }
    }

    fn timeline(&self) -> std::sync::MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A number with commas between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A span as people say it: `740 ms`, `3.2 s`.
pub(crate) fn span(milliseconds: f64) -> String {
    if milliseconds < 1_000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.1} s", milliseconds / 1_000.0)
    }
}
