//! Lists of studies for training, validation and test, which never part what belongs together: scans and
//! reconstructions of one patient. Pure.
//!
//! The order of the groups is that of the SHA-256 digests of `"ctwds-fs split 1"`, the seed as little-endian u64 and
//! the group's name: the same on every machine and for every later version, and hardly another where studies are added.

use std::collections::BTreeMap;
use std::str::FromStr;

use regex::Regex;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, shown};

const DOMAIN: &[u8] = b"ctwds-fs split 1";
/// The number of studies that a message names.
const NAMED: usize = 3;

/// What decides a study's split (`--split-by`).
#[derive(Clone, Debug, PartialEq)]
pub enum SplitBy {
    /// Chance, with these names and shares, which sum to 1.
    Shares(Vec<(String, f64)>),
    /// The values of a column of a table.
    Column(String),
}

impl FromStr for SplitBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = |part: &str| {
            let (name, share) = part.rsplit_once(':')?;
            Some((name.trim().to_owned(), share.trim().parse::<f64>().ok()?))
        };
        let Some(shares) = text.split(',').map(share).collect::<Option<Vec<_>>>() else {
            return if text.is_empty() { Err("a column has a name".into()) } else { Ok(Self::Column(text.into())) };
        };
        for (at, (name, share)) in shares.iter().enumerate() {
            check_name(name)?;
            if share.is_nan() || *share <= 0.0 {
                return Err(format!("the share of '{name}' must be above 0"));
            }
            if shares[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("'{name}' is there twice"));
            }
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        // Decimal shares such as 0.7, 0.2 and 0.1 do not sum to 1 exactly.
        if (sum - 1.0).abs() > 1e-6 {
            return Err(format!("the shares sum to {sum}, not to 1"));
        }
        Ok(Self::Shares(shares))
    }
}

/// Checks the name of a split, which becomes that of a file.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(is_plain) {
        return Err(format!(
            "'{}' is no name of a split, which becomes a file's: letters, digits, and - _ . inside",
            shown(name)
        ));
    }
    Ok(())
}

/// Studies that belong together, by the name of their group: numbers of studies in their order.
pub type Groups = BTreeMap<String, Vec<usize>>;

/// The groups of studies: what the first parenthesis of `pattern` matches of a study's id, or all that it matches where
/// it has none.
///
/// # Errors
/// [`Error::Refused`] with three ids that the pattern does not match.
pub fn groups(studies: &[&str], pattern: &Regex) -> Result<Groups> {
    let mut groups = Groups::new();
    let mut others = Vec::new();
    for (number, study) in studies.iter().enumerate() {
        match pattern.captures(study).and_then(|found| found.get(1).or_else(|| found.get(0))) {
            Some(group) => groups.entry(group.as_str().to_owned()).or_default().push(number),
            None => others.push(*study),
        }
    }
    if others.is_empty() {
        return Ok(groups);
    }
    let named: Vec<_> = others.iter().take(NAMED).map(|study| shown(study)).collect();
    Err(Error::Refused(format!(
        "--group-by '{pattern}' does not match the ids of {} of {} studies (for example {}), so that it is not known \
         which of them are of one patient; give an expression whose first parenthesis is the patient, or '.*' if each \
         study is a patient",
        others.len(),
        studies.len(),
        named.join(", ")
    )))
}

/// One list of studies.
#[derive(Debug, PartialEq)]
pub struct Split {
    /// The name.
    pub name: String,
    /// The numbers of its studies, ascending.
    pub studies: Vec<usize>,
    /// The number of its groups.
    pub groups: usize,
}

/// Splits groups by chance: each split gets its share of the studies, to within half a group.
///
/// # Errors
/// [`Error::Refused`] if a split would be empty.
pub fn by_shares(groups: &Groups, shares: &[(String, f64)], seed: u64) -> Result<Vec<Split>> {
    let mut order: Vec<(&String, &Vec<usize>)> = groups.iter().collect();
    order.sort_by_cached_key(|(group, _)| {
        Sha256::new().chain_update(DOMAIN).chain_update(seed.to_le_bytes()).chain_update(group).finalize()
    });
    let all: usize = groups.values().map(Vec::len).sum();
    let mut splits: Vec<Split> =
        shares.iter().map(|(name, _)| Split { name: name.clone(), studies: Vec::new(), groups: 0 }).collect();
    let (mut at, mut end, mut before) = (0, shares.first().map_or(0.0, |(_, share)| *share), 0);
    for (_, studies) in order {
        let middle = (before as f64 + studies.len() as f64 / 2.0) / all as f64;
        while middle > end && at + 1 < splits.len() {
            at += 1;
            end += shares[at].1;
        }
        splits[at].studies.extend(studies);
        splits[at].groups += 1;
        before += studies.len();
    }
    if let Some(empty) = splits.iter().find(|split| split.studies.is_empty()) {
        return Err(Error::Refused(format!(
            "--split-by: no study is left for '{}': there are only {} groups of studies (--group-by) for {} splits of \
             these shares",
            empty.name,
            groups.len(),
            splits.len()
        )));
    }
    splits.iter_mut().for_each(|split| split.studies.sort_unstable());
    Ok(splits)
}

