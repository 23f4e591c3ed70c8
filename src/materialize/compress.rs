//! A shard compressed on its way to the disk: a tar stream with the same keys and members, in which the volume's member
//! is in blocks and the JSON says so. All of it is made from the plain bytes of the waist.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};

use bytes::Bytes;

use crate::base::lock::lock;
use crate::base::num::to_usize;
use crate::formats::codec::{BLOCK, Codec, EXTENSION, Encoder, SeekTable};
use crate::formats::tar::{self, Entry};
use crate::plan::members::{Member, Profile, with_codec};

/// A block to be packed, and where its frame goes.
pub(super) struct Task {
    block: Bytes,
    done: Sender<io::Result<Vec<u8>>>,
}

/// Packs blocks until nobody has any more.
pub(super) fn encode(codec: Codec, tasks: &Mutex<Receiver<Task>>) {
    let mut encoder = Encoder::new(codec);
    loop {
        let Ok(Task { block, done }) = lock(tasks).recv() else { return };
        let frame = match &mut encoder {
            Ok(encoder) => encoder.encode(&block),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let _ = done.send(frame); // nobody waits for it once its shard was given up
    }
}

/// Compresses one shard: `read` gives plain bytes at an offset or gives up, `write` takes compressed ones or gives up.
/// False if one of them did.
///
/// # Errors
/// There is no memory, or a thread that packs has died.
pub(super) fn shard(
    format: Profile,
    tasks: &Sender<Task>,
    mut read: impl FnMut(u64, usize) -> Option<Bytes>,
    mut write: impl FnMut(&[u8]) -> io::Result<bool>,
) -> io::Result<bool> {
    let (mut at, mut written) = (0, 0);
    loop {
        let Some(header) = read(at, to_usize(tar::BLOCK)) else { return Ok(false) };
        let Some(Entry { name, size }) = tar::parse(&header) else { break };
        at += tar::BLOCK;
        let extension = name.split_once('.').map_or("", |(_, extension)| extension);
        let is_volume = extension == format.extension(Member::Volume);
        let pieces = if is_volume {
            let Some(pieces) = pack(tasks, |from, len| read(at + from, len), size)? else { return Ok(false) };
            pieces
        } else {
            let Some(payload) = read(at, to_usize(size)) else { return Ok(false) };
            vec![if extension == format.extension(Member::Json) { with_codec(&payload) } else { payload.into() }]
        };
        let name = if is_volume { format!("{name}.{EXTENSION}") } else { name };
        at += size + tar::padding(size);
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

/// The frames of a volume's member of `size` bytes, and their seek table. They are kept until the last one is there:
/// their length stands in front of them. `None` if reading was given up.
fn pack(
    tasks: &Sender<Task>,
    mut read: impl FnMut(u64, usize) -> Option<Bytes>,
    size: u64,
) -> io::Result<Option<Vec<Vec<u8>>>> {
    let died = |_| io::Error::other("a thread that compresses has died");
    let (mut frames, mut table) = (Vec::new(), SeekTable::default());
    let mut under_way: VecDeque<(usize, Receiver<io::Result<Vec<u8>>>)> = VecDeque::new();
    let mut take = |(len, frame): (usize, Receiver<io::Result<Vec<u8>>>)| -> io::Result<()> {
        let frame = frame.recv().map_err(|_| died(()))??;
        table.push(&frame, len);
        frames.push(frame);
        Ok(())
    };
    let mut at = 0;
    while at < size {
        let len = super::job::READ.min(to_usize(size - at));
        let Some(bytes) = read(at, len) else { return Ok(None) };
        // The blocks of the read before this one were packed while this one was made.
        under_way.drain(..).try_for_each(&mut take)?;
        for start in (0..len).step_by(BLOCK) {
            let block = bytes.slice(start..len.min(start + BLOCK));
            let (done, frame) = mpsc::channel();
            under_way.push_back((block.len(), frame));
            tasks.send(Task { block, done }).map_err(|_| died(()))?;
        }
        at += len as u64;
    }
    under_way.drain(..).try_for_each(&mut take)?;
    frames.push(table.render());
    Ok(Some(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_died_is_an_error() {
        let (tasks, queue) = mpsc::channel();
        drop(queue);
        let read = |_, len| Some(Bytes::from(vec![0; len]));
        assert!(pack(&tasks, read, 1000).unwrap_err().to_string().contains("died"));
    }
}
