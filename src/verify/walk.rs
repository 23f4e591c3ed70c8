//! One shard from its first to its last byte, with the `tar` crate: structure, order and completeness of the members,
//! what the small ones hold, and the digest.

use std::cell::RefCell;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::finding::{Finding, Verdict};
use super::hashing_reader::{HashingReader, State};
use super::listing::ShardFile;
use super::packed;
use super::payload::{self, Facts, Profile};
use super::progress::Progress;
use super::walked::{Sample, Span, Walk};

/// Bytes that are read at a time.
const READ: usize = 1 << 20;
/// A small member that is larger than this is not looked into: reports have a few KB.
const SMALL: u64 = 16 << 20;
/// The record of a tar file: it ends with two empty blocks and is padded to a multiple of this.
const RECORD: u64 = 10_240;
const BLOCK: u64 = 512;

/// Reads a shard.
pub(super) fn walk(file: &ShardFile, is_shuffled: bool, progress: &dyn Progress) -> Walk {
    let mut walk = Walk {
        name: file.name.clone(),
        path: file.path.clone(),
        number: file.number,
        len: file.len,
        sha256: String::new(),
        samples: Vec::new(),
        keys: Vec::new(),
        payload_bytes: 0,
        plain_len: 0,
        has_packed: false,
        whole: false,
        findings: Vec::new(),
    };
    let source = match File::open(&file.path) {
        Ok(source) => source,
        Err(error) => {
            let what = format!("it cannot be opened: {error}");
            walk.findings.push(Finding::new(Verdict::Unchecked, &file.name, what));
            return walk;
        }
    };
    let state = State { hasher: Sha256::new(), at: 0, zeros: 0..0, dirty: None, failed: None };
    let reader = HashingReader { file: source, state: RefCell::new(state), progress };
    let mut gather = Gather { walk: &mut walk, reader: &reader, is_shuffled, current: None, last: None };
    let result = gather.members().and_then(|end| gather.end(end));
    let at = reader.state.borrow().at;
    if result.is_err() {
        let _ = io::copy(&mut &reader, &mut io::sink()); // the rest, for the digest; its error is noted
    }
    let State { hasher, failed, .. } = reader.state.into_inner();
    walk.whole = failed.is_none();
    walk.findings.extend(match (failed, result) {
        (Some(error), _) => {
            Some(Finding::new(Verdict::Unchecked, &file.name, format!("it cannot be read: {error} (at byte {at})")))
        }
        (None, Err(error)) => {
            let what = format!("{error} (at byte {at}); what follows was not looked at");
            Some(Finding::damaged(&file.name, what))
        }
        (None, Ok(())) => None,
    });
    walk.sha256 = format!("{:x}", hasher.finalize());
    walk
}

