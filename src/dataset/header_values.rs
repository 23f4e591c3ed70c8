//! What the header of a NIfTI file says in place of the metadata table, or beside it.

use super::{Config, Meta, MissingMeta};
use crate::formats::npz::Array;
use crate::volume::Rescale;

/// The relative difference of two spacings that is no rounding.
const DIFFERENT: f64 = 0.01;
/// The number of studies that are named of those that differ.
const NAMED: usize = 3;

/// The source of the spacing of NIfTI volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SpacingFrom {
    /// The metadata table.
    Table,
    /// The header of the file.
    Header,
}

/// The metadata of a volume, with what its file's header says: slope 1 and intercept 0 where the header has scaled the
/// values already, and its spacing where the table has none, or the user wants that.
///
/// # Errors
/// The reason why the sample is left out: the user wants a spacing that the header does not have.
pub(super) fn applied(config: &Config, array: &Array, meta: Meta, has_table: bool) -> Result<Meta, String> {
    let wanted = config.spacing_from == Some(SpacingFrom::Header);
    let Some(header) = &array.nifti else {
        let reason = "it has no NIfTI header with a spacing (--spacing-from table takes that of the metadata table)";
        return if wanted { Err(reason.into()) } else { Ok(meta) };
    };
    let is_table_told = has_table && config.kind.rescale == Rescale::Table;
    let meta = match header.is_scaled && !is_table_told && !is_given(config, has_table) {
        true => Meta { rescale_slope: 1.0, rescale_intercept: 0.0, ..meta },
        false => meta,
    };
    if has_table && !wanted {
        return Ok(meta);
    }
    let spacing = config.kind.spacing_in_header(array);
    let shown = !config.kind.kind.is_resampled();
    if spacing.is_none() && has_table && shown && config.missing_meta == MissingMeta::Exclude {
        return Err("its NIfTI header has no spacing (--missing-meta nan keeps the sample)".into());
    }
    Ok(meta.with_spacing(spacing))
}

/// Whether slope and intercept are those that the user gave, because no table has others.
fn is_given(config: &Config, has_table: bool) -> bool {
    !has_table && matches!(config.kind.rescale, Rescale::Values(..))
}

/// The spacings of headers and table, compared.
#[derive(Default)]
pub(super) struct Spacings {
    compared: usize,
    different: usize,
    /// The first studies that differ.
    studies: Vec<String>,
}

impl Spacings {
    /// Compares the two spacings of a study, where there are two and the table's is taken.
    pub(super) fn compare(&mut self, config: &Config, study: &str, array: &Array, meta: &Meta) {
        let is_of_table = !config.meta_files.is_empty()
            && config.array.spacing.is_none()
            && config.spacing_from != Some(SpacingFrom::Header);
        let header = config.kind.spacing_in_header(array).filter(|_| is_of_table);
        let (Some(header), Some(table)) = (header, meta.geometry().spacing()) else { return };
        self.compared += 1;
        if header.iter().zip(table).any(|(header, table)| (header - table).abs() > DIFFERENT * header.max(table)) {
            self.different += 1;
            if self.studies.len() < NAMED {
                self.studies.push(study.to_owned());
            }
        }
    }

    /// The warning for the user, if some differ.
    pub(super) fn warning(self) -> Option<String> {
        let Self { compared, different, studies } = self;
        let more = if different > studies.len() { ", …" } else { "" };
        (different > 0).then(|| {
            format!(
                "{different} of {compared} volumes ({}{more}) have another spacing in the NIfTI header than in the \
                 metadata table, by more than 1 %; the table's is taken, and --spacing-from header takes the other",
                studies.join(", ")
            )
        })
    }
}
