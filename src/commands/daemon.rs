//! The daemon, the background process of a mount: how it is started, reports that it is ready, and leaves the terminal.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::shared::FAILED;
use super::terminal::loudness;
use crate::base::limits::not_started;
use crate::base::low_limits::in_force;
use crate::base::own_program::own_program;
use crate::cli;
use crate::error::{Error, Result, shown};

/// The environment variable, and its value, from which size on glibc gives a buffer pages of its own. Such pages cost
/// nothing before they are touched. Where no threshold is set, glibc raises it when a large buffer is freed, takes the
/// next ones from its heap, and writes zeros into them: two or three mounts in ten were 16 MiB larger by that, the size
/// of a buffer for requests.
const MMAP_THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "1048576");

/// The time between two looks whether the user has had enough.
const LOOK: Duration = Duration::from_millis(50);

/// How long a daemon is waited for that is ended before its mount is ready.
const ENDING: Duration = Duration::from_secs(2);

/// The message of the daemon when the mount can be used.
const READY: &[u8] = b"ready\n";

/// The outcome of the start of a daemon.
pub(super) enum Start {
    /// The mount can be used; the process serves it.
    Ready(Child),
    /// The daemon has ended.
    Failed {
        /// The daemon's process id, by which a mount that it left can be told.
        pid: u32,
        /// The exit code, after it printed its error; or the error, if a signal killed it.
        end: Result<ExitCode>,
    },
}

/// Starts this program again as the daemon, and waits until the mount can be used. The arguments are those of this
/// process, with `more` after the subcommand, and `--log-file` if a `log_file` is given. Once `stop` is set, the daemon
/// is ended by the signal `end`.
///
/// # Errors
/// [`Error::System`] if the process cannot be started, [`Error::Refused`] if it could not read a file that this command
/// alone has open, [`Error::Interrupted`] if `stop` was set before the mount was ready.
pub(super) fn start(more: &[OsString], log_file: Option<&Path>, stop: &AtomicBool, end: Signal) -> Result<Start> {
    let log_file = log_file.into_iter().flat_map(|path| [OsString::from("--log-file"), path.into()]);
    let arguments = cli::arguments()
        .skip(1)
        .take(1) // the subcommand; our flags must not follow a "--"
        .chain(["--daemon".into()])
        .chain(more.iter().cloned())
        .chain(log_file)
        .chain(cli::arguments().skip(2));
    launch(arguments, Stdio::inherit(), stop, end)
}

/// Starts the daemon of a mount that ends with this process, even if the kernel kills it. `flags` are those of the
/// mount, with the data set of this process; what the daemon says before it is ready goes to `errors`.
///
/// # Errors
/// Those of [`start`].
pub(super) fn start_own(flags: Vec<OsString>, errors: File, stop: &AtomicBool) -> Result<Start> {
    let arguments = ["mount", "--daemon", "--end-with-parent"].map(OsString::from).into_iter().chain(flags);
    launch(arguments, errors.into(), stop, Signal::TERM)
}

fn launch(arguments: impl Iterator<Item = OsString>, errors: Stdio, stop: &AtomicBool, end: Signal) -> Result<Start> {
    refuse_own_files()?;
    let failed = |error| not_started("start the daemon", error);
    let program = own_program().map_err(failed)?;
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    ours.set_read_timeout(Some(LOOK)).map_err(failed)?;
    let mut daemon = Command::new(program)
        .args(arguments)
        .env(MMAP_THRESHOLD.0, std::env::var_os(MMAP_THRESHOLD.0).unwrap_or_else(|| MMAP_THRESHOLD.1.into()))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(errors)
        .spawn()
        .map_err(failed)?;
    let report = read_report(ours, stop);
    if stop.load(Ordering::Relaxed) {
        // It unmounts what it may have mounted. A server of its files that does not answer is not waited for.
        let _ = rustix::process::kill_process(Pid::from_child(&daemon), end);
        let _ = wait(&mut daemon, ENDING);
        return Err(Error::Interrupted("nothing is mounted; run the same command again"));
    }
    if report == READY {
        return Ok(Start::Ready(daemon));
    }
    let (pid, status) = (daemon.id(), daemon.wait().map_err(failed)?);
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let reason = format!("the daemon was killed by signal {signal} before the mount was ready{}", in_force());
        return Ok(Start::Failed { pid, end: Err(Error::Refused(reason)) });
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    Ok(Start::Failed { pid, end: Ok(ExitCode::from(code.unwrap_or(FAILED))) })
}

