//! The recipe of one volume from its array and its metadata, or why there is none.

use std::path::Path;

use clap::ValueEnum;

use super::extras::{Beside, Extra, ExtraArray, ExtraFinding};
use super::matched::MetaValues;
use super::scan_cache::Finding;
use super::{Config, Meta, header_values};
use crate::error::Error;
use crate::formats::npz;
use crate::volume::{Dialect, Geometry, KindOptions, Recipe, Rescale};

/// Why there is no recipe of a volume.
pub(super) enum Unusable {
    /// The reason why this volume is left out.
    LeftOut(String),
    /// The kind needs what only a table of metadata says, and there is none: the reason, and the options that say it.
    NoTable(String),
}

impl Unusable {
    /// The reason why the volume of a path below the data folder is left out.
    ///
    /// # Errors
    /// [`Error::Refused`] if a table is needed, and with `config.strict` [`Error::Malformed`], unless the user has
    /// `excluded` the volume.
    pub(super) fn reason(self, config: &Config, path: &Path, excluded: bool) -> Result<String, Error> {
        let path = config.data_folder.join(path);
        match self {
            Self::NoTable(what) => Err(Error::Refused(format!("{}: {what}", path.display()))),
            Self::LeftOut(reason) if config.strict && !excluded => {
                Err(Error::Malformed { path, reason: format!("{reason} (fatal because of --strict)") })
            }
            Self::LeftOut(reason) => Ok(reason),
        }
    }
}

/// The array, metadata and recipe that a volume is made from.
///
/// # Errors
/// Why the volume cannot be made.
fn of(config: &Config, finding: Finding, meta: MetaValues) -> Result<(npz::Array, Meta, Recipe), Unusable> {
    let array = match finding {
        Finding::Volume(array) => array,
        Finding::Excluded(_, reason) | Finding::Malformed(_, reason) => return Err(Unusable::LeftOut(reason)),
    };
    let (meta, has_table) = match meta {
        MetaValues::Complete(meta) => (meta, true),
        MetaValues::Missing(reason) => return Err(Unusable::LeftOut(reason)),
        MetaValues::NoTable => (without_table(&config.kind, &array), false),
    };
    let has_header = array.nifti.is_some();
    let meta = header_values::applied(config, &array, meta, has_table).map_err(Unusable::LeftOut)?;
    let meta = meta.with_spacing(config.kind.spacing_in(&array));
    match Recipe::new(&config.kind, &array, meta.geometry()) {
        Ok(recipe) => Ok((array, meta, recipe)),
        Err(reason) if !has_table && !has_header && Recipe::new(&config.kind, &array, ANY).is_ok() => {
            let kind = config.kind.kind.to_possible_value();
            let kind = kind.map_or_else(String::new, |kind| kind.get_name().to_owned());
            Err(Unusable::NoTable(format!("--volume {kind} needs a table of metadata (--meta-file): {reason}")))
        }
        Err(reason) => Err(Unusable::LeftOut(reason)),
    }
}

/// The array, metadata and recipe that a volume is made from, as [`of`] has them, and the arrays beside it; `beside` is
/// what was found of each extra.
///
/// # Errors
/// Why the sample cannot be made.
pub(super) fn with_extras(
    config: &Config,
    finding: Finding,
    meta: MetaValues,
    beside: Beside<'_>,
) -> Result<Made, Unusable> {
    let (array, meta, recipe) = of(config, finding, meta)?;
    let extras = of_extras(config, (&array, &recipe), beside)?;
    Ok(Made { array, meta, recipe, extras })
}

/// What a sample's volume and extras are made from.
pub(super) struct Made {
    /// The volume's array.
    pub(super) array: npz::Array,
    /// The volume's metadata.
    pub(super) meta: Meta,
    /// The steps from the array to the volume.
    pub(super) recipe: Recipe,
    /// The arrays beside it.
    pub(super) extras: Vec<ExtraArray>,
}

fn of_extras(
    config: &Config,
    (array, recipe): (&npz::Array, &Recipe),
    beside: Beside<'_>,
) -> Result<Vec<ExtraArray>, Unusable> {
    let one = |(extra, finding): (&Extra, ExtraFinding)| {
        let left_out = |reason: String| Unusable::LeftOut(format!("extra '{}': {reason}", extra.name));
        match finding.map_err(left_out)? {
            (path, Finding::Volume(found)) => {
                let found = found.as_stored();
                let recipe = recipe.of_extra(array, &found, config.extra_pad).map_err(left_out)?;
                Ok(ExtraArray { path, array: found, recipe })
            }
            (path, Finding::Excluded(_, reason) | Finding::Malformed(_, reason)) => {
                Err(left_out(format!("{}: {reason}", path.display())))
            }
        }
    };
    beside.into_iter().map(one).collect()
}

/// Values with which a recipe can be made, to tell what a table would change.
const ANY: Geometry<'_> = Geometry { slope: 1.0, intercept: 0.0, xy_spacing: "1", z_spacing: 1.0 };

/// The metadata of a volume where no table says it: slope and intercept as far as the dialect, the header or the user
/// tells them, and nothing of the spacing. None is made up: what is not known is NaN, as where a table lacks it.
fn without_table(options: &KindOptions, array: &npz::Array) -> Meta {
    let (rescale_slope, rescale_intercept) = match (options.dialect_of(array), options.rescale) {
        (Some(Dialect::Normalized), _) => (1000.0, 0.0),
        (Some(Dialect::Hu), _) | (_, Rescale::None) => (1.0, 0.0),
        (_, Rescale::Values(slope, intercept)) => (slope, intercept),
        _ if array.nifti.is_some() => (1.0, 0.0), // its header has the slope and intercept that hold
        (_, Rescale::Auto | Rescale::Table) => (f64::NAN, f64::NAN),
    };
    Meta { rescale_slope, rescale_intercept, xy_spacing: "nan".to_owned(), z_spacing: f64::NAN }
}
