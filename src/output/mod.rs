//! The files beside the shards in an output folder: manifest, journals, indexes of other readers; and the division of a
//! conversion into parts. This room reads and renders these files; `materialize` and `reclaim` write them.

pub mod archive;
pub mod checksum;
pub mod edited;
pub mod indexes;
mod job_array;
pub mod journal;
pub mod manifest;
pub mod object_journal;
pub mod part_lock;
pub mod partition;
pub mod place;
pub mod removals;
pub mod source_times;
