//! Signals as something that can be waited for.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::cli::exit::Failure;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM, SIGINT.
    End,
    /// SIGHUP.
    Reload,
}

/// Takes the signals over. To be called before there are threads.
pub fn take() -> Result<SignalFd, Failure> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block()
        .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC))
        .map_err(|error| Failure::trouble(format!("signals: {}", error.desc())))
}

/// The next signal that came, if there is one.
pub fn next(signals: &SignalFd) -> Option<Asked> {
    let signal = signals.read_signal().ok().flatten()?;
    Some(if signal.ssi_signo == Signal::SIGHUP as u32 {
        Asked::Reload
    } else {
        Asked::End
    })
}
