//! `ctwds-fs run`: a command with a mount that only it sees, and that ends with it.
//!
//! Three processes in a mount namespace of their own: this one, which waits and hands signals on; the mount's; and the
//! command. This one and the mount's watch each other: whichever is killed, the other ends the command and all that it
//! has started, and then itself. With the last process the namespace and the mount in it are gone. A command that ends
//! may leave processes, as under a shell; its mount ends all the same.

mod mountpoint;
mod namespace;
mod processes;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgid, getpgrp};

use mountpoint::Place;
use processes::Started;

use super::{FAILED, daemon, mount, status};
use crate::cli::RunArgs;
use crate::error::{Error, Result};
use crate::fs::mounts;

/// Signals that the command gets.
const HANDED_ON: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
/// How long a command may take to end after its mount has died.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long others that it has started may take after it.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(5);
/// How long the mount may take to end after the command.
const UNMOUNT: Duration = Duration::from_secs(5);
/// Volumes that are named at the end.
const NAMED: usize = 5;
/// Exit codes of a command that cannot be run, as shells have them.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

pub(super) fn run(args: &RunArgs) -> Result<ExitCode> {
    if let (Some(parent), Some(left)) = (args.parent, &args.left) {
        return if args.mount.daemon {
            processes::end_all_with(parent, left, HANDED_ON.into_iter().collect())?;
            mount::serve(&args.mount, false)
        } else {
            processes::die_with(parent)?;
            Ok(become_command(&args.command))
        };
    }
    let asked = args.mount.mountpoint()?;
    let _place = Place::take(&asked)?; // given back after the mount has ended
    let at = mounts::resolve_links(&asked);
    let log = Log::new(args.mount.log_file.as_deref());
    let left = namespace::current()?;
    let right = namespace::enter()?;
    let started = Started::outside_of(&left)?;
    let ours = ["--parent".into(), std::process::id().to_string().into(), "--left".into(), left.into()];
    let daemon = match daemon::start(&ours, log.ours())? {
        Ok(daemon) => daemon,
        Err(code) => return Ok(code),
    };
    right.keep_to_ourselves()?;
    let mut mount = Mount { at, log, daemon };
    let (command, mount_died) = supervise(&mut mount, &started, &ours)?;
    let is_sound = mount.finish()? && !mount_died;
    let code = match (command.code(), command.signal()) {
        _ if mount_died => FAILED,
        (Some(0), _) if !is_sound => FAILED,
        (Some(code), _) => u8::try_from(code).unwrap_or(FAILED),
        (_, signal) => 128 + u8::try_from(signal.unwrap_or_default()).unwrap_or_default(),
    };
    Ok(ExitCode::from(code))
}

/// The signals that are read instead of handled.
fn watched() -> SigSet {
    let mut watched: SigSet = HANDED_ON.into_iter().collect();
    watched.add(Signal::SIGCHLD);
    watched
}

/// Returns only if the command cannot be run.
fn become_command(command: &[OsString]) -> ExitCode {
    let [program, args @ ..] = command else { return ExitCode::from(NOT_FOUND) };
    // A mask is inherited over exec, and ours would hold back what is handed on.
    if let Err(error) = watched().thread_unblock() {
        eprintln!("ctwds-fs: error: cannot let signals through to the command: {error}");
        return ExitCode::from(FAILED);
    }
    let error = Command::new(program).args(args).exec();
    eprintln!("ctwds-fs: error: {}: cannot run this command: {error}", Path::new(program).display());
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN })
}

