//! A mount namespace of our own: what is mounted in it is seen by this process and its descendants, and is gone with the
//! last of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set as set_ambient, set_capabilities,
};

use crate::error::{Error, Result};

/// The right to mount, which programs that this process starts inherit until it is dropped.
pub(super) struct Right {
    /// Whether it comes from a user namespace: root has it anyway.
    is_lent: bool,
}

/// The mount namespace of this process, as the kernel names it.
///
/// # Errors
/// `/proc` is not there.
pub(super) fn current() -> Result<PathBuf> {
    let link = Path::new("/proc/self/ns/mnt");
    fs::read_link(link).map_err(|error| Error::io(link, "read the link", error))
}

/// Leaves for a new mount namespace. Without the right to do so, a user namespace gives it: one in which this user is
/// himself and nobody else is known. The process must have one thread.
///
/// # Errors
/// The machine does not allow it.
pub(super) fn enter() -> Result<Right> {
    // Inside the new namespace these are unknown until the maps are written.
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let is_lent = match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => false,
        Err(nix::Error::EPERM) => {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
                .map_err(io::Error::from)
                .and_then(|()| fs::write("/proc/self/setgroups", "deny")) // the kernel's condition for the group's map
                .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
                .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")))
                .and_then(|()| Ok(lend()?))
                .map_err(refused)?;
            true
        }
        Err(error) => return Err(refused(error.into())),
    };
    // Slave, not private: what an automounter mounts outside still comes in, and nothing of ours goes out.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags)
        .map_err(|error| Error::system("keep the mounts of this process out of other namespaces", error))?;
    Ok(Right { is_lent })
}

/// Programs keep capabilities over exec only if they are ambient, unless the user is root.
fn lend() -> rustix::io::Result<()> {
    set_capabilities(None, only(CapabilitySet::SYS_ADMIN))?;
    set_ambient(CapabilitySet::SYS_ADMIN, true)
}

fn only(inheritable: CapabilitySet) -> CapabilitySets {
    let ours = CapabilitySet::SYS_ADMIN;
    CapabilitySets { effective: ours, permitted: ours, inheritable }
}

impl Right {
    /// Programs that are started from now on do not have it; this process can still unmount.
    ///
    /// # Errors
    /// None that the kernel documents.
    pub(super) fn keep_to_ourselves(self) -> Result<()> {
        if self.is_lent {
            set_ambient(CapabilitySet::SYS_ADMIN, false)
                .and_then(|()| set_capabilities(None, only(CapabilitySet::empty())))
                .map_err(|error| Error::system("drop the capability to mount", error))?;
        }
        Ok(())
    }
}

fn refused(error: io::Error) -> Error {
    Error::system_with_remedy(
        "make a private mount namespace",
        error,
        "without root this needs user namespaces, which this machine (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns) or this container forbids. \
         Ask for them; or `ctwds-fs mount` before the command, and `ctwds-fs unmount` after it",
    )
}
