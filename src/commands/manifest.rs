//! `ctwds-fs manifest`: makes one manifest from those of parts, or from the shards themselves.

use std::process::ExitCode;

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
use crate::shard::{Serving, ShardSet};

/// The memory for volumes in bytes; a rebuild reads no voxel through it.
const REBUILD_CACHE: u64 = 1 << 20;

pub(super) fn run(args: &ManifestArgs) -> Result<ExitCode> {
    let (dir, result, remedy) = match &args.command {
        ManifestCommand::Merge { dir } => {
            (dir, merge(dir)?, "Run these parts of materialize again, then merge; finished shards are kept.")
        }
        ManifestCommand::Rebuild { dir, dataset } => {
            let plan = make_plan_unchecked(dataset, None)?;
            let serving = Serving { cache_bytes: REBUILD_CACHE, threads: 1, read_ahead: 0, read_once: true };
            let stop = stop_on_signals()?;
            let progress = ShardBar::new();
            let result = rebuild(ShardSet::new(plan, serving)?, dir, available_cores(), &stop, &progress);
            progress.clear();
            (dir, result?, "Remove the shards that are wrong, then run materialize, which makes what is missing.")
        }
    };
    let manifest = dir.join(crate::output::manifest::NAME);
    match result {
        ManifestOutcome::Written { shards, remarks } => {
            remarks.iter().for_each(|remark| say(format_args!("ctwds-fs: note: {remark}")));
            let shards = counted(shards, "shard", "shards");
            print(format!("{}: written, {shards}\n", manifest.display()), "print what was written")?;
            Ok(ExitCode::SUCCESS)
        }
        ManifestOutcome::Incomplete(missing) => {
            let manifest = manifest.display();
            say(format_args!("ctwds-fs: error: {manifest} is not written, because shards are missing or wrong:"));
            missing.iter().for_each(|line| say(format_args!("  {line}")));
            say(remedy);
            Ok(ExitCode::from(FAILED))
        }
    }
}
