//! `ctwds-fs plan --estimate`: how large the shards of each kind and codec would be, measured on the user's volumes.

use std::fmt::Write;

use bytesize::ByteSize;
use clap::ValueEnum;
use serde::Serialize;

use super::progress::Bar;
use super::{shared, value_check};
use crate::base::num::percent;
use crate::base::parallel::available_cores;
use crate::cli::{EstimateArgs, default_cache_size};
use crate::dataset::{Sample, Study};
use crate::error::Result;
use crate::estimate::{self, CodecEstimate, Estimate, Request, choose, estimate, plan_of};
use crate::plan::Plan;
use crate::volume::{Kind, KindOptions};

/// The number of volumes that are measured if the user gave none.
const SAMPLES: u32 = 8;

/// The estimates of all kinds and codecs; the fields are those of `--json`.
#[derive(Serialize)]
pub(super) struct EstimateReport {
    /// The dtype of the voxels.
    dtype: &'static str,
    seed: u64,
    cores: usize,
    volumes: usize,
    npz_bytes: u64,
    f32_bytes: u64,
    kinds: Vec<Estimate>,
    /// The kinds that `materialize` refuses until the user decides, and why.
    #[serde(rename = "doubts")] // the name that version 0.1 gave it in --json
    mismatches: Vec<(Kind, String)>,
    /// The kinds that none of the samples can have, and why of one of them: nothing went wrong.
    impossible: Vec<(Kind, String)>,
    /// The kinds that could not be estimated, and why.
    failed: Vec<(Kind, String)>,
}

/// Measures volumes of the plan in each kind; the options besides the kind are those that were `asked` for.
///
/// # Errors
/// A plan of a kind cannot be made. A volume that cannot be made is no error: its kind is listed as failed.
pub(super) fn measure(plan: &Plan, asked: &KindOptions, args: &EstimateArgs) -> Result<EstimateReport> {
    let request = Request {
        samples: args.estimate_samples.unwrap_or(SAMPLES) as usize,
        seed: args.estimate_seed.unwrap_or(0),
        cores: available_cores(),
        cache_bytes: default_cache_size(),
    };
    super::daemon::log_to_terminal(log::LevelFilter::Off); // what fails is listed once, at the end
    let slots = choose(plan, &request);
    let studies: Vec<&Study> = plan.dataset.samples.iter().filter_map(Sample::study).collect();
    let (npz_bytes, f32_bytes) = estimate::source_bytes(&studies);
    let (seed, cores, volumes) = (request.seed, request.cores, studies.len());
    let (kinds, mismatches, impossible, failed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let dtype = asked.format.name();
    let mut report =
        EstimateReport { dtype, seed, cores, volumes, npz_bytes, f32_bytes, kinds, mismatches, impossible, failed };
    let bar = Bar::new(false);
    for &kind in Kind::value_variants() {
        let options = KindOptions { kind, ..*asked };
        if let Some(why) = estimate::impossible(plan, &options) {
            report.impossible.push((kind, why));
            continue;
        }
        let plan = plan_of(plan, &options)?;
        let problem = value_check::problem(&plan, &options).filter(|problem| problem.is_fatal);
        report.mismatches.extend(problem.map(|problem| (kind, problem.message)));
        bar.begin(&format!("{} volumes", name(kind)), estimate::work(&plan, &slots));
        match estimate(plan, &slots, &request, |bytes| bar.advance(bytes)) {
            Ok(estimate) => report.kinds.push(estimate),
            Err(error) => report.failed.push((kind, error.to_string())),
        }
    }
    bar.clear();
    Ok(report)
}

fn name(kind: Kind) -> String {
    kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl EstimateReport {
    /// Whether every kind could be estimated.
    pub(super) fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }

    /// The report for programs, with a line end.
    ///
    /// # Errors
    /// [`crate::error::Error::Internal`] if it cannot be written as JSON.
    pub(super) fn json(&self) -> Result<Vec<u8>> {
        Ok((shared::json(self)? + "\n").into_bytes())
    }

    /// The report for people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "\nEstimate     seed {}; ± is a 95 % confidence interval; MiB of {} a second of one core; hours of {} \
             cores, if storage keeps up\n  {:13} {:8} {:>7} {:>12} {:>12} {:>9} {:>8} {:>7} {:>7} {:>7}  {}\n",
            self.seed,
            self.dtype,
            self.cores,
            "kind",
            "codec",
            "B/voxel",
            "all shards",
            "±",
            "saved/NPZ",
            "/float32",
            "make",
            "encode",
            "hours",
            "volumes",
        );
        for kind in &self.kinds {
            kind.codecs.iter().for_each(|packed| line(&mut text, kind, packed));
        }
        for (kind, why) in &self.mismatches {
            let _ = writeln!(text, "  {:13} materialize asks first: {why}", name(*kind));
        }
        for (kind, why) in &self.impossible {
            let _ = writeln!(text, "  {:13} no sample can be made so, for example: {why}", name(*kind));
        }
        for (kind, why) in &self.failed {
            let _ = writeln!(text, "  {:13} cannot be estimated: {why}", name(*kind));
        }
        text
    }
}

fn line(text: &mut String, kind: &Estimate, packed: &CodecEstimate) {
    let margin = packed.interval.map_or("unknown".into(), |[low, high]| ByteSize((high - low) / 2).to_string());
    let mebibytes = |megabytes: f64| format!("{:.0}", megabytes * 1e6 / f64::from(1 << 20));
    let encode = packed.encode_mb_s.map_or("-".into(), mebibytes);
    let _ = writeln!(
        text,
        "  {:13} {:8} {:>7.3} {:>12} {:>12} {:>9} {:>8} {:>7} {:>7} {:>7.2}  {} of {}",
        name(kind.kind),
        estimate::name(packed.codec),
        packed.bytes_per_voxel,
        ByteSize(packed.bytes).to_string(),
        margin,
        percent(packed.saved_of_npz),
        percent(packed.saved_of_f32),
        mebibytes(packed.make_mb_s),
        encode,
        packed.hours,
        kind.sampled.len(),
        kind.volumes,
    );
}
