//! Reads one shard from its first to its last byte, with the `tar` crate. Checks the structure of the archive, the
//! order and completeness of the members, and the content of the small members; computes the SHA-256.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, Read};

use sha2::Digest;

use super::extras;
use super::finding::Finding;
use super::hashing_reader::{BLOCK, HashingReader, ReadState, check_complete, padded, pass};
use super::listing::ShardFile;
use super::packed::{self, Filter, Packing};
use super::payload::{self, JsonFields, Profile, SampleMember};
use super::pending::PendingSample;
use super::progress::Progress;
use super::unread::Unread;
use super::walked::{MemberSpans, SampleRules, Span, WalkedExtra, WalkedSample, WalkedShard};
use crate::error::{is_limit, later_version};
use crate::storage::Store;

/// Largest small member, in bytes, whose content is checked: reports have a few KB.
const SMALL: u64 = 16 << 20;
/// Bytes of a tar record: after two empty blocks, a tar file is padded to a multiple of it.
const RECORD: u64 = 10_240;
/// Bytes of the NPY header of a volume, as NumPy writes it: the most that a header may have.
const NPY_HEAD: usize = 128;

/// Reads a shard to its end. Faults are in the findings of the result.
pub(super) fn walk(store: &dyn Store, file: &ShardFile, rules: &SampleRules, progress: &dyn Progress) -> WalkedShard {
    let mut walk = WalkedShard::unread(file);
    let source = match store.open(&file.path) {
        Ok(source) => source,
        Err(error) => {
            walk.findings.push(Finding::unread(&file.name, "it cannot be opened", error));
            return walk;
        }
    };
    source.will_read(0..file.len);
    let reader = HashingReader { file: source, state: RefCell::default(), progress };
    let mut walker = Walker { shard: &mut walk, reader: &reader, rules, pending: None, last_index: None };
    let result = walker.members().and_then(|end| walker.end(end));
    let position = reader.state.borrow().position;
    if result.is_err() {
        let _ = io::copy(&mut &reader, &mut io::sink()); // the rest, for the digest; the reader keeps its error
    }
    let ReadState { hasher, error, .. } = reader.state.into_inner();
    walk.is_read_to_end = error.is_none();
    walk.findings.extend(match (error, result) {
        (Some(error), _) => {
            Some(Finding::unread(&file.name, "it cannot be read", format!("{error} (at byte {position})")))
        }
        (None, Err(error)) if is_limit(&error) => {
            Some(Finding::unread(&file.name, &format!("what follows byte {position} was not looked at"), error))
        }
        (None, Err(error)) => {
            let what = format!("{error} (at byte {position}); what follows was not looked at");
            Some(Finding::damaged(&file.name, what))
        }
        (None, Ok(())) => None,
    });
    walk.sha256 = format!("{:x}", hasher.finalize());
    walk
}

/// A member that is being read, of a sample whose profile is known.
#[derive(Clone, Copy)]
struct OpenMember<'a> {
    /// Name in the archive.
    name: &'a str,
    profile: Profile,
    /// Payload in the shard.
    span: Span,
}

/// The state of a walk through one shard.
struct Walker<'a, 'b> {
    shard: &'a mut WalkedShard,
    reader: &'a HashingReader<'b>,
    /// What samples should have.
    rules: &'a SampleRules,
    pending: Option<PendingSample>,
    /// Index of the sample before the pending one.
    last_index: Option<u64>,
}

impl Walker<'_, '_> {
    /// Adds a finding about `place` within the shard: damage, unless this process lacks the memory to look at it. The
    /// pending sample is broken by it.
    fn damaged(&mut self, place: impl Display, what: impl Into<Unread>) {
        self.shard.findings.push(Finding::damaged_or_unread(format!("{}: {place}", self.shard.name), what.into()));
        if let Some(pending) = &mut self.pending {
            pending.is_broken = true;
        }
    }

