//! The memory that this process may use: the machine's, or less where a control group limits it.

use std::fs;
use std::path::Path;

/// The memory that this process may use, in bytes: the machine's, or the limit of the control group if that is less.
pub fn available() -> u64 {
    let machine = machine_total().unwrap_or(u64::MAX);
    cgroup_limit().map_or(machine, |limit| limit.min(machine))
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

/// The limit in bytes that a line of `/proc/self/cgroup` leads to; `None` if its group limits no memory. The line is
/// `hierarchy:controllers:/path`; version 2 has no controllers.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    let (root, file) = match controllers {
        "" => (root.to_owned(), "memory.max"),
        list if list.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let leaf = root.join(path);
    let levels = leaf.ancestors().take_while(|level| level.starts_with(&root));
    levels.filter_map(|level| fs::read_to_string(level.join(file)).ok()?.trim().parse().ok()).min()
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
        assert_eq!(group_limit(dir.path(), "4:cpu:/slurm"), None);
        let old = dir.path().join("memory/job");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("memory.limit_in_bytes"), "4096").unwrap();
        assert_eq!(group_limit(dir.path(), "9:memory,hugetlb:/job"), Some(4096));
        assert!(available() > 1 << 20);
    }
}
