//! The program's folders in the user's home: for what can be made again, and for logs.
//!
//! A path of the environment that is empty or relative counts as none: it would lead into whatever folder the command
//! is started in.

use std::path::PathBuf;

/// The name of the program's folder in each of the user's.
const NAME: &str = "ctwds-fs";

/// The folder for files that can be made again; `None` without a home.
pub fn cache() -> Option<PathBuf> {
    Some(of_user("XDG_CACHE_HOME", ".cache")?.join(NAME))
}

/// The folder for logs. Without a home, one in the folder of temporary files that has the user's number in its name:
/// others may have made it, so whoever opens it checks whose it is ([`super::beneath::Folder::private`]).
pub fn state() -> PathBuf {
    of_user("XDG_STATE_HOME", ".local/state").map_or_else(
        || {
            let temporary = absolute("TMPDIR").unwrap_or_else(|| "/tmp".into());
            temporary.join(format!("{NAME}-{}", rustix::process::geteuid().as_raw()))
        },
        |folder| folder.join(NAME),
    )
}

/// The folder that the variable names, else the one at a path below the home.
fn of_user(variable: &str, below_home: &str) -> Option<PathBuf> {
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}
