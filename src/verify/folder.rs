//! Checks of all shards together: none is missing, each is what the manifest lists, and no sample is in the folder
//! twice.

use std::collections::{HashMap, HashSet};

use super::finding::{Finding, Verdict};
use super::manifest::{Manifest, ShardEntry};
use super::walked::{WalkedSample, WalkedShard};
use crate::base::num::counted;
use crate::plan::Plan;

/// Checks the shards against the manifest and against each other. Findings about a shard that was read are added to
/// that shard, all others to `findings`.
pub(super) fn check(manifest: Option<&Manifest>, walks: &mut [WalkedShard], findings: &mut Vec<Finding>) {
    check_unique(walks, findings);
    check_labels(manifest, walks);
    check_dtypes(manifest, walks);
    match manifest {
        None => check_numbers(walks, walks.last().map_or(0, |walk| walk.number + 1), findings),
        Some(manifest) => {
            check_totals(manifest, walks, findings);
            match &manifest.shards {
                Some(shards) => check_listed(manifest, shards, walks, findings),
                None => {
                    check_numbers(walks, manifest.num_shards as u64, findings);
                    check_slots(manifest, walks, findings);
                }
            }
        }
    }
}

/// Finds keys and studies that are in the folder twice.
fn check_unique(walks: &[WalkedShard], findings: &mut Vec<Finding>) {
    let mut studies: HashMap<&str, &str> = HashMap::new();
    let mut keys: HashSet<&str> = HashSet::new();
    for sample in walks.iter().flat_map(|walk| &walk.samples) {
        if !keys.insert(&sample.key) {
            findings.push(Finding::damaged(&sample.key, "the key is there twice"));
        }
        if let Some(earlier) = studies.insert(&sample.study_id, &sample.key) {
            let what = format!("the study '{}' is there already, as {earlier}", sample.study_id);
            findings.push(Finding::damaged(&sample.key, what));
        }
    }
}

/// Finds samples whose number of labels is not that of the manifest; without a manifest, not that of most samples.
fn check_labels(manifest: Option<&Manifest>, walks: &mut [WalkedShard]) {
    let mut counts: HashMap<usize, usize> = HashMap::new();
    walks.iter().flat_map(|walk| &walk.samples).for_each(|sample| *counts.entry(sample.label_count).or_default() += 1);
    let named = manifest.and_then(|manifest| manifest.label_names.as_ref()).map(Vec::len);
    let Some(right) = named.or(counts.iter().max_by_key(|(_, count)| **count).map(|(labels, _)| *labels)) else {
        return;
    };
    for walk in walks {
        for sample in walk.samples.iter().filter(|sample| sample.label_count != right) {
            let what = format!("it has {}, and {right} are right", counted(sample.label_count, "label", "labels"));
            walk.findings.push(Finding::damaged(format!("{}: {}", walk.name, sample.key), what));
        }
    }
}

/// Finds samples whose voxels have another dtype than the manifest says.
fn check_dtypes(manifest: Option<&Manifest>, walks: &mut [WalkedShard]) {
    let Some(manifest) = manifest.filter(|manifest| manifest.tool.is_some()) else { return };
    let right = manifest.volume_dtype.as_deref().unwrap_or("float16");
    for walk in walks {
        for sample in walk.samples.iter().filter(|sample| sample.dtype.name() != right) {
            let what = format!("its voxels are {}, and {right} by the manifest", sample.dtype.name());
            walk.findings.push(Finding::damaged(format!("{}: {}", walk.name, sample.key), what));
        }
    }
}

/// Finds shard numbers below `count` without a file, and files whose numbers are not below `count`.
fn check_numbers(walks: &[WalkedShard], count: u64, findings: &mut Vec<Finding>) {
    let present: HashSet<u64> = walks.iter().map(|walk| walk.number).collect();
    for number in (0..count).filter(|number| !present.contains(number)) {
        findings.push(Finding::new(Verdict::Incomplete, format!("shard-{number:06}.tar"), "it is missing"));
    }
    for walk in walks.iter().filter(|walk| walk.number >= count) {
        findings
            .push(Finding::damaged(&walk.name, format!("the manifest has {} only", counted(count, "shard", "shards"))));
    }
}

