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

/// Two ends of a range in words, of which the second is the larger: `1 to 2`, or the one where both are the same.
pub fn span(low: impl Display, high: impl Display) -> String {
    let (low, high) = (low.to_string(), high.to_string());
    if low == high { low } else { format!("{low} to {high}") }
}

/// A share in percent, from which on it is said how many times the whole it is: nobody sees what 42378 % are.
const MOST_PERCENT: f64 = 1000.0;

/// How much of `whole` a part is, in words: `50.0 % of the files`, or `424 times the files`.
pub fn share_of(part: u64, whole: u64, the_whole: &str) -> String {
    let percent = 100.0 * part as f64 / whole.max(1) as f64;
    if percent < MOST_PERCENT {
        format!("{percent:.1} % of {the_whole}")
    } else {
        format!("{:.0} times {the_whole}", percent / 100.0)
    }
}

/// A signed percentage in a column: `-12.5 %`, or `-424 x` where it is so many times the whole.
pub fn percent(percent: f64) -> String {
    if percent.abs() < MOST_PERCENT { format!("{percent:.1} %") } else { format!("{:.0} x", percent / 100.0) }
}

/// A rate in words, of so many bytes in so many seconds: `1.5 GiB/s`.
pub fn rate(bytes: u64, seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and small")]
    let a_second = (bytes as f64 / seconds.max(1e-3)) as u64;
    format!("{}/s", ByteSize(a_second))
}

#[cfg(test)]
mod tests {
    use super::{counted, percent, rate, share_of, span};

    #[test]
    fn a_range_of_one_is_that_one() {
        assert_eq!([span(1, 2), span("a", "a"), span(-1024.0, -1024.0)], ["1 to 2", "a", "-1024"]);
    }

    #[test]
    fn much_more_than_all_is_said_in_times() {
        let shares = [share_of(1, 2, "it"), share_of(999, 100, "it"), share_of(1000, 100, "it"), share_of(5, 0, "it")];
        assert_eq!(shares, ["50.0 % of it", "999.0 % of it", "10 times it", "500.0 % of it"]);
        assert_eq!(share_of(42378, 100, "the source files"), "424 times the source files");
        assert_eq!([percent(49.96), percent(-99.0), percent(-42378.0)], ["50.0 %", "-99.0 %", "-424 x"]);
    }

    #[test]
    fn rates_are_binary() {
        assert_eq!([rate(3 << 30, 2.0), rate(1, 0.0), rate(1536, 1.0)], ["1.5 GiB/s", "1000 B/s", "1.5 KiB/s"]);
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "class", "classes")), ["0 classes", "1 class", "2 classes"]);
    }
}
