//! Index files that other programs look for beside the shards. They are made from the layout, without reading a voxel.
//!
//! | file | read by | spares the reader |
//! |---|---|---|
//! | `shardindex.json` | wids 0.1.11, `ShardListDataset` | counting the samples of every shard |
//! | `shard-000000.idx` | DALI, `fn.readers.webdataset(index_paths=…)`, `wds2idx` v1.2 | walking the headers |
//! | `README.md` | Hugging Face datasets 5.2, `load_dataset(FOLDER)` | naming the shards: other files are no data |
//! | `shard-000000.tar.idx`, `.nv-meta/` | Megatron-Energon 7.4.1 | `energon prepare`, which writes beside the shards |
//!
//! Energon's `.nv-meta/index.sqlite` is not made: it serves joins and look-ups by key, and no epoch reads it.

use std::fmt::Write;

use serde_json::json;

use crate::formats::tar;
use crate::plan::{Plan, ShardId, View};

/// The folder of Energon's files, beside the shards.
pub const ENERGON_FOLDER: &str = ".nv-meta";
/// The version of Energon that reads these files.
const ENERGON_VERSION: &str = "7.4.1";

/// The data card, whose first lines tell Hugging Face's `load_dataset` which files are the data.
const DATA_CARD: &str = r#"---
configs:
- config_name: default
  data_files: "shard-*.tar"
---

# CT volumes as WebDataset shards

The samples are in `shard-*.tar`; `manifest.json` says what each shard holds. By the first lines of this file, Hugging
Face `datasets` finds the shards, and takes no other file for data:

```python
from datasets import load_dataset

data = load_dataset(FOLDER, split="train", streaming=True)
```

A file of this name with other content is never replaced: add what you want to say of your data.
"#;

/// A kind of index file of which each shard has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardIndex {
    /// The index for DALI: extension, offset, size and name of each member, as text.
    Dali,
    /// The index for Energon: the offset of each sample and the end of the last, as little-endian u64.
    Energon,
}

/// A shard as the indexes of a view list it.
#[derive(Clone, Debug)]
pub struct ListedShard {
    /// The file name of the shard.
    pub name: String,
    /// The number of samples in the shard.
    pub samples: usize,
    /// The size of the shard in bytes.
    pub bytes: u64,
}

/// The shards of a view, in its order; empty if the plan has no such view.
pub fn list(plan: &Plan, view: View) -> Vec<ListedShard> {
    let listed = |id| {
        let (shard, (_, number)) = (plan.shard(id)?, plan.view_of(id)?);
        Some(ListedShard { name: Plan::shard_name(number), samples: shard.samples.len(), bytes: shard.layout.len() })
    };
    plan.view(view).into_iter().flatten().filter_map(listed).collect()
}

/// The number of the shard whose index file has this name; `None` for other names.
pub fn shard_of_index(name: &str) -> Option<ShardId> {
    let stem = name.strip_suffix(".idx")?;
    Plan::shard_named(stem).or_else(|| Plan::shard_named(&format!("{stem}.tar")))
}

/// A kind of index file of which each view has one, for all of its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewIndex {
    /// The index for wids: name, size and number of samples of each shard.
    Wids,
    /// The data card for Hugging Face, which names the shards.
    DataCard,
    /// The number of samples of each shard, for Energon.
    EnergonInfo,
    /// The split, for Energon: all shards are `train`, because a data set is one split already.
    EnergonSplit,
    /// The loader, for Energon: samples as dictionaries of their members' bytes.
    EnergonDataset,
}

