//! Merging the manifests of all parts of a conversion into one.

use std::collections::BTreeMap;

use super::{Manifest, SCHEMA_VERSION};
use crate::output::partition::Part;
use crate::plan::values::ValueGroup;
use crate::plan::{Plan, ShardId, shard_ids};

/// The result of merging the manifests of parts.
#[derive(Debug)]
pub enum Merged {
    /// The manifest of the whole, with all shards.
    Whole(Box<Manifest>),
    /// Shards are missing.
    Missing {
        /// Number of parts in all.
        of: u32,
        /// Shards that are missing, by the index of their part.
        shards: BTreeMap<u32, Vec<ShardId>>,
    },
    /// The manifests do not belong together: why, and the remedy.
    Unlike(String),
}

/// Merges the manifests of parts, each given with its file name.
pub fn merge(parts: Vec<(String, Manifest)>) -> Merged {
    let Some((first_name, first)) = parts.first() else {
        return Merged::Unlike("there is no manifest of a part here; run materialize with --partition first".into());
    };
    let Some(whole) = first.part else { return Merged::Unlike(format!("{first_name} is not the manifest of a part")) };
    for (name, manifest) in &parts {
        let unlike = |what: &str, remedy: &str| {
            Some(Merged::Unlike(format!("{first_name} and {name} are of different {what}: {remedy}")))
        };
        let remedy = "remove the one that is out of date, and run its part again with the options of the others";
        let difference = match manifest.part {
            _ if manifest.plan_digest != first.plan_digest => unlike("plans (volumes, tables or options)", remedy),
            _ if manifest.schema_version != SCHEMA_VERSION => unlike("versions of ctwds-fs", remedy),
            _ if are_unlike(manifest, first) => unlike("choices of --rescale", remedy),
            _ if manifest.compression != first.compression => unlike("compressions", remedy),
            Some(part) if part.of == whole.of => None,
            _ => unlike("partitions", "remove the manifests of the one that is out of date"),
        };
        if let Some(unlike) = difference {
            return unlike;
        }
    }
    let mut merged = Manifest { part: None, shards: Vec::new(), left_out: Vec::new(), ..first.clone() };
    merged.value_groups = parts.iter().find_map(|(_, manifest)| manifest.value_groups.clone());
    for (_, manifest) in parts {
        merged.shards.extend(manifest.shards);
        merged.left_out.extend(manifest.left_out);
    }
    merged.left_out.sort_by_key(|left_out| left_out.slot);
    let mut found: Vec<Option<ShardId>> = merged.shards.iter().map(|shard| Plan::shard_named(&shard.name)).collect();
    merged.shards.sort_by_key(|shard| Plan::shard_named(&shard.name));
    found.sort_unstable();
    let mut missing: BTreeMap<u32, Vec<ShardId>> = BTreeMap::new();
    for id in shard_ids(whole.num_shards) {
        if found.binary_search(&Some(id)).is_err() {
            missing.entry(id % whole.of).or_default().push(id);
        }
    }
    if !missing.is_empty() {
        return Merged::Missing { of: whole.of, shards: missing };
    }
    merged.sum_up();
    Merged::Whole(Box::new(merged))
}

/// Whether readers would make other HU of equal slopes and intercepts. Manifests of version 0.1 do not say.
fn are_unlike(manifest: &Manifest, other: &Manifest) -> bool {
    let both = manifest.value_groups.iter().flatten().zip(other.value_groups.iter().flatten());
    let values = |group: &ValueGroup| (group.rescale_slope, group.rescale_intercept);
    both.filter(|(one, other)| values(one) == values(other)).any(|(one, other)| one.rescale != other.rescale)
}

impl Manifest {
    /// The part whose shards the manifest lists; `None` if the numbers in the file name no part.
    pub fn part(&self) -> Option<Part> {
        self.part.map_or(Some(Part::WHOLE), |part| Part::new(part.index, part.of))
    }
}