/// Finds empty slots and surplus samples by the keys, for a manifest that lists no sample.
fn check_slots(manifest: &Manifest, walks: &mut [WalkedShard], findings: &mut Vec<Finding>) {
    for walk in walks {
        let per_shard = u64::from(manifest.samples_per_shard);
        for sample in walk.samples.iter().filter(|sample| sample.index >= per_shard) {
            let what = format!("a shard has {} at most, by the manifest", counted(per_shard, "sample", "samples"));
            walk.findings.push(Finding::damaged(format!("{}: {}", walk.name, sample.key), what));
        }
        let present: HashSet<&String> = walk.keys.iter().collect();
        let last = walk.samples.last().map_or(0, |sample| sample.index);
        for key in (0..last).map(|index| format!("{:06}_{index:06}", walk.number)).filter(|key| !present.contains(key))
        {
            findings.push(Finding::new(Verdict::Incomplete, key, "the slot is empty"));
        }
    }
}

/// Checks the six numbers that every manifest has.
fn check_totals(manifest: &Manifest, walks: &[WalkedShard], findings: &mut Vec<Finding>) {
    let mut wrong = |what: String| findings.push(Finding::damaged("manifest.json", what));
    if let Some(shards) = manifest.shards.as_ref().filter(|shards| shards.len() != manifest.num_shards) {
        wrong(format!("num_shards is {}, and it lists {}", manifest.num_shards, shards.len()));
    }
    let near = |a: f64, b: f64| (a - b).abs() <= 0.006_f64.max(1e-6 * b.abs());
    let Manifest { total_samples, total_size_mb, total_size_gb, average_sample_size_mb, .. } = *manifest;
    if !near(total_size_gb, total_size_mb / 1024.0) {
        wrong(format!("total_size_gb is {total_size_gb}, and total_size_mb is {total_size_mb}"));
    }
    if !near(average_sample_size_mb, total_size_mb / total_samples.max(1) as f64) {
        wrong(format!("average_sample_size_mb is {average_sample_size_mb}, not the total over {total_samples}"));
    }
    // A shard that is missing or broken is a finding already, and the sums would only repeat it.
    if walks.iter().any(|walk| !walk.findings.is_empty()) || walks.len() != manifest.num_shards {
        return;
    }
    let (samples, bytes) =
        walks.iter().fold((0, 0), |(samples, bytes), walk| (samples + walk.samples.len(), bytes + walk.payload_bytes));
    let counts = format!("it counts {}, and {samples} are there", counted(total_samples, "sample", "samples"));
    match samples.cmp(&total_samples) {
        std::cmp::Ordering::Equal => {
            let found = bytes as f64 / f64::from(1 << 20);
            if !near(total_size_mb, found) {
                wrong(format!("total_size_mb is {total_size_mb}, and the members have {found}"));
            }
        }
        std::cmp::Ordering::Less => findings.push(Finding::new(Verdict::Incomplete, "manifest.json", counts)),
        std::cmp::Ordering::Greater => wrong(counts),
    }
}

/// Checks the shards against the manifest's entries, and reports the samples that the manifest says were left out.
fn check_listed(manifest: &Manifest, shards: &[ShardEntry], walks: &mut [WalkedShard], findings: &mut Vec<Finding>) {
    let present: HashSet<&str> = walks.iter().map(|walk| &*walk.name).collect();
    for shard in shards.iter().filter(|shard| !present.contains(&*shard.name)) {
        findings.push(Finding::new(Verdict::Incomplete, &shard.name, "it is missing"));
    }
    for left_out in &manifest.left_out {
        let what = format!("it was left out: {}", left_out.reason);
        findings.push(Finding::new(Verdict::Incomplete, &left_out.study_id, what));
    }
    for walk in walks {
        match manifest.shard(&walk.name) {
            Some(entry) => check_one(entry, walk),
            None => walk.findings.push(Finding::damaged(&walk.name, "the manifest does not name it")),
        }
    }
}

