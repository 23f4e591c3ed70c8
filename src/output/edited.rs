//! Index files that a user has changed: which of them may stay, and what is to be said of those that stay.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::indexes::{ListedShard, ViewIndex};

/// Names of shards that a message lists.
const LISTED: usize = 5;

impl ViewIndex {
    /// Whether a file that a user has changed may stay. Split, field map and data card are the user's to decide; what
    /// another file says of the shards must be right.
    pub fn may_stay(self, found: &[u8], shards: &[ListedShard]) -> bool {
        let json = || serde_json::from_slice::<Value>(found).unwrap_or_default();
        let shards = || shards.iter().filter(|shard| shard.samples > 0);
        match self {
            Self::EnergonSplit | Self::EnergonDataset | Self::DataCard => true,
            Self::EnergonInfo => {
                let counts: Map<_, _> = shards().map(|shard| (shard.name.clone(), shard.samples.into())).collect();
                json().get("shard_counts") == Some(&Value::Object(counts))
            }
            Self::Wids => {
                let json = json();
                let Some(listed) = json.get("shardlist").and_then(Value::as_array) else { return false };
                listed.len() == shards().count() && listed.iter().zip(shards()).all(|(entry, shard)| is(entry, shard))
            }
        }
    }

    /// What is to be said of a file that a user has changed and that stays; `None` if it is right.
    pub fn remark(self, found: &[u8], shards: &[ListedShard]) -> Option<String> {
        let text = String::from_utf8_lossy(found);
        match self {
            Self::Wids | Self::EnergonInfo | Self::EnergonDataset => None,
            Self::DataCard => (!text.contains("data_files")).then(|| {
                "it stays as it is; for load_dataset(FOLDER), its first lines must be: ---, configs:, \
                 - config_name: default, two spaces and data_files: \"shard-*.tar\", ---"
                    .to_owned()
            }),
            Self::EnergonSplit => {
                let names: BTreeSet<&str> =
                    shards.iter().filter(|shard| shard.samples > 0).map(|shard| &*shard.name).collect();
                let patterns = patterns(&text);
                let is_named = |name: &&&str| patterns.iter().any(|pattern| pattern.matches(name));
                let unnamed: Vec<&str> = names.iter().filter(|name| !is_named(name)).copied().collect();
                let single = patterns.iter().filter_map(Pattern::name).collect::<BTreeSet<_>>();
                let unknown: Vec<&str> =
                    single.iter().map(String::as_str).filter(|name| !names.contains(name)).collect();
                let said: Vec<String> = [
                    (unnamed, "it names these in no part and does not exclude them"),
                    (unknown, "it names these, which hold no sample or are not there"),
                ]
                .into_iter()
                .filter(|(names, _)| !names.is_empty())
                .map(|(names, what)| format!("{what}: {}", list(&names)))
                .collect();
                let stays = "it stays as it was changed, and the shards are others than it lists";
                (!said.is_empty()).then(|| format!("{stays}; {}", said.join("; ")))
            }
        }
    }
}

/// Whether an entry of the index of wids is that of the shard; its URL may lead elsewhere.
fn is(entry: &Value, shard: &ListedShard) -> bool {
    let url = entry.get("url").and_then(Value::as_str).unwrap_or_default();
    url.rsplit('/').next() == Some(&*shard.name)
        && entry.get("nsamples").and_then(Value::as_u64) == Some(shard.samples as u64)
        && entry.get("filesize").and_then(Value::as_u64) == Some(shard.bytes)
}

fn list(names: &[&str]) -> String {
    let more = names.len().saturating_sub(LISTED);
    let first = names[..names.len() - more].join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

/// Names of shards in a split: one name, or a range of numbers in braces, such as `shard-{000000..000009}.tar`.
struct Pattern {
    before: String,
    /// First and last number of the range, with as many digits as the first.
    range: Option<(u64, u64, usize)>,
    after: String,
}

impl Pattern {
    fn parse(name: &str) -> Option<Self> {
        let Some((before, rest)) = name.split_once('{') else {
            return Some(Self { before: name.to_owned(), range: None, after: String::new() });
        };
        let (range, after) = rest.split_once('}')?;
        let (first, last) = range.split_once("..")?;
        let range = (first.parse().ok()?, last.parse().ok()?, first.len());
        Some(Self { before: before.to_owned(), range: Some(range), after: after.to_owned() })
    }

    fn name(&self) -> Option<String> {
        self.range.is_none().then(|| self.before.clone())
    }

    fn matches(&self, name: &str) -> bool {
        let Some((first, last, width)) = self.range else { return name == self.before };
        let number = name.strip_prefix(&*self.before).and_then(|rest| rest.strip_suffix(&*self.after));
        let number = number.filter(|digits| digits.len() == width).and_then(|digits| digits.parse().ok());
        number.is_some_and(|number: u64| (first..=last).contains(&number))
    }
}

/// The names and ranges of shards in a text, comments left out.
fn patterns(text: &str) -> Vec<Pattern> {
    let code = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let pieces = code.flat_map(|line| line.split("shard-").skip(1));
    pieces.filter_map(|piece| Pattern::parse(&format!("shard-{}.tar", piece.split_once(".tar")?.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(count: u32) -> Vec<ListedShard> {
        let name = |number| format!("shard-{number:06}.tar");
        (0..count).map(|number| ListedShard { name: name(number), samples: 2, bytes: 1024 }).collect()
    }

    #[test]
    fn what_is_made_here_may_stay_and_needs_no_remark() {
        for index in ViewIndex::ALL {
            let made = index.render(&shards(12));
            assert!(index.may_stay(&made, &shards(12)), "{index:?}");
            assert_eq!(index.remark(&made, &shards(12)), None, "{index:?}");
        }
    }

    #[test]
    fn what_is_wrong_of_the_shards_may_not_stay() {
        for index in [ViewIndex::Wids, ViewIndex::EnergonInfo] {
            for wrong in [&index.render(&shards(3))[..], b"", b"{}", b"[]", b"{"] {
                assert!(!index.may_stay(wrong, &shards(4)), "{index:?}");
            }
        }
    }

    #[test]
    fn a_split_may_name_shards_one_by_one_or_in_ranges() {
        let remark = |split: &str| ViewIndex::EnergonSplit.remark(split.as_bytes(), &shards(12));
        assert_eq!(remark("train: [shard-{000000..000009}.tar]\nval: [shard-00001{0..1}.tar]"), None);
        assert_eq!(remark("train: [shard-{000000..000010}.tar]\nexclude: [shard-000011.tar]"), None);
        let missing = remark("train: [shard-{000000..000010}.tar] # shard-000011.tar").unwrap();
        assert!(missing.contains("in no part") && missing.ends_with("shard-000011.tar"), "{missing}");
        let many = remark("").unwrap();
        assert!(many.ends_with("shard-000004.tar and 7 more"), "{many}");
        let gone = remark("train: [shard-{000000..000011}.tar, shard-000012.tar]").unwrap();
        assert!(gone.contains("not there: shard-000012.tar"), "{gone}");
    }
}
