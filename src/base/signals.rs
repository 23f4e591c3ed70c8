//! Signals: which of them this process was told to ignore.

use std::fs;

/// Whether whoever started this process made it ignore a signal, as `nohup` does with SIGHUP: then it must stay
/// ignored. False where that cannot be found out.
pub fn is_ignored(signal: i32) -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignored(&status).is_some_and(|mask| has(mask, signal)))
}

/// The mask of ignored signals in the text of `/proc/self/status`.
fn ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Whether a mask has a signal; the lowest bit is that of signal 1.
fn has(mask: u64, signal: i32) -> bool {
    signal >= 1 && mask.checked_shr(signal.unsigned_abs() - 1).is_some_and(|rest| rest & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_names_signals_from_one_on() {
        let mask = ignored("Name:\tctwds-fs\nSigIgn:\t0000000000001001\nSigCgt:\t0\n").unwrap();
        let found: Vec<i32> = (-1..=70).filter(|signal| has(mask, *signal)).collect();
        assert_eq!(found, [1, 13]);
        assert_eq!(ignored("Name:\tctwds-fs\n"), None);
        assert!(is_ignored(libc::SIGPIPE) || !is_ignored(libc::SIGKILL), "the kernel ignores no SIGKILL");
    }
}
