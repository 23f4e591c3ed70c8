//! The times of sources without a checksum, of volumes and of extras: NPY files, NIfTI files that are not packed, and
//! those of several gzip members. No digest of a plan shows that such a file holds other values, so the journal
//! remembers its times; of an object, which has none, what stands for its `ETag`.

use sha2::{Digest, Sha256};

use crate::base::file_id::FileId;
use crate::plan::{Plan, ShardId};

/// The SHA-256, in hexadecimal, of the modification times and ctimes of a shard's sources without a checksum; `None` if
/// the plan has no such source for the shard.
pub fn of_shard(plan: &Plan, id: ShardId) -> Option<String> {
    let samples = &plan.dataset.samples[plan.shards.get(id as usize)?.samples.clone()];
    let mut times = String::new();
    for sample in samples {
        let arrays = sample.study().into_iter().flat_map(|study| {
            let extras = study.extras.iter().map(|extra| &extra.array);
            [&study.array].into_iter().chain(extras)
        });
        for array in arrays.filter(|array| array.member.crc.is_none()) {
            let FileId { mtime_ns, ctime_ns, .. } = array.file_id;
            let tag = array.file_id.tag().map_or_else(String::new, |tag| format!(" {tag}"));
            times.push_str(&format!("{} {mtime_ns} {ctime_ns}{tag}\n", sample.slot));
        }
    }
    (!times.is_empty()).then(|| format!("{:x}", Sha256::digest(times)))
}
