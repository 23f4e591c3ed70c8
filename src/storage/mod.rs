//! Where data sets and finished shards are read from, and shards written to: folders on disk, or prefixes in object
//! storage (`s3://`, and to read, `https://`).
//!
//! One small trait, [`Store`], which files on disk implement as well; nothing above this room knows where bytes lie. An
//! address stands where a path stands, so every message names the object as it would name a file. The client of object
//! storage is asynchronous: it and its runtime are known in this room alone, and its callers wait on their own threads.
//!
//! Of an object, size and `ETag` are what size, times and inode are of a file: each answer of the storage is compared
//! with what was planned, so an object that was replaced is an error, never a mixture.
//!
//! Objects are written in other ways than files: whole or in parts that appear together, and over what is known to be
//! there alone. So these ways are a trait of their own, [`Objects`], which buckets have and files do not.

mod address;
#[cfg(feature = "object-storage")]
mod bucket;
#[cfg(feature = "object-storage")]
mod client;
mod local;
#[cfg(feature = "object-storage")]
mod network;
#[cfg(feature = "object-storage")]
mod object;
#[cfg(feature = "object-storage")]
mod profile;
#[cfg(feature = "object-storage")]
mod reason;
#[cfg(feature = "object-storage")]
mod settings;
mod several;
#[cfg(feature = "object-storage")]
mod upload;
#[cfg(feature = "object-storage")]
mod write;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;

use crate::base::file_id::FileId;
use crate::error::Result;

pub use address::is_address;
pub use local::Files;

/// The bytes that one request to object storage asks for, of a range that is read in order: large enough that a delay
/// of 20 ms a request costs little, small enough that a volume is fetched by several requests at once.
pub const REQUEST: u64 = 4 << 20;

/// The requests that are in flight for one range that is read in order.
pub const REQUESTS_AHEAD: u64 = 4;

/// The memory in bytes that reading a range in order takes at most: the requests in flight, and the answer that is
/// being read.
pub fn bytes_ahead(range: &Range<u64>) -> u64 {
    (range.end - range.start).min(REQUEST * (REQUESTS_AHEAD + 1))
}

/// What a user decides about object storage; files on disk know nothing of it.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// The address of the S3 service, where it is not Amazon's; by default that of the environment.
    pub endpoint_url: Option<String>,
    /// Whether requests go without credentials: a public bucket.
    pub no_sign_request: bool,
    /// How long a request is tried again before it counts as failed.
    pub timeout: Duration,
    /// Once it is set, nobody waits for a request any more, but to give an upload up.
    pub stop: Option<Arc<AtomicBool>>,
}

/// Files, or objects, by their paths or addresses.
pub trait Store: Send + Sync + fmt::Debug {
    /// Opens a file, or names an object. An object that is not there shows at its first read only.
    ///
    /// # Errors
    /// The operating system's reason, or that the path is none of this store.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Stored>>;

    /// Reads a small file or object to its end.
    ///
    /// # Errors
    /// The reason of the operating system or of the storage, with a remedy where there is one; of the kind
    /// [`io::ErrorKind::NotFound`] where it is not there.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// What is in a folder, or under a prefix up to the next slash, in no order.
    ///
    /// # Errors
    /// The reason of the operating system or of the storage.
    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>>;

    /// All objects below a prefix, in no order; `None` where there are real folders, which whoever looks for files
    /// walks through.
    ///
    /// # Errors
    /// The reason of the storage.
    fn list_below(&self, folder: &Path) -> io::Result<Option<Vec<ListedObject>>>;

    /// The identity of a file or an object that is not read.
    ///
    /// # Errors
    /// The reason of the operating system or of the storage.
    fn identity_of(&self, path: &Path) -> io::Result<FileId>;

    /// Whether each read of a path is a request over a network, so that many at once are faster than one.
    fn is_remote(&self, path: &Path) -> bool;

    /// The way to write objects; `None` of files, and of what can only be read.
    fn objects(&self) -> Option<&dyn Objects> {
        None
    }
}

/// Writing the objects of a bucket. Requests that fail for a reason that passes are made again, as reads are.
pub trait Objects: Send + Sync {
    /// How long a request is made again before it counts as failed.
    fn timeout(&self) -> Duration;

    /// Reads a small object, and its `ETag`.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    fn read_tagged(&self, path: &Path) -> io::Result<Tagged>;

    /// Whether an object has this `ETag`. Sends none of its bytes.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    fn has_tag(&self, path: &Path, tag: &str) -> io::Result<bool>;