/// Checks a shard against its entry in the manifest: size, plain size, SHA-256, samples and their order.
fn check_one(entry: &ShardEntry, walk: &mut WalkedShard) {
    let name = walk.name.clone();
    if !walk.is_read_to_end {
        return; // the reason is a finding already
    }
    let walk_is_sound = walk.findings.is_empty();
    if entry.size != walk.len {
        let what = format!("it has {} bytes, and {} in the manifest", walk.len, entry.size);
        walk.findings.push(Finding::damaged(&name, what));
    }
    let is_packed = walk.samples.iter().any(|sample| sample.members.packed.is_some());
    let plain_len = is_packed.then_some(walk.plain_len);
    if walk_is_sound && !walk.samples.is_empty() && entry.plain_size != plain_len {
        let number = |size: Option<u64>| size.map_or("none".into(), |size| size.to_string());
        let what = format!("its plain size is {}, and {} in the manifest", number(plain_len), number(entry.plain_size));
        walk.findings.push(Finding::damaged(&name, what));
    }
    if let Some(sha256) = entry.sha256.as_ref().filter(|sha256| **sha256 != walk.sha256) {
        let what = format!("its SHA-256 is {}, and {sha256} in the manifest", walk.sha256);
        walk.findings.push(Finding::damaged(&name, what));
    }
    let found: HashMap<&str, &WalkedSample> = walk.samples.iter().map(|sample| (&*sample.key, sample)).collect();
    let keys: HashSet<&str> = walk.keys.iter().map(String::as_str).collect();
    let mut more = Vec::new();
    for listed in &entry.samples {
        let place = format!("{name}: {}", listed.key);
        match found.get(&*listed.key) {
            Some(sample) if sample.study_id != listed.study_id => {
                let what = format!("it is '{}', and '{}' in the manifest", sample.study_id, listed.study_id);
                more.push(Finding::damaged(place, what));
            }
            // In a shard that is broken off, all samples behind the break are missing, and the break is a finding
            // already.
            None if !keys.contains(&*listed.key) && walk_is_sound => {
                more.push(Finding::new(Verdict::Incomplete, place, "the sample is missing"));
            }
            _ => {}
        }
    }
    let listed: HashSet<&str> = entry.samples.iter().map(|sample| &*sample.key).collect();
    for key in keys.iter().filter(|key| !listed.contains(**key)) {
        more.push(Finding::damaged(format!("{name}: {key}"), "the manifest does not name this sample"));
    }
    if more.is_empty() && walk_is_sound && walk.keys.iter().ne(entry.samples.iter().map(|sample| &sample.key)) {
        more.push(Finding::damaged(&name, "its samples are not in the order of the manifest"));
    }
    walk.findings.extend(more);
}

/// Finds samples of the data set that are in no shard, unless a finding explains it already.
pub(super) fn check_complete<'a>(
    plan: &Plan,
    samples: impl Iterator<Item = &'a WalkedSample>,
    walks: &[WalkedShard],
    findings: &mut Vec<Finding>,
) {
    let present: HashSet<&str> = samples.map(|sample| &*sample.study_id).collect();
    // A sample of a broken shard is not missing, and the damage of the shard is a finding already.
    let broken: HashSet<u64> = walks.iter().filter(|walk| !walk.findings.is_empty()).map(|walk| walk.number).collect();
    let per_shard = u64::from(plan.options.samples_per_shard);
    // A sample that the manifest leaves out is a finding already, with the reason.
    let reported: HashSet<String> = findings.iter().map(|finding| finding.place.clone()).collect();
    for sample in plan.dataset.samples.iter().filter(|sample| !reported.contains(&sample.study_id)) {
        if !present.contains(&*sample.study_id) && !broken.contains(&(u64::from(sample.slot) / per_shard)) {
            let what = "it is in the data set that the flags name, and in no shard";
            findings.push(Finding::new(Verdict::Incomplete, &sample.study_id, what));
        }
    }
}
