//! What a page says, for programs.

use serde_json::{Value, json};

use super::Report;
use crate::plan::Plan;

/// The facts of a page as one object. HU are those of the page; where nothing makes HU of the values, the values.
pub(super) fn of(report: &Report<'_>) -> Value {
    let Report { plan, request, seen, values, rounding, unread, .. } = report;
    let Plan { dataset, shards, digest, .. } = plan;
    let values = values.iter().map(|(index, values)| {
        json!({
            "study_id": dataset.samples[*index].study_id,
            "percentiles": values.percentiles,
            "not_a_number": values.histogram.not_a_number,
        })
    });
    let rounding = rounding.overall().map(|(mean, largest)| json!({ "mean": mean, "largest": largest }));
    let looked_at = values.len() + unread.len();
    let unread = unread.iter().map(|one| json!({ "study_id": one.study_id, "reason": one.reason }));
    json!({
        "plan_digest": digest,
        "samples": dataset.samples.len(),
        "left_out": dataset.left_out.len() + dataset.unmatched.len(),
        "shards": shards.len(),
        "shard_bytes": plan.shard_bytes(),
        "volume_kind": plan.kind(),
        "volume_dtype": plan.voxel_format().name(),
        "seed": request.seed,
        "looked_at": looked_at,
        "shown": seen.iter().map(|one| &one.study_id).collect::<Vec<_>>(),
        "are_hu": report.are_hu(),
        "values": values.collect::<Vec<_>>(),
        "rounding": rounding,
        "not_finite": report.rounding.lost,
        "unread": unread.collect::<Vec<_>>(),
    })
}
