//! `ctwds-fs report`: a page that shows the data set and what its shards hold.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::interrupt::stop_on_signals;
use super::plans::make_plan;
use super::progress::Bar;
use super::terminal::print;
use crate::base::durable;
use crate::base::given;
use crate::base::parallel::available_cores;
use crate::cli::{ReportArgs, default_cache_size};
use crate::error::{Error, Result, shown};
use crate::report::{self, Request};

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode> {
    super::daemon::log_to_terminal(log::LevelFilter::Warn);
    let json = |path: &Option<PathBuf>| path.as_deref().map(read_json).transpose();
    let (verify, bench) = (json(&args.verified)?, json(&args.benched)?);
    let plan = make_plan(&args.dataset, args.source.shards.as_deref())?;
    let stop = stop_on_signals()?;
    let kind = args.dataset.kind()?;
    let request = Request {
        samples: args.samples as usize,
        seed: args.seed,
        threads: args.threads.map_or_else(available_cores, usize::from),
        cache_bytes: default_cache_size(),
        axes: kind.axes,
        spacing: kind.spacing,
        with_reports: args.with_reports,
        verify,
        bench,
    };
    let bar = Bar::new(false);
    let page = report::render(plan, &request, &stop, |total| bar.begin("volumes", total as u64), || bar.advance(1))?;
    bar.clear();
    let folder = args.output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = args.output.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::Usage(format!("{}: this is no name of a file", shown(&args.output))))?;
    durable::publish(folder, name, page.as_bytes())?;
    print(format!("wrote {}: open it in a browser\n", shown(&args.output)), "print where the page is")?;
    Ok(ExitCode::SUCCESS)
}

/// Reads what another command printed as JSON: its report is the last object.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it is no JSON.
fn read_json(path: &Path) -> Result<serde_json::Value> {
    let text = given::read(path, "read what was printed as JSON")?;
    let no_json = |why: String| Error::malformed(path, format!("it is no JSON: {why}"));
    let printed = serde_json::Deserializer::from_slice(&text).into_iter().last();
    printed.ok_or_else(|| no_json("it is empty".into()))?.map_err(|error| no_json(error.to_string()))
}