    /// Writes a small object, which appears whole. Its `ETag`, if the storage says it.
    ///
    /// # Errors
    /// The storage's reason; [`io::ErrorKind::AlreadyExists`] or [`io::ErrorKind::StaleNetworkFileHandle`] if something
    /// else is there than `over` says, which may also be what a request has written whose answer was lost.
    fn put(&self, path: &Path, content: Vec<u8>, over: Over<'_>) -> io::Result<Option<String>>;

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// The storage's reason.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Begins an upload of about `len` bytes. Nothing is seen of it before its end.
    ///
    /// # Errors
    /// The storage's reason.
    fn begin_upload(&self, path: &Path, len: u64) -> io::Result<Box<dyn Upload>>;

    /// Gives up the upload of a process that has ended; there may be none of this id any more.
    ///
    /// # Errors
    /// The storage's reason.
    fn abort_upload(&self, path: &Path, id: &str) -> io::Result<()>;
}

/// A small object.
#[derive(Debug)]
pub struct Tagged {
    /// The bytes.
    pub content: Vec<u8>,
    /// The `ETag`.
    pub tag: String,
}

/// What may be there when an object is written.
#[derive(Clone, Copy, Debug)]
pub enum Over<'a> {
    /// Nothing.
    Nothing,
    /// The object with this `ETag`.
    Only(&'a str),
}

/// An object that is written in parts. It is given up when this is dropped before its end.
pub trait Upload: Send {
    /// The name by which the storage knows it.
    fn id(&self) -> &str;

    /// Appends bytes, which are sent later. Waits while so many parts are on the way that more would only take memory.
    ///
    /// # Errors
    /// The storage's reason, also for bytes that were given before; that the run is to stop.
    fn write(&mut self, bytes: Bytes) -> io::Result<()>;

    /// Sends what is left, and makes the object appear.
    ///
    /// # Errors
    /// Those of [`Self::write`]; [`io::ErrorKind::NotFound`] if the storage does not know the upload: somebody has
    /// given it up, or the object is there and the answer that said so was lost.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A name in a folder.
#[derive(Debug)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// The number of bytes, or why it is not known.
    pub size: io::Result<u64>,
}

/// An object below a prefix.
#[derive(Clone, Debug)]
pub struct ListedObject {
    /// The path, relative to the prefix.
    pub path: PathBuf,
    /// The identity, which is that of [`Stored::identity`] where the list has the `ETag`s. Where it has none, the time
    /// of the last change stands in it, so that two lists can be compared, but no list with what was read.
    pub identity: FileId,
}

/// A file or an object that is read at offsets, from any thread.
pub trait Stored: Send + Sync {
    /// The identity of what is read. `None` for an object of which nothing was read so far: no request is made for it.
    ///
    /// # Errors
    /// The operating system's reason.
    fn identity(&self) -> io::Result<Option<FileId>>;

    /// Tells a regular file, or an object, from a folder, pipe or device.
    ///
    /// # Errors
    /// The operating system's reason.
    fn is_regular(&self) -> io::Result<bool>;

    /// Reads bytes at `offset`, fewer only at the end of the file, and returns their number.
    ///
    /// # Errors
    /// The reason of the operating system or of the storage; [`io::ErrorKind::StaleNetworkFileHandle`] for an object
    /// that is another one than at the first read.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Says that the bytes in `range` will be read in order: of an object, they are asked for ahead.
    fn will_read(&self, range: Range<u64>);

    /// Reads exactly so many bytes at `offset`.
    ///
    /// # Errors
    /// Those of [`Self::read_at`], and [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_exact_at(&self, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !out.is_empty() {
            match self.read_at(out, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => (out, offset) = (&mut out[len..], offset + len as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Files on disk.
pub fn local() -> Arc<dyn Store> {
    Arc::new(Files)
}

/// The store of all of these paths: files on disk, and objects of any number of buckets. Makes no request. A web server
/// counts as the folder of the path.
///
/// # Errors
/// Those of [`of`].
pub fn of_all<'a>(paths: impl IntoIterator<Item = &'a Path>, options: &StorageOptions) -> Result<Arc<dyn Store>> {
    let mut several = several::Several::default();
    for path in paths.into_iter().filter(|path| is_address(path)) {
        if !several.has(path) {
            let root = address::root(path);
            let store = of(&root, options)?;
            several.add(root, store);
        }
    }
    Ok(if several.is_empty() { local() } else { Arc::new(several) })
}

/// The store in which `root` lies: a folder on disk, or a prefix in object storage. Makes no request.
///
/// # Errors
/// [`crate::error::Error::Refused`] for an address that this program cannot read, or settings of the environment that
/// mean nothing; [`crate::error::Error::System`] if the operating system gives no thread.
pub fn of(root: &Path, options: &StorageOptions) -> Result<Arc<dyn Store>> {
    if !is_address(root) {
        return Ok(local());
    }
    #[cfg(feature = "object-storage")]
    return bucket::Bucket::of(root, options).map(|bucket| Arc::new(bucket) as Arc<dyn Store>);
    #[cfg(not(feature = "object-storage"))]
    {
        let _ = options;
        Err(crate::error::Error::Refused(format!(
            "{}: this program was built without object storage; build it with the feature object-storage",
            root.display()
        )))
    }
}
