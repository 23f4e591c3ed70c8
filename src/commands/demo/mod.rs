//! `ctwds-fs demo`: writes a small data set, and shows what the program does with it, by commands that a user types.

mod phantom;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde_json::json;

use super::interrupt::stop_on_signals;
use super::shared;
use super::terminal::{aside, print, say, say_in_line};
use crate::base::limits::not_started;
use crate::base::num::counted;
use crate::base::own_program::own_program;
use crate::cli::{DATASET_FILE, DemoArgs};
use crate::error::{Error, Result};

/// The folder of the shards in the data set's folder.
const SHARDS: &str = "shards";

pub(super) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let demo = Demo::prepare(&args.folder, args.json)?;
    let stop = stop_on_signals()?; // which end the command that runs; what is mounted is then unmounted
    let seen = match demo.show(&stop) {
        Ok(seen) => seen,
        Err(error) => {
            // Nothing may be mounted: then this has nothing to say.
            let _ = demo
                .command(&["unmount", SHARDS])
                .and_then(|mut command| command.stdout(Stdio::null()).stderr(Stdio::null()).status());
            return Err(error);
        }
    };
    demo.tell(&demo.what_next(seen.is_mounted), "print what to do next")?;
    if args.json {
        print(demo.json(&seen)?, "print what was made and read")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder in which everything happens.
struct Demo {
    folder: PathBuf,
    /// Bytes of the NPZ files.
    npz_bytes: u64,
    /// Whether standard output is for programs, so that words go to standard error.
    is_json: bool,
}

/// What the demonstration has seen.
struct Seen {
    /// Whether the shards were mounted, or else written.
    is_mounted: bool,
    shards: u64,
    /// Bytes of all shards.
    bytes: u64,
    /// How long it took to read the shards.
    time: Duration,
}

impl Demo {
    /// Makes the folder, and writes the data set into it.
    ///
    /// # Errors
    /// [`Error::Refused`] if the folder holds something; [`Error::Io`] if it cannot be written to.
    fn prepare(folder: &Path, is_json: bool) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, "make the folder", error))?;
        let failed = |error| Error::io(folder, "list the folder", error);
        if fs::read_dir(folder).map_err(failed)?.next().is_some() {
            let folder = folder.display();
            return Err(Error::Refused(format!(
                "{folder}: there is something in this folder; name another one (ctwds-fs demo FOLDER), or remove it"
            )));
        }
        let folder = fs::canonicalize(folder).map_err(failed)?;
        let npz_bytes = phantom::write(&folder)?;
        let text = format!(
            "{}: wrote {} ({} of NPZ) and three tables\n",
            folder.display(),
            counted(phantom::COUNT, "volume", "volumes"),
            ByteSize(npz_bytes)
        );
        let demo = Self { folder, npz_bytes, is_json };
        demo.tell(&text, "print what was written")?;
        Ok(demo)
    }

    /// Prints what is for people: to standard error where standard output is for programs.
    ///
    /// # Errors
    /// As [`print()`].
    fn tell(&self, text: &str, doing: &'static str) -> Result<()> {
        if self.is_json {
            say_in_line(text);
            return Ok(());
        }
        print(text, doing)
    }

    /// What was made and read, for programs.
    fn json(&self, seen: &Seen) -> Result<String> {
        let folder = self.folder.to_string_lossy();
        Ok(shared::json(&json!({
            "folder": folder,
            "volumes": phantom::COUNT,
            "npz_bytes": self.npz_bytes,
            "mounted": seen.is_mounted,
            "shards": seen.shards,
            "shard_bytes": seen.bytes,
            "seconds": seen.time.as_secs_f64(),
        }))? + "\n")
    }

    /// The whole line.
    ///
    /// # Errors
    /// A command fails, or `stop` says that the user has had enough.
    fn show(&self, stop: &AtomicBool) -> Result<Seen> {
        self.must(&["init", "volumes", "--yes"], stop)?;
        self.make_several_shards()?;
        self.must(&["plan"], stop)?;
        let shards = self.folder.join(SHARDS);
        fs::create_dir_all(&shards).map_err(|error| Error::io(&shards, "make the folder", error))?;
        let is_mounted = self.run(&["mount", SHARDS], stop)?;
        if !is_mounted {
            say("ctwds-fs: note: nothing can be mounted here: the same shards are written as files");
            self.must(&["materialize", "--output-dir", SHARDS], stop)?;
        }
        let seen = read_all(&shards, is_mounted)?;
        let (count, milliseconds) = (counted(seen.shards, "shard", "shards"), seen.time.as_millis());
        let text = format!("\nread {count}, {}, in {milliseconds} ms\n", ByteSize(seen.bytes));
        self.tell(&text, "print how fast the shards are")?;
        self.must(&["verify", "--shards", SHARDS, "--check-precision"], stop)?;
        if is_mounted {
            self.must(&["unmount", SHARDS], stop)?;
        }
        Ok(seen)
    }

    /// Adds a flag to the file that `init` has written, as a user would.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    fn make_several_shards(&self) -> Result<()> {
        let path = self.folder.join(DATASET_FILE);
        let failed = |error| Error::io(&path, "add samples_per_shard", error);
        let mut file = File::options().append(true).open(&path).map_err(failed)?;
        file.write_all(b"\n# small shards, so that there are several\nsamples_per_shard = 4\n").map_err(failed)
    }

    /// Runs this program in the folder, and shows the command as a user types it. Whether it succeeded.
    ///
    /// # Errors
    /// The command cannot be started, or `stop` says that the user has had enough.
    fn run(&self, arguments: &[&str], stop: &AtomicBool) -> Result<bool> {
        self.tell(&format!("\n$ ctwds-fs {}\n", arguments.join(" ")), "print a command")?;
        let failed = |error| not_started("start a command of the demonstration", error);
        let status = self.command(arguments).and_then(|mut command| command.status()).map_err(failed)?;
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted(
                "nothing is mounted any more; remove the folder before the next demonstration",
            ));
        }
        Ok(status.success())
    }

    /// Runs this program as [`Self::run`] does.
    ///
    /// # Errors
    /// As [`Self::run`], and [`Error::Refused`] if the command fails, which has said why.
    fn must(&self, arguments: &[&str], stop: &AtomicBool) -> Result<()> {
        if self.run(arguments, stop)? {
            return Ok(());
        }
        Err(Error::Refused(format!("`ctwds-fs {}` has failed, for the reason above", arguments.join(" "))))
    }

    /// This program, to be run in the folder.
    fn command(&self, arguments: &[&str]) -> io::Result<Command> {
        let mut command = Command::new(own_program()?);
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        if self.is_json {
            command.stdout(aside());
        }
        // Variables that stand for flags are those of the user's own data set.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CTWDS_")) {
            command.env_remove(name);
        }
        Ok(command)
    }

    /// What a user may do with the folder now.
    fn what_next(&self, is_mounted: bool) -> String {
        let folder = self.folder.display();
        let read = if is_mounted {
            "ctwds-fs mount shards                            # then any WebDataset reader: shards/shard-000000.tar, …\n  \
             ctwds-fs unmount shards"
        } else {
            "ctwds-fs cat 0 | tar -tv                         # a shard in a pipe; shards/ has the files"
        };
        format!(
            "\nEverything passed. To go on:\n\n  \
             cd {folder}\n  \
             cat ctwds.toml                                   # the flags of the data set, with reasons\n  \
             {read}\n  \
             ctwds-fs materialize --output-dir files          # the same shards as files\n  \
             rm -r {folder}\n\n\
             With data of your own: ctwds-fs init FOLDER\n"
        )
    }
}

/// Reads all shards of a folder.
fn read_all(folder: &Path, is_mounted: bool) -> Result<Seen> {
    let failed = |error| Error::io(folder, "read the shards", error);
    let (begun, mut bytes, mut shards, mut buffer) = (Instant::now(), 0, 0, vec![0; 1 << 20]);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "tar") {
            continue;
        }
        let failed = |error| Error::io(&path, "read the shard", error);
        let mut file = File::open(&path).map_err(failed)?;
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => bytes += read as u64,
            }
        }
        shards += 1;
    }
    Ok(Seen { is_mounted, shards, bytes, time: begun.elapsed() })
}
