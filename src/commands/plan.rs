//! `ctwds-fs plan`: shows what would be built.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::ValueEnum;

use super::plans::make_plan_unchecked;
use super::shared::{self, FAILED, LISTED};
use super::terminal::{print_exactly, say};
use super::{classes, columns, estimate, split, value_check};
use crate::base::num::{counted, share_of, span};
use crate::cli::PlanArgs;
use crate::dataset::{MissingLabel, Sample, Selected, Study};
use crate::error::{Result, shown, shown_lines};
use crate::estimate::source_bytes;
use crate::output::manifest;
use crate::plan::Plan;
use crate::plan::members::Member;
use crate::volume::{Axes, Kind, KindOptions, Preprocess, Recipe};

/// The number of volumes that stand for those of one reason, where these are too many to list.
const NAMED: usize = 3;

pub(super) fn run(args: &PlanArgs) -> Result<ExitCode> {
    let plan = make_plan_unchecked(&args.dataset, Some(&args.source))?;
    let kind = args.dataset.kind()?;
    if let Some(problem) = value_check::problem(&plan, &kind) {
        let until = if problem.is_fatal { "; mount and materialize refuse these volumes until then" } else { "" };
        say(format_args!("ctwds-fs: warning: {}{until}", problem.message));
    }
    let report = args.estimate.estimate.then(|| estimate::measure(&plan, &kind, &args.estimate)).transpose()?;
    let splits = split::run(args, &plan)?;
    if args.json {
        splits.lines().for_each(|line| say(format_args!("ctwds-fs: {line}")));
    }
    let output = match (&report, args.json) {
        (Some(report), true) => report.json()?,
        (None, true) => manifest::render(&plan, |_| None),
        (report, false) => {
            let estimate = report.as_ref().map_or_else(String::new, estimate::EstimateReport::text);
            let columns = columns::describe(args, &plan.dataset)?;
            let text = describe(&plan, &kind, &columns, args.dataset.missing_label);
            shown_lines(&(text + &estimate + &splits)).into_owned().into_bytes()
        }
    };
    print_exactly(&output, "print the plan")?;
    let is_complete = report.is_none_or(|report| report.is_complete());
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The plan for people; `columns` says what the columns of the tables are for.
fn describe(plan: &Plan, asked: &KindOptions, columns: &str, missing: MissingLabel) -> String {
    let dataset = &plan.dataset;
    let mut text = format!(
        "Data set     {}\n\
         Samples      {} ({} not in all tables, {} left out; {} without a volume)\n\
         Classes      {}\n\
         Shards       {} of up to {}, {}, {} in all\n\
         Members      {}\n\
         Plan digest  {}\n",
        dataset.root.display(),
        dataset.samples.len(),
        counted(dataset.unmatched.len(), "volume", "volumes"),
        dataset.left_out.len(),
        counted(dataset.rows_without_volume, "table row", "table rows"),
        dataset.label_names.len(),
        plan.shards.len(),
        counted(plan.options.samples_per_shard, "sample", "samples"),
        span(Plan::shard_name(0), Plan::shard_name(plan.shard_ids().next_back().unwrap_or(0))),
        ByteSize(plan.shard_bytes()),
        plan.members.extensions().map(|extension| format!(".{extension}")).collect::<Vec<_>>().join(" "),
        plan.digest,
    );
    if let Some(Selected { condition, studies_listed, selected, of }) = &dataset.selected {
        let condition = condition.as_ref().map(|condition| format!("--where '{condition}'"));
        let listed = studies_listed.map(|listed| format!("--studies, which lists {listed}"));
        let by: Vec<String> = condition.into_iter().chain(listed).collect();
        let by = by.join(" and ");
        text.push_str(&format!("Selected     {selected} of the {of} volumes in all tables, by {by}\n"));
    }
    text.push_str(&extras(plan));
    text.push_str(columns);
    text.push_str(&classes::describe(plan, missing));
    kinds(&mut text, plan, asked);
    let left_out = dataset.left_out.iter().map(|left_out| (&*left_out.path, &*left_out.reason));
    by_reason(&mut text, "Left out (their slots stay empty)", left_out);
    let unmatched: Vec<_> =
        dataset.unmatched.iter().map(|(study, tables)| (&**study, format!("not in {tables}"))).collect();
    let unmatched = unmatched.iter().map(|(study, reason)| (*study, &**reason));
    by_reason(&mut text, "Not in all tables (others close up)", unmatched);
    if let Some(nearest) = &dataset.nearest {
        text.push_str(&format!("  ({})\n", shown(nearest)));
    }
    text
}

/// The arrays beside the volumes: of each, where it is from, its dtypes, and what it takes.
fn extras(plan: &Plan) -> String {
    let mut text = String::new();
    for (number, extra) in plan.dataset.extras.iter().enumerate() {
        let found = plan.dataset.samples.iter().filter_map(|sample| sample.study()?.extras.get(number));
        let mut dtypes: BTreeMap<&str, usize> = BTreeMap::new();
        found.for_each(|found| *dtypes.entry(found.array.header.element.name()).or_default() += 1);
        let dtypes: Vec<String> = dtypes.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        let member = Member::Extra(u8::try_from(number).unwrap_or(u8::MAX));
        let bytes = (0..plan.dataset.samples.len()).map(|sample| plan.member_size(sample, member)).sum();
        let heading = if number == 0 { "Extras" } else { "" };
        let (dtypes, root) = (dtypes.join(", "), extra.root.display());
        text.push_str(&format!("{heading:13}{}: {dtypes}, {} in all, from {root}\n", extra.name, ByteSize(bytes)));
    }
    text
}

/// Adds what the volumes take in each kind, against what they take now, and what their recipes do.
fn kinds(text: &mut String, plan: &Plan, asked: &KindOptions) {
    let samples: Vec<&Study> = plan.dataset.samples.iter().filter_map(Sample::study).collect();
    if samples.is_empty() {
        return; // shards on disk are of one kind already
    }
    let (npz_bytes, f32_bytes) = source_bytes(&samples);
    let (files, the_files) = match samples.iter().all(|study| study.array.nifti.is_some()) {
        true => ("NIfTI files", "the NIfTI files"),
        false => ("Source files", "the source files"),
    };
    text.push_str(&format!("{files:13}{}; {} as float32\n", ByteSize(npz_bytes), ByteSize(f32_bytes)));
    text.push_str(&format!("Volumes      in {}, C order, of each kind of --volume\n", asked.format.name()));
    for &kind in Kind::value_variants() {
        let options = KindOptions { kind, ..*asked };
        let made: Vec<_> = samples.iter().map(|sample| volume_bytes(&options, sample)).collect();
        let bytes = || made.iter().filter_map(|made| made.as_ref().ok());
        let (all, count) = (bytes().sum::<u64>(), bytes().count());
        let name = kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let mark = if kind == asked.kind { '*' } else { ' ' };
        let part =
            if count == samples.len() { String::new() } else { format!(", {}", counted(count, "sample", "samples")) };
        if count == 0 {
            text.push_str(&format!("  {mark} {name:13}no sample\n"));
        } else {
            text.push_str(&format!(
                "  {mark} {name:13}{} a sample, {} in all{part} ({}, {})\n",
                ByteSize(all / count as u64),
                ByteSize(all),
                share_of(all, npz_bytes, the_files),
                share_of(all, f32_bytes, "float32"),
            ));
        }
        // One reason: the others are mostly the same.
        if let Some(reason) = made.iter().find_map(|made| made.as_ref().err()) {
            let others = counted(made.len() - count, "sample", "samples");
            text.push_str(&format!("    {others} cannot be made so, for example: {reason}\n"));
        }
    }
    let mut steps: BTreeMap<String, usize> = BTreeMap::new();
    samples
        .iter()
        .filter_map(|sample| recipe_in_words(&sample.recipe))
        .for_each(|what| *steps.entry(what).or_default() += 1);
    for (what, count) in steps.iter().take(LISTED) {
        text.push_str(&format!("    {}: {what}\n", counted(*count, "sample", "samples")));
    }
}

/// The bytes of a sample's volume in a kind, or the reason why the kind cannot be made of it.
fn volume_bytes(options: &KindOptions, sample: &Study) -> Result<u64, String> {
    let recipe = Recipe::new(options, &sample.array, sample.meta.geometry())?;
    let shape = &sample.array.header.shape;
    Ok(recipe.shape([shape[0], shape[1], shape[2]]).iter().product::<u64>() * options.format.voxel_len() as u64)
}

/// A recipe in words, which many volumes may share; `None` if the array is taken as stored.
fn recipe_in_words(recipe: &Recipe) -> Option<String> {
    let source = |axes: Axes| {
        let [first, second, third] = axes.order().map(|axis| ["height", "width", "depth"][axis]);
        format!("axes {first}, {second}, {third}")
    };
    match recipe {
        Recipe::Stored => None,
        Recipe::Rescaled { slope, intercept, axes } => Some(format!("{slope} · x + {intercept}, {}", source(*axes))),
        Recipe::Preprocessed(Preprocess { slope, intercept, clip, divisor, axes, is_resampled, .. }) => Some(format!(
            "{slope} · x + {intercept}, clipped to {clip:?}, {}, ÷ {divisor}, {}",
            if *is_resampled { "resampled" } else { "not resampled" },
            source(*axes)
        )),
    }
}

/// Adds a list with a title, if there is anything in it: names with their reasons, those of one reason together, the
/// most frequent reason first.
fn by_reason<'a>(text: &mut String, title: &str, names: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
    let count = names.len();
    if count == 0 {
        return;
    }
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    names.for_each(|(name, reason)| reasons.entry(reason).or_default().push(name));
    let mut reasons: Vec<(&str, Vec<&str>)> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, names)| Reverse(names.len())); // stable: else by the reasons' text
    let lines = reasons.iter().map(|(reason, names)| match names[..] {
        [name] => format!("{name}: {reason}"),
        _ if names.len() <= LISTED => format!("{} volumes: {reason} ({})", names.len(), names.join(", ")),
        _ => format!("{} volumes: {reason} (for example {})", names.len(), names[..NAMED].join(", ")),
    });
    text.push_str(&format!("\n{title}: {count}\n"));
    text.push_str(&shared::cut(lines));
}
