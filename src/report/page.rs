//! The page: its facts as charts and words, put into the template.

use askama::Template;
use bytesize::ByteSize;
use serde_json::Value;

use super::charts::{self, Axes, Bar, Series};
use super::facts::{self, Class, Group};
use super::picture::{DETAILS, Detail};
use super::seen::Seen;
use super::values::Histogram;
use super::{Report, Unread};
use crate::base::num::{counted, span};
use crate::error::{Error, Result};
use crate::volume::Kind;

/// The HU that the histograms show.
const SHOWN_HU: [f64; 2] = [-2048.0, 3072.0];

/// The most volumes and findings of a list, and the most ranges of a chart: a page keeps below 5 MB.
const LISTED: usize = 100;
const RANGES: usize = 500;

/// The page's parts, as the template names them. What is HTML already is so by its name.
#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    facts: Vec<(&'static str, String)>,
    warnings: Vec<&'a str>,
    seen: &'a [Seen],
    /// The grey levels and the side of the pictures, where these had no room for the finest.
    coarse: Option<Detail>,
    with_reports: bool,
    has_source: bool,
    counted: usize,
    in_all: usize,
    not_a_number: u64,
    are_hu: bool,
    histogram_svg: String,
    ranges_svg: String,
    rounding_svg: Option<String>,
    lost: u64,
    labels_svg: Option<String>,
    shapes: Vec<Group>,
    spacings: Vec<Group>,
    unknown_spacings: usize,
    is_finished: bool,
    is_preprocessed: bool,
    left_out: Vec<Group>,
    verify: Option<Verified>,
    unread: &'a [Unread],
    unread_in_all: usize,
    bench_svg: Option<String>,
    seed: u64,
}

/// What `verify --json` found.
struct Verified {
    folder: String,
    verdict: String,
    in_all: usize,
    findings: Vec<(String, String)>,
}

/// The page as HTML.
///
/// # Errors
/// [`Error::Internal`] if the template fails.
pub(super) fn render(report: &Report<'_>) -> Result<String> {
    let Report { plan, request, seen, .. } = report;
    let (spacings, unknown_spacings) = facts::spacings(plan, request);
    let is_finished = plan.dataset.samples.iter().all(|sample| sample.study().is_none());
    let is_preprocessed = plan.kind() == Kind::Preprocessed;
    let page = Page {
        facts: plan_facts(report),
        warnings: plan.dataset.warnings.iter().chain(&request.warning).map(String::as_str).collect(),
        seen,
        coarse: Some(report.detail).filter(|detail| *detail != DETAILS[0]),
        with_reports: request.with_reports,
        has_source: seen.iter().any(|one| one.pictures.iter().any(|picture| picture.subject == "source")),
        counted: report.values.len(),
        in_all: plan.dataset.samples.len(),
        not_a_number: report.values.iter().map(|(_, values)| values.histogram.not_a_number).sum(),
        are_hu: report.are_hu(),
        histogram_svg: histogram(report),
        ranges_svg: ranges(report),
        rounding_svg: rounding(report),
        lost: report.rounding.lost,
        labels_svg: labels(&facts::classes(plan), plan.dataset.samples.len()),
        shapes: facts::shapes(plan),
        unknown_spacings,
        spacings,
        is_finished,
        is_preprocessed,
        left_out: facts::left_out(plan),
        verify: request.verify.as_ref().map(verified),
        unread: &report.unread[..report.unread.len().min(LISTED)],
        unread_in_all: report.unread.len(),
        bench_svg: request.bench.as_ref().and_then(bench),
        seed: request.seed,
    };
    page.render().map_err(|error| Error::Internal(format!("the page cannot be written: {error}")))
}

fn plan_facts(report: &Report<'_>) -> Vec<(&'static str, String)> {
    let plan = report.plan;
    let kind = format!("{:?}", plan.kind()).to_lowercase();
    vec![
        ("Data set", plan.dataset.root.display().to_string()),
        ("Samples", plan.dataset.samples.len().to_string()),
        ("Left out", (plan.dataset.left_out.len() + plan.dataset.unmatched.len()).to_string()),
        ("Files of the volumes", files(report)),
        (
            "Shards",
            format!("{} of up to {}", plan.shards.len(), counted(plan.options.samples_per_shard, "sample", "samples")),
        ),
        ("Bytes of all shards", ByteSize(plan.shard_bytes()).to_string()),
        ("Volumes", format!("{kind}, {}{}", plan.voxel_format().name(), window(report))),
        ("Plan digest", plan.digest.clone()),
    ]
}

/// The values that the voxels hold, where these are not all.
fn window(report: &Report<'_>) -> String {
    report.plan.voxel_format().window().map_or_else(String::new, |[low, high]| {
        format!(": {low} to {high}; what is beyond is the lowest or the highest value")
    })
}

/// The bytes of the volumes' files, in all and from the smallest to the largest.
fn files(report: &Report<'_>) -> String {
    let sizes = || report.plan.dataset.samples.iter().map(|sample| sample.npz_size_and_crc().0);
    let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
    format!("{} in all, {} each", ByteSize(sizes().sum()), span(ByteSize(least), ByteSize(most)))
}

