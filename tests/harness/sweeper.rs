//! A shell that outlives us, to clean up behind us however we end: a process that is killed runs no code of its own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Runs `script` with `what` as its `$1` once we have ended.
///
/// The shell waits for our end of its pipe to close, which our death does as well.
pub fn at_our_end(script: &str, what: impl AsRef<OsStr>) -> io::Result<()> {
    let mut sweeper = Command::new("sh")
        .args(["-c", &format!("cat >/dev/null\n{script}"), "sweeper"])
        .arg(what)
        .stdin(Stdio::piped())
        // Whoever reads what we print, to its end, does not wait for the sweeper as well.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0) // a Ctrl-C at the terminal ends us, and must not end it
        .spawn()?;
    // The pipe is open until the process ends; nobody writes to it.
    std::mem::forget(sweeper.stdin.take());
    Ok(())
}
