//! The unpacked bytes that matches copy from, and room for more.

/// The most bytes that a match reaches back.
pub(super) const HISTORY: usize = 32 * 1024;
/// The bytes that a position in the window can point at; a power of two, so that a masked position needs no bounds
/// check.
const ROOM: usize = 1 << 17;
/// The bytes of window memory: [`ROOM`], and space for a word that begins at the last position.
pub(super) const WINDOW_LEN: usize = ROOM + WORD;
/// The position where unpacking stops: a symbol that begins before it writes at most 3 literals, 258 bytes, and two
/// words too many.
pub(super) const END: usize = ROOM - 512;

const WORD: usize = 8;

/// The window memory as an array of known length.
pub(super) type Window = [u8; WINDOW_LEN];

/// Converts the window memory to an array of known length.
pub(super) fn whole(window: &mut [u8]) -> &mut Window {
    window.try_into().expect("the window's length")
}

/// Writes a byte at position `at`.
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

/// Writes `len` bytes at position `at`, a repetition of those `distance` bytes before. It may write up to two words
/// more, which the next bytes overwrite.
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
