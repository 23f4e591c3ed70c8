//! Length conversions between memory (`usize`) and files (`u64`).

// Volumes of several GiB are ordinary: a 32-bit address space could not hold one.
const _: () = assert!(usize::BITS == 64, "ctwds-fs needs a 64-bit machine");
// Voxels are written as they lie in memory, and the shard format is little-endian.
const _: () = assert!(cfg!(target_endian = "little"), "ctwds-fs needs a little-endian machine");

/// Converts a file length to a memory length; lossless, because `usize` has 64 bits on every supported machine.
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits")]
pub const fn to_usize(n: u64) -> usize {
    n as usize
}
