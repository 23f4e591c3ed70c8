//! Who has files open below a path, as far as this user may see it. Reads links and text of `/proc` only, never a path
//! itself, which may be on a file system that does not answer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A process that keeps a mount busy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// What it has open, or stands in.
    pub path: PathBuf,
}

/// The processes that hold something below `path`, one thing each.
pub fn of(path: &Path) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let holders: BTreeSet<Holder> = pids.filter_map(|pid| holder(pid, path)).collect();
    holders.into_iter().collect()
}

fn holder(pid: u32, below: &Path) -> Option<Holder> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let link = |name: &str| fs::read_link(process.join(name)).ok();
    let open = || fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let linked = ["cwd", "root"].into_iter().filter_map(link);
    let opened = open().filter_map(|entry| fs::read_link(entry.path()).ok());
    let path = linked.chain(opened).chain(mapped(&process)).find(|path| path.starts_with(below))?;
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned();
    Some(Holder { pid, name, path })
}

/// Files in the memory of a process, which may be closed by now.
fn mapped(process: &Path) -> Vec<PathBuf> {
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    maps.lines().filter_map(|line| Some(PathBuf::from(&line[line.find('/')?..]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_process() {
        let folder = tempfile::tempdir().unwrap();
        let below = fs::canonicalize(folder.path()).unwrap();
        let us = || of(&below).into_iter().find(|holder| holder.pid == std::process::id());
        assert_eq!(us(), None);
        let path = below.join("file");
        let file = fs::File::create(&path).unwrap();
        assert_eq!(us().map(|holder| holder.path), Some(path));
        drop(file);
        assert_eq!(us(), None);
    }
}
