//! `ctwds-fs run`: runs a command with a mount that only the command sees, and that ends with it.
//!
//! There are three processes in a mount namespace of their own: this one, which waits and forwards signals, the daemon
//! of the mount, and the command. This process and the daemon watch each other: if one of them is killed, the other
//! ends the command and all that it has started, and then itself. With the last process the namespace and the mount in
//! it are gone. A command that ends may leave processes, as under a shell; its mount ends all the same.

mod mountpoint;
mod namespace;
mod processes;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

use bytesize::ByteSize;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgid, getpgrp};

use mountpoint::Mountpoint;
use processes::NamespaceProcesses;

use super::daemon::{self, Start};
use super::interrupt::{self, stop_on_signals};
use super::log_file;
use super::mount::{self, Lifetime};
use super::shared::FAILED;
use super::status;
use super::terminal::{say, tell};
use crate::base::limits::not_started;
use crate::base::memory;
use crate::base::num::counted;
use crate::base::own_program::own_program;
use crate::cli::{self, RunArgs};
use crate::error::{Error, Result};
use crate::fs::mount_table::{self, Unmount};

/// The signals that are forwarded to the command.
const FORWARDED: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
/// What ends a daemon that is not ready when the user has had enough.
const KILL: rustix::process::Signal = rustix::process::Signal::KILL;
/// How long a command may take to end after its mount has died.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long other processes that the command has started may take to end after it.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_secs(5);
/// How long the mount may take to end after the command.
const UNMOUNT: Duration = Duration::from_secs(5);
/// The number of unreadable volumes that are named at the end.
const NAMED: usize = 5;
/// The exit code of a command that is not found, as shells have it.
const NOT_FOUND: u8 = 127;
/// The exit code of a command that cannot be run, as shells have it.
const NOT_RUN: u8 = 126;

pub(super) fn run(args: &RunArgs) -> Result<ExitCode> {
    if let (Some(parent), Some(left)) = (args.parent, &args.left) {
        return if args.mount.daemon {
            processes::end_all_with(parent, left, FORWARDED.into_iter().collect())?;
            mount::serve(&args.mount, Lifetime::OfCaller)
        } else {
            processes::die_with(parent)?;
            Ok(become_command(&args.command))
        };
    }
    let asked = args.mount.mountpoint()?;
    let _mountpoint = Mountpoint::create(&asked)?; // removed after the mount has ended
    let path = mount_table::resolve_links(&asked);
    let log = Log::new(args.mount.log_file.as_deref());
    own_program().map_err(|error| Error::system("find this program's file", error))?; // as long as it has this path
    let left = namespace::current()?;
    let right = namespace::enter()?;
    let processes = NamespaceProcesses::in_own_namespace(&left)?;
    let hidden_flags = ["--parent".into(), std::process::id().to_string().into(), "--left".into(), left.into()];
    let kills = memory::kills();
    let stop = stop_on_signals()?; // until they are handed on to the command
    // The daemon blocks all signals but SIGKILL, and this namespace alone sees its mount.
    let daemon = match daemon::start(&hidden_flags, log.default_path(), &stop, KILL) {
        Ok(Start::Ready(daemon)) => daemon,
        Ok(Start::Failed { end, .. }) => return end, // what it has left ends with this namespace
        Err(error) => {
            // Else the folder that this command has made could not be removed.
            let left = mount_table::at(&path).ok().flatten().filter(|entry| entry.daemon().is_some());
            let _ = left.map(|entry| mount_table::unmount(&entry, Unmount::Detach));
            let _ = log.default_path().map(fs::remove_file);
            return Err(error);
        }
    };
    right.keep()?;
    let mut mount = PrivateMount { path, log, daemon };
    let end = supervise(&mut mount, &processes, &hidden_flags);
    let is_sound = mount.finish()?; // also if the command could not be started: with a mount its folder stays
    let end = end?;
    let is_sound = is_sound && !end.mount_died;
    if memory::kills() > kills {
        let limit = ByteSize(memory::available());
        say(format_args!(
            "ctwds-fs: warning: the kernel has killed a process of this job for lack of memory: {limit} is all that \
             its control group, or the machine, has; ask for more, or use a smaller --cache-size"
        ));
    }
    let code = match (end.status.code(), end.status.signal()) {
        _ if end.mount_died => FAILED,
        (Some(0), _) if !is_sound => FAILED,
        (Some(code), _) => u8::try_from(code).unwrap_or(FAILED),
        (_, signal) => 128 + u8::try_from(signal.unwrap_or_default()).unwrap_or_default(),
    };
    Ok(ExitCode::from(code))
}

/// The signals that this process reads from a descriptor instead of handling them.
fn watched() -> SigSet {
    let mut watched: SigSet = FORWARDED.into_iter().collect();
    watched.add(Signal::SIGCHLD);
    watched
}

/// Replaces this process by the command; returns an exit code only if the command cannot be run.
fn become_command(command: &[OsString]) -> ExitCode {
    let [program, args @ ..] = command else { return ExitCode::from(NOT_FOUND) };
    // The signal mask is inherited over exec, and the one of this process would block the forwarded signals.
    if let Err(error) = watched().thread_unblock() {
        say(format_args!("ctwds-fs: error: cannot let signals through to the command: {error}"));
        return ExitCode::from(FAILED);
    }
    let error = Command::new(program).args(args).exec();
    say(format_args!("ctwds-fs: error: {}: cannot run this command: {error}", Path::new(program).display()));
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN })
}

