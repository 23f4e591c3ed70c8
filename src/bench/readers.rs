//! Readers that begin at the same time: threads that read files, and Python processes that read NPZ volumes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rustix::fs::{Advice, fadvise};

use super::workload::{FileRange, NOTHING_KEPT};
use crate::base::files;
use crate::base::limits::not_started;
use crate::base::lock::lock;
use crate::base::low_limits::in_force;
use crate::base::parallel::{join, spawn_in};
use crate::error::{Error, Result};

/// The bytes of one read, as of a data loader with a large buffer.
const READ: usize = 1 << 20;
/// The script of the Python processes.
const SCRIPT: &str = include_str!("read_npz.py");

/// Distributes items among `count` readers as a data loader distributes shards among its workers.
pub(super) fn distribute<T: Clone>(items: &[T], count: usize) -> Vec<Vec<T>> {
    (0..count).map(|reader| items.iter().skip(reader).step_by(count).cloned().collect()).collect()
}

/// Asks the kernel to drop files from the page cache, so that the next reader gets them from the disk, as with a data
/// set that is larger than the memory.
///
/// # Errors
/// [`Error::Io`] if a file cannot be opened.
pub(super) fn drop_cached<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    for path in paths {
        let file = files::open(path).map_err(|error| Error::io(path, "open the file", error))?;
        // This is advice: a file system that ignores it keeps the files cached, for all targets alike.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
    Ok(())
}

/// Reads ranges of files with one thread for each share, and returns the time until the last thread is done.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read, [`Error::Refused`] if `stop` was set.
pub(super) fn read_files(shares: &[Vec<FileRange>], stop: &AtomicBool) -> Result<Duration> {
    // Held while the threads start and get ready; true if they are to read.
    let gate = Mutex::new(false);
    let (ready, inbox) = mpsc::channel();
    std::thread::scope(|scope| {
        let mut may_read = lock(&gate);
        let mut readers = Vec::new();
        for share in shares {
            let (gate, ready) = (&gate, ready.clone());
            let read = move || {
                let buffer = MmapMut::map_anon(READ).map(|mut buffer| {
                    buffer.fill(1); // touched before the clock starts
                    buffer
                });
                let _ = ready.send(()); // nobody listens if a thread could not be started
                let is_begun = *lock(gate);
                let mut buffer = buffer.map_err(|error| Error::system("get memory to read into", error))?;
                if is_begun { share.iter().try_for_each(|file| read_range(file, &mut buffer, stop)) } else { Ok(()) }
            };
            let started = spawn_in(scope, "reader", read);
            readers.push(started.map_err(|error| not_started(format!("start {} readers", shares.len()), error))?);
        }
        inbox.iter().take(readers.len()).for_each(drop);
        let begin = Instant::now();
        *may_read = true;
        drop(may_read);
        readers.into_iter().try_for_each(join)?;
        Ok(begin.elapsed())
    })
}

fn read_range(FileRange { path, range }: &FileRange, buffer: &mut [u8], stop: &AtomicBool) -> Result<()> {
    let failed = |error| Error::io(path, "read the shard", error);
    let mut file = files::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
    let mut file = file.take(range.end - range.start);
    while file.read(buffer).map_err(failed)? > 0 {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted(NOTHING_KEPT));
        }
    }
    Ok(())
}

/// A Python process with its share of the volumes; it is ended when dropped.
struct Python {
    process: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

/// Checks that a Python program runs and has NumPy.
///
/// # Errors
/// The program's name and the reason: the last line of its error output, or why it cannot be started.
pub(super) fn check_python(python: &Path) -> Result<(), String> {
    match Command::new(python).args(["-c", "import numpy"]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed").to_owned();
            Err(format!("{}: {reason}", python.display()))
        }
        Err(error) => Err(format!("{}: {error}", python.display())),
    }
}

/// Runs `np.load(path)[array].astype(dtype)` for all volumes with one process for each share, and returns the time
/// until the last process is done.
///
/// # Errors
/// A process failed (the reason is on standard error), or not `voxels` were read in all, or `stop` was set.
pub(super) fn read_npz(
    python: &Path,
    dtype: &str,
    array: Option<&str>,
    shares: &[Vec<PathBuf>],
    voxels: u64,
    stop: &AtomicBool,
) -> Result<Duration> {
    let mut readers =
        shares.iter().map(|share| Python::start(python, dtype, array, share)).collect::<Result<Vec<_>>>()?;
    for reader in &mut readers {
        reader.answer(stop)?;
    }
    let begin = Instant::now();
    for reader in &mut readers {
        reader.send("go\n")?;
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
    /// Starts a process and sends the paths of its share.
    fn start(python: &Path, dtype: &str, array: Option<&str>, share: &[PathBuf]) -> Result<Self> {
        let failed = |error| not_started(format!("start {}", python.display()), error);
        let mut process = Command::new(python)
            .args(["-c", SCRIPT, dtype])
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
            reader.send(&format!("{}\n", path.display()))?;
        }
        reader.send("\n")?;
        Ok(reader)
    }

    fn send(&mut self, text: &str) -> Result<()> {
        self.input.write_all(text.as_bytes()).map_err(|error| {
            Error::system(format!("write to a Python process that reads NPZ files{}", in_force()), error)
        })
    }

    /// The next line of the process.
    fn answer(&mut self, stop: &AtomicBool) -> Result<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted(NOTHING_KEPT));
        }
        match read {
            Ok(n) if n > 0 => Ok(line.trim_end().to_owned()),
            _ => Err(Error::Refused(format!(
                "a Python process that read NPZ files failed; it said why above{}",
                in_force()
            ))),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
