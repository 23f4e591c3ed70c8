//! The configuration that the training reads: a YAML file whose section `data` names the paths of the data set and its
//! shards. Other keys are ignored.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use super::input_paths::InputPaths;
use crate::base::given;
use crate::error::{Error, Result};

/// One of the two data sets of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Split {
    /// Keys such as `train_dir`.
    Train,
    /// Keys such as `valid_dir`.
    Valid,
}

/// The configuration file.
#[derive(Debug, Deserialize)]
struct ConfigFile {
    data: Option<Section>,
}

/// The section `data`.
#[derive(Debug, Default, Deserialize)]
struct Section {
    train_dir: Option<Spanned<Value>>,
    reports_train: Option<Spanned<Value>>,
    train_meta: Option<Spanned<Value>>,
    labels_train: Option<Spanned<Value>>,
    webdataset_shards_train: Option<Spanned<Value>>,
    valid_dir: Option<Spanned<Value>>,
    reports_valid: Option<Spanned<Value>>,
    valid_meta: Option<Spanned<Value>>,
    labels_valid: Option<Spanned<Value>>,
    webdataset_shards_val: Option<Spanned<Value>>,
}

/// The value of a key: a path, several of the files of one table, or something else.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Texts(Vec<String>),
    Other(IgnoredAny),
}

/// The keys of one data set in a configuration.
#[derive(Debug)]
pub struct Configured {
    file: PathBuf,
    keys: [&'static str; 5],
    values: [Option<Spanned<Value>>; 5],
}

impl Configured {
    /// Reads the keys of one data set in a configuration.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Malformed`] if it is no YAML or has no section `data`.
    pub fn read(file: &Path, split: Split) -> Result<Self> {
        let text = given::read_text(file, "read the configuration")?;
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::LastWins, // as in PyYAML, with which the training reads it
            with_snippet: false,
        };
        let parsed: Result<ConfigFile, _> = serde_saphyr::from_str_with_options(&text, options);
        let parsed = parsed.map_err(|error| Error::malformed(file, error.to_string()))?;
        let section = parsed.data.ok_or_else(|| Error::malformed(file, "there is no section 'data:' in it"))?;
        let (keys, values) = match split {
            Split::Train => (
                ["train_dir", "reports_train", "train_meta", "labels_train", "webdataset_shards_train"],
                [
                    section.train_dir,
                    section.reports_train,
                    section.train_meta,
                    section.labels_train,
                    section.webdataset_shards_train,
                ],
            ),
            Split::Valid => (
                ["valid_dir", "reports_valid", "valid_meta", "labels_valid", "webdataset_shards_val"],
                [
                    section.valid_dir,
                    section.reports_valid,
                    section.valid_meta,
                    section.labels_valid,
                    section.webdataset_shards_val,
                ],
            ),
        };
        Ok(Self { file: file.to_owned(), keys, values })
    }

    /// The data folder and the tables of reports, metadata and labels, relative to the current folder, as in the
    /// training. What is `given` on the command line wins, and its key is not looked at. A table whose key is not set
    /// is none.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the key of the data folder is missing, or a value is no path.
    pub fn input_paths(&self, data_folder: Option<PathBuf>, mut tables: [Vec<PathBuf>; 3]) -> Result<InputPaths> {
        let data_folder = match data_folder {
            Some(folder) => folder,
            None => self.text(0)?.map(PathBuf::from).ok_or_else(|| self.missing(self.keys[0]))?,
        };
        for (files, index) in tables.iter_mut().zip(1..).filter(|(files, _)| files.is_empty()) {
            files.extend(self.texts(index)?.into_iter().map(PathBuf::from));
        }
        Ok(InputPaths::new(data_folder, tables))
    }

    /// The mountpoint: the folder of the shards, which is named itself or by the pattern of their paths, without the
    /// folders of an epoch.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the key is missing, or its value is not a pattern of files in one folder.
    pub fn mountpoint(&self) -> Result<PathBuf> {
        let index = self.keys.len() - 1;
        let pattern = self.text(index)?.ok_or_else(|| self.missing(self.keys[index]))?;
        let refuse = |reason| Err(self.wrong(index, &format!("{reason}; name the mountpoint on the command line")));
        let path = Path::new(pattern.strip_prefix("file:").unwrap_or(pattern));
        // The loader takes a folder too; what names shards ends in .tar, or has a sign of a pattern.
        let is_folder = !pattern.ends_with(".tar") && !pattern.contains(['{', '*', '?', '[']);
        let named = if is_folder { Some(path) } else { path.parent() };
        let Some(folder) = named.filter(|folder| !folder.as_os_str().is_empty()) else {
            return refuse("the pattern has no folder");
        };
        let folder_text = folder.to_string_lossy();
        if pattern.contains("::") || folder_text.contains(['{', '}', '*', '?', '[']) {
            return refuse("the pattern names several folders");
        }
        if folder_text.contains(':') {
            return refuse("the pattern is not of files");
        }
        Ok(without_epoch(folder).to_owned())
    }

    /// The text of a key, by its index; `None` if it is not set.
    fn text(&self, index: usize) -> Result<Option<&str>> {
        match self.values[index].as_ref().map(|spanned| &spanned.value) {
            None => Ok(None),
            Some(Value::Text(text)) if !text.trim().is_empty() => Ok(Some(text)),
            Some(Value::Text(_)) => Err(self.wrong(index, "it is empty")),
            Some(Value::Texts(_) | Value::Other(_)) => Err(self.wrong(index, "it should be one path")),
        }
    }