/// How often which HU occur, of the volumes of each slope and intercept.
fn histogram(report: &Report<'_>) -> String {
    let groups = report.histograms();
    let share = |histogram: &Histogram| {
        let all = histogram.bins.iter().sum::<u64>().max(1) as f64;
        let points = histogram.bins.iter().enumerate();
        points.map(|(bin, count)| (Histogram::middle(bin), *count as f64 / all)).collect()
    };
    let series: Vec<Series> =
        groups.iter().map(|(name, histogram)| Series { name: name.clone(), points: share(histogram) }).collect();
    let axes = Axes {
        title: "How often which HU occur: the share of the voxels in steps of 16 HU",
        units: ["HU", "share of the voxels"],
        x: SHOWN_HU,
        y: [1e-6, 1.0],
        is_log: true,
    };
    charts::lines(&axes, &series)
}

/// The range of the HU of each sampled volume.
fn ranges(report: &Report<'_>) -> String {
    let samples = &report.plan.dataset.samples;
    let ranges: Vec<([f64; 3], String)> = report
        .values
        .iter()
        .filter_map(|(index, values)| Some((values.percentiles?, samples[*index].study_id.clone())))
        .take(RANGES)
        .collect();
    let axes = Axes {
        title: "The HU of each sampled volume: 98 % of its voxels are in the line, the middle one is the dot",
        units: ["sampled volumes, in their order", "HU"],
        x: [0.0, ranges.len().max(1) as f64],
        y: [-2048.0, 2048.0],
        is_log: false,
    };
    charts::ranges(&axes, &ranges)
}

/// What the voxels' dtype costs, by HU.
fn rounding(report: &Report<'_>) -> Option<String> {
    let by_hu = report.rounding.by_hu();
    if by_hu.is_empty() {
        return None;
    }
    let highest = by_hu.iter().map(|(_, _, most)| *most).fold(0.0, f64::max);
    if highest == 0.0 {
        let others = if report.rounding.lost > 0 { "other " } else { "" };
        return Some(format!("<p>No {others}voxel differs.</p>"));
    }
    let axes = Axes {
        title: "How far the shards' voxels are from the same values in float32, by HU",
        units: ["HU", "difference in HU"],
        x: SHOWN_HU,
        y: [0.0, highest * 1.1],
        is_log: false,
    };
    let points = |value: fn(&(f64, f64, f64)) -> f64| by_hu.iter().map(|point| (point.0, value(point))).collect();
    let series = [
        Series { name: "mean".into(), points: points(|(_, mean, _)| *mean) },
        Series { name: "largest".into(), points: points(|(_, _, most)| *most) },
    ];
    Some(charts::lines(&axes, &series))
}

fn labels(classes: &[Class], samples: usize) -> Option<String> {
    let bar = |class: &Class| {
        let share = class.positive as f64 / samples.max(1) as f64;
        let beside = [(class.missing, "missing"), (class.uncertain, "uncertain")];
        let beside = beside.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count} {what}"));
        let text = format!("{} ({:.1} %){}", class.positive, 100.0 * share, beside.collect::<String>());
        Bar { name: class.name.clone(), share, spread: None, text }
    };
    let bars: Vec<Bar> = classes.iter().map(bar).collect();
    (!bars.is_empty()).then(|| charts::bars("Positive samples of each class", &bars))
}

fn verified(json: &Value) -> Verified {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = json["findings"].as_array().map_or(&[][..], Vec::as_slice);
    Verified {
        folder: text(&json["folder"]),
        verdict: text(&json["verdict"]),
        in_all: findings.len(),
        findings: findings.iter().take(LISTED).map(|one| (text(&one["place"]), text(&one["what"]))).collect(),
    }
}

/// The rates of `bench`, with the range of their runs.
fn bench(json: &Value) -> Option<String> {
    let samples = json["data"]["samples"].as_f64()?;
    let rows = json["rows"].as_array()?;
    let rate = |row: &Value| {
        let mut seconds: Vec<f64> = row["seconds"].as_array()?.iter().filter_map(Value::as_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let (first, last) = (*seconds.first()?, *seconds.last()?);
        let median = (seconds[(seconds.len() - 1) / 2] + seconds[seconds.len() / 2]) / 2.0;
        let source = match &row["source"] {
            Value::String(name) => name.clone(),
            mount => format!("mount, read-ahead {}", mount["mount"]["read_ahead"]),
        };
        let name = format!("{source}, {}", counted(row["readers"].as_u64().unwrap_or(1), "reader", "readers"));
        Some((name, samples / median, [samples / last, samples / first]))
    };
    let rates: Vec<_> = rows.iter().filter_map(rate).collect();
    let most = rates.iter().map(|(_, _, [_, high])| *high).fold(f64::MIN_POSITIVE, f64::max);
    let bar = |(name, median, spread): &(String, f64, [f64; 2])| Bar {
        name: name.clone(),
        share: median / most,
        spread: Some(spread.map(|rate| rate / most)),
        text: format!("{median:.2} samples/s"),
    };
    let bars: Vec<Bar> = rates.iter().map(bar).collect();
    (!bars.is_empty()).then(|| charts::bars("Samples a second: medians, and the range of the runs", &bars))
}