/// Splits studies by their values of a column; `studies` are their ids.
///
/// # Errors
/// [`Error::Refused`] if a value is no name of a split, or two studies of one group have different values.
pub fn by_values(groups: &Groups, studies: &[&str], column: &str, values: &[&str]) -> Result<Vec<Split>> {
    let mut splits: BTreeMap<&str, Split> = BTreeMap::new();
    for (group, members) in groups {
        let first = members[0];
        if let Some(other) = members.iter().find(|member| values[**member] != values[first]) {
            return Err(Error::Refused(format!(
                "--split-by: '{}' and '{}' belong together ('{}', by --group-by), but column '{}' has '{}' for one and \
                 '{}' for the other; correct the table, or give the --group-by that tells them apart",
                shown(studies[first]),
                shown(studies[*other]),
                shown(group),
                shown(column),
                shown(values[first]),
                shown(values[*other])
            )));
        }
        let name = values[first];
        check_name(name).map_err(|what| {
            Error::Refused(format!(
                "--split-by: column '{}' of study '{}': {what}",
                shown(column),
                shown(studies[first])
            ))
        })?;
        let split = splits.entry(name);
        let split = split.or_insert_with(|| Split { name: name.to_owned(), studies: Vec::new(), groups: 0 });
        split.studies.extend(members);
        split.groups += 1;
    }
    let mut splits: Vec<Split> = splits.into_values().collect();
    splits.iter_mut().for_each(|split| split.studies.sort_unstable());
    Ok(splits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_patients(scans: &[usize]) -> (Vec<String>, Groups) {
        let ids = scans.iter().enumerate().flat_map(|(patient, count)| {
            (0..*count).map(move |scan| format!("train_{patient}_{}_1", (b'a' + u8::try_from(scan).unwrap()) as char))
        });
        let ids: Vec<String> = ids.collect();
        let all: Vec<&str> = ids.iter().map(String::as_str).collect();
        let groups = groups(&all, &Regex::new("^(train_[0-9]+)_").unwrap()).unwrap();
        (ids, groups)
    }

    fn shares(text: &str) -> Vec<(String, f64)> {
        match text.parse().unwrap() {
            SplitBy::Shares(shares) => shares,
            SplitBy::Column(name) => panic!("{name} is a column"),
        }
    }

    #[test]
    fn shares_or_a_column() {
        assert_eq!(shares("train:0.7, val:0.2,test:0.1").len(), 3);
        assert_eq!("split".parse(), Ok(SplitBy::Column("split".into())));
        assert_eq!("a:b".parse(), Ok(SplitBy::Column("a:b".into())));
        for wrong in ["", "a:0.5", "a:1.5,b:-0.5", "a:0.5,a:0.5", "../a:1", "a:NaN,b:1", ".a:1", ":1", "a:inf"] {
            assert!(wrong.parse::<SplitBy>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_study_is_in_one_split_beside_its_patient() {
        for seed in 0..20 {
            let scans: Vec<usize> = (0..200).map(|patient| 1 + (patient * 7 + seed) % 5).collect();
            let (ids, groups) = of_patients(&scans);
            let splits = by_shares(&groups, &shares("train:0.8,val:0.1,test:0.1"), seed as u64).unwrap();
            let mut all: Vec<usize> = splits.iter().flat_map(|split| split.studies.clone()).collect();
            all.sort_unstable();
            assert_eq!(all, (0..ids.len()).collect::<Vec<_>>());
            for (split, share) in splits.iter().zip([0.8, 0.1, 0.1]) {
                assert!((split.studies.len() as f64 - share * ids.len() as f64).abs() <= 5.0);
                assert!(split.studies.is_sorted());
            }
            let split_of = |study: usize| splits.iter().position(|split| split.studies.contains(&study)).unwrap();
            for members in groups.values() {
                assert!(members.iter().all(|member| split_of(*member) == split_of(members[0])));
            }
        }
    }

    /// Pinned: a later version must not move a patient from training to validation.
    #[test]
    fn the_order_is_for_ever() {
        let (_, groups) = of_patients(&[1; 12]);
        let val = |seed| by_shares(&groups, &shares("train:0.75,val:0.25"), seed).unwrap()[1].studies.clone();
        assert_eq!((val(0), val(1)), (vec![2, 5, 9], vec![2, 9, 10]));
    }

    #[test]
    fn no_split_is_empty() {
        let (_, groups) = of_patients(&[3, 1]);
        let message = by_shares(&groups, &shares("train:0.98,val:0.02"), 0).unwrap_err().to_string();
        assert!(message.contains("no study is left for 'val'"), "{message}");
    }

    #[test]
    fn values_of_a_column_and_their_patients() {
        let (ids, groups) = of_patients(&[2, 1]);
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let splits = by_values(&groups, &ids, "split", &["val", "val", "train"]).unwrap();
        let found: Vec<_> = splits.iter().map(|split| (&*split.name, split.studies.clone(), split.groups)).collect();
        assert_eq!(found, [("train", vec![2], 1), ("val", vec![0, 1], 1)]);
        let leak = by_values(&groups, &ids, "split", &["val", "train", "train"]).unwrap_err().to_string();
        assert!(leak.contains("'train_0_a_1' and 'train_0_b_1' belong together ('train_0'"), "{leak}");
        assert!(by_values(&groups, &ids, "split", &["", "", "train"]).unwrap_err().to_string().contains("no name"));
    }

    #[test]
    fn ids_without_a_group_are_named() {
        let pattern = Regex::new("^(p[0-9]+)_").unwrap();
        let message = groups(&["p1_a", "x", "y", "z", "w"], &pattern).unwrap_err().to_string();
        assert!(message.contains("4 of 5 studies (for example x, y, z)"), "{message}");
        let each = Regex::new(".*").unwrap();
        assert_eq!(groups(&["a", "b"], &each).unwrap().len(), 2);
    }
}