/// What the daemon says until it closes its side, after its report or by its end, or until `stop` is set.
fn read_report(mut daemon: UnixStream, stop: &AtomicBool) -> Vec<u8> {
    let (mut report, mut piece) = (Vec::new(), [0; 64]);
    while !stop.load(Ordering::Relaxed) {
        match daemon.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => report.extend_from_slice(&piece[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => break,
        }
    }
    report
}

/// Refuses an argument that names what this process alone has open, as of `--exclude <(…)`: the daemon keeps no
/// descriptor that it inherited.
fn refuse_own_files() -> Result<()> {
    let own = ["/dev/stdin", "/dev/fd", "/proc/self/fd"];
    for argument in cli::arguments().skip(2).take_while(|argument| argument != "--") {
        let bytes = argument.as_bytes();
        let value = bytes.iter().position(|byte| *byte == b'=').map_or(bytes, |at| &bytes[at + 1..]);
        let path = Path::new(OsStr::from_bytes(value));
        if own.iter().any(|own| path.starts_with(own)) {
            return Err(Error::Refused(format!(
                "{}: the background process that serves the mount cannot read a pipe of this command; write it to a file, \
                 and name that",
                shown(path)
            )));
        }
    }
    Ok(())
}

/// Waits until a child ends; `None` if it still runs after `limit`.
///
/// # Errors
/// The operating system's, if it is no child any more.
pub(super) fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() > deadline {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Makes the daemon end with the command that started it, until [`outlive_parent`]. The daemon calls this before it
/// does anything else.
pub(super) fn end_with_parent() {
    // If the kernel refuses, the daemon ends later: a report that no parent receives fails.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
}

/// Closes all descriptors besides the standard streams. The daemon calls this before anything is opened. A descriptor
/// that it inherited (a pipe of the calling script, say) must not stay open: whoever waits for its end would wait for
/// the unmount. The command of `run` inherits them from `run` itself.
pub(super) fn close_inherited() {
    // SAFETY: nothing has been opened yet, so no descriptor besides the standard streams has an owner in this process;
    // touches no memory. Kernels before 5.9 lack the call; the descriptors then stay open, which is harmless.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Undoes [`end_with_parent`]. The daemon calls this when the mount can be used.
///
/// # Errors
/// [`Error::System`] if the kernel refuses, which it is not documented to do.
pub(super) fn outlive_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(None)
        .map_err(|error| Error::system("let the daemon outlive its parent", error))
}

/// Leaves the terminal, sends output to `log`, and reports to the parent that the mount can be used.
///
/// # Errors
/// [`Error::System`] if the standard streams cannot be redirected, [`Error::Refused`] if the parent is gone.
pub(super) fn detach(log: File) -> Result<()> {
    let failed = |error| Error::system("detach the daemon from the terminal", error);
    let _ = rustix::process::setsid(); // fails only for a session leader, which is detached already
    rustix::process::chdir("/").map_err(failed)?; // do not keep the starting folder busy
    let null = File::open("/dev/null").map_err(|error| Error::io(Path::new("/dev/null"), "open the file", error))?;
    let report = rustix::io::dup(rustix::stdio::stdin()).map_err(failed)?;
    // From here on a message goes to the log, where the user does not look: descriptors are made before.
    rustix::stdio::dup2_stdout(&log).map_err(failed)?;
    rustix::stdio::dup2_stderr(&log).map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    // A mount whose command was killed is ended: nobody would know of it.
    UnixStream::from(report)
        .write_all(READY)
        .map_err(|_| Error::Refused("the command that started this mount was ended before it was ready".into()))
}

/// Sends log lines of `level` and above to standard error, which is the terminal or, in the daemon, the log file.
pub(super) fn log_to_terminal(level: log::LevelFilter) {
    let level = match loudness().more {
        0 => level,
        1 if level < log::LevelFilter::Info => log::LevelFilter::Info,
        1 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    // fuser warns about its own second unmount, which finds the work done.
    let env = env_logger::Env::default().default_filter_or(format!("{level},fuser=error"));
    let _ = env_logger::Builder::from_env(env).format_target(false).try_init(); // a second call keeps the first
}
