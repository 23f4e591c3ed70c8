//! `ctwds-fs verify --sources`: which volumes cannot be read, before anything is made of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;

use super::make_plan;
use super::progress::{Bar, exit_code};
use crate::base::parallel::try_map;
use crate::cli::{VerifyArgs, default_cache_size};
use crate::dataset::quarantine::{self, Quarantined};
use crate::dataset::{Dataset, LeftOut};
use crate::error::{Error, Result};
use crate::formats::npz;
use crate::plan::layout::Content;
use crate::plan::members::Member;
use crate::plan::{Plan, ShardId};
use crate::shard::{Serving, ShardSet};
use crate::verify::{Progress, Verdict, readable};

/// Bytes that are asked for at a time.
const READ: u64 = 4 << 20;

/// What was found; also for programs.
#[derive(Serialize)]
struct Report {
    verdict: Verdict,
    /// Volumes that were read.
    volumes: usize,
    /// Volumes that cannot be made: this is what the list has, besides the rows of `--exclude`.
    bad: Vec<Quarantined>,
    /// Volumes that the operating system did not let be read, and why: they may be sound.
    unread: Vec<Quarantined>,
    quarantine: PathBuf,
}

pub(super) fn run(args: &VerifyArgs, workers: usize) -> Result<ExitCode> {
    super::daemon::log_to_terminal(log::LevelFilter::Off); // each volume is listed once, at the end
    let plan = make_plan(&args.dataset, None)?;
    let excluded = args.dataset.exclude.as_deref().map(quarantine::read).transpose()?.unwrap_or_default();
    let name = args.quarantine.clone().unwrap_or_else(|| quarantine::NAME.into());
    let mut found = left_out(&plan.dataset, args.dataset.array.as_deref(), &excluded, workers)?;
    let volumes = plan.dataset.samples.len() + found.len();
    found.extend(read_all(plan, workers)?);
    let (mut bad, mut unread) = (Vec::new(), Vec::new());
    for (row, error) in found {
        match error {
            None => {}
            Some(Error::Malformed { reason, .. }) => bad.push(Quarantined { reason, ..row }),
            Some(other) => unread.push(Quarantined { reason: other.to_string(), ..row }),
        }
    }
    let verdict = match (bad.is_empty(), unread.is_empty()) {
        (false, _) => Verdict::Damaged,
        (true, false) => Verdict::Unchecked,
        (true, true) => Verdict::Fine,
    };
    let mut rows: BTreeMap<&str, &Quarantined> = excluded.iter().map(|row| (&*row.study_id, row)).collect();
    rows.extend(bad.iter().map(|row| (&*row.study_id, row)));
    let rows: Vec<Quarantined> = rows.into_values().cloned().collect();
    store(&name, &quarantine::render(&rows))?;
    print(args.json, &Report { verdict, volumes, bad, unread, quarantine: name })?;
    Ok(exit_code(verdict))
}

/// A volume and why it cannot be made, if so.
type Found = (Quarantined, Option<Error>);

/// Those of the plan, read as a mount would: the bytes, their CRC and the values.
fn read_all(plan: Plan, workers: usize) -> Result<Vec<Found>> {
    let serving = Serving { cache_bytes: default_cache_size(), threads: workers, read_ahead: 0, read_once: true };
    let bar = Bar::new();
    let set = ShardSet::new(plan, serving)?;
    let plan = set.plan();
    let mut volumes = Vec::new();
    for id in plan.shard_ids() {
        for (extent, _) in plan.locate(id, 0, u64::MAX) {
            if let Content::Payload(member) = extent.content
                && member.member == Member::Volume
            {
                volumes.push((id, plan.sample_index(id, member), extent.start..extent.start + extent.len));
            }
        }
    }
    bar.begin("volumes", volumes.iter().map(|(_, _, range)| range.end - range.start).sum());
    let found = try_map(&volumes, workers, |(id, index, range)| {
        let sample = &plan.dataset.samples[*index];
        let path = sample.path.to_string_lossy().into_owned();
        let row = Quarantined { study_id: sample.study_id.clone(), path, reason: String::new() };
        Ok::<_, Error>((row, read(&set, *id, range.clone(), &bar).err()))
    });
    bar.bar.finish_and_clear();
    found
}

fn read(set: &ShardSet, id: ShardId, range: std::ops::Range<u64>, bar: &Bar) -> Result<()> {
    let cursor = Arc::new(set.cursor(id));
    let mut at = range.start;
    while at < range.end {
        let len = READ.min(range.end - at);
        set.read_with(&cursor, at, crate::base::num::to_usize(len))?;
        bar.advance(len);
        at += len;
    }
    Ok(())
}

/// Those that the plan leaves out: whose headers cannot be read, or whose metadata is incomplete, which is no fault of
/// the volume. Those that the user excluded are not looked at.
fn left_out(dataset: &Dataset, array: Option<&str>, excluded: &[Quarantined], workers: usize) -> Result<Vec<Found>> {
    let is_excluded = |left_out: &&LeftOut| excluded.iter().any(|row| row.study_id == left_out.study_id);
    let left_out: Vec<&LeftOut> = dataset.left_out.iter().filter(|left_out| !is_excluded(left_out)).collect();
    try_map(&left_out, workers, |left_out| {
        let path = dataset.root.join(&left_out.path);
        let row =
            Quarantined { study_id: left_out.study_id.clone(), path: left_out.path.clone(), reason: String::new() };
        let result = npz::inspect(&path, array)
            .and_then(|array| readable(&path, &array.member.name).map_err(|reason| Error::malformed(&path, reason)));
        Ok((row, result.err()))
    })
}

/// Whole or not at all, readable for the user only: study ids are patient data.
fn store(path: &Path, content: &[u8]) -> Result<()> {
    let failed = |error| Error::io(path, "write the list", error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn print(json: bool, report: &Report) -> Result<()> {
    if json {
        let json = serde_json::to_string_pretty(report).map_err(|error| Error::Internal(error.to_string()))?;
        println!("{json}");
        return Ok(());
    }
    let list = report.quarantine.display();
    for (title, rows) in [("cannot be made", &report.bad), ("could not be read (they may be sound)", &report.unread)] {
        if !rows.is_empty() {
            println!("{} of {} volumes {title}:", rows.len(), report.volumes);
        }
        rows.iter().for_each(|row| println!("  {} ({}): {}", row.study_id, row.path, row.reason));
    }
    match report.bad.len() {
        0 if report.unread.is_empty() => println!("all {} volumes can be made; {list} is written", report.volumes),
        0 => println!("{list} is written without them: run verify --sources again"),
        _ => println!("{list} is written: plan, mount and materialize leave these out with --exclude {list}"),
    }
    Ok(())
}