/// Runs the command, and says how it ended, and whether that was because the mount had died.
fn supervise(mount: &mut Mount, started: &Started, ours: &[OsString]) -> Result<(ExitStatus, bool)> {
    let failed = |error: io::Error| Error::system("run the command", error);
    let watched = watched();
    // A file of signals instead of handlers: what is ignored (under nohup, say) stays so, also for the command.
    watched.thread_block().map_err(|error| failed(error.into()))?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC).map_err(|error| failed(error.into()))?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut arguments = std::env::args_os().skip(1);
    // Through this program again, which ties itself to us before it becomes the command.
    let mut command =
        Command::new(program).args(arguments.next()).args(ours).args(arguments).spawn().map_err(failed)?;
    loop {
        if let Some(status) = command.try_wait().map_err(failed)? {
            return Ok((status, false));
        }
        if let Some(status) = mount.daemon.try_wait().map_err(failed)? {
            eprintln!("ctwds-fs: error: {}; ending the command", mount.died(status));
            return Ok((end(&mut command, started).map_err(failed)?, true));
        }
        match signals.read_signal() {
            Ok(Some(signal)) => hand_on(signal.ssi_signo, signal.ssi_code, &command),
            Ok(None) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
}

fn hand_on(signal: u32, code: i32, command: &Child) {
    let signal = i32::try_from(signal).ok().and_then(|signal| Signal::try_from(signal).ok());
    let Some(signal) = signal.filter(|signal| HANDED_ON.contains(signal)) else { return };
    let pid = pid_of(command);
    // The terminal (Ctrl-C) has sent it to the whole process group: a second one would make many programs give up at once.
    let has_it = code == libc::SI_KERNEL && getpgid(Some(pid)) == Ok(getpgrp());
    if !has_it {
        let _ = kill(pid, signal); // a command that has just ended needs none
    }
}

/// Ends a command whose files answer no more, and what it has started: first by asking the command, as it may have an
/// order of its own for the others.
fn end(command: &mut Child, started: &Started) -> io::Result<ExitStatus> {
    let _ = kill(pid_of(command), Signal::SIGTERM);
    if wait(command, PATIENCE)?.is_none() {
        command.kill()?;
    }
    started.end(PATIENCE_WITH_OTHERS);
    command.wait()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() > deadline {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Where the mount logs.
struct Log {
    path: PathBuf,
    is_ours: bool,
}

impl Log {
    fn new(given: Option<&Path>) -> Self {
        let path = match given {
            Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            // Several may run at the same path.
            None => daemon::default_log(Path::new(&format!("run-{}", std::process::id()))),
        };
        Self { path, is_ours: given.is_none() }
    }

    fn ours(&self) -> Option<&Path> {
        self.is_ours.then_some(&self.path)
    }
}

/// The mount, as this process sees it.
struct Mount {
    at: PathBuf,
    log: Log,
    daemon: Child,
}

impl Mount {
    fn died(&self, status: ExitStatus) -> String {
        format!("the mount at {} has died ({status}; log: {})", self.at.display(), self.log.path.display())
    }

    /// Ends it, and says what the user should know. False if it had not lived that long.
    fn finish(&mut self) -> Result<bool> {
        let failed = |error| Error::system("end the mount's process", error);
        let status = status::read_all(&self.at, self.daemon.id());
        let ended = match mounts::end(&self.at, false).or_else(|_| mounts::end(&self.at, true)) {
            Ok(()) => wait(&mut self.daemon, UNMOUNT).map_err(failed)?,
            Err(_) => None,
        };
        if ended.is_none() {
            // What the command has left running still has files open; they answer no more. It may go on without them.
            self.daemon.kill().map_err(failed)?;
            self.daemon.wait().map_err(failed)?;
        }
        let Ok(status) = status else {
            if let Some(ended) = ended {
                eprintln!("ctwds-fs: error: {}", self.died(ended));
            }
            return Ok(false);
        };
        let stats = |name: &str| status["stats"][name].as_u64().unwrap_or(0);
        let errors = status["errors"].as_array().map_or(&[][..], Vec::as_slice);
        let served = ByteSize(stats("bytes_served"));
        eprintln!("ctwds-fs: {} volumes decoded, {served} read, {} errors", stats("volumes_decoded"), errors.len());
        if !errors.is_empty() {
            let text = |error: &serde_json::Value, name: &str| error[name].as_str().unwrap_or_default().to_owned();
            for error in errors.iter().take(NAMED) {
                eprintln!("  {}: {}", text(error, "study_id"), text(error, "error"));
            }
            eprintln!(
                "ctwds-fs: warning: these volumes could not be read; the log has all: {}",
                self.log.path.display()
            );
        } else if self.log.is_ours {
            let _ = fs::remove_file(&self.log.path); // nothing in it that is worth keeping
        }
        Ok(true)
    }
}
