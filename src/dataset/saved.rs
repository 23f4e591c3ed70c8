//! What earlier scans found in the NPZ files, so that a second start only looks at their time stamps.
//!
//! A file of the user's cache folder, one for each data folder and array option. It changes no result: an entry counts
//! only while the file's size, time and inode are those that it was made from, and whatever is wrong with the file
//! means that the volumes are read again.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::npz::{Array, Fingerprint};

/// A file that was written this shortly before the scan may be written again within the same time stamp.
const SETTLED: Duration = Duration::from_secs(2);

/// What a scan found in one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Finding {
    /// A volume.
    Volume(Array),
    /// Why it is none.
    Malformed(Fingerprint, String),
}

impl Finding {
    fn fingerprint(&self) -> &Fingerprint {
        match self {
            Self::Volume(array) => &array.fingerprint,
            Self::Malformed(fingerprint, _) => fingerprint,
        }
    }
}

/// The findings by relative path.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Of the program that wrote it; another one's is not read.
    version: String,
    findings: HashMap<PathBuf, Finding>,
}

impl Saved {
    /// The findings in `file`, or none.
    pub(super) fn load(file: &Path) -> Self {
        let saved = fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        saved.filter(|saved| saved.version == env!("CARGO_PKG_VERSION")).unwrap_or_default()
    }

    /// What is known of a file with this fingerprint.
    pub(super) fn get(&self, path: &Path, fingerprint: &Fingerprint) -> Option<&Finding> {
        self.findings.get(path).filter(|finding| finding.fingerprint() == fingerprint)
    }

    /// Whether it knows exactly these files, so that there is nothing to write.
    pub(super) fn knows(&self, findings: &HashMap<PathBuf, Finding>) -> bool {
        let is_known = |(path, finding): (&PathBuf, &Finding)| self.get(path, finding.fingerprint()).is_some();
        self.findings.len() == findings.len() && findings.iter().all(is_known)
    }

    /// Writes findings to `file`, whole or not at all. A cache that cannot be written is no error.
    pub(super) fn store(file: &Path, mut findings: HashMap<PathBuf, Finding>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settled = i128::try_from(now.saturating_sub(SETTLED).as_nanos()).unwrap_or(i128::MAX);
        findings.retain(|_, finding| finding.fingerprint().mtime_ns < settled);
        let saved = Self { version: env!("CARGO_PKG_VERSION").into(), findings };
        if let Err(error) = saved.write(file) {
            log::debug!("{}: the scan is not saved: {error}", file.display());
        }
    }

    fn write(&self, file: &Path) -> std::io::Result<()> {
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // A name of its own for each process; study ids are patient data, so only the user may read it.
        let partial = file.with_extension(format!("{}.partial", std::process::id()));
        let mut output = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        let written = serde_json::to_vec(self).map_err(Into::into).and_then(|bytes| output.write_all(&bytes));
        let result = written.and_then(|()| fs::rename(&partial, file));
        if result.is_err() {
            let _ = fs::remove_file(&partial);
        }
        result
    }
}

/// The file for a data folder and array option in the cache folder `cache`.
pub(super) fn file(cache: &Path, data_folder: &Path, array: Option<&str>) -> PathBuf {
    let mut hasher = Sha256::new();
    hasher.update(data_folder.as_os_str().as_bytes());
    hasher.update([0]);
    hasher.update(array.unwrap_or_default());
    cache.join(format!("scan-{:x}.json", hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn malformed(mtime_ns: i128) -> Finding {
        Finding::Malformed(Fingerprint { size: 5, mtime_ns, inode: 7 }, "cut short".into())
    }

    #[test]
    fn only_what_has_settled_is_saved_and_only_the_same_file_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder.path().join("cache"), Path::new("/data"), None);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let fresh = i128::try_from(now.as_nanos()).unwrap();
        let findings = HashMap::from([("a.npz".into(), malformed(1)), ("b.npz".into(), malformed(fresh))]);
        Saved::store(&file, findings.clone());
        let saved = Saved::load(&file);
        let known = |path: &str, finding: &Finding| saved.get(Path::new(path), finding.fingerprint()).is_some();
        assert!(known("a.npz", &malformed(1)) && !known("a.npz", &malformed(2)) && !known("b.npz", &malformed(fresh)));
        assert!(!saved.knows(&findings));
        fs::write(&file, "{").unwrap();
        assert!(!Saved::load(&file).knows(&findings));
    }
}