/// How the command ended.
struct CommandEnd {
    status: ExitStatus,
    /// Whether the command was ended because the mount had died.
    mount_died: bool,
}

/// Runs the command until it ends, or ends it when the mount dies. `hidden_flags` come before the arguments of this
/// process.
///
/// # Errors
/// [`Error::System`] if the command cannot be started or waited for.
fn supervise(
    mount: &mut PrivateMount,
    processes: &NamespaceProcesses,
    hidden_flags: &[OsString],
) -> Result<CommandEnd> {
    let failed = |error: io::Error| Error::system("run the command", error);
    let watched = watched();
    // A descriptor of signals instead of handlers: ignored signals (under nohup, say) stay ignored, also for the
    // command.
    watched.thread_block().map_err(|error| failed(error.into()))?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC).map_err(|error| failed(error.into()))?;
    if interrupt::has_come() {
        return Err(Error::Interrupted("nothing was run, and nothing is mounted; run the same command again"));
    }
    let program = own_program().map_err(failed)?;
    let mut arguments = cli::arguments().skip(1);
    // This program is started again: it makes the kernel end it with this process before it becomes the command.
    let mut command = Command::new(program)
        .args(arguments.next())
        .args(hidden_flags)
        .args(arguments)
        .spawn()
        .map_err(|error| not_started("start the command", error))?;
    loop {
        if let Some(status) = command.try_wait().map_err(failed)? {
            return Ok(CommandEnd { status, mount_died: false });
        }
        if let Some(status) = mount.daemon.try_wait().map_err(failed)? {
            say(format_args!("ctwds-fs: error: {}; ending the command", mount.died(status)));
            let status = end(&mut command, processes).map_err(failed)?;
            return Ok(CommandEnd { status, mount_died: true });
        }
        match signals.read_signal() {
            Ok(Some(signal)) => forward(signal.ssi_signo, signal.ssi_code, &command),
            Ok(None) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
}

/// Forwards a signal, of which the kernel gave this number and code, to the command.
fn forward(signal: u32, code: i32, command: &Child) {
    let signal = i32::try_from(signal).ok().and_then(|signal| Signal::try_from(signal).ok());
    let Some(signal) = signal.filter(|signal| FORWARDED.contains(signal)) else { return };
    let pid = pid_of(command);
    // The terminal (Ctrl-C) sends a signal to the whole process group: a second one would make many programs give up at
    // once.
    let is_sent = code == libc::SI_KERNEL && getpgid(Some(pid)) == Ok(getpgrp());
    if !is_sent {
        let _ = kill(pid, signal); // fails for a command that has just ended
    }
}

/// Ends a command whose mount has died, and all processes that it has started. The command is asked first, as it may
/// end the others in an order of its own.
fn end(command: &mut Child, processes: &NamespaceProcesses) -> io::Result<ExitStatus> {
    let _ = kill(pid_of(command), Signal::SIGTERM);
    if daemon::wait(command, PATIENCE)?.is_none() {
        command.kill()?;
    }
    processes.end(PATIENCE_WITH_OTHERS);
    command.wait()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// The log file of the mount.
struct Log {
    path: PathBuf,
    /// Whether the user named no file: the log is then removed unless it has errors.
    is_default: bool,
}

impl Log {
    fn new(given: Option<&Path>) -> Self {
        // Several commands may run at the same mountpoint, so the file is named after the process.
        let path = log_file::path(given, &format!("run-{}", std::process::id()));
        Self { path, is_default: given.is_none() }
    }

    fn default_path(&self) -> Option<&Path> {
        self.is_default.then_some(&self.path)
    }
}

/// The mount in the private namespace.
struct PrivateMount {
    path: PathBuf,
    log: Log,
    daemon: Child,
}

impl PrivateMount {
    /// The message that the daemon has died.
    fn died(&self, status: ExitStatus) -> String {
        format!("the mount at {} has died ({status}; log: {})", self.path.display(), self.log.path.display())
    }

    /// Ends the mount, and prints a summary and the volumes that could not be read; false if the mount did not answer
    /// any more.
    ///
    /// # Errors
    /// [`Error::System`] if the daemon cannot be ended.
    fn finish(&mut self) -> Result<bool> {
        let failed = |error| Error::system("end the mount's process", error);
        let status = status::read_all(&self.path, self.daemon.id());
        // Processes that the command has left may still have files open. They may go on, and get errors from the mount.
        let ended = mount::end(&self.path, &mut self.daemon, UNMOUNT).map_err(failed)?;
        let Ok(status) = status else {
            if let Some(ended) = ended {
                say(format_args!("ctwds-fs: error: {}", self.died(ended)));
            }
            return Ok(false);
        };
        let stats = |name: &str| status["stats"][name].as_u64().unwrap_or(0);
        let errors = status["errors"].as_array().map_or(&[][..], Vec::as_slice);
        let served = ByteSize(stats("bytes_served"));
        let (decoded, count) = (stats("volumes_decoded"), errors.len());
        let (volumes, count) = (counted(decoded, "volume", "volumes"), counted(count, "error", "errors"));
        tell(format_args!("ctwds-fs: {volumes} decoded, {served} read, {count}"));
        if !errors.is_empty() {
            for error in errors.iter().take(NAMED) {
                say(format_args!("  {}", status::describe_error(error)));
            }
            let log = self.log.path.display();
            say(format_args!("ctwds-fs: warning: these could not be read; the log has all: {log}"));
        } else if self.log.is_default {
            let _ = fs::remove_file(&self.log.path); // it has no error
        }
        Ok(true)
    }
}
