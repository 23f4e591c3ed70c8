//! x
#![allow(missing_docs)]
pub mod cache;
pub mod cli;
pub mod commands;
pub mod dataset;
pub mod error;
pub mod fs;
pub mod layout;
pub mod manifest;
pub mod materialize;
pub mod members;
pub mod memory;
pub mod npz;
pub mod num;
pub mod parallel;
pub mod plan;
pub mod pyjson;
pub mod shard;
pub mod tar;
pub mod volume;
