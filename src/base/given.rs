//! Files that the user names and that are read whole: tables, lists, configurations. They may be pipes, as of
//! `--exclude <(grep …)` or `--exclude /dev/stdin`; one that gives nothing is an error, and is not waited for for ever.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::files;
use crate::error::{Error, Result};

/// How long a FIFO waits for somebody who writes into it.
const NOBODY: Duration = Duration::from_secs(10);
/// How long a pipe or a terminal may say nothing.
const SILENCE: Duration = Duration::from_secs(600);
/// The time between two looks at a pipe that says nothing.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes that a pipe or a device may give: more is no table.
const MOST: usize = 2 << 30;
/// Bytes that are read of a pipe at a time.
const PIECE: usize = 64 << 10;

/// Reads a file, a pipe or a terminal to its end. `doing` is the verb phrase of the error, such as "read the table".
///
/// # Errors
/// [`Error::Io`] if it cannot be read: also if nobody writes into a FIFO for 10 seconds, if nothing comes out of a pipe
/// for 10 minutes, or more than 2 GiB.
pub fn read(path: &Path, doing: &'static str) -> Result<Vec<u8>> {
    read_patiently(path, NOBODY, SILENCE).map_err(|error| Error::io(path, doing, error))
}

/// Reads a file to its end as text: see [`read`].
///
/// # Errors
/// Those of [`read`], and [`Error::Io`] if it is not UTF-8.
pub fn read_text(path: &Path, doing: &'static str) -> Result<String> {
    let text = String::from_utf8(read(path, doing)?);
    text.map_err(|_| Error::io(path, doing, io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text")))
}

fn read_patiently(path: &Path, nobody: Duration, silence: Duration) -> io::Result<Vec<u8>> {
    // To open a FIFO without a writer would wait.
    let mut file = files::open_now(path)?;
    let kind = file.metadata()?.file_type();
    let mut bytes = Vec::new();
    if kind.is_fifo() || kind.is_char_device() || kind.is_socket() {
        read_pipe(&mut file, kind.is_fifo(), nobody, silence, &mut bytes)?;
    } else {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Reads a pipe or a device that was opened without waiting. A FIFO that nobody has opened to write has an end, too:
/// only the kernel's word that a writer was there makes it one.
fn read_pipe(
    file: &mut File,
    is_fifo: bool,
    nobody: Duration,
    silence: Duration,
    bytes: &mut Vec<u8>,
) -> io::Result<()> {
    let timed_out = |what: String| Err(io::Error::new(ErrorKind::TimedOut, what));
    let (mut piece, mut heard, mut was_written) = (vec![0; PIECE], Instant::now(), false);
    loop {
        let has_writer = match file.read(&mut piece) {
            Ok(0) if !is_fifo || was_written => return Ok(()),
            Ok(0) => false,
            Ok(count) => {
                if bytes.len() + count > MOST {
                    return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it gave more than {MOST} bytes")));
                }
                bytes.try_reserve(count).map_err(|_| ErrorKind::OutOfMemory)?;
                bytes.extend(&piece[..count]);
                (heard, was_written) = (Instant::now(), true);
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => return Err(error),
        };
        let silent = heard.elapsed();
        if !has_writer && silent > nobody {
            return timed_out(format!("nobody has written into this pipe for {} s", nobody.as_secs()));
        }
        if silent > silence {
            return timed_out(format!("nothing has come out of it for {} s", silence.as_secs()));
        }
        let look = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
        let mut waited = [PollFd::new(file, PollFlags::IN)];
        match poll(&mut waited, Some(&look)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        was_written |= waited[0].revents().contains(PollFlags::HUP);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::path::PathBuf;
    use std::process::Command;
    use std::thread;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(300);

    fn fifo(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn a_fifo_without_a_writer_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_patiently(&fifo(&folder), MOMENT, SILENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("nobody has written"), "{error}");
    }

    #[test]
    fn a_writer_that_says_nothing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        let both = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let error = read_patiently(&path, MOMENT, 2 * MOMENT).unwrap_err();
        assert!(error.to_string().contains("nothing has come"), "{error}");
        drop(both);
    }

    #[test]
    fn a_late_and_slow_writer_is_heard_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        let long = "study\n".repeat(40_000); // more than a pipe holds
        let (to, text) = (path.clone(), long.clone());
        let writer = thread::spawn(move || {
            thread::sleep(MOMENT / 2);
            let mut pipe = OpenOptions::new().write(true).open(to).unwrap();
            thread::sleep(MOMENT);
            io::Write::write_all(&mut pipe, text.as_bytes()).unwrap();
        });
        assert_eq!(read_patiently(&path, 10 * MOMENT, SILENCE).unwrap(), long.as_bytes());
        writer.join().unwrap();
    }

    #[test]
    fn files_and_devices_are_read_as_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, "a\nb").unwrap();
        assert_eq!(read(&path, "read").unwrap(), b"a\nb");
        assert_eq!(read(Path::new("/dev/null"), "read").unwrap(), b"");
        assert!(read(folder.path(), "read").unwrap_err().to_string().contains("directory"));
        assert!(read(&folder.path().join("none"), "read the list").unwrap_err().to_string().contains("read the list"));
        fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path, "read").unwrap_err().to_string().contains("UTF-8"));
    }
}
