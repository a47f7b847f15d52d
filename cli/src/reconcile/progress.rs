//! How far it is: a bar with rate and time left, on a terminal only.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

const FORM: &str = "{spinner} {msg:44!} {bar:24} {human_pos:>12}/{human_len:12} {rate:>12} {eta_precise}";

/// The bar. Copies show the same one.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// On standard error, if that is a terminal; nothing is shown otherwise.
    pub fn on_terminal() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let form = ProgressStyle::with_template(FORM).unwrap_or_else(|_| ProgressStyle::default_bar());
        let rate = |state: &ProgressState, text: &mut dyn Write| {
            let _ = write!(text, "{}/s", HumanCount(state.per_sec() as u64)); // a bar is no place to fail
        };
        bar.set_style(form.with_key("rate", rate));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// What is being done now.
    pub fn step(&self, doing: &str) {
        self.0.set_message(doing.to_owned());
    }

    /// So many records are to be read.
    pub fn expect(&self, records: u64) {
        self.0.set_length(records);
        self.0.reset();
    }

    /// So many more.
    pub fn expect_more(&self, records: u64) {
        self.0.inc_length(records);
    }

    /// So many records were read.
    pub fn done(&self, records: u64) {
        self.0.inc(records);
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
