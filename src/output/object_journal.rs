//! The journal of a part in a bucket: one object, written anew for each line, and only over what this run has written.
//!
//! So it is the lock of the part as well. There is no lock that ends with its process where nobody sees the process, so
//! the run that begins last has the part: it writes its name into the journals of all runs that could write the same
//! shards, and these end at their next line. The journal also knows the uploads that go on, before their first part is
//! sent: the next run gives up those that a killed run has left, for which a storage takes money.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::journal::{self, Journals, Line, STATUS_DIR};
use super::part_lock::taken_over;
use super::partition::Part;
use super::place::{Guard, Place};
use crate::base::lock::lock;
use crate::base::partial_name::Writer;
use crate::error::{Error, Result};
use crate::storage::{Objects, Over, Tagged};

/// Attempts to write a journal, with pauses that grow; the storage's own attempts come to it.
const ATTEMPTS: u32 = 8;
/// The first pause.
const PAUSE: Duration = Duration::from_millis(50);

/// The run that has a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    writer: Writer,
    /// When it began, in nanoseconds since 1970: no two runs write the same line.
    since_ns: u64,
}

/// An upload that was begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Uploading {
    /// File name of the shard.
    name: String,
    /// The storage's name of the upload.
    upload: String,
}

/// A line that only the journals of buckets have.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BucketLine {
    Holder(Holder),
    Uploading(Uploading),
}

/// The content of a journal.
#[derive(Default)]
struct Content {
    holder: Option<Holder>,
    /// Uploads that may go on, by their ids.
    uploads: BTreeMap<String, Uploading>,
    /// All other lines, as they are on a disk.
    lines: Vec<u8>,
}

/// A journal that this run has.
pub struct ObjectJournal {
    place: Place,
    path: PathBuf,
    holder: Holder,
    state: Mutex<State>,
    /// What is to be said of uploads that were left.
    remarks: Mutex<Vec<String>>,
}

struct State {
    content: Content,
    /// The `ETag` of what was written last.
    tag: String,
    /// Why it could not be written: then the run ends, and no other line is tried for as long.
    broken: Option<Error>,
}

impl Content {
    fn parse(text: &[u8]) -> Self {
        let mut content = Self::default();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(BucketLine::Holder(holder)) => content.holder = Some(holder),
                Ok(BucketLine::Uploading(one)) => drop(content.uploads.insert(one.upload.clone(), one)),
                Err(_) => content.lines.extend_from_slice(line),
            }
        }
        content
    }

    fn render(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = Vec::with_capacity(self.lines.len() + 256);
        let uploads = self.uploads.values().cloned().map(BucketLine::Uploading);
        for line in self.holder.iter().cloned().map(BucketLine::Holder).chain(uploads) {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        text.extend_from_slice(&self.lines);
        Ok(text)
    }
}

