//! Signals that end a command: Ctrl-C, `kill`, and the loss of the terminal. Each command says what is kept and how to
//! go on, and ends with 128 and the signal's number: 130 for Ctrl-C.
//!
//! A command that may end at any moment is ended by a thread that waits for signals ([`end_at_once`]). One that has
//! something to put in order looks at a flag ([`stop_on_signals`]).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::progress;
use super::terminal::say;
use crate::base::limits::not_started;
use crate::base::lock::lock;
use crate::base::parallel::spawn;
use crate::base::signals::is_ignored;
use crate::error::{Error, Result};

/// The time between two looks whether the user has had enough.
const LOOK: Duration = Duration::from_millis(50);

/// What a command says that is ended at once; `None` while it ends by itself.
static KEPT: Mutex<Option<&'static str>> = Mutex::new(None);

/// The number of the signal that came; 0 before.
fn came() -> &'static Arc<AtomicUsize> {
    static CAME: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
    CAME.get_or_init(Arc::default)
}

/// The signals that end a command, but for those that this process was told to ignore.
fn ending() -> impl Iterator<Item = i32> {
    [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal))
}

/// The exit code of a command that was interrupted, as shells have it.
pub(super) fn exit_code() -> u8 {
    let signal = match came().load(Ordering::Relaxed) {
        0 => SIGINT.unsigned_abs() as usize,
        came => came,
    };
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Makes the first signal end this process at once, after a message that says what is `kept`, until
/// [`stop_on_signals`] or [`finish`]. Where the system gives no thread or no descriptor for that, signals do what they
/// do without.
pub(super) fn end_at_once(kept: &'static str) {
    let Ok(mut signals) = Signals::new(ending()) else { return };
    *lock(&KEPT) = Some(kept);
    for signal in ending() {
        // In the handler: the thread may be late, and `stop_on_signals` must know of a signal that came before it.
        let _ = signal_hook::flag::register_usize(signal, came().clone(), signal.unsigned_abs() as usize);
    }
    let wait = move || {
        for signal in signals.forever() {
            came().store(signal.unsigned_abs() as usize, Ordering::Relaxed);
            let kept = lock(&KEPT); // held, so that nothing is begun that may not be ended at once
            if let Some(kept) = *kept {
                end_by_default(); // what is said may have to wait for its reader
                progress::clear_all();
                say(format_args!("ctwds-fs: error: {}", Error::Interrupted(kept)));
                std::process::exit(exit_code().into());
            }
        }
    };
    if spawn("signals", wait).is_err() {
        *lock(&KEPT) = None;
        end_by_default(); // a handler stays where its action is taken away
    }
}

/// Lets each further signal end this process as if nothing waited for it.
fn end_by_default() {
    for signal in ending() {
        let _ = signal_hook::flag::register_conditional_default(signal, Arc::new(AtomicBool::new(true)));
    }
}

/// Undoes [`end_at_once`], for what takes a moment and must not be left half-done.
pub(super) fn finish() {
    *lock(&KEPT) = None;
}

/// Whether a signal came that has not ended this process.
pub(super) fn has_come() -> bool {
    came().load(Ordering::Relaxed) != 0
}

/// Runs `work` in a thread, and returns what it returns; `None` as soon as `stop` is set, whatever it still waits for.
///
/// # Errors
/// [`Error::System`] if the operating system gives no thread, [`Error::Internal`] if the work has panicked.
pub(super) fn unless_stopped<T: Send + 'static>(
    stop: &AtomicBool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    spawn("work", move || drop(sender.send(work()))).map_err(|error| not_started("start a thread", error))?;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(done) => return Ok(Some(done)),
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Internal("a thread has panicked".into())),
        }
    }
}

/// A flag that the first signal to end sets. A second one ends the process as usual. A signal that this process was
/// told to ignore stays ignored.
///
/// # Errors
/// [`Error::System`] if the signals cannot be handled.
pub(super) fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in ending() {
        signal_hook::flag::register_conditional_default(signal, stop.clone())
            .and_then(|_| signal_hook::flag::register_usize(signal, came().clone(), signal.unsigned_abs() as usize))
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|error| Error::system("wait for signals", error))?;
    }
    finish();
    if has_come() {
        // It came before the flag was registered, and its thread has not ended this process.
        stop.store(true, Ordering::Relaxed);
    }
    Ok(stop)
}
