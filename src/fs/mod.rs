//! The mount: a read-only tree of folders and files, and the FUSE session that shows it.
//!
//! [`tree`] and the modules that it uses know names, inodes, attributes, handles and reads, and nothing of FUSE;
//! `fuse`, `passthrough` and [`mount`] alone import `fuser`.

mod finished;
mod fuse;
mod generations;
pub mod mount;
pub mod mount_table;
mod names;
mod node;
mod passthrough;
mod pool;
pub mod processes;
mod shard_errors;
pub mod tree;

pub use node::Inode;
