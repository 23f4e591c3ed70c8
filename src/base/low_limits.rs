//! Limits of this process that are lower than programs in other languages may expect.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::limits::control_group_is_full;
use super::memory;

/// The limits of this process that are lower than a program in another language may expect, in brackets, for a message
/// about such a program that failed: it need not say what it ran into. Empty if there are none.
pub fn in_force() -> String {
    /// Descriptors, and processes, that such a program has at hand on any system.
    const FEW: u64 = 256;
    let is_root = rustix::process::geteuid().is_root();
    let limits = [
        (Resource::As, "ulimit -v", u64::MAX),
        (Resource::Fsize, "ulimit -f", u64::MAX),
        (Resource::Nofile, "ulimit -n", FEW),
        (Resource::Nproc, "ulimit -u", if is_root { 0 } else { FEW }),
    ];
    let is_low =
        |(resource, _, usual): &(Resource, &str, u64)| getrlimit(*resource).current.is_some_and(|limit| limit < *usual);
    let mut names: Vec<&str> = limits.into_iter().filter(is_low).map(|(_, name, _)| name).collect();
    if control_group_is_full(Path::new("/sys/fs/cgroup"), FEW) {
        names.push("pids.max");
    }
    if memory::kills().is_some_and(|kills| kills > 0) {
        names.push("the memory of the control group, for which the kernel has killed processes");
    }
    if names.is_empty() { String::new() } else { format!(" (low limits of this process: {})", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_no_limit_or_names_it() {
        let said = in_force();
        assert!(said.is_empty() || said.starts_with(" (low limits of this process: "), "{said}");
    }
}
