//! `ctwds-fs cat`: writes one shard to standard output, for readers of a pipe where nothing can be mounted.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use super::shared::make_plan;
use super::terminal::stream;
use crate::base::parallel::available_cores;
use crate::cli::{CatArgs, default_cache_size};
use crate::error::{Error, Result};
use crate::plan::{Plan, ShardId};
use crate::shard::{Serving, ShardSet};

/// Bytes of a read. A pipe holds 64 KiB, so that more would only wait.
const READ: usize = 256 << 10;

/// Volumes that are filled while the one before is written: more would only be memory, as each worker of a training
/// reads from a process of its own.
const READ_AHEAD: usize = 1;

pub(super) fn run(args: &CatArgs) -> Result<ExitCode> {
    super::daemon::log_to_terminal(log::LevelFilter::Off); // the error that ends the command says it
    if std::io::stdout().is_terminal() {
        return Err(Error::Refused("a shard is no text for a terminal: send it to a file or a pipe".into()));
    }
    let plan = make_plan(&args.dataset, args.source.shards.as_deref())?;
    let shard = find(&plan, &args.shard)?;
    let threads = available_cores();
    let serving = Serving { cache_bytes: default_cache_size(), threads, read_ahead: READ_AHEAD, read_once: true };
    let set = ShardSet::new(plan, serving)?;
    let (cursor, len, mut offset) = (Arc::new(set.cursor(shard)), set.len(shard).unwrap_or(0), 0);
    while offset < len {
        // The last bytes of a volume are there only when all of it was checked: a damaged one ends here, before them.
        let bytes = set.read_with(&cursor, offset, READ)?;
        if !stream(&bytes, "print the shard")? {
            break; // who reads has had enough
        }
        offset += bytes.len() as u64;
    }
    Ok(ExitCode::SUCCESS)
}

/// The shard that is called `name`, or has this number.
///
/// # Errors
/// [`Error::Usage`] if the plan has no such shard.
fn find(plan: &Plan, name: &str) -> Result<ShardId> {
    let id = Plan::shard_named(name).or_else(|| name.parse().ok());
    id.filter(|id| plan.shard_ids().contains(id)).ok_or_else(|| {
        let last = Plan::shard_name(plan.shard_ids().next_back().unwrap_or(0));
        Error::Usage(format!("there is no shard '{name}': they are {} to {last}", Plan::shard_name(0)))
    })
}
