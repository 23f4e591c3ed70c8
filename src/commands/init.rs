//! `ctwds-fs init`: looks at a folder of volumes and the tables beside it, and writes the file of the data set.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use toml_writer::ToTomlValue;

use super::interrupt;
use super::progress::ScanDisplay;
use super::shared;
use super::terminal::{print, say, say_in_line, tell};
use crate::cli::{DATASET_FILE, InitArgs};
use crate::dataset::guess::{self, Decision, Guesses, Value};
use crate::error::{Error, Result, shown};

/// The widest comment of the file, in characters.
const WIDTH: usize = 118;

pub(super) fn run(args: &InitArgs) -> Result<ExitCode> {
    let output = args.output.clone().unwrap_or_else(|| DATASET_FILE.into());
    refuse_existing(&output)?;
    let guesses = guess::look(&args.folder, &ScanDisplay::new().progress())?;
    let text = render(&guesses, &output)?;
    let show = || match args.json {
        false => print(&text, "print what was found"),
        true if !args.yes && io::stdin().is_terminal() => {
            say_in_line(&text); // which the user is asked about
            Ok(())
        }
        true => Ok(()),
    };
    let open = guesses.keys.iter().filter(|guess| matches!(guess.decision, Decision::Open(_))).count();
    let say_open = || {
        if open > 0 {
            say(format_args!("Not decided: {open}. Such keys stand there as comments to fill in."));
        }
    };
    let written = if args.yes {
        write(&output, &text)?;
        show()?;
        say_open();
        Ok(())
    } else {
        show()?;
        say_open();
        ask(&output).and_then(|()| write(&output, &text))
    };
    if args.json {
        print(found(&guesses, &output, written.is_ok())?, "print what was found")?;
    }
    written?;
    tell(format_args!("{} is written.", shown(&output)));
    let is_found = args.output.is_none();
    let file = if is_found { String::new() } else { format!(" --dataset {}", shown(&output)) };
    tell(format_args!("Next: ctwds-fs plan{file}"));
    Ok(ExitCode::SUCCESS)
}

/// What was found, for programs; whether the file `is_written`.
fn found(guesses: &Guesses, output: &Path, is_written: bool) -> Result<String> {
    let keys = guesses.keys.iter().map(|guess| {
        let (decision, value) = match &guess.decision {
            Decision::Found(value) => ("found", Some(value)),
            Decision::Unneeded => ("unneeded", None),
            Decision::Offered(value) => ("offered", Some(value)),
            Decision::Open(example) => ("open", Some(example)),
        };
        json!({ "key": guess.key, "decision": decision, "value": value.map(in_json), "reason": guess.reason })
    });
    let keys: Vec<_> = keys.collect();
    let output = output.to_string_lossy();
    Ok(shared::json(&json!({ "file": output, "written": is_written, "keys": keys, "notes": guesses.notes }))? + "\n")
}

/// A value as JSON has it; paths are absolute.
fn in_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => json!(text),
        Value::Texts(texts) => json!(texts),
        Value::Path(path) => json!(path.to_string_lossy()),
        Value::Paths(paths) => json!(paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>()),
    }
}

/// Refuses to begin where the file is there already.
fn refuse_existing(output: &Path) -> Result<()> {
    match fs::symlink_metadata(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(output, "look at the file to write", error)),
        Ok(_) => Err(exists(output)),
    }
}

fn exists(output: &Path) -> Error {
    Error::Refused(format!(
        "{}: it is there already, and nothing is overwritten; move it away, or name another file with --output",
        shown(output)
    ))
}

/// Asks whether the file may be written.
///
/// # Errors
/// [`Error::Refused`] if not, or there is no terminal to ask on; [`Error::System`] if the answer cannot be read.
fn ask(output: &Path) -> Result<()> {
    if !io::stdin().is_terminal() {
        return Err(Error::Refused(format!(
            "{} was not written: there is no terminal to ask on; --yes writes without asking",
            shown(output)
        )));
    }
    say_in_line(format_args!("Write {}? [y/n] ", shown(output)));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Error::system("read the answer from standard input", error))?;
    if ["y", "yes"].contains(&&*answer.trim().to_lowercase()) {
        Ok(())
    } else {
        Err(Error::Refused("nothing was written".into()))
    }
}

/// Writes the file, if none is there: whatever appears meanwhile stays as it is.
fn write(output: &Path, text: &str) -> Result<()> {
    interrupt::finish(); // half a file would be found as a whole one
    let file = match OpenOptions::new().write(true).create_new(true).open(output) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(output)),
        Err(error) => return Err(Error::io(output, "create the file", error)),
    };
    let write_all = |mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    write_all(file).map_err(|error| {
        let _ = fs::remove_file(output); // it is this run's own, and half of it would be found as a whole one
        Error::io(output, "write the file", error)
    })
}

/// The file of the data set.
fn render(guesses: &Guesses, output: &Path) -> Result<String> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder).map_err(|error| Error::io(folder, "resolve the path", error))?;
    let mut text =
        comment("The data set, as ctwds-fs init found it. Each key is a flag; paths start at this file's folder");
    for guess in &guesses.keys {
        text.push('\n');
        let (key, reason) = (guess.key, &guess.reason);
        match &guess.decision {
            Decision::Found(value) => {
                text.push_str(&comment(reason));
                text.push_str(&format!("{key} = {}\n", written(value, &folder)?));
            }
            Decision::Unneeded => text.push_str(&comment(&format!("{key}: {reason}"))),
            Decision::Offered(value) => {
                text.push_str(&comment(reason));
                text.push_str(&format!("# {key} = {}\n", written(value, &folder)?));
            }
            Decision::Open(example) => {
                text.push_str(&comment(&format!("NOT DECIDED: {reason}")));
                text.push_str(&format!("# {key} = {}\n", written(example, &folder)?));
            }
        }
    }
    if !guesses.notes.is_empty() {
        text.push('\n');
        text.push_str(&comment("Seen, and not part of the data set:"));
        guesses.notes.iter().for_each(|note| text.push_str(&comment(&format!("- {note}"))));
    }
    Ok(text)
}

/// A value as TOML has it; a path from the file's folder on if it lies below that.
///
/// # Errors
/// [`Error::Refused`] for a path that TOML cannot hold, as it is no UTF-8.
fn written(value: &Value, folder: &Path) -> Result<String> {
    Ok(match value {
        Value::Text(text) => text.to_toml_value(),
        Value::Texts(texts) => {
            let texts: Vec<String> = texts.iter().map(ToTomlValue::to_toml_value).collect();
            format!("[{}]", texts.join(", "))
        }
        Value::Path(path) => written_path(path, folder)?,
        Value::Paths(paths) => {
            let paths: Vec<String> = paths.iter().map(|path| written_path(path, folder)).collect::<Result<_>>()?;
            format!("[{}]", paths.join(", "))
        }
    })
}

fn written_path(path: &Path, folder: &Path) -> Result<String> {
    let below = path.strip_prefix(folder).unwrap_or(path);
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let text = below.to_str().ok_or_else(|| {
        Error::Refused(format!("{}: its name is not UTF-8, which TOML needs; rename it", shown(path)))
    })?;
    Ok(text.to_toml_value())
}

/// A comment of lines that are not too wide.
fn comment(text: &str) -> String {
    let text = shown(text);
    let mut lines = vec![String::from("#")];
    for word in text.split(' ') {
        let last =
            lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= WIDTH || *line == "#");
        match last {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}
