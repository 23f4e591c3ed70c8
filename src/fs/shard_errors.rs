//! The finished shards that could not be opened or read: each in the log once, and in the status for as long as the
//! mount lives.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;

use crate::base::lock::lock;
use crate::error::Error;
use crate::plan::{Plan, ShardId};

/// What the file of a finished shard answered instead of bytes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShardError {
    /// The name of the shard.
    shard: String,
    /// Why the shard could not be opened or read; names the file.
    error: String,
}

/// The last error of each finished shard that had one.
#[derive(Default)]
pub(super) struct ShardErrors(Mutex<BTreeMap<ShardId, String>>);

impl ShardErrors {
    /// Notes an error of a shard; the log gets it if the shard's last one was another.
    pub(super) fn note(&self, id: ShardId, error: &Error) {
        let text = error.to_string();
        let is_known = lock(&self.0).insert(id, text.clone()).is_some_and(|last| last == text);
        if !is_known {
            log::error!("{}: {text}", Plan::shard_name(id));
        }
    }

    /// The errors, in the order of the shards.
    pub(super) fn list(&self) -> Vec<ShardError> {
        let entry =
            |(id, error): (&ShardId, &String)| ShardError { shard: Plan::shard_name(*id), error: error.clone() };
        lock(&self.0).iter().map(entry).collect()
    }
}
