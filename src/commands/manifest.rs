//! `ctwds-fs manifest`: makes one manifest from those of parts, or from the shards themselves.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::events;
use super::interrupt::stop_on_signals;
use super::materialize::ShardBar;
use super::plans::make_plan_unchecked;
use super::shared::FAILED;
use super::terminal::{print, say};
use crate::base::num::counted;
use crate::base::parallel::available_cores;
use crate::cli::{ManifestArgs, ManifestCommand};
use crate::error::Result;
use crate::materialize::{ManifestOutcome, merge, rebuild};
use crate::output::place::Place;
use crate::shard::{Serving, ShardSet};

/// The memory for volumes in bytes; a rebuild reads no voxel through it.
const REBUILD_CACHE: u64 = 1 << 20;

pub(super) fn run(args: &ManifestArgs) -> Result<ExitCode> {
    let (dir, outcome, is_json, remedy) = match &args.command {
        ManifestCommand::Merge { dir, json, storage } => {
            let remedy = "Run these parts of materialize again, then merge; finished shards are kept.";
            (dir, merge(&Place::of(dir, &storage.options())?)?, *json, remedy)
        }
        ManifestCommand::Rebuild { dir, dataset, json } => {
            let plan = make_plan_unchecked(dataset, None)?;
            let serving = Serving { cache_bytes: REBUILD_CACHE, threads: 1, read_ahead: 0, read_once: true };
            let stop = stop_on_signals()?;
            let progress = ShardBar::new(*json);
            let result = rebuild(ShardSet::new(plan, serving)?, dir, available_cores(), &stop, &progress);
            progress.clear();
            let remedy = "Remove the shards that are wrong, then run materialize, which makes what is missing.";
            (dir, result?, *json, remedy)
        }
    };
    let manifest = dir.join(crate::output::manifest::NAME);
    let printed = match (is_json, &outcome) {
        (true, _) => print(end(&manifest, &outcome)?, "print what was written"),
        (false, ManifestOutcome::Written { shards, .. }) => {
            let shards = counted(*shards, "shard", "shards");
            print(format!("{}: written, {shards}\n", manifest.display()), "print what was written")
        }
        (false, ManifestOutcome::Incomplete(_)) => Ok(()),
    };
    let code = match outcome {
        ManifestOutcome::Written { remarks, .. } => {
            remarks.iter().for_each(|remark| say(format_args!("ctwds-fs: note: {remark}")));
            ExitCode::SUCCESS
        }
        ManifestOutcome::Incomplete(missing) => {
            let manifest = manifest.display();
            say(format_args!("ctwds-fs: error: {manifest} is not written, because shards are missing or wrong:"));
            missing.iter().for_each(|line| say(format_args!("  {line}")));
            say(remedy);
            ExitCode::from(FAILED)
        }
    };
    printed.map(|()| code)
}

/// The outcome for programs.
fn end(manifest: &Path, outcome: &ManifestOutcome) -> Result<String> {
    let (shards, missing, remarks) = match outcome {
        ManifestOutcome::Written { shards, remarks } => (Some(shards), &[][..], &**remarks),
        ManifestOutcome::Incomplete(missing) => (None, &**missing, &[][..]),
    };
    let manifest = manifest.to_string_lossy();
    let is_written = shards.is_some();
    events::end(&json!({
        "manifest": manifest, "written": is_written, "shards": shards, "missing": missing, "remarks": remarks,
    }))
}