    /// Reads all members, and returns the offset at which the end of the archive begins.
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
            self.reader.state.borrow_mut().padding = data_end..end;
        }
        self.close();
        self.shard.plain_len = (self.shard.plain_len + 2 * BLOCK).next_multiple_of(RECORD);
        Ok(end)
    }

    /// Reads what follows the last member, which ends at byte `end`.
    fn end(&mut self, end: u64) -> io::Result<()> {
        // The first empty block has been read.
        self.reader.state.borrow_mut().padding = end..u64::MAX;
        io::copy(&mut &*self.reader, &mut io::sink())?;
        let ReadState { position, nonzero, .. } = *self.reader.state.borrow();
        let right = end.saturating_add(2 * BLOCK).checked_next_multiple_of(RECORD).unwrap_or(u64::MAX);
        if let Some(offset) = nonzero {
            self.damaged(format!("byte {offset}"), "there is something where only padding should be");
        } else if position != right {
            self.damaged("end", format!("the file has {position} bytes, its members and the padding make {right}"));
        }
        Ok(())
    }

    /// Reads a member; a key that is another one than before begins the next sample.
    fn member(&mut self, name: &str, span: Span, entry: &mut impl Read) -> io::Result<()> {
        let (key, extension) = name.split_once('.').unwrap_or((name, ""));
        let (extension, packing) = payload::plain_extension(extension);
        if self.pending.as_ref().is_none_or(|pending| pending.key != key) {
            self.close();
            self.open(key, span.start - BLOCK);
        }
        let mut profile = None;
        if let Some(pending) = &mut self.pending {
            pending.extensions.push(extension.to_owned());
            pending.range.end = padded(span.start.saturating_add(span.len));
            profile = Profile::of(&pending.extensions[0]);
        }
        let filter = match packing {
            Packing::Plain => None,
            Packing::Known(filter) => Some(filter),
            Packing::Later(filter) => return self.pass_later(name, filter, span, entry),
        };
        let known = profile.and_then(|profile| {
            let member = profile.member(extension)?;
            Some((member, OpenMember { name, profile, span }))
        });
        match known {
            Some((SampleMember::Volume, open)) => match filter {
                None => self.pass_voxels(open, entry),
                Some(filter) => self.unpack(open, filter, entry),
            },
            Some((member, open)) if span.len <= SMALL => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                check_complete(span, bytes.len() as u64)?;
                let added = if member == SampleMember::Json { packed::added_to_json(&bytes) } else { 0 };
                self.count(span.len - added);
                self.small(member, open, &bytes);
                Ok(())
            }
            _ => match profile.and_then(|profile| payload::extra_name(profile, extension)) {
                Some(extra) => self.extra(name, WalkedExtra { name: extra.to_owned(), span, packed: filter }, entry),
                None => {
                    self.count(span.len);
                    let len = io::copy(entry, &mut io::sink())?;
                    check_complete(span, len)
                }
            },
        }
    }

    /// Reads a member to its end whose filter only a later version knows.
    fn pass_later(&mut self, name: &str, filter: &str, span: Span, entry: &mut impl Read) -> io::Result<()> {
        self.shard.has_packed = true;
        let place = format!("{}: {name}", self.shard.name);
        let why = later_version(format_args!("the filter {filter}"));
        self.shard.findings.push(Finding::unread(place, "its values were not looked at", why));
        if let Some(pending) = &mut self.pending {
            (pending.is_later, pending.is_broken) = (true, true);
        }
        check_complete(span, pass(entry)?)
    }

    /// Reads an array beside the volume to its end: its header must fit its length.
    fn extra(&mut self, name: &str, extra: WalkedExtra, entry: &mut impl Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        let (span, filter) = (extra.span, extra.packed);
        if filter.is_some() {
            self.shard.has_packed = true;
            entry.read_to_end(&mut bytes)?;
            check_complete(span, bytes.len() as u64)?;
        } else {
            let read = entry.take(NPY_HEAD as u64).read_to_end(&mut bytes)? as u64;
            check_complete(span, read + pass(entry)?)?;
        }
        match extras::check(&bytes, span.len, filter) {
            Ok(len) => self.count(len),
            Err(wrong) => wrong.into_iter().for_each(|what| self.damaged(name, what)),
        }
        if let Some(pending) = &mut self.pending {
            pending.members.extras.push(extra);
        }
        Ok(())
    }

    /// Counts a member that has `len` bytes in a plain shard.
    fn count(&mut self, len: u64) {
        self.shard.payload_bytes = self.shard.payload_bytes.saturating_add(len);
        self.shard.plain_len = self.shard.plain_len.saturating_add(BLOCK).saturating_add(padded(len));
    }

    /// Begins a sample whose first header is at byte `start`.
    fn open(&mut self, key: &str, start: u64) {
        let numbers = key.split_once('_').filter(|(shard, index)| {
            [shard, index].iter().all(|part| part.len() == 6 && part.bytes().all(|byte| byte.is_ascii_digit()))
        });
        let numbers: Option<(u64, u64)> =
            numbers.and_then(|(shard, index)| Some((shard.parse().ok()?, index.parse().ok()?)));
        let last_index = self.last_index;
        self.pending = Some(PendingSample {
            key: key.to_owned(),
            index: numbers.map(|(_, index)| index),
            extensions: Vec::new(),
            members: MemberSpans::default(),
            npy: None,
            filter: None,
            fields: None,
            label_count: None,
            range: start..start,
            is_later: false,
            is_broken: false,
        });
        self.shard.keys.push(key.to_owned());
        match numbers {
            None => self.damaged(key, "the key is not SHARD_INDEX of six digits each"),
            Some(_) if self.rules.is_shuffled => {}
            Some((shard, _)) if shard != self.shard.number => {
                self.damaged(key, "the key is one of another shard; was the file renamed?");
            }
            Some((_, index)) if last_index.is_some_and(|last| index <= last) => {
                self.damaged(key, "the key does not follow the one before it: it stands there twice, or out of order");
            }
            Some((_, index)) => self.last_index = Some(index),
        }
    }

    /// Reads a plain volume member; the voxels are not looked at, and those in NPY have a header before them.
    fn pass_voxels(&mut self, open: OpenMember<'_>, entry: &mut impl Read) -> io::Result<()> {
        let OpenMember { profile, span, .. } = open;
        self.count(span.len);
        let mut head = Vec::new();
        let mut read = 0;
        if profile == Profile::Npy {
            read = entry.take(NPY_HEAD as u64).read_to_end(&mut head)? as u64;
        }
        let header = self.npy_header(open, &head, span.len);
        let voxels = Span { start: span.start + header, len: span.len - header };
        read += pass(entry)?;
        if let Some(pending) = &mut self.pending {
            pending.members.voxels = voxels;
        }
        check_complete(span, read)
    }

    /// Bytes before the voxels of a plain volume member of `len` bytes, from the first bytes of the member.
    fn npy_header(&mut self, open: OpenMember<'_>, head: &[u8], len: u64) -> u64 {
        if open.profile != Profile::Npy {
            return 0;
        }
        match payload::npy_header(head) {
            Ok(header) if header.len <= len => {
                if let Some(pending) = &mut self.pending {
                    pending.npy = Some(header);
                }
                return header.len;
            }
            Ok(_) => self.damaged(open.name, "the NPY header is longer than the member"),
            Err(reason) => self.damaged(open.name, reason),
        }
        0
    }

    /// Reads and unpacks a compressed volume member. The member is in memory as a whole, because the seek table is at
    /// the end.
    fn unpack(&mut self, open: OpenMember<'_>, filter: Filter, entry: &mut impl Read) -> io::Result<()> {
        self.shard.has_packed = true;
        if let Some(pending) = &mut self.pending {
            pending.members.packed = Some((open.span, filter));
            pending.filter = Some(filter);
        }
        let mut member = Vec::new();
        entry.read_to_end(&mut member)?;
        check_complete(open.span, member.len() as u64)?;
        let mut head = Vec::new();
        let len =
            packed::unpack(&member, filter, |block| head.extend(&block[..block.len().min(NPY_HEAD - head.len())]));
        let Ok(len) = len.map_err(|wrong| wrong.into_iter().for_each(|what| self.damaged(open.name, what))) else {
            return Ok(());
        };
        self.count(len);
        let header = self.npy_header(open, &head, len);
        if let Some(pending) = &mut self.pending {
            pending.members.voxels = Span { start: header, len: len - header };
        }
        Ok(())
    }

    /// Checks the content of a small member.
    fn small(&mut self, member: SampleMember, open: OpenMember<'_>, bytes: &[u8]) {
        let Some(pending) = &mut self.pending else { return };
        let result = match member {
            SampleMember::Volume => Ok(()), // no small member
            SampleMember::Json => {
                pending.members.json = open.span;
                match payload::json_fields(bytes) {
                    Err(_) if pending.is_later => Ok(()), // the filter is one of its fields
                    read => read.map(|fields| pending.fields = Some(fields)),
                }
            }
            SampleMember::Text => {
                pending.members.text = open.span;
                payload::text(bytes, self.rules.text_columns).map(|_| ())
            }
            SampleMember::Labels => {
                pending.members.labels = Some(open.span);
                payload::labels(open.profile, bytes).map(|labels| pending.label_count = Some(labels.len()))
            }
        };
        if let Err(reason) = result {
            self.damaged(open.name, reason);
        }
    }

    /// Ends the pending sample: checks that all members are there, in order, and that their sizes agree.
    fn close(&mut self) {
        let Some(pending) = &self.pending else { return };
        let key = pending.key.clone();
        if !pending.is_later {
            pending.contradictions(self.rules).into_iter().for_each(|what| self.damaged(&key, what));
        }
        let Some(pending) = self.pending.take().filter(|pending| !pending.is_broken) else {
            return;
        };
        let profile = pending.profile();
        let PendingSample { key, index, members, fields, label_count, range, .. } = pending;
        let (Some(fields), Some(index)) = (fields, index) else { return };
        let label_count = label_count.unwrap_or(0);
        let JsonFields { study_id, shape, kind, dtype, window, .. } = fields;
        let sample =
            WalkedSample { key, index, study_id, kind, shape, dtype, window, label_count, profile, members, range };
        self.shard.samples.push(sample);
    }
}
