//! Names of unfinished files. Each says which process writes the file, so no two processes ever write the same one,
//! even where locks do not bind (some network file systems), and a later run can tell what a killed process left there.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// End of an unfinished file's name, so that a glob of `*.tar` does not see it.
const SUFFIX: &str = ".partial";

/// A process that writes unfinished files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Name of the host: letters, digits, `-` and `_`; other characters are replaced by `_`.
    host: String,
    /// Process id.
    pub process: u32,
    /// When the process was started, in the kernel's clock ticks since boot; 0 if that is not known.
    started: u64,
}

/// The name of an unfinished file, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialName<'a> {
    /// File name that the file gets when it is finished.
    pub output: &'a str,
    /// The process that writes the file; `None` for a file of version 0.1, whose names do not say it.
    pub writer: Option<Writer>,
}

impl fmt::Display for Writer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "process {} on {}", self.process, self.host)
    }
}

impl Writer {
    /// The running process.
    pub fn this_process() -> Self {
        let process = std::process::id();
        Self { host: host(), process, started: start_of(process).unwrap_or(0) }
    }

    /// The name of the unfinished file that becomes `output`. `attempt` tells apart files of one process.
    pub fn name(&self, output: &str, attempt: u32) -> String {
        let Self { host, process, started } = self;
        format!("{output}.{host}-{process}-{started}-{attempt}{SUFFIX}")
    }

    /// Whether the process ran on this host and has ended. False if in doubt.
    pub fn is_gone(&self) -> bool {
        if self.host != host() {
            return false;
        }
        let Some(pid) = i32::try_from(self.process).ok().and_then(Pid::from_raw) else { return false };
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return true;
        }
        // The kernel may have given the number to another process.
        match start_of(self.process) {
            Some(started) => self.started != 0 && started != self.started,
            None => is_zombie(self.process),
        }
    }
}

impl<'a> PartialName<'a> {
    /// The parts of a file name; `None` if it is not that of an unfinished file.
    pub fn parse(name: &'a str) -> Option<Self> {
        let name = name.strip_suffix(SUFFIX)?;
        let with_writer = name.rsplit_once('.').and_then(|(output, id)| Some((output, writer(id)?)));
        Some(match with_writer {
            Some((output, writer)) => Self { output, writer: Some(writer) },
            None => Self { output: name, writer: None },
        })
    }

    /// Whether no process writes the file at `path`, which has this name, any more. False if in doubt.
    pub fn is_left(&self, path: &Path) -> bool {
        // A process of another container may have the same host name, and no number here: its lock tells.
        self.writer.as_ref().is_none_or(Writer::is_gone) && !is_locked(path)
    }
}

/// Whether a process of this machine holds the lock that [`super::durable::PartialFile`] puts on the file it writes.
/// True if in doubt: where this process has no descriptor left, say, nobody knows.
pub fn is_locked(path: &Path) -> bool {
    // No process writes to a link or a pipe of such a name.
    let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits();
    match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path) {
        // Where locks are not known, the process in the name has told.
        Ok(file) => flock(file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK),
        Err(error) => !matches!(
            error.raw_os_error().map(Errno::from_raw_os_error),
            Some(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV) // gone, a link, a socket, no device
        ),
    }
}

/// The process that a name's part `HOST-PROCESS-STARTED-ATTEMPT` stands for.
fn writer(id: &str) -> Option<Writer> {
    let mut parts = id.rsplitn(4, '-');
    let _attempt: u32 = parts.next()?.parse().ok()?;
    let (started, process) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Writer { host: parts.next().filter(|host| !host.is_empty())?.to_owned(), process, started })
}

/// The host's name, made of characters that a part of a file name may have.
fn host() -> String {
    let name = fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = String::from_utf8_lossy(&name);
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = name.trim_end().chars().take(64).map(kept).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

/// The fields of `/proc/PID/stat` after the name, which may contain anything: the state is the first.
fn stat_of(process: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// When a running process was started, in clock ticks since boot; `None` if it has ended or that is not known.
fn start_of(process: u32) -> Option<u64> {
    if is_zombie(process) { None } else { stat_of(process)?.get(19)?.parse().ok() }
}

/// Whether a process has ended and only waits to be reaped.
fn is_zombie(process: u32) -> bool {
    stat_of(process).is_some_and(|fields| fields.first().is_some_and(|state| state == "Z" || state == "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_writer() {
        let this = Writer::this_process();
        for output in ["shard-000000.tar", "shard-000000.tar.idx", "manifest-0-of-2.json", ".info.json"] {
            let name = this.name(output, 3);
            assert_eq!(PartialName::parse(&name), Some(PartialName { output, writer: Some(this.clone()) }));
            let old = format!("{output}.partial");
            assert_eq!(PartialName::parse(&old), Some(PartialName { output, writer: None }));
        }
        assert_eq!(PartialName::parse("shard-000000.tar"), None);
    }

    #[test]
    fn a_file_that_cannot_be_asked_may_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(!is_locked(&path), "it is not there");
        fs::write(&path, "").unwrap();
        assert!(!is_locked(&path));
        let held = fs::File::open(&path).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        assert!(is_locked(&path));
        drop(held);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(!is_locked(&link), "no run writes through a link");
        // A folder that is none: as with EMFILE, the answer is not known.
        assert!(is_locked(&path.join("below")));
    }

    #[test]
    fn only_a_process_of_this_host_that_has_ended_is_gone() {
        let this = Writer::this_process();
        assert!(!this.is_gone());
        assert!(Writer { started: this.started + 1, ..this.clone() }.is_gone(), "its number was given away");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let ended = Writer { process: child.id(), ..this };
        assert!(ended.is_gone());
        assert!(!Writer { host: "elsewhere".into(), ..ended }.is_gone());
    }
}
