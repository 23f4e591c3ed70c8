//! The memory that this process may use: the machine's, or less where a control group or `ulimit -v` limits it; and
//! large buffers, which may not be had.

use std::fs;
use std::io;
use std::path::Path;

use super::limits::address_space;

/// The memory that this process may use, in bytes: the machine's, or the limit of the control group or of the address
/// space if that is less.
pub fn available() -> u64 {
    // The file is what a container's machine is made to look like; the call needs no descriptor.
    let machine = machine_total().unwrap_or_else(|| {
        let machine = rustix::system::sysinfo();
        machine.totalram * u64::from(machine.mem_unit)
    });
    [cgroup_limit(), address_space()].into_iter().flatten().fold(machine, u64::min)
}

/// `len` zeros: a buffer whose size depends on the data, so that it may be too large for the memory.
///
/// # Errors
/// [`io::ErrorKind::OutOfMemory`] if there is no memory.
pub fn zeros<T: Clone + Default>(len: usize) -> io::Result<Vec<T>> {
    let mut buffer = Vec::new();
    resize(&mut buffer, len)?;
    Ok(buffer)
}

/// Makes `buffer` longer or shorter, as [`Vec::resize`] does with zeros.
///
/// # Errors
/// [`io::ErrorKind::OutOfMemory`] if there is no memory; the buffer is then as it was.
pub fn resize<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> io::Result<()> {
    buffer.try_reserve_exact(len.saturating_sub(buffer.len())).map_err(|_| io::ErrorKind::OutOfMemory)?;
    buffer.resize(len, T::default());
    Ok(())
}

fn machine_total() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The tightest limit of the process's control group and its parents, for versions 1 and 2.
fn cgroup_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(|line| group_limit(Path::new("/sys/fs/cgroup"), line)).min()
}

/// The number of processes of this process's control group that the kernel has killed for lack of memory, so far;
/// `None` where the kernel does not count them.
pub fn kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| group_kills(Path::new("/sys/fs/cgroup"), line))
}

/// The count of [`kills`] that a line of `/proc/self/cgroup` leads to.
fn group_kills(root: &Path, line: &str) -> Option<u64> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let path = path.trim_start_matches('/');
    let file = match controllers {
        "" => root.join(path).join("memory.events"),
        list if list.split(',').any(|name| name == "memory") => {
            root.join("memory").join(path).join("memory.oom_control")
        }
        _ => return None,
    };
    let counts = fs::read_to_string(file).ok()?;
    counts.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// The limit in bytes that a line of `/proc/self/cgroup` leads to; `None` if its group limits no memory. The line is
/// `hierarchy:controllers:/path`; version 2 has no controllers.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    // Beyond "high", version 2 makes a group wait until it has given memory back.
    let (root, files) = match controllers {
        "" => (root.to_owned(), &["memory.max", "memory.high"][..]),
        list if list.split(',').any(|name| name == "memory") => (root.join("memory"), &["memory.limit_in_bytes"][..]),
        _ => return None,
    };
    let leaf = root.join(path);
    let levels = leaf.ancestors().take_while(|level| level.starts_with(&root));
    let limits = levels.flat_map(|level| files.iter().map(move |file| level.join(file)));
    limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_of_a_hierarchy_counts() {
        let dir = tempfile::tempdir().unwrap();
        let job = dir.path().join("slurm/job_1");
        fs::create_dir_all(&job).unwrap();
        fs::write(dir.path().join("slurm/memory.max"), "8589934592\n").unwrap();
        fs::write(job.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_limit(dir.path(), "0::/slurm/job_1"), Some(8 << 30));
        fs::write(job.join("memory.high"), "4294967296\n").unwrap();
        assert_eq!(group_limit(dir.path(), "0::/slurm/job_1"), Some(4 << 30));
        assert_eq!(group_limit(dir.path(), "4:cpu:/slurm"), None);
        let old = dir.path().join("memory/job");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("memory.limit_in_bytes"), "4096").unwrap();
        assert_eq!(group_limit(dir.path(), "9:memory,hugetlb:/job"), Some(4096));
        assert!(available() > 1 << 20);
    }

    #[test]
    fn kills_are_counted_by_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("memory/job")).unwrap();
        fs::write(dir.path().join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
        fs::write(dir.path().join("memory/job/memory.oom_control"), "oom_kill_disable 0\noom_kill 5\n").unwrap();
        assert_eq!(group_kills(dir.path(), "0::/"), Some(2));
        assert_eq!(group_kills(dir.path(), "4:memory:/job"), Some(5));
        assert_eq!(group_kills(dir.path(), "4:cpu:/job"), None);
    }

    #[test]
    fn a_buffer_that_cannot_be_had_is_an_error() {
        assert_eq!(zeros::<u16>(3).unwrap(), [0; 3]);
        assert_eq!(zeros::<f32>(usize::MAX / 8).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        let mut kept = vec![1u8, 2];
        assert!(resize(&mut kept, usize::MAX / 4).is_err() && kept == [1, 2]);
    }
}