impl ShardIndex {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Dali, Self::Energon];

    /// The name of the index file of a shard, from the shard's number in its view.
    pub fn name(self, number: u32) -> String {
        let shard = Plan::shard_name(number);
        match self {
            Self::Dali => format!("{}.idx", shard.trim_end_matches(".tar")),
            Self::Energon => format!("{shard}.idx"),
        }
    }

    /// The content of the index file of a shard; `None` if there is no such shard.
    pub fn render(self, plan: &Plan, id: ShardId) -> Option<Vec<u8>> {
        let layout = &plan.shard(id)?.layout;
        match self {
            Self::Dali => {
                let starts = layout.sample_starts();
                let mut text = format!("v1.2 {}\n", starts.len());
                for (start, index) in starts.iter().zip(plan.samples(id).iter()) {
                    text += &dali_line(plan, *start, index);
                }
                Some(text.into_bytes())
            }
            Self::Energon => {
                let offsets = layout.sample_starts().iter().copied().chain([layout.end()]);
                Some(offsets.flat_map(u64::to_le_bytes).collect())
            }
        }
    }

    /// The size in bytes of the index file of a shard; `None` if there is no such shard.
    pub fn len(self, plan: &Plan, id: ShardId) -> Option<u64> {
        match self {
            Self::Dali => Some(self.render(plan, id)?.len() as u64),
            Self::Energon => Some((plan.shard(id)?.samples.len() as u64 + 1) * 8),
        }
    }
}

/// The line of a sample in the index for DALI: extension, offset, size and name of each member.
fn dali_line(plan: &Plan, start: u64, index: usize) -> String {
    let key = plan.key(&plan.dataset.samples[index]);
    let mut line = String::new();
    let mut offset = start;
    for (extension, size) in plan.members.extensions().zip(plan.member_sizes(index)) {
        offset += tar::BLOCK;
        let space = if line.is_empty() { "" } else { " " };
        let _ = write!(line, "{space}{extension} {offset} {size} {key}.{extension}");
        offset += size + tar::padding(*size);
    }
    line + "\n"
}

impl ViewIndex {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Wids, Self::DataCard, Self::EnergonInfo, Self::EnergonSplit, Self::EnergonDataset];

    /// The folder of the index file, below that of the shards; `None` if the file is beside the shards.
    pub fn folder(self) -> Option<&'static str> {
        (!matches!(self, Self::Wids | Self::DataCard)).then_some(ENERGON_FOLDER)
    }

    /// Whether the index stands beside compressed shards as well. The readers of the others cannot decompress a member.
    pub fn is_for_compressed(self) -> bool {
        self == Self::DataCard
    }

    /// The name of the index file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wids => "shardindex.json",
            Self::DataCard => "README.md",
            Self::EnergonInfo => ".info.json",
            Self::EnergonSplit => "split.yaml",
            Self::EnergonDataset => "dataset.yaml",
        }
    }

    /// The content of the index file. Shards without a sample are not in it, because Energon refuses them.
    pub fn render(self, shards: &[ListedShard]) -> Vec<u8> {
        let shards = shards.iter().filter(|shard| shard.samples > 0);
        let content = match self {
            Self::Wids => {
                let shards: Vec<_> = shards
                    .map(|shard| json!({ "url": shard.name, "nsamples": shard.samples, "filesize": shard.bytes }))
                    .collect();
                let index = json!({ "__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards });
                format!("{index:#}\n")
            }
            Self::EnergonInfo => {
                let counts: serde_json::Map<_, _> =
                    shards.map(|shard| (shard.name.clone(), shard.samples.into())).collect();
                format!("{:#}\n", json!({ "energon_version": ENERGON_VERSION, "shard_counts": counts }))
            }
            Self::EnergonSplit => {
                let names: Vec<String> = shards.map(|shard| format!("  - {}\n", shard.name)).collect();
                let train = if names.is_empty() { " []\n".to_owned() } else { format!("\n{}", names.concat()) };
                format!("split_parts:\n  train:{train}  val: []\n  test: []\nexclude: []\n")
            }
            Self::DataCard => DATA_CARD.to_owned(),
            Self::EnergonDataset => "__module__: megatron.energon\n__class__: CrudeWebdataset\n".to_owned(),
        };
        content.into_bytes()
    }
}
