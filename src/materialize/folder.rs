//! The output folder: its lock, its record of finished shards, and files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::partial::{PARTIAL, Partial, publish, sync_folder};
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::index::ViewIndex;
use crate::plan::Plan;
use crate::record::{self, Finished, Header, STATUS_DIR};

/// The folder, locked for this process.
pub(super) struct Folder {
    path: PathBuf,
    journal: Mutex<File>,
    /// The records that the folder had when it was opened.
    earlier: Vec<Finished>,
}

impl Folder {
    /// Opens or creates the folder for the plan of this digest, compressed like this, and removes what a killed run left
    /// unfinished.
    pub(super) fn open(path: &Path, digest: &str, codec: Option<Codec>) -> Result<Self> {
        let status = path.join(STATUS_DIR);
        fs::create_dir_all(&status).map_err(|error| Error::io(&status, "create the output folder", error))?;
        let journal_path = record::path(path);
        let failed = |doing| move |error| Error::io(&record::path(path), doing, error);
        let mut journal = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&journal_path)
            .map_err(failed("open the record of finished shards"))?;
        // The lock dies with its owner, however that ends.
        flock(&journal, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::Refused(format!("{}: another materialize is writing to this folder", path.display()))
        })?;
        let text = fs::read(&journal_path).map_err(failed("read the record of finished shards"))?;
        let earlier = record::parse(&text);
        match &earlier {
            Some(earlier) if earlier.plan_digest != digest => return Err(other_plan(path)),
            Some(earlier) if earlier.codec != codec => return Err(other_codec(path, earlier.codec)),
            None if holds_shards(path)? => return Err(other_plan(path)),
            Some(_) => {}
            None => {
                journal.set_len(0).map_err(failed("begin the record of finished shards"))?;
                append(&mut journal, &Header { plan_digest: digest.into(), codec })
                    .map_err(failed("begin the record of finished shards"))?;
            }
        }
        // A line that a crash cut short is ended, so that the next one stands on its own.
        if !text.is_empty() && !text.ends_with(b"\n") && earlier.is_some() {
            journal.write_all(b"\n").map_err(failed("mend the record of finished shards"))?;
        }
        let earlier = earlier.map(|earlier| earlier.shards).unwrap_or_default();
        let folder = Self { path: path.to_owned(), journal: Mutex::new(journal), earlier };
        folder.remove_partials()?;
        sync_folder(&folder.path)?;
        Ok(folder)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Of so many shards those that are finished: recorded, and there with the recorded size.
    pub(super) fn finished(&self, shards: usize) -> Result<Vec<Option<Finished>>> {
        let mut finished = vec![None; shards];
        for (id, finished) in (0..).zip(&mut finished) {
            let name = Plan::shard_name(id);
            let Some(record) = self.earlier.iter().rfind(|record| record.name == name) else { continue };
            let path = self.path.join(&name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.len() == record.size => *finished = Some(record.clone()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(&path, "check the finished shard", error)),
            }
        }
        Ok(finished)
    }

    /// Refuses to begin what cannot fit.
    pub(super) fn check_space(&self, needed: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(&self.path)
            .map_err(|error| Error::io(&self.path, "ask for free space", error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < needed {
            let (needed, free) = (bytesize::ByteSize(needed), bytesize::ByteSize(free));
            let folder = self.path.display();
            return Err(Error::Refused(format!(
                "{folder}: {needed} are needed and {free} are free; nothing was written"
            )));
        }
        Ok(())
    }

    /// A new file under a temporary name.
    pub(super) fn create(&self, name: &str) -> Result<Partial<'_>> {
        Partial::create(&self.path, name)
    }

    /// Writes a whole small file, atomically and durably.
    pub(super) fn publish(&self, name: &str, content: &[u8]) -> Result<()> {
        publish(&self.path, name, content)
    }

    /// Removes the manifest: it is not to speak of shards that are about to be made again.
    pub(super) fn remove_manifest(&self) -> Result<()> {
        let path = self.path.join(crate::manifest::NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(&path, "remove the old manifest", error))
            }
            _ => Ok(()),
        }
    }

    /// Notes durably that a shard is finished.
    pub(super) fn record(&self, finished: &Finished) -> Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(|poison| poison.into_inner());
        append(&mut journal, finished)
            .map_err(|error| Error::io(&record::path(&self.path), "record the finished shard", error))
    }

    fn remove_partials(&self) -> Result<()> {
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.strip_suffix(PARTIAL).is_some_and(|name| is_output(name) || is_index(name))
        };
        for path in list(&self.path)?.into_iter().filter(is_ours) {
            fs::remove_file(&path).map_err(|error| Error::io(&path, "remove the unfinished file", error))?;
        }
        Ok(())
    }
}

fn append(journal: &mut File, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    journal.write_all(&text)?;
    journal.sync_data()
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io(folder, "list the output folder", error);
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

fn holds_shards(folder: &Path) -> Result<bool> {
    Ok(list(folder)?.iter().any(|path| is_output(&path.file_name().unwrap_or_default().to_string_lossy())))
}

/// Whether a file of this name is of the kind that a run writes.
fn is_output(name: &str) -> bool {
    name == crate::manifest::NAME || (name.starts_with("shard-") && name.ends_with(".tar"))
}

fn other_codec(folder: &Path, codec: Option<Codec>) -> Error {
    let how = codec.map_or_else(|| "plain shards".into(), |codec| format!("shards compressed with {codec}"));
    Error::Refused(format!(
        "{}: the folder holds {how}; give the same --compress to continue, or choose another folder",
        folder.display()
    ))
}

/// Whether a file of this name is an index of the shards; a folder of nothing else is an empty one.
fn is_index(name: &str) -> bool {
    name == ViewIndex::Wids.name() || (name.starts_with("shard-") && name.ends_with(".idx"))
}

fn other_plan(folder: &Path) -> Error {
    Error::Refused(format!(
        "{}: the folder holds shards of another plan (other volumes, tables or options); choose an empty folder, \
         or remove the old shards",
        folder.display()
    ))
}