/// The end of a member's last block; a size in a header may be anything.
fn padded(end: u64) -> u64 {
    end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

/// A sample whose members are coming.
struct Current {
    key: String,
    index: Option<u64>,
    /// Extensions as they come.
    extensions: Vec<String>,
    members: [Span; 4],
    packed: Option<Span>,
    /// The shape in the header of a volume in NPY.
    npy_shape: Option<[u64; 3]>,
    facts: Option<Facts>,
    labels: Option<usize>,
    place: Range<u64>,
    broken: bool,
}

struct Gather<'a, 'b> {
    walk: &'a mut Walk,
    reader: &'a HashingReader<'b>,
    /// Whether samples may come from any shard, in any order.
    is_shuffled: bool,
    current: Option<Current>,
    /// The last index.
    last: Option<u64>,
}

impl Gather<'_, '_> {
    fn damaged(&mut self, place: impl Display, what: impl Into<String>) {
        let place = format!("{}: {place}", self.walk.name);
        self.walk.findings.push(Finding::damaged(place, what));
        if let Some(current) = &mut self.current {
            current.broken = true;
        }
    }

    /// All members; where the archive's end begins.
    fn members(&mut self) -> io::Result<u64> {
        let mut archive = tar::Archive::new(self.reader);
        let mut end = 0;
        // Raw: an extension header would be no member of a sample.
        for entry in archive.entries()?.raw(true) {
            let mut entry = entry?;
            let (start, len) = (entry.raw_file_position(), entry.size());
            let data_end = start.saturating_add(len);
            end = padded(data_end);
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if entry.header().entry_type() != tar::EntryType::Regular || entry.header().as_ustar().is_none() {
                self.damaged(&name, "it is no plain file of a USTAR archive");
            }
            self.member(&name, Span { start, len }, &mut entry)?;
            self.reader.state.borrow_mut().zeros = data_end..end;
        }
        self.close();
        self.walk.plain_len = (self.walk.plain_len + 2 * BLOCK).next_multiple_of(RECORD);
        Ok(end)
    }

    /// What follows the last member.
    fn end(&mut self, end: u64) -> io::Result<()> {
        // The first empty block has been read.
        self.reader.state.borrow_mut().zeros = end..u64::MAX;
        io::copy(&mut &*self.reader, &mut io::sink())?;
        let State { at, dirty, .. } = *self.reader.state.borrow();
        let right = end.saturating_add(2 * BLOCK).checked_next_multiple_of(RECORD).unwrap_or(u64::MAX);
        if let Some(dirty) = dirty {
            self.damaged(format!("byte {dirty}"), "there is something where only padding should be");
        } else if at != right {
            self.damaged("end", format!("the file has {at} bytes, its members and the padding make {right}"));
        }
        Ok(())
    }

    fn member(&mut self, name: &str, span: Span, entry: &mut impl Read) -> io::Result<()> {
        let (key, extension) = name.split_once('.').unwrap_or((name, ""));
        let (extension, is_packed) = payload::plain_extension(extension);
        if self.current.as_ref().is_none_or(|current| current.key != key) {
            self.close();
            self.open(key, span.start - BLOCK);
        }
        let profile =
            self.current.as_ref().and_then(|current| current.extensions.first().map(|first| first.to_owned()));
        let profile = Profile::of(profile.as_deref().unwrap_or(extension));
        if let Some(current) = &mut self.current {
            current.extensions.push(extension.to_owned());
            current.place.end = padded(span.start.saturating_add(span.len));
        }
        let which = profile.and_then(|profile| {
            let which = profile.extensions().iter().position(|known| *known == extension)?;
            Some((profile, which))
        });
        match which {
            Some((profile, 0)) if is_packed => self.unpack(name, profile, span, entry),
            Some((profile, 0)) => {
                self.count(span.len);
                self.pass_voxels(name, profile, span, entry)
            }
            Some((profile, which)) if span.len <= SMALL => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                self.complete(span, bytes.len() as u64)?;
                let added = if which == 1 { packed::added_to_json(&bytes) } else { 0 };
                self.count(span.len - added);
                self.small(name, profile, which, span, &bytes);
                Ok(())
            }
            _ => {
                self.count(span.len);
                let len = io::copy(entry, &mut io::sink())?;
                self.complete(span, len)
            }
        }
    }

    /// Counts a member as a plain shard has it.
    fn count(&mut self, len: u64) {
        self.walk.payload_bytes = self.walk.payload_bytes.saturating_add(len);
        self.walk.plain_len = self.walk.plain_len.saturating_add(BLOCK).saturating_add(padded(len));
    }

    fn complete(&self, span: Span, read: u64) -> io::Result<()> {
        if read == span.len { Ok(()) } else { Err(io::Error::new(ErrorKind::UnexpectedEof, "the file is cut short")) }
    }

    fn open(&mut self, key: &str, start: u64) {
        let numbers = key.split_once('_').filter(|(shard, index)| {
            [shard, index].iter().all(|part| part.len() == 6 && part.bytes().all(|byte| byte.is_ascii_digit()))
        });
        let numbers: Option<(u64, u64)> =
            numbers.and_then(|(shard, index)| Some((shard.parse().ok()?, index.parse().ok()?)));
        let last = self.last;
        self.current = Some(Current {
            key: key.to_owned(),
            index: numbers.map(|(_, index)| index),
            extensions: Vec::new(),
            members: [Span::default(); 4],
            packed: None,
            npy_shape: None,
            facts: None,
            labels: None,
            place: start..start,
            broken: false,
        });
        self.walk.keys.push(key.to_owned());
        match numbers {
            None => self.damaged(key, "the key is not SHARD_INDEX of six digits each"),
            Some(_) if self.is_shuffled => {}
            Some((shard, _)) if shard != self.walk.number => {
                self.damaged(key, "the key is one of another shard; was the file renamed?");
            }
            Some((_, index)) if last.is_some_and(|last| index <= last) => {
                self.damaged(key, "the key does not follow the one before it: it stands there twice, or out of order");
            }
            Some((_, index)) => self.last = Some(index),
        }
    }

    /// Passes over the voxels; those in NPY have a header.
    fn pass_voxels(&mut self, name: &str, profile: Profile, span: Span, entry: &mut impl Read) -> io::Result<()> {
        let mut head = Vec::new();
        let mut read = 0;
        if profile == Profile::Npy {
            read = entry.take(128).read_to_end(&mut head)? as u64;
        }
        let header = self.npy_header(name, profile, &head, span.len);
        let voxels = Span { start: span.start + header, len: span.len - header };
        read += self.pass(entry)?;
        if let Some(current) = &mut self.current {
            current.members[0] = voxels;
        }
        self.complete(span, read)
    }

    /// Bytes before the voxels of a member of `len` bytes, from its first ones.
    fn npy_header(&mut self, name: &str, profile: Profile, head: &[u8], len: u64) -> u64 {
        if profile != Profile::Npy {
            return 0;
        }
        match payload::npy_volume(head) {
            Ok((header, shape)) if header <= len => {
                if let Some(current) = &mut self.current {
                    current.npy_shape = Some(shape);
                }
                return header;
            }
            Ok(_) => self.damaged(name, "the NPY header is longer than the member"),
            Err(reason) => self.damaged(name, reason),
        }
        0
    }

    /// Unpacks the voxels; the member is in memory as a whole, because its table is at its end.
    fn unpack(&mut self, name: &str, profile: Profile, span: Span, entry: &mut impl Read) -> io::Result<()> {
        self.walk.has_packed = true;
        if let Some(current) = &mut self.current {
            current.packed = Some(span);
        }
        let mut member = Vec::new();
        entry.read_to_end(&mut member)?;
        self.complete(span, member.len() as u64)?;
        let mut head = Vec::new();
        let len = packed::unpack(&member, |block| head.extend(&block[..block.len().min(128 - head.len())]));
        let Ok(len) = len.map_err(|wrong| wrong.into_iter().for_each(|what| self.damaged(name, what))) else {
            return Ok(());
        };
        self.count(len);
        let header = self.npy_header(name, profile, &head, len);
        if let Some(current) = &mut self.current {
            current.members[0] = Span { start: header, len: len - header };
        }
        Ok(())
    }

    fn pass(&self, entry: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; READ];
        let mut passed = 0;
        loop {
            match entry.read(&mut buffer) {
                Ok(0) => return Ok(passed),
                Ok(n) => passed += n as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn small(&mut self, name: &str, profile: Profile, which: usize, span: Span, bytes: &[u8]) {
        let Some(current) = &mut self.current else { return };
        current.members[which] = span;
        let result = match which {
            1 => payload::facts(bytes).map(|facts| current.facts = Some(facts)),
            2 => payload::text(bytes).map(|_| ()),
            _ => payload::labels(profile, bytes).map(|labels| current.labels = Some(labels.len())),
        };
        if let Err(reason) = result {
            self.damaged(name, reason);
        }
    }

    /// The sample is over: are its members all there, in order, and of one another's sizes?
    fn close(&mut self) {
        let Some(current) = &self.current else { return };
        let Current { key, extensions, members, packed, npy_shape, facts, .. } = current;
        let key = key.clone();
        let profile = Profile::of(&extensions[0]).unwrap_or(Profile::Ctclip);
        let mut wrong = Vec::new();
        if *extensions != profile.extensions() {
            let expected = profile.extensions().join(" ");
            wrong.push(format!("its members are {}, and should be {expected}", extensions.join(" ")));
        }
        if let Some(Facts { shape, is_packed, .. }) = facts {
            if *is_packed != packed.is_some() {
                wrong.push("its JSON does not say how its volume is compressed, or says it of a plain one".into());
            }
            let len: u64 = 2 * shape.iter().product::<u64>();
            let is_known = packed.is_none() || members[0].len > 0; // else it could not be unpacked
            let has_volume = extensions.iter().any(|extension| *extension == profile.extensions()[0]);
            if is_known && has_volume && members[0].len != len {
                wrong.push(format!("{shape:?} voxels of float16 are {len} bytes, the volume has {}", members[0].len));
            }
            if npy_shape.is_some_and(|npy| npy != *shape) {
                wrong.push(format!("the volume's own shape is not the {shape:?} of its JSON"));
            }
        }
        wrong.into_iter().for_each(|what| self.damaged(&key, what));
        let Some(current) = self.current.take().filter(|current| !current.broken) else {
            return;
        };
        let Current { key, index, members, packed, facts, labels, place, .. } = current;
        let (Some(facts), Some(labels), Some(index)) = (facts, labels, index) else { return };
        let Facts { study_id, shape, kind, .. } = facts;
        self.walk.samples.push(Sample { key, index, study_id, kind, shape, labels, profile, members, packed, place });
    }
}
