//! The order of an epoch: a permutation that every machine and every version makes from the same seed. Pure.
//!
//! The generator is defined here and not by a library, which may change its own:
//!
//! - The stream of an epoch is the SHA-256 digests of `"ctwds-fs shuffle 1"`, the seed, the epoch and a counter from 0
//!   on, the last three as little-endian u64; each digest is read as four little-endian u64.
//! - A number below `n` is the next u64 `x` of the stream modulo `n`; an `x` of at least 2⁶⁴ − (2⁶⁴ mod `n`) is passed
//!   over, so that all numbers are equally likely.
//! - From the order 0, 1, 2, … , for each place from the last down to the second, what is there changes places with
//!   what is at a number below (place + 1): Fisher and Yates.

use sha2::{Digest, Sha256};

const DOMAIN: &[u8] = b"ctwds-fs shuffle 1";

/// The numbers from 0 to below `count`, in the order of an epoch.
pub fn order(seed: u64, epoch: u64, count: u32) -> Vec<u32> {
    let mut numbers = Numbers { seed, epoch, counter: 0, block: [0; 32], used: 32 };
    let mut order: Vec<u32> = (0..count).collect();
    for place in (1..order.len()).rev() {
        let other = numbers.below(place as u64 + 1);
        order.swap(place, crate::base::num::to_usize(other));
    }
    order
}

/// The random numbers of an epoch.
struct Numbers {
    seed: u64,
    epoch: u64,
    counter: u64,
    block: [u8; 32],
    /// The number of bytes of `block` that were used.
    used: usize,
}

impl Numbers {
    /// The next u64 of the stream.
    fn next(&mut self) -> u64 {
        if self.used == self.block.len() {
            let mut hash = Sha256::new();
            hash.update(DOMAIN);
            [self.seed, self.epoch, self.counter].iter().for_each(|number| hash.update(number.to_le_bytes()));
            self.block = hash.finalize().into();
            (self.counter, self.used) = (self.counter + 1, 0);
        }
        let mut word = [0; 8];
        word.copy_from_slice(&self.block[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(word)
    }

    /// The next number below `n`, all equally likely.
    fn below(&mut self, n: u64) -> u64 {
        let beyond = (u64::MAX % n + 1) % n; // 2^64 mod n
        loop {
            let x = self.next();
            if x <= u64::MAX - beyond {
                return x % n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers were made by a program of five lines of Python from the definition above. They must never change.
    #[test]
    fn the_order_is_pinned() {
        assert_eq!(order(0, 0, 10), [5, 1, 3, 7, 4, 6, 0, 9, 8, 2]);
        assert_eq!(order(0, 1, 10), [3, 8, 1, 4, 5, 9, 6, 2, 0, 7]);
        assert_eq!(order(u64::MAX, 999, 10), [4, 3, 9, 5, 8, 0, 2, 1, 7, 6]);
        let mut hash = Sha256::new();
        order(42, 3, 47_149).iter().for_each(|number| hash.update(number.to_le_bytes()));
        assert_eq!(
            format!("{:x}", hash.finalize()),
            "13a840d2831a0f0e54fe142a33a2683a00a4de46524c332a91f1aea42db7bcb7"
        );
    }

    #[test]
    fn every_number_is_there_once() {
        assert!(order(1, 1, 0).is_empty());
        assert_eq!(order(1, 1, 1), [0]);
        let mut all = order(7, 0, 5000);
        assert!(all.iter().zip(0..).filter(|(number, place)| **number == *place).count() < 10);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..5000));
    }

    #[test]
    fn every_place_is_equally_likely() {
        let mut found = [0; 4 * 4];
        (0..4000).for_each(|seed| {
            order(seed, 0, 4).iter().zip(0..).for_each(|(n, place)| found[*n as usize * 4 + place] += 1)
        });
        assert!(found.iter().all(|count| (850..1150).contains(count)), "{found:?}"); // 1000 ± 5.5 σ
    }
}
