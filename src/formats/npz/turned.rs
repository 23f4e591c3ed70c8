//! Elements in the order of an array that is turned, from those in the order of the file.
//!
//! Where the planes follow each other as in the file and only rows and columns run backwards, one plane is held; else
//! the whole volume, because the first element may be the file's last.

use std::io;

use super::orientation::Turn;
use crate::base::memory::zeros;
use crate::base::num::to_usize;

/// The bytes that turning a volume takes: `file_shape` in the file, elements of `size` bytes.
pub(super) fn bytes_held(turn: Turn, file_shape: [u64; 3], size: usize) -> u64 {
    let [rows, columns, planes] = file_shape;
    rows * columns * if is_by_plane(turn) { 1 } else { planes } * size as u64
}

fn is_by_plane(turn: Turn) -> bool {
    turn.axes == [0, 1, 2] && !turn.flipped[2]
}

/// A reader of a turned array, of which the first axis varies fastest.
pub(super) struct Turned {
    size: usize,
    /// The lengths of the array's axes in what is held, and the steps between elements there along each, in elements.
    axes: [(usize, isize); 3],
    /// The first element in what is held.
    first: usize,
    held: Vec<u8>,
    /// The number of elements that were handed out of what is held.
    done: usize,
}

impl Turned {
    /// A reader for a volume of `file_shape` in the file, with elements of `size` bytes.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn new(turn: Turn, file_shape: [u64; 3], size: usize) -> io::Result<Self> {
        let mut shape = file_shape.map(to_usize);
        if is_by_plane(turn) {
            shape[2] = 1;
        }
        let strides = [1, shape[0], shape[0] * shape[1]];
        let (mut first, mut axes) = (0, [(0, 0); 3]);
        for (at, axis) in turn.axes.into_iter().enumerate() {
            let (len, stride) = (shape[axis], strides[axis].cast_signed());
            axes[at] = (len, if turn.flipped[at] { -stride } else { stride });
            first += if turn.flipped[at] { (len - 1) * strides[axis] } else { 0 };
        }
        let held: Vec<u8> = zeros(to_usize(bytes_held(turn, file_shape, size)))?;
        let done = held.len() / size;
        Ok(Self { size, axes, first, held, done })
    }

    /// Fills `out` with the next elements; `read` gives the next ones of the file.
    ///
    /// # Errors
    /// The errors of `read`.
    pub(super) fn read<E>(
        &mut self,
        out: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while at < out.len() {
            if self.done * self.size == self.held.len() {
                read(&mut self.held)?;
                self.done = 0;
            }
            // As much of a row as is wanted.
            let [(columns, step), (rows, of_row), (_, of_plane)] = self.axes;
            let (column, row, plane) = (self.done % columns, self.done / columns % rows, self.done / columns / rows);
            let count = (columns - column).min((out.len() - at) / self.size);
            let from = [(column, step), (row, of_row), (plane, of_plane)];
            let from = from.iter().fold(self.first, |from, (n, step)| from.wrapping_add_signed(n.cast_signed() * step));
            let bytes = &mut out[at..at + count * self.size];
            match self.size {
                1 => row_of::<1>(&self.held, from, step, bytes),
                2 => row_of::<2>(&self.held, from, step, bytes),
                4 => row_of::<4>(&self.held, from, step, bytes),
                _ => row_of::<8>(&self.held, from, step, bytes),
            }
            (at, self.done) = (at + bytes.len(), self.done + count);
        }
        Ok(())
    }
}

/// Copies elements of `N` bytes from number `from` on, each `step` elements behind the one before.
fn row_of<const N: usize>(held: &[u8], from: usize, step: isize, out: &mut [u8]) {
    let (held, _) = held.as_chunks::<N>();
    let (out, _) = out.as_chunks_mut::<N>();
    match step {
        1 => out.copy_from_slice(&held[from..from + out.len()]),
        -1 => {
            let row = &held[from + 1 - out.len()..=from];
            out.iter_mut().zip(row.iter().rev()).for_each(|(out, element)| *out = *element);
        }
        _ => {
            let mut from = from;
            for out in out {
                *out = held[from];
                from = from.wrapping_add_signed(step);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Every turn of a small volume, in pieces of every size, against the definition.
    #[test]
    fn every_turn_is_the_definition() {
        const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let shape = [2usize, 3, 4];
        let file: Vec<u8> = (0..24u16).flat_map(u16::to_le_bytes).collect();
        for (axes, flips) in ORDERS.iter().flat_map(|axes| (0..8).map(move |flips| (*axes, flips))) {
            let turn = Turn { axes, flipped: [0, 1, 2].map(|axis| flips >> axis & 1 == 1) };
            let lengths = turn.of_axes(shape);
            let mut expected = Vec::new();
            for (c, b) in (0..lengths[2]).flat_map(|c| (0..lengths[1]).map(move |b| (c, b))) {
                for a in 0..lengths[0] {
                    let mut place = [a, b, c];
                    for axis in 0..3 {
                        place[axis] = if turn.flipped[axis] { lengths[axis] - 1 - place[axis] } else { place[axis] };
                    }
                    let [i, j, k] = turn.in_file(place);
                    expected.push(u16::try_from(i + shape[0] * (j + shape[1] * k)).unwrap());
                }
            }
            for piece in 1..=24 {
                let mut turned = Turned::new(turn, shape.map(|n| n as u64), 2).unwrap();
                let (mut source, mut found) = (&file[..], vec![0; file.len()]);
                for out in found.chunks_mut(2 * piece) {
                    let read = |bytes: &mut [u8]| {
                        let (now, later) = source.split_at(bytes.len());
                        bytes.copy_from_slice(now);
                        source = later;
                        Ok::<(), Infallible>(())
                    };
                    turned.read(out, read).unwrap();
                }
                assert_eq!(bytemuck::cast_slice::<u8, u16>(&found), expected, "{turn:?} in pieces of {piece}");
            }
        }
    }
}
