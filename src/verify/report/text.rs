//! The report as text for people.

use std::fmt::Write;

use bytesize::ByteSize;

use super::{Information, Integrity, Precision, Report, SourceCheck};
use crate::base::num::{counted, share_of};
use crate::error::shown;
use crate::verify::finding::{Finding, Verdict};
use crate::verify::manifest;

/// Findings of each kind that the text lists.
const LISTED: usize = 20;

impl Report {
    /// The report as text for people, of several lines; with the errors of rounding where `precision` is set.
    pub fn text(&self, precision: bool) -> String {
        let mut text = self.information.text(&self.folder);
        let Integrity { read, sound, digests } = self.integrity;
        let _ = writeln!(
            text,
            "Integrity    {sound} of {} sound, {read} read to the end, {digests} with a SHA-256 in the manifest",
            counted(self.information.shards, "shard", "shards")
        );
        if let Some(source) = &self.source {
            source.text(&mut text, precision);
        }
        for (verdict, title) in [
            (Verdict::Damaged, "Damaged"),
            (Verdict::Incomplete, "Missing"),
            (Verdict::Unchecked, "Could not be checked"),
        ] {
            let found: Vec<&Finding> = self.findings.iter().filter(|finding| finding.verdict == verdict).collect();
            if !found.is_empty() {
                let _ = writeln!(text, "\n{title}: {}", found.len());
            }
            for finding in found.iter().take(LISTED) {
                let _ = writeln!(text, "  {}: {}", shown(&finding.place), shown(&finding.what));
            }
            if found.len() > LISTED {
                let _ = writeln!(text, "  … and {} more (--json lists all)", found.len() - LISTED);
            }
        }
        if self.verdict == Verdict::Damaged && self.information.codec.is_some() {
            let _ = writeln!(
                text,
                "\nRemove a compressed shard only if the source files of all its samples are still there: `mount --shards` goes \
                 on serving its other volumes"
            );
        }
        let mut damaged = self.findings.iter().filter(|finding| finding.verdict == Verdict::Damaged);
        let _ = if self.verdict == Verdict::Damaged && damaged.all(|finding| finding.place == manifest::FILE_NAME) {
            writeln!(text, "\nDAMAGED: the manifest alone; the same materialize, or manifest rebuild, writes it again")
        } else {
            writeln!(text, "\n{}", sentence(self.verdict, self.is_all_checked(), self.source.as_ref()))
        };
        text
    }

    /// Whether nothing is among the findings that could not be checked.
    fn is_all_checked(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Unchecked)
    }
}

/// The last line of the text: a verdict as a sentence.
fn sentence(verdict: Verdict, is_all_checked: bool, source: Option<&SourceCheck>) -> String {
    match (verdict, source) {
        (Verdict::Damaged, _) => "DAMAGED: remove the shards named above and run materialize again".into(),
        (Verdict::Incomplete, _) if is_all_checked => "INCOMPLETE: what is there is sound".into(),
        (Verdict::Incomplete, _) => "INCOMPLETE: what is there is sound as far as it could be checked".into(),
        (Verdict::Unchecked, _) => "SOUND as far as it could be checked, which is not all".into(),
        (Verdict::Fine, None) => "FINE: every shard is what the manifest says".into(),
        (Verdict::Fine, Some(source)) if source.compared < source.samples => {
            format!(
                "FINE: every shard is sound, and {} of {} samples are what their sources hold",
                source.compared, source.samples
            )
        }
        (Verdict::Fine, Some(_)) => "FINE: every sample is what its source holds".into(),
    }
}

impl Information {
    /// The first lines of the text.
    fn text(&self, folder: &str) -> String {
        let mut text = format!(
            "Folder       {folder} ({})\nSamples      {} in {}",
            self.tool.as_ref().map_or("no manifest of ctwds-fs".into(), |tool| format!("manifest of {tool}")),
            self.samples,
            counted(self.shards, "shard", "shards")
        );
        if let (Some(kind), Some(labels)) = (&self.volume_kind, self.labels) {
            let _ = write!(text, ", volumes of the kind {kind}, {}", counted(labels, "class", "classes"));
        }
        if let Some(codec) = self.codec {
            let _ = write!(text, ", compressed with {codec}");
        }
        let _ = write!(text, "\nSize         {} of shards: ", ByteSize(self.shard_bytes));
        if let Some(npz) = self.npz_bytes {
            let _ = write!(text, "{} ({}), ", share_of(self.shard_bytes, npz, "the source files"), ByteSize(npz));
        }
        let of_voxels = match self.f32_bytes {
            0 => "no voxels are known".into(),
            bytes => {
                format!("{} ({})", share_of(self.shard_bytes, bytes, "the same voxels as float32"), ByteSize(bytes))
            }
        };
        let _ = writeln!(text, "{of_voxels}");
        text
    }
}

impl SourceCheck {
    /// Adds the lines about the comparison with the sources.
    fn text(&self, text: &mut String, precision: bool) {
        let _ = writeln!(
            text,
            "Source       {} of {} made again from source files and tables: {} of {} voxels are equal to the bit, {} are \
             wrong",
            self.compared,
            counted(self.samples, "sample", "samples"),
            self.exact,
            self.voxels,
            self.different
        );
        if !precision {
            return;
        }
        let line = |precision: &Precision| {
            format!(
                "max {:.3e}, RMS {:.3e} ({:.3} HU, {:.4} HU), {} NaN, {} infinite",
                precision.max_error,
                precision.rms_error,
                precision.max_error_hu,
                precision.rms_error_hu,
                precision.nan,
                precision.infinite
            )
        };
        let _ = writeln!(text, "Precision    of {}: {}", self.dtype, line(&self.precision));
        for worst in &self.worst {
            let _ = writeln!(text, "  {} {}: {}", worst.key, worst.study_id, line(&worst.precision));
        }
    }
}
