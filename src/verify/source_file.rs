//! The bytes of a source, in order and at offsets, in large pieces: of a file on a disk, or of an object in a bucket.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::unread::Unread;
use crate::base::num::to_usize;
use crate::error::{Error, Result};
use crate::storage::{REQUEST, Store, Stored};

/// Bytes that are read at a time where they are read in order.
const PIECE: u64 = 1 << 20;
/// Bytes that are read where the reader jumps to: a zip directory or a header, most times.
const JUMP: u64 = 64 << 10;

/// A source that is read. What has failed is kept, because libraries above it say no more than that something has.
pub(super) struct SourceFile {
    file: Box<dyn Stored>,
    /// Bytes of the file, which an object tells with its first answer.
    len: u64,
    /// The first bytes, to which readers of zip files come back, and their offset, which is 0.
    head: (u64, Vec<u8>),
    is_remote: bool,
    /// In a cell, so that whoever opened it can still look at it while a library reads.
    state: RefCell<State>,
}

/// What was read so far.
#[derive(Default)]
struct State {
    position: u64,
    /// The last piece, and the offset of its first byte.
    piece: (u64, Vec<u8>),
    /// Bytes that were asked for ahead.
    ahead: Range<u64>,
    /// The end of what is wanted of bytes that follow each other; none where that is the end of the file.
    end: Option<u64>,
    /// How often in a row it was read just before the last piece.
    steps_back: u32,
    failure: Option<Arc<io::Error>>,
}

impl SourceFile {
    /// Opens a source, and reads its first bytes.
    ///
    /// # Errors
    /// The reason of the operating system or of the storage.
    pub(super) fn open(store: &dyn Store, path: &Path) -> io::Result<Self> {
        let is_remote = store.is_remote(path);
        let opened = || -> io::Result<Self> {
            let file = store.open(path)?;
            let head = (0, read_piece(&*file, 0, JUMP, Vec::new())?);
            let identity = file.identity()?.ok_or_else(|| io::Error::other("the storage did not say what it sent"))?;
            Ok(Self { file, len: identity.size, head, is_remote, state: RefCell::default() })
        };
        opened().map_err(|error| with_remedy(error, is_remote))
    }

    /// Says where the bytes end that are wanted next, so that no more are asked for.
    pub(super) fn ends_at(&self, end: u64) {
        self.state.borrow_mut().end = Some(end);
    }

    /// The first reason why bytes could not be read, which says more than `unread`, if there is one.
    pub(super) fn failure_or(&self, unread: Unread) -> Unread {
        self.failure().map_or(unread, |failure| Unread::from(&*failure))
    }

    /// Reads all bytes, unless some could not be read before, and so learns whether they can be read.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        if self.failure().is_none() {
            let mut reader = self;
            let _ = reader.rewind().and_then(|()| io::copy(&mut reader, &mut io::sink())); // the reason is kept
        }
        let failed = |source| Error::Io { path: path.to_owned(), doing: "read the volume", source };
        self.failure().map_or(Ok(()), |source| Err(failed(source)))
    }

    fn failure(&self) -> Option<Arc<io::Error>> {
        self.state.borrow().failure.clone()
    }

    /// Reads what is in neither piece: more than that into a new one, or straight into `out` where this is large.
    fn read_on(&self, state: &mut State, out: &mut [u8]) -> io::Result<usize> {
        let (position, (start, piece)) = (state.position, &state.piece);
        if position != start + piece.len() as u64 && position != self.head.1.len() as u64 {
            // Whoever looks for something, backwards and in small steps, gets there by ever larger ones.
            let end = position.saturating_add(out.len() as u64);
            let is_step_back = position < *start && end >= *start;
            let wanted = if is_step_back { (JUMP << state.steps_back.min(6)).min(REQUEST) } else { JUMP };
            let first = if is_step_back { end.saturating_sub(wanted) } else { position };
            let start = first.min(position).min(self.len.saturating_sub(wanted));
            (state.steps_back, state.ahead) = (if is_step_back { state.steps_back + 1 } else { 0 }, 0..0);
            self.read_piece(state, start, wanted)?;
            return Ok(copy(&state.piece, position, out).unwrap_or(0)); // 0 of a file that has become shorter
        }
        if state.ahead.start != position || state.ahead.is_empty() {
            let end = state.end.filter(|end| position < *end).unwrap_or(self.len).min(self.len);
            state.ahead = position..end;
            self.file.will_read(state.ahead.clone());
        }
        // No further than what was asked for ahead: an object would be asked for the rest in one request.
        let left = state.ahead.end - position;
        if out.len() as u64 >= PIECE {
            let len = out.len().min(to_usize(left));
            let count = self.file.read_at(&mut out[..len], position)?;
            state.piece = (position + count as u64, Vec::new());
            state.ahead.start = position + count as u64;
            return Ok(count);
        }
        self.read_piece(state, position, left.min(PIECE))?;
        state.ahead.start = position + state.piece.1.len() as u64;
        Ok(copy(&state.piece, position, out).unwrap_or(0))
    }

    /// Reads a piece into the memory of the last one.
    fn read_piece(&self, state: &mut State, start: u64, len: u64) -> io::Result<()> {
        let memory = std::mem::take(&mut state.piece.1);
        state.piece = (start, read_piece(&*self.file, start, len, memory)?);
        Ok(())
    }
}

