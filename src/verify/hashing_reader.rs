//! A shard's bytes as they are read, hashed on the way.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::progress::Progress;

/// The file, hashed on the way. The `tar` crate passes over padding: that it is zero is checked here.
pub(super) struct HashingReader<'a> {
    pub(super) file: File,
    pub(super) state: RefCell<State>,
    pub(super) progress: &'a dyn Progress,
}

pub(super) struct State {
    pub(super) hasher: Sha256,
    pub(super) at: u64,
    pub(super) zeros: Range<u64>,
    /// The first byte of padding that is not zero.
    pub(super) dirty: Option<u64>,
    /// What the operating system said.
    pub(super) failed: Option<String>,
}

impl Read for &HashingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let State { hasher, at, zeros, dirty, failed } = &mut *state;
        let n = (&self.file).read(buffer).inspect_err(|error| {
            if error.kind() != ErrorKind::Interrupted {
                *failed = Some(error.to_string());
            }
        })?;
        hasher.update(&buffer[..n]);
        if dirty.is_none() && *at < zeros.end && zeros.start < *at + n as u64 {
            let is_dirty = |(place, byte): &(u64, &u8)| zeros.contains(place) && **byte != 0;
            *dirty = (*at..).zip(&buffer[..n]).find(is_dirty).map(|(place, _)| place);
        }
        *at += n as u64;
        self.progress.advance(n as u64);
        Ok(n)
    }
}
