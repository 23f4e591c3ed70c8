//! `ctwds-fs plan`: what would be built.

use std::io::Write;
use std::process::ExitCode;

use bytesize::ByteSize;

use super::make_plan;
use crate::cli::PlanArgs;
use crate::error::{Error, Result};
use crate::manifest;
use crate::plan::Plan;

/// Lists longer than this are cut in the text; `--json` has all.
const LISTED: usize = 20;

pub(super) fn run(args: &PlanArgs) -> Result<ExitCode> {
    let plan = make_plan(&args.dataset)?;
    let output = if args.json { manifest::render(&plan, |_| None) } else { describe(&plan).into_bytes() };
    match std::io::stdout().write_all(&output) {
        // Whoever reads may stop early (`| head`).
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("stdout".as_ref(), "print the plan", error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn describe(plan: &Plan) -> String {
    let dataset = &plan.dataset;
    let npz_bytes: u64 = dataset.samples.iter().map(|sample| sample.array.fingerprint.size).sum();
    let f32_bytes: u64 = dataset.samples.iter().map(|sample| plan.volume(sample).byte_len() * 2).sum();
    let f16_bytes = f32_bytes / 2;
    let shard_bytes = plan.shard_bytes();
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    let mut text = format!(
        "Data set     {}\n\
         Samples      {} ({} volumes not in all three tables, {} left out; {} table rows without a volume)\n\
         Classes      {}\n\
         Shards       {} of up to {} samples, shard-000000.tar to {}\n\
         Members      {}\n\
         Volumes      float16, C order, as stored: {} in all, {} a sample on average\n\
         Shard bytes  {} ({:.1} % of the NPZ files' {}; {:.1} % of float32's {})\n\
         Plan digest  {}\n",
        dataset.root.display(),
        dataset.samples.len(),
        dataset.unmatched.len(),
        dataset.left_out.len(),
        dataset.rows_without_volume,
        dataset.label_names.len(),
        plan.shards.len(),
        plan.options.samples_per_shard,
        Plan::shard_name(u32::try_from(plan.shards.len().saturating_sub(1)).unwrap_or(u32::MAX)),
        plan.options.format.extensions().map(|extension| format!(".{extension}")).join(" "),
        ByteSize(f16_bytes),
        ByteSize(f16_bytes / (dataset.samples.len() as u64).max(1)),
        ByteSize(shard_bytes),
        percent(shard_bytes, npz_bytes),
        ByteSize(npz_bytes),
        percent(shard_bytes, f32_bytes),
        ByteSize(f32_bytes),
        plan.digest,
    );
    let left_out = dataset.left_out.iter().map(|left_out| format!("{}: {}", left_out.path, left_out.reason));
    list(&mut text, "Left out (their slots stay empty)", left_out);
    let unmatched = dataset.unmatched.iter().map(|(study, tables)| format!("{study}: not in {tables}"));
    list(&mut text, "Not in all three tables (others close up)", unmatched);
    text
}

fn list(text: &mut String, title: &str, lines: impl ExactSizeIterator<Item = String>) {
    let count = lines.len();
    if count == 0 {
        return;
    }
    text.push_str(&format!("\n{title}: {count}\n"));
    lines.take(LISTED).for_each(|line| text.push_str(&format!("  {line}\n")));
    if count > LISTED {
        text.push_str(&format!("  … and {} more (--json lists all)\n", count - LISTED));
    }
}
