//! The path of this program's file, as it was when the process began.

use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The path, once it was asked for.
static PATH: OnceLock<PathBuf> = OnceLock::new();

/// The path of this program's file, by which it starts itself again. It is looked up once, before `run` leaves its
/// mount namespace: if no other process is in that one, the kernel ends it, and `/proc/self/exe` then begins at the
/// mount in which the file was (`/` for a file that was bound by itself), so that it names another file, or none. And
/// not `/proc/self/exe` itself: the process would be called "exe".
///
/// # Errors
/// The operating system's, if `/proc` is not there.
pub fn own_program() -> io::Result<PathBuf> {
    match PATH.get() {
        Some(path) => Ok(path.clone()),
        None => std::env::current_exe().map(|path| PATH.get_or_init(|| path).clone()),
    }
}
