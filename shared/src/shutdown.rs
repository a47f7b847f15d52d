//! How a process is asked to end.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that left at once, or failed.
pub const EXIT_FATAL: i32 = 1;

/// A request to drain, handed down to every task.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal: finish what is in flight, take nothing new.
    pub token: CancellationToken,
}

/// Listens for SIGTERM and SIGINT from now on.
///
/// The first one cancels the token. A second one ends the process at once with code 1: an operator
/// who asks twice does not want to wait for the drain. Must be called inside a tokio runtime.
pub fn on_signal() -> Shutdown {
    let shutdown = Shutdown::default();
    let (Ok(terminate), Ok(interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without handlers the default action ends the process, which is safe: nothing is settled early.
        tracing::warn!("signal handlers are not available: a signal ends the process without a drain");
        return shutdown;
    };
    tokio::spawn(listen(terminate, interrupt, shutdown.token.clone()));
    shutdown
}

async fn listen(mut terminate: Signal, mut interrupt: Signal, token: CancellationToken) {
    let name = either(&mut terminate, &mut interrupt).await;
    tracing::info!("{name}: draining; a second signal leaves at once");
    token.cancel();
    let name = either(&mut terminate, &mut interrupt).await;
    tracing::warn!("{name} again: leaving without a drain");
    std::process::exit(EXIT_FATAL);
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