impl ObjectJournal {
    /// Takes a part of a folder in a bucket over, from whichever run has it, gives up the uploads of that run, and
    /// reads the journals of all parts.
    ///
    /// # Errors
    /// [`Error::Refused`] if another run takes it at the same time; [`Error::Io`] if a journal cannot be read or
    /// written.
    pub fn take(place: &Place, part: Part) -> Result<(Self, Journals)> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let holder = Holder { writer: Writer::this_process(), since_ns };
        paths(place)?; // where the bucket is missing, this says so before anything is written
        let own = Self::take_over(place, part, &holder)?;
        // Another run that sees this journal only now has written its own before, and is seen here.
        let (mut journals, mut others) = (Journals::default(), Vec::new());
        for (other, path) in paths(place)? {
            if other != part && other.overlaps(part) {
                others.push((other, Self::take_over(place, other, &holder)?));
            } else if other != part {
                let doing = "read the record of finished shards";
                let text = place.read_if_there(&path, doing)?.unwrap_or_default();
                journals.add(other, &text);
            }
        }
        for (part, journal) in others.iter().map(|(part, journal)| (*part, journal)).chain([(part, &own)]) {
            journal.give_up_uploads()?;
            journals.add(part, &lock(&journal.state).content.lines);
        }
        Ok((own, journals))
    }

    /// Writes the holder into the journal of a part.
    fn take_over(place: &Place, part: Part, holder: &Holder) -> Result<Self> {
        let path = place.path().join(STATUS_DIR).join(journal::name(part));
        let failed = |error| Error::io(&path, "take over the record of finished shards", error);
        let objects = objects(place)?;
        let found = match objects.read_tagged(&path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let (text, tag) = found.map_or_else(Default::default, |Tagged { content, tag }| (content, tag));
        let content = Content { holder: Some(holder.clone()), ..Content::parse(&text) };
        let state = Mutex::new(State { content, tag, broken: None });
        let (place, remarks) = (place.clone(), Mutex::default());
        let journal = Self { place, path, holder: holder.clone(), state, remarks };
        journal.change(|_| ())?;
        Ok(journal)
    }

    /// Gives up the uploads that earlier runs have left.
    fn give_up_uploads(&self) -> Result<()> {
        let left: Vec<Uploading> = lock(&self.state).content.uploads.values().cloned().collect();
        if left.is_empty() {
            return Ok(());
        }
        let mut stay = BTreeMap::new();
        for one in left {
            let path = self.place.path().join(&one.name);
            match objects(&self.place)?.abort_upload(&path, &one.upload) {
                Ok(()) => {}
                // A right of its own, which a run can do without; and some storages say so of an upload that has ended.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    lock(&self.remarks).push(format!(
                        "{}: the upload {} of an earlier run cannot be given up ({error}); if there still is one, the \
                         storage keeps it until a lifecycle rule ends it",
                        path.display(),
                        one.upload
                    ));
                }
                Err(error) => {
                    log::debug!("{}: the upload {} stays: {error}", path.display(), one.upload);
                    stay.insert(one.upload.clone(), one);
                }
            }
        }
        self.change(|content| content.uploads = stay)
    }

    /// What is to be said of uploads that were left.
    pub fn remarks(&self) -> Vec<String> {
        lock(&self.remarks).clone()
    }

    /// Appends lines, which are there when this returns.
    ///
    /// # Errors
    /// [`Error::Refused`] if another run has taken the part over; [`Error::Io`] if the journal cannot be written.
    pub fn append(&self, lines: &[Line]) -> Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line).map_err(|error| self.failed(error.into()))?;
            text.push(b'\n');
        }
        self.change(|content| {
            content.lines.extend_from_slice(&text);
            for line in lines {
                if let Line::Finished(finished) = line {
                    content.uploads.retain(|_, one| one.name != finished.name);
                }
            }
        })
    }

    /// Notes an upload, before its first part is sent.
    ///
    /// # Errors
    /// Those of [`Self::append`].
    pub fn note_upload(&self, name: &str, upload: &str) -> Result<()> {
        let one = Uploading { name: name.to_owned(), upload: upload.to_owned() };
        self.change(|content| drop(content.uploads.insert(one.upload.clone(), one)))
    }

    /// Changes the journal, if it is still what this run has written.
    fn change(&self, change: impl FnOnce(&mut Content)) -> Result<()> {
        let state = &mut *lock(&self.state);
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        change(&mut state.content);
        let text = state.content.render().map_err(|error| self.failed(error.into()))?;
        match self.write(&text, state.tag.clone()) {
            Ok(tag) => {
                state.tag = tag;
                Ok(())
            }
            Err(error) => {
                state.broken = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Writes the journal over what has this `ETag`, and returns the new one. A request whose answer was lost may have
    /// been carried out: what is there then tells.
    fn write(&self, text: &[u8], mut tag: String) -> Result<String> {
        let (objects, begun, mut attempt) = (objects(&self.place)?, Instant::now(), 0);
        loop {
            let over = if tag.is_empty() { Over::Nothing } else { Over::Only(&tag) };
            let error = match objects.put(&self.path, text.to_vec(), over) {
                Ok(Some(tag)) => return Ok(tag),
                Ok(None) => io::Error::other("the storage gives it no ETag"),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(self.failed(error)),
                Err(error) if begun.elapsed() >= objects.timeout() => return Err(self.failed(error)),
                Err(error) => error,
            };
            let found = match objects.read_tagged(&self.path) {
                Ok(found) => Some(found),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(_) => return Err(self.failed(error)),
            };
            attempt += 1;
            match found {
                Some(found) if found.content == text => return Ok(found.tag),
                Some(found) if found.tag != tag && !self.is_own(&found) => return Err(self.lost(&found)),
                // A line of this run, whose request was given up.
                Some(found) if found.tag != tag => tag = found.tag,
                None if !tag.is_empty() => {
                    let reason = "somebody has removed it while shards were written; run the same command again";
                    return Err(self.failed(io::Error::other(reason)));
                }
                _ if attempt == ATTEMPTS => return Err(self.failed(error)),
                _ => thread::sleep(PAUSE * attempt),
            }
        }
    }

    fn is_own(&self, found: &Tagged) -> bool {
        Content::parse(&found.content).holder.as_ref() == Some(&self.holder)
    }

    /// The error of a journal that another run has written.
    fn lost(&self, found: &Tagged) -> Error {
        let holder = Content::parse(&found.content).holder;
        taken_over(self.place.path(), holder.map(|holder| holder.writer.to_string()))
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io(&self.path, "write the record of finished shards", error)
    }
}

impl Guard for ObjectJournal {
    fn check(&self) -> Result<()> {
        let (objects, tag) = (objects(&self.place)?, lock(&self.state).tag.clone());
        // It is asked before each small object; the journal of many shards has megabytes.
        if objects.has_tag(&self.path, &tag).map_err(|error| self.failed(error))? {
            return Ok(());
        }
        let found = objects.read_tagged(&self.path).map_err(|error| self.failed(error))?;
        if self.is_own(&found) { Ok(()) } else { Err(self.lost(&found)) }
    }
}

/// The way to write the objects of a folder that is known to be in a bucket.
fn objects(place: &Place) -> Result<&dyn Objects> {
    place.objects().ok_or_else(|| Error::Refused(format!("{}: it is no bucket", place.path().display())))
}

/// The journals of a folder in a bucket, each with its part and its path below.
fn paths(place: &Place) -> Result<Vec<(Part, PathBuf)>> {
    let names = place.below(STATUS_DIR).sizes()?.into_keys();
    let part = |name: String| Some((journal::part_of(&name)?, Path::new(STATUS_DIR).join(name)));
    Ok(names.filter_map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_buckets_are_told_from_those_on_disks() {
        let disk = br#"{"again":{"run":3,"name":"shard-000001.tar"}}
{"a later version's":1}
"#;
        let writer = Writer::this_process();
        let holder = Some(Holder { writer, since_ns: 1 });
        let upload = |id: &str| Uploading { name: format!("shard-{id}.tar"), upload: id.into() };
        let uploads = ["b", "a"].map(|id| (id.to_owned(), upload(id))).into_iter().collect();
        let text = Content { holder: holder.clone(), uploads, lines: disk.to_vec() }.render().unwrap();
        let read = Content::parse(&text);
        assert_eq!((read.holder, read.uploads.len(), &*read.lines), (holder, 2, &disk[..]));
        // A folder that was copied from a bucket to a disk goes on there.
        let journals = Journals::parse(&text);
        assert_eq!((journals.last_run, journals.is_empty()), (3, false));
        assert_eq!(Content::parse(b"").render().unwrap(), b"");
    }
}
