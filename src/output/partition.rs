//! Parts of a conversion: runs that fill one output folder without communicating. The part with index I of N makes the
//! shards whose number leaves the remainder I when divided by N.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::job_array::{self, Job};
use crate::error::Result;
use crate::plan::ShardId;

/// One part of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// Number of parts.
    of: u32,
    /// Index of this part, from 0 on.
    index: u32,
}

impl Part {
    /// The only part of a conversion that is not divided.
    pub const WHOLE: Self = Self { of: 1, index: 0 };

    /// Part `index` (from 0 on) of `of` parts; `None` if `index` is not below `of`.
    pub fn new(index: u32, of: u32) -> Option<Self> {
        (index < of).then_some(Self { of, index })
    }

    /// Number of parts.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Index of this part, from 0 on.
    pub fn index(self) -> u32 {
        self.index
    }

    /// Whether this part makes the shard.
    pub fn has(self, id: ShardId) -> bool {
        id % self.of == self.index
    }

    /// Whether some shard number is in both parts.
    pub fn overlaps(self, other: Self) -> bool {
        let (mut common, mut rest) = (self.of, other.of);
        while rest != 0 {
            (common, rest) = (rest, common % rest);
        }
        self.index % common == other.index % common
    }

    /// The name of this part's file: `stem.extension` for the whole, else `stem-I-of-N.extension`.
    pub fn file_name(self, (stem, extension): (&str, &str)) -> String {
        if self == Self::WHOLE { format!("{stem}.{extension}") } else { format!("{stem}-{self}.{extension}") }
    }

    /// The part whose file has this name; `None` if no part's file is called so.
    pub fn of_file(name: &str, (stem, extension): (&str, &str)) -> Option<Self> {
        let part = name.strip_prefix(stem)?.strip_suffix(extension)?.strip_suffix('.')?;
        let part = match part.strip_prefix('-') {
            None => Self::WHOLE,
            Some(numbers) => {
                let (index, of) = numbers.split_once("-of-")?;
                Self::new(index.parse().ok()?, of.parse().ok()?)?
            }
        };
        (part.file_name((stem, extension)) == name).then_some(part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-of-{}", self.index, self.of)
    }
}

/// How the user says which part a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// `I/N`: the part itself.
    Given(Part),
    /// `auto/N`: one of N parts; its index is that of the job in its array.
    Auto(u32),
}

impl Partition {
    /// The part that a run is, and the environment variable that says so, if one does; `environment` gives the value of
    /// a variable.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::error::Error::Refused) if the environment names no part of that many, of this job or
    /// of the last in its array. The number of parts is never taken from the environment: an array that is submitted
    /// again for two of its indexes must not change it.
    pub fn resolve(self, environment: impl Fn(&str) -> Option<String>) -> Result<(Part, Option<&'static str>)> {
        match self {
            Self::Given(part) => Ok((part, None)),
            Self::Auto(of) => {
                let Job { place: index, variable } = job_array::job(of, environment)?;
                Ok((Part { of, index }, Some(variable)))
            }
        }
    }
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (index, of) = text.split_once('/')?;
            let of: u32 = of.parse().ok().filter(|of| *of > 0)?;
            if index == "auto" {
                return Some(Self::Auto(of));
            }
            Part::new(index.parse().ok()?, of).map(Self::Given)
        };
        parse().ok_or_else(|| "it is I/N with I from 0 to N - 1, such as 0/4, or auto/N".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_overlap_where_they_share_a_shard() {
        let parts = || (1..7).flat_map(|of| (0..of).filter_map(move |index| Part::new(index, of)));
        for a in parts() {
            for b in parts() {
                let share = (0..60).any(|id| a.has(id) && b.has(id));
                assert_eq!(a.overlaps(b), share, "{a} and {b}");
            }
        }
    }

    #[test]
    fn names_lead_back_to_parts() {
        let kind = ("manifest", "json");
        assert_eq!(Part::WHOLE.file_name(kind), "manifest.json");
        let part = Part::new(2, 10).unwrap();
        assert_eq!(part.file_name(kind), "manifest-2-of-10.json");
        for right in [Part::WHOLE, part] {
            assert_eq!(Part::of_file(&right.file_name(kind), kind), Some(right));
        }
        for wrong in ["manifest-2-of-2.json", "manifest-0-of-1.json", "manifest-02-of-3.json", "manifestjson", "x"] {
            assert_eq!(Part::of_file(wrong, kind), None, "{wrong}");
        }
    }

    #[test]
    fn the_environment_gives_the_index_only() {
        let slurm = |name: &str| (name == "SLURM_ARRAY_TASK_ID").then(|| "3".to_owned());
        let resolve = |text: &str| text.parse::<Partition>().unwrap().resolve(slurm);
        assert_eq!(resolve("auto/8").unwrap(), (Part::new(3, 8).unwrap(), Some("SLURM_ARRAY_TASK_ID")));
        assert_eq!(resolve("1/8").unwrap(), (Part::new(1, 8).unwrap(), None));
        assert!(resolve("auto/3").is_err());
        for wrong in ["3/3", "0/0", "1", "-1/2", "auto/0", "auto", "a/2", "1/x"] {
            assert!(wrong.parse::<Partition>().is_err(), "{wrong}");
        }
    }
}
