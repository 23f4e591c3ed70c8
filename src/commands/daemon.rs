//! The background process of a mount: started, reported ready, detached from the terminal, logging to a file.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use crate::error::{Error, Result};

/// glibc gives large buffers pages of their own, which cost nothing before they are touched, until one was freed: then it
/// takes the next ones from a heap, and writes zeros into them. Two or three mounts in ten were 16 MiB larger by that, the
/// size of a buffer for requests. With a threshold that is set, it goes on as it began.
const MMAP_THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "1048576");

/// What the daemon writes when the mount can be used.
const READY: &[u8] = b"ready\n";

/// Starts this program again as the daemon, with `more` arguments and logging to `log_file` unless the user named
/// another, and waits until it is ready. `Err` carries the exit code of one that failed: it has told the user why.
///
/// # Errors
/// The process cannot be started.
pub(super) fn start(more: &[OsString], log_file: Option<&Path>) -> Result<std::result::Result<Child, ExitCode>> {
    let failed = |error| Error::system("start the daemon", error);
    let program = std::env::current_exe().map_err(failed)?; // not /proc/self/exe: the process would be called "exe"
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut daemon = Command::new(program)
        .args(std::env::args_os().skip(1).take(1)) // the subcommand; our flags must not follow a "--"
        .arg("--daemon")
        .args(more)
        .args(log_file.into_iter().flat_map(|path| [OsStr::new("--log-file"), path.as_os_str()]))
        .args(std::env::args_os().skip(2))
        .env(MMAP_THRESHOLD.0, std::env::var_os(MMAP_THRESHOLD.0).unwrap_or_else(|| MMAP_THRESHOLD.1.into()))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(failed)?;
    let mut report = Vec::new();
    // Ends when the daemon closes its side: after its report, or by its end.
    let _ = ours.read_to_end(&mut report);
    if report == READY {
        return Ok(Ok(daemon));
    }
    let status = daemon.wait().map_err(failed)?;
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Err(Error::Refused(format!("the daemon was killed by signal {signal} before the mount was ready")));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    Ok(Err(ExitCode::from(code.unwrap_or(super::FAILED))))
}

/// Called in the daemon before it does anything: until the mount is ready, it ends with the command that started it.
pub(super) fn end_with_parent() {
    // A kernel that refuses costs time only: the report of a daemon without a parent fails, and it ends then.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
}

/// Called in the daemon before anything else. Descriptors that it inherited (a pipe of the calling script, say) must not
/// live on in it: whoever waits for their end would wait for the unmount. `run` itself hands them on to its command.
pub(super) fn close_inherited() {
    // SAFETY: nothing has been opened yet, so no descriptor besides the standard streams has an owner in this process;
    // touches no memory. Kernels before 5.9 lack the call; the descriptors then stay open, which is harmless.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Called in the daemon when the mount is ready and wanted beyond the command that started it.
///
/// # Errors
/// None that the kernel documents.
pub(super) fn outlive_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(None)
        .map_err(|error| Error::system("let the daemon outlive its parent", error))
}

/// Called in the daemon when the mount is ready: leaves the terminal and tells the parent.
///
/// # Errors
/// The standard streams cannot be redirected.
pub(super) fn detach(log: File) -> Result<()> {
    let failed = |error| Error::system("detach the daemon from the terminal", error);
    let _ = rustix::process::setsid(); // fails only for a session leader, which is detached already
    rustix::process::chdir("/").map_err(failed)?; // do not keep the starting folder busy
    let null = File::open("/dev/null").map_err(|error| Error::io(Path::new("/dev/null"), "open the file", error))?;
    rustix::stdio::dup2_stdout(&log).map_err(failed)?;
    rustix::stdio::dup2_stderr(&log).map_err(failed)?;
    let report = rustix::io::dup(rustix::stdio::stdin()).map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    // Nobody would know of a mount whose command was killed.
    UnixStream::from(report)
        .write_all(READY)
        .map_err(|_| Error::Refused("the command that started this mount was ended before it was ready".into()))
}

/// Where a mount logs by default: a file of its own in the user's state folder.
pub(super) fn default_log(mountpoint: &Path) -> PathBuf {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = state.or_else(home).unwrap_or_else(std::env::temp_dir);
    let name = mountpoint.to_string_lossy().trim_matches('/').replace('/', "-");
    state.join("ctwds-fs").join(format!("{name}.log"))
}

/// Opens a log for appending; study ids are patient data, so only the user may read it.
///
/// # Errors
/// The file cannot be created.
pub(super) fn open_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        created.map_err(|error| Error::io(folder, "create the log's folder", error))?;
    }
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    log.map_err(|error| Error::io(path, "open the log file (--log-file chooses another)", error))
}

/// Log lines go to standard error, which is the terminal or, in the daemon, the log file.
pub(super) fn log_to_terminal(level: log::LevelFilter) {
    // fuser warns about its own second unmount, which finds the work done.
    let env = env_logger::Env::default().default_filter_or(format!("{level},fuser=error"));
    let _ = env_logger::Builder::from_env(env).format_target(false).try_init(); // a second call keeps the first
}
