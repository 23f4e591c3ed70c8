//! What the values of the volumes are: HU, a scanner's own, or something else.

use super::arrays::Seen;
use super::profile::Profile;
use super::roles::Roles;
use super::{Guess, Value};
use crate::base::num::{counted, span};
use crate::base::parallel::try_map;
use crate::dataset::ids::study_id;
use crate::dataset::tables::{self, Table, Wanted};
use crate::error::Result;
use crate::formats::npz::Element;
use crate::storage::Files;
use crate::volume::{Dialect, Geometry, Span, Values, check_values};

/// The threads that look at values.
const THREADS: usize = 8;
/// Air is below, and soft tissue above, where the values are HU.
const AIR_AND_TISSUE: [f32; 2] = [-850.0, 100.0];
/// Above it are values of a scanner that has no negative ones.
const SCANNER: f32 = 1000.0;
/// The largest magnitude that passes for HU / 1000 within ±1.
const NORMALIZED: f32 = 1.5;
/// Slope and intercept of 8-bit values that stand for -160 to 240 HU, the window of MedSAM.
const WINDOW: &str = "1.5686274509803921,-160";

/// The key of the dialect, where the array's name and type stand for none, or for one that the values contradict.
pub(super) fn dialect(seen: &[Seen]) -> Option<Guess> {
    let Span { low, high, is_whole } = seen.iter().map(|seen| seen.span).reduce(Span::and)?;
    let values = format!("the first values of {} are {}", counted(seen.len(), "volume", "volumes"), span(low, high));
    let native = Value::Text("native".into());
    if seen.iter().all(|seen| Dialect::of(&seen.array).is_some()) {
        // np.savez(path, array) names any array arr_0.
        let is_beyond = low < -NORMALIZED || high > NORMALIZED;
        let is_taken = |seen: &Seen| Dialect::of(&seen.array) == Some(Dialect::Normalized);
        let reason = format!("{values}, but their array's name stands for HU / 1000 with axes depth, height, width");
        return (is_beyond && seen.iter().all(is_taken)).then(|| Guess::open("dialect", native, reason));
    }
    let [air, tissue] = AIR_AND_TISSUE;
    Some(if low <= air && high > tissue || is_whole && low >= 0.0 && high > SCANNER {
        Guess::found("dialect", native, format!("{values}: HU or a scanner's own, at the scanner's spacing"))
    } else if is_bytes(seen) {
        Guess::found("dialect", native, format!("{values}: of 8 bits, at the scanner's spacing"))
    } else if !is_whole && low >= -NORMALIZED && high <= NORMALIZED {
        let reason = format!("{values}: HU / 1000 with axes depth, height, width (\"normalized\"), or something else");
        Guess::open("dialect", Value::Text("normalized".into()), reason)
    } else {
        Guess::open("dialect", native, format!("{values}: no HU by their range; say what the arrays hold"))
    })
}

fn is_bytes(seen: &[Seen]) -> bool {
    seen.iter().all(|seen| seen.array.header.element == Element::U8)
}

/// The key of the source of slope and intercept, as the values fit the metadata table.
///
/// # Errors
/// [`crate::error::Error::Io`] if a volume cannot be read.
pub(super) fn rescale(seen: &[Seen], tables: &[Profile], roles: &Roles) -> Result<Option<Guess>> {
    if !seen.is_empty() && is_bytes(seen) {
        let reason = "8 bits hold a window of HU: say which SLOPE,INTERCEPT make HU of them; this is -160 to 240 HU";
        return Ok(Some(Guess::open("rescale", Value::Text(WINDOW.into()), reason)));
    }
    let [Some(slope), Some(intercept), ..] = roles.meta_columns else { return Ok(None) };
    let Some(chosen) = roles.meta.as_ref() else { return Ok(None) };
    let table = &tables[chosen.table];
    let names = [slope, intercept].map(|at| table.columns[at].name.clone());
    let files: Vec<_> = chosen.files.iter().map(|at| &tables[*at].path).collect();
    let Ok(table) = tables::load(&files, &[table.id().name.clone()], &Wanted::Named(&names)) else {
        return Ok(None); // loading it says why, when the data set is planned
    };
    let shown = try_map(seen, THREADS, |seen| match geometry(&table, seen) {
        Some(geometry) => check_values((&Files, &seen.file), &seen.array, Dialect::of(&seen.array), geometry),
        None => Ok(Values::Unclear),
    })?;
    let count = |values: Values| shown.iter().filter(|shown| **shown == values).count();
    let (hu, stored, all) = (count(Values::AlreadyHu), count(Values::Stored), shown.len());
    let none = || Value::Text("none".into());
    Ok(match (hu, stored) {
        (0, 0) => None,
        (0, _) => {
            let reason = format!("slope and intercept of the table make HU of the values of {stored} of {all} volumes");
            Some(Guess::unneeded("rescale", reason))
        }
        (_, 0) => {
            let reason = format!("{hu} of {all} volumes hold HU already, which the table's intercept would shift");
            Some(Guess::found("rescale", none(), reason))
        }
        _ => {
            let reason =
                format!("{hu} volumes hold HU already and {stored} do not: one table is wrong for some of them");
            Some(Guess::open("rescale", none(), reason))
        }
    })
}

/// The slope and the intercept of a volume.
fn geometry(table: &Table, seen: &Seen) -> Option<Geometry<'static>> {
    let fields = table.find(study_id(&seen.file)?).ok()??;
    let number = |at: usize| fields.get(at).trim().parse::<f64>().ok();
    Some(Geometry { slope: number(0)?, intercept: number(1)?, xy_spacing: "1", z_spacing: 1.0 })
}
