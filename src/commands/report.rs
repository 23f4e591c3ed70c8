//! `ctwds-fs report`: a page that shows the data set and what its shards hold.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::interrupt::stop_on_signals;
use super::plans::make_plan;
use super::progress::Bar;
use super::terminal::{print, say};
use super::{shared, value_check};
use crate::base::durable;
use crate::base::given;
use crate::base::memory;
use crate::base::num::counted;
use crate::base::parallel::available_cores;
use crate::cli::ReportArgs;
use crate::error::{Error, Result, shown};
use crate::report::{self, Page, Request};

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode> {
    super::daemon::log_to_terminal(log::LevelFilter::Warn);
    let verify = args.verified.as_deref().map(|path| printed(path, "verify", ["/verdict", "/folder"])).transpose()?;
    let bench = args.benched.as_deref().map(|path| printed(path, "bench", ["/data/samples", "/rows"])).transpose()?;
    let (folder, name) = place(&args.output)?;
    let plan = make_plan(&args.dataset, Some(&args.source))?;
    let stop = stop_on_signals()?;
    let kind = args.dataset.kind()?;
    let request = Request {
        samples: args.samples as usize,
        seed: args.seed,
        threads: args.threads.map_or_else(available_cores, usize::from),
        memory: memory::available(),
        axes: kind.axes,
        spacing: kind.spacing,
        with_reports: args.with_reports,
        warning: value_check::problem(&plan, &kind).map(|problem| problem.message),
        verify,
        bench,
    };
    let bar = Bar::new(false);
    let page = report::render(plan, &request, &stop, |total| bar.begin("volumes", total as u64), || bar.advance(1))?;
    bar.clear();
    durable::publish(folder, name, page.html.as_bytes())?;
    let told = match args.json {
        true => told(&args.output, &page)?,
        false => format!("wrote {}: open it in a browser\n", shown(&args.output)),
    };
    print(told, "print where the page is")?;
    if page.unread == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let volumes = counted(page.volumes, "volume", "volumes");
    let lists = "the page lists them; verify --sources checks all, and writes a list for --exclude";
    say(format_args!("ctwds-fs report: {} of {volumes} could not be read: {lists}", page.unread));
    Ok(ExitCode::FAILURE)
}

/// Where the page is and what it says, as JSON.
///
/// # Errors
/// [`Error::Internal`] if it cannot be written as JSON.
fn told(output: &Path, page: &Page) -> Result<String> {
    let mut told = json!({ "page": output.to_string_lossy(), "bytes": page.html.len() });
    if let (Some(told), Some(summary)) = (told.as_object_mut(), page.summary.as_object()) {
        told.extend(summary.clone());
    }
    Ok(shared::json(&told)? + "\n")
}

/// The folder and the name of the page. Only a page of this command is replaced: what else is there may be a table, a
/// volume, or a device.
///
/// # Errors
/// [`Error::Usage`] if this is no name of a file, [`Error::Refused`] if something else is there or the folder is not.
fn place(output: &Path) -> Result<(&Path, &str)> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = output.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::Usage(format!("{}: this is no name of a file", shown(output))))?;
    if !folder.is_dir() {
        let folder = shown(folder);
        return Err(Error::Refused(format!("{folder}: the folder does not exist; create it with mkdir -p {folder}")));
    }
    let is_page = || {
        let mut beginning = vec![0; report::BEGINNING.len()];
        File::open(output).and_then(|mut file| file.read_exact(&mut beginning)).is_ok()
            && beginning == report::BEGINNING
    };
    match fs::symlink_metadata(output) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((folder, name)),
        Err(error) => Err(Error::io(output, "look at what is there", error)),
        Ok(there) if there.is_file() && is_page() => Ok((folder, name)),
        Ok(_) => Err(Error::Refused(format!(
            "{}: it is there already, and is no page of this command; name another one with --output",
            shown(output)
        ))),
    }
}

/// Reads what another command printed as JSON: its last line, which has these `fields`, as names from the top down.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it is something else.
fn printed(path: &Path, command: &str, fields: [&str; 2]) -> Result<Value> {
    let text = given::read(path, "read what was printed as JSON")?;
    let values: serde_json::Result<Vec<Value>> = serde_json::Deserializer::from_slice(&text).into_iter().collect();
    let last = values.ok().and_then(|mut values| values.pop());
    let is_whole = |value: &Value| fields.iter().all(|field| value.pointer(field).is_some());
    last.filter(is_whole).ok_or_else(|| {
        Error::malformed(path, format!("this is not what `ctwds-fs {command} --json` prints: write its output there"))
    })
}
