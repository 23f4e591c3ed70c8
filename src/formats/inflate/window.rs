//! The unpacked bytes that matches copy from, and room for more.

/// A match reaches back by this at most.
pub(super) const HISTORY: usize = 32 * 1024;
/// Bytes of window memory; a power of two, so that a masked position needs no bounds check.
const ROOM: usize = 1 << 17;
/// With room for a word that begins at the last place.
pub(super) const WINDOW_LEN: usize = ROOM + WORD;
/// Where unpacking stops: a symbol begun before it writes at most 3 literals, 258 bytes, and two words too many.
pub(super) const END: usize = ROOM - 512;

const WORD: usize = 8;

/// All of it.
pub(super) type Window = [u8; WINDOW_LEN];

/// The memory as an array of known length.
pub(super) fn whole(window: &mut [u8]) -> &mut Window {
    window.try_into().expect("the window's length")
}

#[inline(always)]
pub(super) fn put(window: &mut Window, at: usize, byte: u8) {
    window[at & (ROOM - 1)] = byte;
}

#[inline(always)]
fn put_word(window: &mut Window, at: usize, word: [u8; WORD]) {
    let at = at & (ROOM - 1);
    window[at..at + WORD].copy_from_slice(&word);
}

#[inline(always)]
fn word(window: &Window, at: usize) -> [u8; WORD] {
    let at = at & (ROOM - 1);
    let mut word = [0; WORD];
    word.copy_from_slice(&window[at..at + WORD]);
    word
}

/// Writes `len` bytes at `at` that repeat those `distance` before; what it writes behind them is to be overwritten.
#[inline(always)]
pub(super) fn copy(window: &mut Window, at: usize, distance: usize, len: usize) {
    let from = at - distance;
    if distance >= WORD {
        // Nine of ten matches in CT volumes are not longer than two words.
        put_word(window, at, word(window, from));
        put_word(window, at + WORD, word(window, from + WORD));
        for n in (2 * WORD..len).step_by(WORD) {
            put_word(window, at + n, word(window, from + n));
        }
    } else if distance == 1 {
        let byte = window[from & (ROOM - 1)];
        for n in (0..len).step_by(WORD) {
            put_word(window, at + n, [byte; WORD]);
        }
    } else {
        // Each word's first `distance` bytes are right; the next word begins behind them.
        for n in (0..len).step_by(distance) {
            put_word(window, at + n, word(window, from + n));
        }
    }
}
