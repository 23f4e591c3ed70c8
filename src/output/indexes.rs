//! Index files that other readers look for beside the shards: made from the layout, without reading a voxel. This
//! module touches no files.
//!
//! | file | reader | what it spares |
//! |---|---|---|
//! | `shardindex.json` | wids 0.1.11, `ShardListDataset` | counting the samples of every shard |
//! | `shard-000000.idx` | DALI, `fn.readers.webdataset(index_paths=…)`, format v1.2 of `wds2idx` | walking the headers |
//! | `README.md` | Hugging Face datasets 5.2, `load_dataset(FOLDER)` | naming the shards: other files are no data |
//! | `shard-000000.tar.idx`, `.nv-meta/` | Megatron-Energon 7.4.1 | `energon prepare`, which writes beside the shards |
//!
//! Energon's `.nv-meta/index.sqlite` is not among them: it serves joins and look-ups by key, and no epoch reads it.

use std::fmt::Write;

use serde_json::json;

use crate::formats::tar;
use crate::plan::{Plan, ShardId, View};

/// Name of the folder of Energon's files, below that of the shards.
pub const ENERGON_FOLDER: &str = ".nv-meta";
/// Version of Energon whose files are made.
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

/// The index files of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardIndex {
    /// Index of NVIDIA DALI: where each member stands.
    Dali,
    /// Index of Megatron-Energon: where each sample begins.
    Energon,
}

/// A shard as the indexes of a view list it.
#[derive(Clone, Debug)]
pub struct ListedShard {
    /// File name.
    pub name: String,
    /// Number of samples in the shard.
    pub samples: usize,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// The shards of a view, in its order; empty if there is no such view.
pub fn list(plan: &Plan, view: View) -> Vec<ListedShard> {
    let listed = |id| {
        let (shard, (_, number)) = (plan.shard(id)?, plan.view_of(id)?);
        Some(ListedShard { name: Plan::shard_name(number), samples: shard.samples.len(), bytes: shard.layout.len() })
    };
    plan.view(view).into_iter().flatten().filter_map(listed).collect()
}

/// The shard whose index has this file name; `None` if no shard's index is called so.
pub fn shard_of_index(name: &str) -> Option<ShardId> {
    let stem = name.strip_suffix(".idx")?;
    Plan::shard_named(stem).or_else(|| Plan::shard_named(&format!("{stem}.tar")))
}

/// The index files of all shards of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewIndex {
    /// Index of wids: all shards with their sizes and counts of samples.
    Wids,
    /// Data card of Hugging Face, which names the shards.
    DataCard,
    /// Energon's list of the shards' counts of samples.
    EnergonInfo,
    /// Energon's split: all shards are `train`, because a data set is one split already.
    EnergonSplit,
    /// Energon's description of the loader: samples are dictionaries of their members' bytes.
    EnergonDataset,
}

impl ShardIndex {
    /// Both indexes.
    pub const ALL: [Self; 2] = [Self::Dali, Self::Energon];

    /// File name of the index of the shard that has this number in its view.
    pub fn name(self, number: u32) -> String {
        let shard = Plan::shard_name(number);
        match self {
            Self::Dali => format!("{}.idx", shard.trim_end_matches(".tar")),
            Self::Energon => format!("{shard}.idx"),
        }
    }

    /// Content of the index of a shard; `None` if there is no such shard.
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
            // Where each sample begins, and where the last one ends.
            Self::Energon => {
                let offsets = layout.sample_starts().iter().copied().chain([layout.end()]);
                Some(offsets.flat_map(u64::to_le_bytes).collect())
            }
        }
    }

    /// Size of the index of a shard in bytes; `None` if there is no such shard. Energon's is computed without its
    /// content.
    pub fn len(self, plan: &Plan, id: ShardId) -> Option<u64> {
        match self {
            Self::Dali => Some(self.render(plan, id)?.len() as u64),
            Self::Energon => Some((plan.samples(id).len() as u64 + 1) * 8),
        }
    }
}

/// One line of DALI's index: extension, offset, size and name of each member of a sample.
fn dali_line(plan: &Plan, start: u64, index: usize) -> String {
    let key = plan.key(&plan.dataset.samples[index]);
    let extensions = plan.options.format.extensions();
    let mut line = String::new();
    let mut offset = start;
    for (extension, size) in extensions.iter().zip(plan.member_sizes(index)) {
        offset += tar::BLOCK;
        let space = if line.is_empty() { "" } else { " " };
        let _ = write!(line, "{space}{extension} {offset} {size} {key}.{extension}");
        offset += size + tar::padding(*size);
    }
    line + "\n"
}

impl ViewIndex {
    /// All indexes.
    pub const ALL: [Self; 5] =
        [Self::Wids, Self::DataCard, Self::EnergonInfo, Self::EnergonSplit, Self::EnergonDataset];

    /// Name of the folder of the index, below that of the shards; `None` if the index stands beside the shards.
    pub fn folder(self) -> Option<&'static str> {
        (!matches!(self, Self::Wids | Self::DataCard)).then_some(ENERGON_FOLDER)
    }

    /// Whether the index stands beside compressed shards as well. The readers of the others cannot decompress a member.
    pub fn is_for_compressed(self) -> bool {
        self == Self::DataCard
    }

    /// File name of the index.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wids => "shardindex.json",
            Self::DataCard => "README.md",
            Self::EnergonInfo => ".info.json",
            Self::EnergonSplit => "split.yaml",
            Self::EnergonDataset => "dataset.yaml",
        }
    }

    /// Content of the index of `shards`. Shards without samples are not listed: Energon refuses them.
    pub fn render(self, shards: &[ListedShard]) -> Vec<u8> {
        let shards = shards.iter().filter(|shard| shard.samples > 0);
        let content = match self {
            Self::Wids => {
                let entry = |ListedShard { name, samples, bytes }: &ListedShard| json!({ "url": name, "nsamples": samples, "filesize": bytes });
                let shards: Vec<_> = shards.map(entry).collect();
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
