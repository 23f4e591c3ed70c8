//! What every room may use and what knows nothing of CT: numbers, threads, memory, files of the user's cache folder.

pub mod beneath;
pub mod durable;
pub mod file_id;
pub mod files;
pub mod given;
pub mod limits;
pub mod lock;
pub mod low_limits;
pub mod memory;
pub mod mounts;
pub mod num;
pub mod own_program;
pub mod parallel;
pub mod partial_name;
pub mod signals;
pub mod user_cache;
pub mod user_folders;