    /// The texts of the key of a table, by its index: one path or a list of them, as the loader takes it; none if it is
    /// not set.
    fn texts(&self, index: usize) -> Result<Vec<&str>> {
        match self.values[index].as_ref().map(|spanned| &spanned.value) {
            Some(Value::Texts(texts)) if texts.iter().any(|text| text.trim().is_empty()) => {
                Err(self.wrong(index, "a path in it is empty"))
            }
            Some(Value::Texts(texts)) => Ok(texts.iter().map(String::as_str).collect()),
            Some(Value::Other(_)) => Err(self.wrong(index, "it should be a path, or a list of paths")),
            _ => Ok(self.text(index)?.into_iter().collect()),
        }
    }

    /// The error of a key that is set to a wrong value.
    fn wrong(&self, index: usize, reason: &str) -> Error {
        let line = self.values[index].as_ref().map_or(0, |spanned| spanned.defined.line());
        Error::malformed(&self.file, format!("line {line}, data.{}: {reason}", self.keys[index]))
    }

    /// The error of a key that is not set.
    fn missing(&self, key: &str) -> Error {
        Error::malformed(&self.file, format!("data.{key} not set there, nor is the flag in its stead"))
    }
}

/// A folder without the folders of an epoch, such as `epochs/000003`, at its end.
fn without_epoch(folder: &Path) -> &Path {
    let is_number = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.len() == 6 && name.bytes().all(|byte| byte.is_ascii_digit())
    };
    match folder.parent() {
        Some(epochs) if is_number(folder) && epochs.ends_with("epochs") => epochs.parent().unwrap_or(folder),
        _ => folder,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TRAIN: &str = "model: {size: 3, tags: [a, b]}\n\
        paths: &paths\n  train_dir: /data/npz\n  reports_train: reports with spaces.csv\n\
        data:\n  <<: *paths\n  dataset_format: webdataset\n  train_meta: 'm.csv'\n  labels_train: \"l.csv\"\n  \
        webdataset_shards_train: /data/shards/train/shard-{000000..000471}.tar\n  valid_dir: [a, b]\n  valid_meta:\n";

    fn read(text: &str, split: Split) -> Result<Configured> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("base_config.yaml");
        fs::write(&file, text).unwrap();
        Configured::read(&file, split)
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        let message = result.unwrap_err().to_string();
        assert!(message.contains("base_config.yaml: "), "{message}");
        message
    }

    #[test]
    fn paths_of_a_split() {
        let train = read(TRAIN, Split::Train).unwrap();
        let tables = ["reports with spaces.csv", "m.csv", "l.csv"].map(|name| vec![PathBuf::from(name)]);
        assert_eq!(train.input_paths(None, Default::default()).unwrap(), InputPaths::new("/data/npz".into(), tables));
        let given = [vec!["r.csv".into(), "s.csv".into()], vec![], vec![]];
        let found = train.input_paths(Some("d".into()), given.clone()).unwrap();
        assert_eq!((found.data_folder, found.reports_files), ("d".into(), given[0].clone()));
        assert_eq!(train.mountpoint().unwrap(), Path::new("/data/shards/train"));
    }

    #[test]
    fn problems_name_key_and_line() {
        let valid = read(TRAIN, Split::Valid).unwrap();
        let no_path = message(valid.input_paths(None, Default::default()));
        assert!(no_path.contains("line 11, data.valid_dir: it should be one path"), "{no_path}");
        let no_tables = valid.input_paths(Some("d".into()), Default::default()).unwrap();
        assert_eq!(no_tables, InputPaths::new("d".into(), Default::default()));
        let nothing = read("data: {batch_size: 1}\n", Split::Valid).unwrap();
        assert!(message(nothing.input_paths(None, Default::default())).contains("data.valid_dir not set"));
        assert!(message(valid.mountpoint()).contains("data.webdataset_shards_val not set"));
        assert!(message(read("model: 1\n", Split::Train)).contains("no section 'data:'"));
        let broken = message(read("data:\n  train_dir: 'x\n", Split::Train));
        assert!(broken.contains("line 3"), "{broken}");
    }

    #[test]
    fn mountpoints() {
        let of = |pattern: &str| {
            read(&format!("data: {{webdataset_shards_train: '{pattern}'}}"), Split::Train).unwrap().mountpoint()
        };
        for (pattern, folder) in [
            ("shards/shard-{0..3}.tar", "shards"),
            ("file:/s/shard-000000.tar", "/s"),
            ("/s/*.tar", "/s"),
            ("/s", "/s"),
            ("s/train/", "s/train"),
            ("/s/epochs/000003", "/s"),
            ("/s/epochs/000003/shard-{000000..000001}.tar", "/s"),
            ("/s/epochs/train/shard-{000000..000001}.tar", "/s/epochs/train"),
        ] {
            assert_eq!(of(pattern).unwrap(), Path::new(folder), "{pattern}");
        }
        for (pattern, why) in [
            ("shard-{0..3}.tar", "no folder"),
            ("/{a,b}/s.tar", "several folders"),
            ("/a/s.tar::/b/s.tar", "several folders"),
            ("http://host/s.tar", "not of files"),
            ("", "empty"),
        ] {
            assert!(message(of(pattern)).contains(why), "{pattern}");
        }
    }
}
