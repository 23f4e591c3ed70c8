//! `ctwds-fs cat`: writes one shard to standard output, for readers of a pipe where nothing can be mounted.

use std::process::ExitCode;
use std::sync::Arc;

use super::plans::make_plan;
use super::terminal::{is_seen, stream};
use crate::base::num::{span, to_usize};
use crate::cli::{CatArgs, default_cache_size};
use crate::error::{Error, Result};
use crate::plan::{Plan, ShardId};
use crate::shard::{Cursor, Serving, ShardSet};

/// Bytes of a read. A pipe holds 64 KiB, so that more would only wait.
const READ: usize = 256 << 10;

/// Volumes that are filled while the one before is written: more would only be memory, as each worker of a training
/// reads from a process of its own.
const READ_AHEAD: usize = 1;

pub(super) fn run(args: &CatArgs) -> Result<ExitCode> {
    super::daemon::log_to_terminal(log::LevelFilter::Off); // the error that ends the command says it
    if is_seen() {
        return Err(Error::Refused("a shard is no text for a terminal: send it to a file or a pipe".into()));
    }
    let plan = make_plan(&args.dataset, Some(&args.source))?;
    let shard = find(&plan, &args.shard)?;
    let threads = Serving::usual_threads(&plan);
    let serving = Serving { cache_bytes: default_cache_size(), threads, read_ahead: READ_AHEAD, read_once: true };
    let set = ShardSet::new(plan, serving)?;
    let (cursor, mut offset) = (Arc::new(set.cursor(shard)), 0);
    for end in ends(&set, shard) {
        if !write_to(end, &set, &cursor, &mut offset)? {
            break; // who reads has had enough
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The ends of the samples of a shard, and its own.
fn ends(set: &ShardSet, shard: ShardId) -> Vec<u64> {
    let starts = set.plan().shard(shard).map_or(&[][..], |shard| shard.layout.sample_starts());
    starts.iter().copied().skip(1).chain(set.len(shard)).collect()
}

/// Writes the bytes of a shard from `offset` to `end`, which is that of a sample, so that what is damaged takes nothing
/// of the sample before it along. False if the reader has stopped.
///
/// # Errors
/// A volume cannot be made, or the bytes not be written.
fn write_to(end: u64, set: &ShardSet, cursor: &Arc<Cursor>, offset: &mut u64) -> Result<bool> {
    while *offset < end {
        // The last bytes of a volume are there only when all of it was checked: a damaged one ends here, before them.
        let bytes = set.read_with(cursor, *offset, READ.min(to_usize(end - *offset)))?;
        if !stream(&bytes, "print the shard")? {
            return Ok(false);
        }
        *offset += bytes.len() as u64;
    }
    Ok(true)
}

/// The shard that is called `name`, or has this number.
///
/// # Errors
/// [`Error::Usage`] if the plan has no such shard.
fn find(plan: &Plan, name: &str) -> Result<ShardId> {
    let id = Plan::shard_named(name).or_else(|| name.parse().ok());
    id.filter(|id| plan.shard_ids().contains(id)).ok_or_else(|| {
        let last = plan.shard_ids().next_back().unwrap_or(0);
        let are = if last == 0 { "there is only" } else { "they are" };
        let all = span(Plan::shard_name(0), Plan::shard_name(last));
        Error::Usage(format!("there is no shard '{name}': {are} {all}"))
    })
}
