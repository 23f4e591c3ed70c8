//! Lengths in memory (`usize`) and in files (`u64`), and numbers in messages.

use std::fmt::Display;

use bytesize::ByteSize;

// Volumes of several GiB are ordinary: a 32-bit address space could not hold one.
const _: () = assert!(usize::BITS == 64, "ctwds-fs needs a 64-bit machine");
// Voxels are written as they lie in memory, and the shard format is little-endian.
const _: () = assert!(cfg!(target_endian = "little"), "ctwds-fs needs a little-endian machine");

/// Converts a file length to a memory length; lossless, because `usize` has 64 bits on every supported machine.
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits")]
pub const fn to_usize(n: u64) -> usize {
    n as usize
}

/// A number of things in words: `1 class`, `2 classes`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let name = if count == N::from(1) { one } else { many };
    format!("{count} {name}")
}

/// A rate in words, of so many bytes in so many seconds: `1.5 GiB/s`.
pub fn rate(bytes: u64, seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and small")]
    let a_second = (bytes as f64 / seconds.max(1e-3)) as u64;
    format!("{}/s", ByteSize(a_second))
}

#[cfg(test)]
mod tests {
    use super::{counted, rate};

    #[test]
    fn rates_are_binary() {
        assert_eq!([rate(3 << 30, 2.0), rate(1, 0.0), rate(1536, 1.0)], ["1.5 GiB/s", "1000 B/s", "1.5 KiB/s"]);
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "class", "classes")), ["0 classes", "1 class", "2 classes"]);
    }
}
