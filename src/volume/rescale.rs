//! The slope and intercept that make HU of stored values: where they come from, and which can be used. Pure.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::dialect::Dialect;

/// The source of slope and intercept. As text, also in files, it is the value of `--rescale`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Rescale {
    /// The metadata table, unless the values contradict it.
    #[default]
    Auto,
    /// The metadata table, whatever the values are.
    Table,
    /// No rescaling: the values are HU already.
    None,
    /// A slope and an intercept that the user gives.
    Values(f64, f64),
}

impl From<Rescale> for String {
    fn from(rescale: Rescale) -> Self {
        match rescale {
            Rescale::Auto => "auto".into(),
            Rescale::Table => "table".into(),
            Rescale::None => "none".into(),
            Rescale::Values(slope, intercept) => format!("{slope},{intercept}"),
        }
    }
}

impl TryFrom<String> for Rescale {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Rescale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "table" => Ok(Self::Table),
            "none" => Ok(Self::None),
            values => {
                let [slope, intercept] = floats(values)
                    .map_err(|_| "expected auto, table, none, or SLOPE,INTERCEPT such as 1,-1024".to_owned())?;
                check_linear(slope, intercept).map_err(|what| format!("{what}; give another slope, or none"))?;
                Ok(Self::Values(slope, intercept))
            }
        }
    }
}

/// Reads `N` numbers with commas between them.
///
/// # Errors
/// A message if the text is not `N` finite numbers.
pub fn floats<const N: usize>(text: &str) -> Result<[f64; N], String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|number| number.trim().parse::<f64>()).collect();
    let numbers = numbers.ok().filter(|numbers| numbers.iter().all(|number| number.is_finite()));
    let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| format!("expected {N} numbers with commas between them"))
}

/// Slope and intercept that make HU of the values of an array; `slope` and `intercept` are the metadata table's, NaN
/// where it has none.
///
/// # Errors
/// The reason why there are none, for the list of left-out samples.
pub(super) fn linear(rescale: Rescale, dialect: Dialect, slope: f64, intercept: f64) -> Result<(f64, f64), String> {
    match (dialect, rescale) {
        (Dialect::Hu | Dialect::Normalized, _) | (_, Rescale::None) => Ok((1.0, 0.0)),
        (_, Rescale::Values(given_slope, given_intercept)) => Ok((given_slope, given_intercept)),
        (_, Rescale::Auto | Rescale::Table) if slope.is_finite() && intercept.is_finite() => {
            check_linear(slope, intercept).map_err(left_out_by_slope)?;
            Ok((slope, intercept))
        }
        _ => Err("the metadata table has no RescaleSlope or RescaleIntercept (--rescale gives them)".into()),
    }
}

/// The reason why a sample is left out whose slope or intercept of the metadata table cannot be used.
fn left_out_by_slope(what: String) -> String {
    format!("RescaleSlope of the metadata table: {what}; --rescale none or SLOPE,INTERCEPT says what holds instead")
}

/// Checks that a slope and an intercept keep voxels apart. NaN, which stands for a missing value, passes.
///
/// # Errors
/// A message without a remedy if the slope is 0 or either is infinite, both in float32, in which volumes are computed.
fn check_linear(slope: f64, intercept: f64) -> Result<(), String> {
    #[expect(clippy::cast_possible_truncation, reason = "as the volume's own map is computed")]
    let (in_f32, intercept_in_f32) = (slope as f32, intercept as f32);
    if in_f32 == 0.0 {
        return Err(format!("slope {slope} makes every voxel the intercept (NIfTI's 0 means: not scaled)"));
    }
    if in_f32.is_infinite() || intercept_in_f32.is_infinite() {
        return Err(format!("slope {slope} and intercept {intercept} are beyond float32"));
    }
    Ok(())
}
