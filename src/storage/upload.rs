//! An object that is written in parts, several of which are on the way at a time.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::multipart::PartId;
use object_store::path::Path as ObjectKey;

use super::Upload;
use super::client::Client;
use super::network::Pending;

/// The bytes of a part but for large objects. S3 wants 5 MiB of every part but the last, and some of its kind that all
/// but the last are of one size.
const PART: u64 = 8 << 20;
/// The parts that an object may have, by S3; fewer here, because the length of a compressed shard is not known before.
const MOST_PARTS: u64 = 9_000;
/// The parts of one object that are on the way at a time: 32 MiB hide 100 ms at 300 MB/s.
const ON_THE_WAY: usize = 4;

/// Attempts to end an upload, with pauses that grow; the client's own come to it.
const ATTEMPTS: u32 = 4;
/// The first pause.
const PAUSE: Duration = Duration::from_millis(100);
/// How long parts that are on the way may take to arrive before an upload is given up.
const LAST_PARTS: Duration = Duration::from_secs(1);
/// How long it may take to give an upload up: the next run does what this one has not.
const ABORTING: Duration = Duration::from_secs(2);

/// An upload that goes on.
pub(super) struct PartsUpload {
    client: Arc<Client>,
    key: ObjectKey,
    id: String,
    part_len: u64,
    /// What the next part has so far, and its length.
    next: (Vec<Bytes>, u64),
    on_the_way: VecDeque<Pending<io::Result<PartId>>>,
    parts: Vec<PartId>,
    /// Whether the storage has, or may have, no more to give up.
    is_over: bool,
}

impl PartsUpload {
    /// Begins the upload of an object of about `len` bytes.
    ///
    /// # Errors
    /// The storage's reason.
    pub(super) fn begin(client: Arc<Client>, key: ObjectKey, len: u64) -> io::Result<Self> {
        let id = client.begin_upload(key.clone())?.wait()??;
        let part_len = PART.max(len.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
        let (next, on_the_way, parts) = ((Vec::new(), 0), VecDeque::new(), Vec::new());
        Ok(Self { client, key, id, part_len, next, on_the_way, parts, is_over: false })
    }

    /// Sends the next part, once fewer than so many are on the way.
    fn send(&mut self) -> io::Result<()> {
        self.wait_for(ON_THE_WAY - 1)?;
        let number = self.parts.len() + self.on_the_way.len();
        let (pieces, _) = mem::take(&mut self.next);
        let part = self.client.send_part(self.key.clone(), self.id.clone(), number, pieces)?;
        self.on_the_way.push_back(part);
        Ok(())
    }

    /// Waits until at most so many parts are on the way.
    fn wait_for(&mut self, left: usize) -> io::Result<()> {
        while self.on_the_way.len() > left
            && let Some(oldest) = self.on_the_way.pop_front()
        {
            self.parts.push(oldest.wait()??);
        }
        Ok(())
    }
}

impl Upload for PartsUpload {
    fn id(&self) -> &str {
        &self.id
    }

    fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.next.1 += bytes.len() as u64;
        self.next.0.push(bytes);
        if self.next.1 >= self.part_len { self.send() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        if self.next.1 > 0 {
            self.send()?;
        }
        self.wait_for(0)?;
        let mut attempt = 0;
        loop {
            let end = self.client.end_upload(self.key.clone(), self.id.clone(), self.parts.clone())?;
            attempt += 1;
            match end.wait()? {
                Ok(()) => break,
                // Two requests for one object at a time, say; to end an upload twice does no harm.
                Err(error) if may_pass(&error) && attempt < ATTEMPTS => thread::sleep(PAUSE * attempt),
                Err(error) => return Err(error),
            }
        }
        self.is_over = true;
        Ok(())
    }
}

/// Whether the storage may answer otherwise soon. A conflict of requests is told as an object that exists.
fn may_pass(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::AlreadyExists)
}

impl Drop for PartsUpload {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // A part that arrives after the end would stay, and cost money.
        let deadline = Instant::now() + LAST_PARTS;
        for part in self.on_the_way.drain(..) {
            let _ = part.wait_for(deadline.saturating_duration_since(Instant::now()));
        }
        // What cannot be given up now, the next run gives up: it knows the id.
        if let Err(error) = self.abort() {
            log::debug!("the upload {} of {} goes on: {error}", self.id, self.key);
        }
    }
}

impl PartsUpload {
    fn abort(&self) -> io::Result<()> {
        self.client.abort_upload(self.key.clone(), self.id.clone())?.wait_for(ABORTING)?
    }
}
