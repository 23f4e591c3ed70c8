//! Compressing a shard on its way to the disk: the result is a tar file with the keys and members of the plain shard,
//! in which the members of volume and extras consist of compressed blocks and the JSON says so. It is made from the
//! plain bytes that [`crate::shard::ShardSet`] hands out.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};

use bytes::Bytes;

use crate::base::lock::lock;
use crate::base::num::to_usize;
use crate::formats::codec::{BLOCK, Codec, Encoder, Method, RowFilter, SeekTable};
use crate::formats::tar::{self, MemberHeader};
use crate::plan::members::{Member, extra_filter, volume_filter, volume_row, with_codec};
use crate::plan::{Plan, ShardId};

/// Plain bytes of a volume that are read at a time.
const READ: usize = 4 << 20;

/// The compressed form of a block (a zstd frame), or why it could not be compressed.
type FrameResult = io::Result<Vec<u8>>;

/// A block to compress, and the way to the thread that waits for its frame.
pub(super) struct CompressTask {
    block: Bytes,
    filter: RowFilter,
    done: Sender<FrameResult>,
}

/// A block that is being compressed.
struct PendingFrame {
    plain_len: usize,
    frame: Receiver<FrameResult>,
}

/// The work of a thread that compresses: takes tasks until all senders of tasks are dropped.
pub(super) fn encode(codec: Codec, tasks: &Mutex<Receiver<CompressTask>>) {
    let mut encoder = Encoder::new(codec);
    loop {
        let Ok(CompressTask { block, filter, done }) = lock(tasks).recv() else { return };
        let frame = match &mut encoder {
            Ok(encoder) => encoder.encode(&block, filter),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let _ = done.send(frame); // no thread waits for it once its shard was given up
    }
}

/// Compresses one shard of a plan. `read` returns the plain bytes at an offset, of a length in bytes, or `None` to give
/// up; `write` takes bytes of the compressed shard, and returns false to give up. False if one of them gave up.
///
/// # Errors
/// There is no memory, or a thread that compresses has died.
pub(super) fn shard(
    (plan, id): (&Plan, ShardId),
    (method, tasks): (Method, &Sender<CompressTask>),
    mut read: impl FnMut(u64, usize) -> Option<Bytes>,
    mut write: impl FnMut(&[u8]) -> io::Result<bool>,
) -> io::Result<bool> {
    let (members, volume) = (&plan.members, volume_filter(method, plan.voxel_format()));
    let mut rows = plan.shard_samples(id).map(|sample| volume_row(&members.payload(Member::Json, sample)).unwrap_or(1));
    let (mut offset, mut written) = (0, 0);
    loop {
        let Some(header) = read(offset, to_usize(tar::BLOCK)) else { return Ok(false) };
        let Some(MemberHeader { name, size }) = tar::parse(&header) else { break };
        offset += tar::BLOCK;
        let extension = name.split_once('.').map_or("", |(_, extension)| extension);
        let member = members.of_extension(extension);
        let filter = match member {
            Some(Member::Volume) => Some(RowFilter::new(volume, rows.next().unwrap_or(1))),
            Some(Member::Extra(_)) => {
                let Some(head) = read(offset, to_usize(size.min(tar::BLOCK))) else { return Ok(false) };
                extra_filter(method, &head)
            }
            _ => None,
        };
        let (name, pieces) = if let Some(filter) = filter {
            let Some(pieces) = compress_volume(tasks, filter, |from, len| read(offset + from, len), size)? else {
                return Ok(false);
            };
            (format!("{name}.{}", filter.filter.extension()), pieces)
        } else {
            let Some(payload) = read(offset, to_usize(size)) else { return Ok(false) };
            (name, vec![if member == Some(Member::Json) { with_codec(&payload, volume) } else { payload.into() }])
        };
        offset += size + tar::padding(size);
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        let padding = vec![0; to_usize(tar::padding(len))];
        for piece in
            [&tar::header(&name, len)[..]].into_iter().chain(pieces.iter().map(|p| &p[..])).chain([&padding[..]])
        {
            if !write(piece)? {
                return Ok(false);
            }
            written += piece.len() as u64;
        }
    }
    write(&vec![0; to_usize(tar::trailer(written))])
}

/// The frames of a volume's member of `size` bytes, and the seek table after them; `None` if `read` gave up. All are
/// kept until the last one is there: the member's length stands in front of them.
fn compress_volume(
    tasks: &Sender<CompressTask>,
    filter: RowFilter,
    mut read: impl FnMut(u64, usize) -> Option<Bytes>,
    size: u64,
) -> io::Result<Option<Vec<Vec<u8>>>> {
    let died = |_| io::Error::other("a thread that compresses has died");
    let mut table = SeekTable::default();
    let mut frames = vec![filter.begin(&mut table)];
    let mut pending: VecDeque<PendingFrame> = VecDeque::new();
    let mut take = |PendingFrame { plain_len, frame }: PendingFrame| -> io::Result<()> {
        let frame = frame.recv().map_err(|_| died(()))??;
        table.push(&frame, plain_len);
        frames.push(frame);
        Ok(())
    };
    let mut offset = 0;
    while offset < size {
        let len = READ.min(to_usize(size - offset));
        let Some(bytes) = read(offset, len) else { return Ok(None) };
        // The blocks of the read before this one were compressed while this one was made.
        pending.drain(..).try_for_each(&mut take)?;
        for start in (0..len).step_by(BLOCK) {
            let block = bytes.slice(start..len.min(start + BLOCK));
            let (done, frame) = mpsc::channel();
            pending.push_back(PendingFrame { plain_len: block.len(), frame });
            tasks.send(CompressTask { block, filter, done }).map_err(|_| died(()))?;
        }
        offset += len as u64;
    }
    pending.drain(..).try_for_each(&mut take)?;
    frames.push(table.render());
    Ok(Some(frames))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::codec::Filter;

    #[test]
    fn a_thread_that_died_is_an_error() {
        let (tasks, queue) = mpsc::channel();
        drop(queue);
        let read = |_, len| Some(Bytes::from(vec![0; len]));
        let filter = RowFilter::new(Filter::PredictHalf, 10);
        assert!(compress_volume(&tasks, filter, read, 1000).unwrap_err().to_string().contains("died"));
    }
}
