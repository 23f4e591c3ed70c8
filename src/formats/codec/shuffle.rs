//! The shuffle: of all values in a block, the lowest bytes stand first, then the next higher ones, the highest last.
//! Pure.

/// Writes the bytes of values of `N` bytes into `out` as `N` planes, that of the lowest bytes first.
pub(super) fn shuffle<const N: usize>(block: &[u8], out: &mut [u8]) {
    let values = block.as_chunks::<N>().0;
    for (place, plane) in out.chunks_exact_mut(values.len().max(1)).enumerate() {
        plane.iter_mut().zip(values).for_each(|(byte, value)| *byte = value[place]);
    }
}

/// Interleaves planes of bytes, in pieces of a register's size, which the compiler turns into few instructions; byte by
/// byte, this took a tenth of a cold read.
pub(super) fn unshuffle<const N: usize>(shuffled: &[u8], out: &mut [u8]) {
    const PIECE: usize = 16;
    let values = out.as_chunks_mut::<N>().0;
    let planes: [&[u8]; N] = std::array::from_fn(|place| &shuffled[place * values.len()..][..values.len()]);
    let pieces = planes.map(|plane| plane.as_chunks::<PIECE>());
    let (whole, rest) = values.as_chunks_mut::<PIECE>();
    for (number, whole) in whole.iter_mut().enumerate() {
        let bytes: [[u8; PIECE]; N] = std::array::from_fn(|place| pieces[place].0[number]);
        for at in 0..PIECE {
            for place in 0..N {
                whole[at][place] = bytes[place][at];
            }
        }
    }
    for (number, value) in rest.iter_mut().enumerate() {
        for place in 0..N {
            value[place] = pieces[place].1[number];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_bytes_stand_first() {
        let mut out = [0; 8];
        shuffle::<4>(&[1, 2, 3, 4, 11, 12, 13, 14], &mut out);
        assert_eq!(out, [1, 11, 2, 12, 3, 13, 4, 14]);
        let mut back = [0; 8];
        unshuffle::<4>(&out, &mut back);
        assert_eq!(back, [1, 2, 3, 4, 11, 12, 13, 14]);
    }
}
