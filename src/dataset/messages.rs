//! What a user is told of a data set that was scanned: what is no error, and why nothing is left.

use super::roles::{LABELS, META, REPORTS};
use super::{Config, Dataset, Sample};
use crate::base::num::counted;
use crate::error::{Error, shown};

impl Dataset {
    /// Counts missing labels of one study, given by the places of their classes.
    pub(super) fn count_missing(&mut self, classes: &[usize]) {
        if !classes.is_empty() {
            self.missing_labels.resize(self.label_names.len(), 0);
        }
        classes.iter().for_each(|class| self.missing_labels[*class] += 1);
    }

    /// Messages about what the tables do not say, or not rightly.
    pub(super) fn about_tables(&self, config: &Config) -> Vec<String> {
        self.absent_tables(config).into_iter().chain(self.unusable_metadata(config)).collect()
    }

    /// The message about the tables that are not given, and what samples lack without them.
    fn absent_tables(&self, config: &Config) -> Option<String> {
        let has_header = |sample: &Sample| sample.study().is_some_and(|study| study.array.nifti.is_some());
        let of_meta = if self.samples.iter().all(has_header) {
            "slope, intercept and spacing are those of their NIfTI headers"
        } else if config.array.spacing.is_some() {
            "what makes HU of their values is not in their JSON"
        } else {
            "their spacing, and what makes HU of their values, is not in their JSON"
        };
        let absent = [
            (&config.reports_files, REPORTS, "their texts are empty"),
            (&config.meta_files, META, of_meta),
            (&config.labels_files, LABELS, "they have no labels"),
        ];
        let absent = absent.into_iter().filter(|(files, ..)| files.is_empty());
        let (flags, lacks): (Vec<&str>, Vec<&str>) = absent.map(|(_, flag, lack)| (flag, lack)).unzip();
        (!flags.is_empty()).then(|| format!("no {}: of all samples, {}", flags.join(", no "), lacks.join(", and ")))
    }

    /// The message about samples whose metadata a reader cannot use, for kinds that leave rescaling or resampling to
    /// the reader.
    fn unusable_metadata(&self, config: &Config) -> Option<String> {
        if config.kind.kind.is_resampled() || config.meta_files.is_empty() {
            return None; // these are left out, with the reason; or all are alike, as another message says
        }
        let reason = |sample: &Sample| {
            let study = sample.study().filter(|study| config.kind.is_native(&study.array))?;
            let reason = study.meta.geometry().check(config.kind.rescale).err()?;
            Some(format!("{}: {reason}", sample.study_id))
        };
        let mut found = self.samples.iter().filter_map(reason);
        let first = found.next()?;
        Some(format!(
            "metadata that a reader cannot rescale or resample by: of {} of {} (for example, {first}); \
             --volume preprocessed leaves them out, and the loader refuses them; correct the metadata table",
            found.count() + 1,
            counted(self.samples.len(), "sample", "samples"),
        ))
    }

    /// The error that no sample is left.
    pub(super) fn nothing_left(&self, config: &Config) -> Error {
        let example = match (self.left_out.first(), self.unmatched.first()) {
            (Some(left_out), _) => format!("{}: {}", shown(&left_out.study_id), shown(&left_out.reason)),
            (_, Some((study, tables))) => {
                let nearest = self.nearest.as_ref().map_or_else(String::new, |nearest| format!("; {}", shown(nearest)));
                format!("'{}.nii.gz' is not in {tables}{nearest}", shown(study))
            }
            _ => "there is none".into(),
        };
        Error::Refused(format!(
            "no usable volume in {}: {} not in all tables, {} left out (for example, {example})",
            config.data_folder.display(),
            self.unmatched.len(),
            self.left_out.len()
        ))
    }
}
