//! Readers that begin together: threads that read files, and Python processes that read NPZ volumes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rustix::fs::{Advice, fadvise};

use super::Piece;
use crate::error::{Error, Result};

/// What a reader asks for at a time, as a data loader with a large buffer does.
const READ: usize = 1 << 20;
/// What the Python processes run.
const SCRIPT: &str = include_str!("read_npz.py");

/// Deals items to `count` readers as a data loader deals shards to its workers.
pub(super) fn deal<T: Clone>(items: &[T], count: usize) -> Vec<Vec<T>> {
    (0..count).map(|reader| items.iter().skip(reader).step_by(count).cloned().collect()).collect()
}

/// Asks the kernel to forget the content of files, so that the next reader gets them from the disk, as one does whose
/// data set is larger than the memory.
pub(super) fn forget<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    for path in paths {
        let file = File::open(path).map_err(|error| Error::io(path, "open the file", error))?;
        // Advice: a file system that has none keeps them, on both sides of the comparison.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
    Ok(())
}

/// Reads files, or parts of them, with one thread a share; the time until the last one is done.
///
/// # Errors
/// A file cannot be read, or `stop` was set.
pub(super) fn read_files(shares: &[Vec<Piece>], stop: &AtomicBool) -> Result<Duration> {
    let ready = Barrier::new(shares.len() + 1);
    std::thread::scope(|scope| {
        let readers: Vec<_> = shares
            .iter()
            .map(|share| {
                let ready = &ready;
                scope.spawn(move || {
                    let buffer = MmapMut::map_anon(READ).map(|mut buffer| {
                        buffer.fill(1); // touched before the clock starts
                        buffer
                    });
                    ready.wait();
                    let mut buffer = buffer.map_err(|error| Error::system("get memory to read into", error))?;
                    share.iter().try_for_each(|piece| read_piece(piece, &mut buffer, stop))
                })
            })
            .collect();
        ready.wait();
        let begin = Instant::now();
        for reader in readers {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(begin.elapsed())
    })
}

fn read_piece(Piece { path, range }: &Piece, buffer: &mut [u8], stop: &AtomicBool) -> Result<()> {
    let failed = |error| Error::io(path, "read the shard", error);
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
    let mut file = file.take(range.end - range.start);
    while file.read(buffer).map_err(failed)? > 0 {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Refused("interrupted".into()));
        }
    }
    Ok(())
}

/// A Python process with its share of the volumes. Ended when dropped.
struct Python {
    process: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

/// Whether this Python can run with NumPy, and if not, what it said.
pub(super) fn check_python(python: &Path) -> Result<(), String> {
    match Command::new(python).args(["-c", "import numpy"]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed").to_owned();
            Err(format!("{}: {said}", python.display()))
        }
        Err(error) => Err(format!("{}: {error}", python.display())),
    }
}

/// `np.load(path)[array].astype(float16)` of all volumes with one process a share; the time until the last is done.
///
/// # Errors
/// A process failed (it has said why on standard error), or did not read `voxels` in all.
pub(super) fn read_npz(
    python: &Path,
    array: Option<&str>,
    shares: &[Vec<PathBuf>],
    voxels: u64,
    stop: &AtomicBool,
) -> Result<Duration> {
    let mut readers = shares.iter().map(|share| Python::start(python, array, share)).collect::<Result<Vec<_>>>()?;
    for reader in &mut readers {
        reader.answer(stop)?;
    }
    let begin = Instant::now();
    for reader in &mut readers {
        reader.tell("go\n")?;
    }
    let mut read = 0;
    for reader in &mut readers {
        read += reader.answer(stop)?.parse::<u64>().unwrap_or(0);
    }
    let elapsed = begin.elapsed();
    if read == voxels {
        Ok(elapsed)
    } else {
        Err(Error::Refused(format!("np.load read {read} voxels of {voxels}; does --array name the volume?")))
    }
}

impl Python {
    fn start(python: &Path, array: Option<&str>, share: &[PathBuf]) -> Result<Self> {
        let failed = |error| Error::io(python, "start Python", error);
        let mut process = Command::new(python)
            .args(["-c", SCRIPT])
            .args(array)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let missing = || failed(std::io::Error::other("no pipe"));
        let input = process.stdin.take().ok_or_else(missing)?;
        let output = BufReader::new(process.stdout.take().ok_or_else(missing)?);
        let mut reader = Self { process, input, output };
        for path in share {
            let path = fs::canonicalize(path).map_err(|error| Error::io(path, "open the volume", error))?;
            reader.tell(&format!("{}\n", path.display()))?;
        }
        reader.tell("\n")?;
        Ok(reader)
    }

    fn tell(&mut self, text: &str) -> Result<()> {
        self.input
            .write_all(text.as_bytes())
            .map_err(|error| Error::system("write to a Python process that reads NPZ files", error))
    }

    fn answer(&mut self, stop: &AtomicBool) -> Result<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Refused("interrupted".into()));
        }
        match read {
            Ok(n) if n > 0 => Ok(line.trim_end().to_owned()),
            _ => Err(Error::Refused("a Python process that read NPZ files failed; it said why above".into())),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
