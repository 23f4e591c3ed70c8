//! Checks what the manifest says of the unit of the voxels: readers of stored volumes make HU by it.

use super::finding::Finding;
use super::manifest::{self, FILE_NAME, Manifest};
use crate::plan::Plan;
use crate::plan::values::ValueGroup;

/// Finds groups of volumes of which the manifest makes other HU than their values show, or than the flags say.
pub(super) fn check(manifest: &Manifest, plan: &Plan, findings: &mut Vec<Finding>) {
    for group in plan.values.iter().flatten() {
        let is_same = |listed: &&manifest::ValueGroup| {
            listed.rescale_slope == group.rescale_slope && listed.rescale_intercept == group.rescale_intercept
        };
        let Some(listed) = manifest.value_groups.iter().flatten().find(is_same) else { continue };
        let right = String::from(group.rescale);
        // Who made the shards may have decided against what the values show.
        let is_decided = listed.looked_at == 0 && group.looked_at > 0;
        if listed.rescale != right && !is_decided {
            findings.push(Finding::damaged(FILE_NAME, message(listed, group, &right)));
        }
    }
}

fn message(listed: &manifest::ValueGroup, group: &ValueGroup, right: &str) -> String {
    let ValueGroup { rescale_slope, rescale_intercept, looked_at, already_hu, .. } = group;
    let why = match looked_at {
        0 => format!("--rescale {right} was given"),
        _ => format!("{} of {looked_at} volumes looked at hold HU already", already_hu.volumes),
    };
    format!(
        "for slope {rescale_slope} and intercept {rescale_intercept} it tells readers to rescale by '{}', where '{right}' \
         is right ({why}); the same materialize with --rescale {right} writes the manifest again, and no shard",
        listed.rescale
    )
}
