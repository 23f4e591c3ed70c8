//! The private mount namespace of `run`: its mounts are seen by this process and its descendants only, and end with the
//! last of these.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set as set_ambient, set_capabilities,
};

use crate::error::{Error, Result};

/// What is done to the mounts of a new namespace, as a verb phrase.
const KEEP_OUT: &str = "keep the mounts of this process out of other namespaces";

/// The reason and the remedy where the kernel cannot do so: it changes a mount, and the root folder is a part of one.
const NO_MOUNT_POINT: &str = "the root folder of this process is no mount point, as in a chroot. Make it one before the \
     chroot (mount --bind DIR DIR), or run this outside of it; or `ctwds-fs mount` before the command and `ctwds-fs \
     unmount` after it, or read the shards with `ctwds-fs cat`";

/// The right to mount, which programs that this process starts inherit until [`MountRight::keep`].
pub(super) struct MountRight {
    /// Whether a user namespace gives the right; root has it anyway.
    from_user_namespace: bool,
}

/// The kernel's name of the mount namespace of this process.
///
/// # Errors
/// [`Error::Io`] if `/proc` is not there.
pub(super) fn current() -> Result<PathBuf> {
    let link = Path::new("/proc/self/ns/mnt");
    fs::read_link(link).map_err(|error| Error::io(link, "read the link", error))
}

/// Moves this process, which must have one thread, into a new mount namespace. If the user has no right to do so, a
/// user namespace gives it, in which this user keeps the same id and no other user is known.
///
/// # Errors
/// [`Error::System`] if the machine does not allow it.
pub(super) fn enter() -> Result<MountRight> {
    // Inside the new namespace these ids are unknown until the maps are written.
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let from_user_namespace = match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => false,
        Err(nix::Error::EPERM) => {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
                .map_err(io::Error::from)
                .and_then(|()| fs::write("/proc/self/setgroups", "deny")) // the kernel's condition for the group's map
                .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
                .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")))
                .and_then(|()| Ok(make_inheritable()?))
                .map_err(refused)?;
            true
        }
        Err(error) => return Err(refused(error.into())),
    };
    // Slave, not private: what an automounter mounts outside still appears inside, and no mount of this namespace
    // outside.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|error| match error {
        Errno::INVAL => Error::system_with_remedy(KEEP_OUT, error, NO_MOUNT_POINT),
        error => Error::system(KEEP_OUT, error),
    })?;
    Ok(MountRight { from_user_namespace })
}

/// Makes the right to mount inheritable. Programs keep a capability over exec only if it is ambient, unless the user is
/// root.
fn make_inheritable() -> rustix::io::Result<()> {
    set_capabilities(None, only(CapabilitySet::SYS_ADMIN))?;
    set_ambient(CapabilitySet::SYS_ADMIN, true)
}

/// The capability to mount and no other, with what programs inherit.
fn only(inheritable: CapabilitySet) -> CapabilitySets {
    let mount = CapabilitySet::SYS_ADMIN;
    CapabilitySets { effective: mount, permitted: mount, inheritable }
}

impl MountRight {
    /// Ends the inheritance: programs that are started from now on do not have the right, and this process can still
    /// unmount.
    ///
    /// # Errors
    /// [`Error::System`] if the kernel refuses, which it is not documented to do.
    pub(super) fn keep(self) -> Result<()> {
        if self.from_user_namespace {
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
