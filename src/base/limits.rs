//! Limits that the system sets to this process: which one stands behind a refusal, and what is too little to start
//! with.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::Path;

use bytesize::ByteSize;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::{Error, Result};

/// The least address space that a command starts with, in bytes. Code, stacks and the buffers of requests take 60 MiB
/// of it with two threads; the rest is for tables, and for volumes.
const FLOOR: u64 = 256 << 20;

/// Checks that the address space, which may be limited (`ulimit -v`), is enough to work in: a program that runs out of
/// it in the middle of its work cannot always say so.
///
/// # Errors
/// [`Error::Refused`] if it is less than 256 MiB.
pub fn check_address_space() -> Result<()> {
    check_address_space_for(0)
}

/// Checks that the address space is enough for so many `bytes` of volumes as well.
///
/// # Errors
/// [`Error::Refused`] if it is less.
pub fn check_address_space_for(bytes: u64) -> Result<()> {
    let needed = FLOOR.saturating_add(bytes);
    match limit() {
        Some(limit) if limit < needed => Err(Error::Refused(format!(
            "the address space is limited to {} (ulimit -v), and at least {} are needed; raise the limit{}",
            ByteSize(limit),
            ByteSize(needed.next_multiple_of(1 << 20)),
            if bytes > 0 { ", or lower --cache-size" } else { "" }
        ))),
        _ => Ok(()),
    }
}

/// Makes all threads allocate from one heap where the address space is limited (`ulimit -v`). The C library reserves
/// 64 MiB of address space for each thread that allocates, up to 8 threads a core: a thread that found 60 MiB left over
/// by others could not get a single byte. Without a limit, reserved addresses cost nothing, and nothing changes.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    if limit().is_some() {
        // SAFETY: the call changes a parameter of the allocator under the allocator's own lock; no other thread runs
        // yet, and no pointer is involved.
        // Where it fails, the heaps stay as they were.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// The address space in bytes that is left for volumes beside the program itself; `None` if there is no limit.
pub fn address_space() -> Option<u64> {
    limit().map(|limit| limit.saturating_sub(FLOOR))
}

fn limit() -> Option<u64> {
    getrlimit(Resource::As).current
}

/// The error of a thread or process that could not be started, which names the limit that stands behind it; `doing` is
/// the attempt, as a verb phrase ("start 8 decoder threads").
pub fn not_started(doing: impl Into<Cow<'static, str>>, error: impl Into<io::Error>) -> Error {
    let error = error.into();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Error::system_with_remedy(doing, error, reached()),
        _ => Error::system(doing, error),
    }
}

/// Whether an error is that this process, or the machine, has as many files open as it may.
pub fn is_no_descriptor(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::MFILE | Errno::NFILE))
}

/// The limit of threads and processes that is reached, as a clause.
fn reached() -> &'static str {
    // A thread that was just refused may have been one of several: that leaves room for one.
    if control_group_is_full(Path::new("/sys/fs/cgroup"), 1) {
        "the control group has as many processes and threads as it may (pids.max); ask for more"
    } else if limit().is_some_and(|limit| used_address_space() + FLOOR / 8 > limit) {
        "the address space is used up (ulimit -v); raise the limit"
    } else if getrlimit(Resource::Nproc).current.is_some() && !rustix::process::geteuid().is_root() {
        "this user has as many processes and threads as allowed (ulimit -u); raise the limit, or end others"
    } else {
        "a limit of processes and threads is reached (ulimit -u, pids.max, sysctl kernel.threads-max)"
    }
}

/// The address space in use, in bytes; 0 where that cannot be found out.
fn used_address_space() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Whether the process's control group, or one above it, has as many processes as it may, or up to `room` fewer; for
/// versions 1 and 2.
pub(super) fn control_group_is_full(root: &Path, room: u64) -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().any(|line| is_full(root, line, room))
}

/// Whether the group of a line `hierarchy:controllers:/path` of `/proc/self/cgroup`, or one above it, is full.
fn is_full(root: &Path, line: &str, room: u64) -> bool {
    let Some((controllers, path)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':')) else {
        return false;
    };
    let root = match controllers {
        "" => root.to_owned(),
        list if list.split(',').any(|name| name == "pids") => root.join("pids"),
        _ => return false,
    };
    let number = |level: &Path, name| fs::read_to_string(level.join(name)).ok()?.trim().parse::<u64>().ok();
    let leaf = root.join(path.trim_start_matches('/'));
    leaf.ancestors().take_while(|level| level.starts_with(&root)).any(|level| {
        number(level, "pids.max")
            .is_some_and(|most| number(level, "pids.current").is_some_and(|now| now + room >= most))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_full_if_one_above_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let job = folder.path().join("pids/slurm/job");
        fs::create_dir_all(&job).unwrap();
        let write = |level: &Path, most: &str, now: &str| {
            fs::write(level.join("pids.max"), most).unwrap();
            fs::write(level.join("pids.current"), now).unwrap();
        };
        write(&job, "max\n", "9\n");
        assert!(!is_full(folder.path(), "8:pids:/slurm/job", 1));
        write(&folder.path().join("pids/slurm"), "10\n", "9\n");
        assert!(is_full(folder.path(), "8:pids:/slurm/job", 1));
        assert!(!is_full(folder.path(), "8:memory:/slurm/job", 1));
        write(folder.path(), "4", "4");
        assert!(is_full(folder.path(), "0::/", 1));
    }

    #[test]
    fn only_a_refusal_names_a_limit() {
        let text = |kind: io::ErrorKind| not_started("start a thread", kind).to_string();
        assert!(text(io::ErrorKind::WouldBlock).contains("ulimit -u"), "{}", text(io::ErrorKind::WouldBlock));
        assert!(!text(io::ErrorKind::NotFound).contains("limit"));
    }
}