/// Reads bytes at `start` into memory that was used before, fewer only at the end of the file.
fn read_piece(file: &dyn Stored, start: u64, len: u64, mut piece: Vec<u8>) -> io::Result<Vec<u8>> {
    piece.resize(to_usize(len), 0);
    let mut done = 0;
    while done < piece.len() {
        match file.read_at(&mut piece[done..], start + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(done);
    Ok(piece)
}

/// Copies what a piece has from `position` on; none if it has not that byte.
fn copy((start, piece): &(u64, Vec<u8>), position: u64, out: &mut [u8]) -> Option<usize> {
    let found = piece.get(to_usize(position.checked_sub(*start)?)..).filter(|found| !found.is_empty())?;
    let count = found.len().min(out.len());
    out[..count].copy_from_slice(&found[..count]);
    Some(count)
}

/// The error of a source, with what can be done about it if it is an object.
fn with_remedy(error: io::Error, is_remote: bool) -> io::Error {
    let remedy = match error.kind() {
        ErrorKind::TimedOut => "verify again when the storage answers; a larger --storage-timeout waits longer",
        ErrorKind::StaleNetworkFileHandle => "verify again when nobody writes there",
        ErrorKind::NotFound => "it was there when the data set was planned: verify again when nobody writes there",
        _ => return error,
    };
    if is_remote { io::Error::new(error.kind(), format!("{error}; {remedy}")) } else { error }
}

impl Read for &SourceFile {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let position = state.position;
        if position >= self.len || out.is_empty() {
            return Ok(0);
        }
        let found = copy(&state.piece, position, out).or_else(|| copy(&self.head, position, out));
        let read = found.map_or_else(|| self.read_on(&mut state, out), Ok);
        match read {
            Ok(count) => {
                state.position += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let error = with_remedy(error, self.is_remote);
                let told = io::Error::new(error.kind(), error.to_string());
                state.failure.get_or_insert(Arc::new(error));
                Err(told)
            }
        }
    }
}

impl Seek for &SourceFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut state = self.state.borrow_mut();
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => state.position.checked_add_signed(offset),
        };
        state.position = position.ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
        Ok(state.position)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::base::file_id::FileId;
    use crate::storage::{Listed, ListedObject};

    /// An object of so many bytes, which are their offsets modulo 251; it tells the requests for it, and fails from a
    /// number of them on.
    #[derive(Clone, Debug)]
    struct Fake {
        len: u64,
        requests: Arc<Mutex<Vec<Range<u64>>>>,
        fails_at: usize,
    }

    impl Fake {
        fn new(len: u64) -> Self {
            Self { len, requests: Arc::default(), fails_at: usize::MAX }
        }

        fn asked(&self) -> Vec<Range<u64>> {
            std::mem::take(&mut self.requests.lock().unwrap())
        }
    }

    impl Store for Fake {
        fn open(&self, _: &Path) -> io::Result<Box<dyn Stored>> {
            Ok(Box::new(self.clone()))
        }

        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            unreachable!("sources are opened")
        }

        fn list(&self, _: &Path) -> io::Result<Vec<Listed>> {
            unreachable!("sources are opened")
        }

        fn list_below(&self, _: &Path) -> io::Result<Option<Vec<ListedObject>>> {
            unreachable!("sources are opened")
        }

        fn identity_of(&self, _: &Path) -> io::Result<FileId> {
            unreachable!("sources are opened")
        }

        fn is_remote(&self, _: &Path) -> bool {
            true
        }
    }

    impl Stored for Fake {
        fn identity(&self) -> io::Result<Option<FileId>> {
            Ok(Some(FileId { size: self.len, ..FileId::default() }))
        }

        fn is_regular(&self) -> io::Result<bool> {
            Ok(true)
        }

        fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
            let mut requests = self.requests.lock().unwrap();
            if requests.len() >= self.fails_at {
                return Err(ErrorKind::TimedOut.into());
            }
            // Half of what is wanted, as an answer may end anywhere.
            let count = (out.len() as u64).div_ceil(2).min(self.len.saturating_sub(offset));
            requests.push(offset..offset + count);
            (offset..).zip(&mut out[..to_usize(count)]).for_each(|(at, byte)| *byte = byte_at(at));
            Ok(to_usize(count))
        }

        fn will_read(&self, range: Range<u64>) {
            assert!(range.start < range.end && range.end <= self.len, "{range:?} of {}", self.len);
        }
    }

    fn byte_at(at: u64) -> u8 {
        u8::try_from(at % 251).unwrap()
    }

    fn read(mut file: &SourceFile, at: u64, count: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = vec![0; to_usize(count)];
        file.read_exact(&mut bytes)?;
        assert!((at..).zip(&bytes).all(|(at, byte)| *byte == byte_at(at)), "{count} bytes at {at}");
        Ok(())
    }

    #[test]
    fn bytes_at_any_place_in_any_order() {
        for len in [0, 1, JUMP - 1, JUMP, JUMP + 1, 5 * PIECE + 77] {
            let file = SourceFile::open(&Fake::new(len), Path::new("s3://b/x")).unwrap();
            let places = [0, 1, JUMP, PIECE, len.saturating_sub(22), len / 2, len / 3, 0, len];
            for (at, count) in places.into_iter().flat_map(|at| [1, 30, JUMP, 2 * PIECE].map(|count| (at, count))) {
                let is_there = at + count <= len;
                assert_eq!(read(&file, at, count).is_ok(), is_there, "{count} bytes at {at} of {len}");
            }
            assert_eq!(io::copy(&mut &file, &mut io::sink()).unwrap(), 0, "behind the end");
            file.check(Path::new("x")).unwrap();
        }
    }

    #[test]
    fn whoever_looks_backwards_asks_for_ever_more() {
        let fake = Fake::new(200 << 20);
        let file = SourceFile::open(&fake, Path::new("s3://b/x")).unwrap();
        for at in (0..fake.len - 2048).rev().step_by(2000) {
            read(&file, at, 2048).unwrap();
        }
        let (asked, halves) = (fake.asked(), 24); // of each range the half, the half of the rest, and so on
        assert!(asked.len() < 70 * halves, "{}", asked.len());
    }

    #[test]
    fn no_more_is_asked_for_than_what_ends_there() {
        let fake = Fake::new(9 * PIECE);
        let file = SourceFile::open(&fake, Path::new("s3://b/x")).unwrap();
        file.ends_at(3 * PIECE);
        read(&file, 0, 3 * PIECE).unwrap();
        assert_eq!(fake.asked().iter().map(|range| range.end).max(), Some(3 * PIECE));
        read(&file, 3 * PIECE, PIECE).unwrap();
    }

    #[test]
    fn the_first_failure_is_kept() {
        let fake = Fake { fails_at: 40, ..Fake::new(9 * PIECE) };
        let file = SourceFile::open(&fake, Path::new("s3://b/x")).unwrap();
        let unread = || file.failure_or("invalid".into());
        assert_eq!(unread().reason, "invalid");
        let error = io::copy(&mut &file, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(unread().is_late && unread().reason.contains("verify again when the storage answers"));
        assert!(matches!(file.check(Path::new("x")), Err(Error::Io { .. })));
    }
}
