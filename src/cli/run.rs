//! The command line of `run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::mount::MountArgs;

/// `run`: a mount's arguments, with its mountpoint as `--at`, and a command.
#[derive(Debug, Args)]
#[command(mut_arg("mountpoint", |arg| arg.long("at").value_name("DIR").help(
    "Where the command finds the shards: an empty folder outside the data folder, which may belong to anybody; \
     one that is missing is made, and removed at the end \
     [default: the folder of the shard pattern in --config]"
)))]
#[command(mut_arg("log_file", |arg| arg.help(
    "Where the mount logs [default: the user's state folder, and kept only if there was an error]"
)))]
#[command(mut_arg("json", |arg| arg.hide(true).conflicts_with("command")))]
#[command(mut_arg("foreground", |arg| arg.hide(true).conflicts_with("command")))]
pub struct RunArgs {
    /// The arguments of the mount.
    #[command(flatten)]
    pub mount: MountArgs,
    /// Set for the processes that are started for the mount and for the command: they end with their parent
    #[arg(long, hide = true, requires = "left")]
    pub parent: Option<u32>,
    /// Set with --parent: the mount namespace that the parent has left
    #[arg(long, hide = true, requires = "parent")]
    pub left: Option<PathBuf>,
    /// What to run: everything after "--"
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}
