//! Files on disk as a store.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Listed, ListedObject, Store, Stored};
use crate::base::file_id::FileId;
use crate::base::files;

/// All files of the operating system.
#[derive(Debug)]
pub struct Files;

impl Store for Files {
    fn open(&self, path: &Path) -> io::Result<Box<dyn Stored>> {
        let file = files::open(path)?;
        // Doubles the kernel's read-ahead; advice only, so a file system that has none is fine.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        Ok(Box::new(file))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        files::read(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let listed = fs::read_dir(folder)?.map(|entry| {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok(Listed { name, size: fs::metadata(entry.path()).map(|metadata| metadata.len()) })
        });
        listed.collect()
    }

    fn list_below(&self, _folder: &Path) -> io::Result<Option<Vec<ListedObject>>> {
        Ok(None)
    }

    fn identity_of(&self, path: &Path) -> io::Result<FileId> {
        fs::metadata(path).map(|metadata| FileId::of(&metadata))
    }

    fn is_remote(&self, _path: &Path) -> bool {
        false
    }
}

impl Stored for File {
    fn identity(&self) -> io::Result<Option<FileId>> {
        self.metadata().map(|metadata| Some(FileId::of(&metadata)))
    }

    fn is_regular(&self) -> io::Result<bool> {
        self.metadata().map(|metadata| metadata.is_file())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, out, offset)
    }

    fn will_read(&self, _range: Range<u64>) {} // the kernel reads ahead by itself
}
