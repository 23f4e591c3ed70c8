//! What lies in a folder of finished shards besides the shards: manifest, journals, other readers' indexes, and which
//! shards each of several runs makes. It reads and renders these files; `materialize` and `reclaim` write them.

pub mod archive;
pub mod indexes;
pub mod journal;
pub mod manifest;
pub mod part_lock;
pub mod partition;
pub mod reclaimed;
