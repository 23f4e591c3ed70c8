//! Which array of the NPZ files is the volume, and what its values are.

use std::path::PathBuf;

use super::names;
use super::profile::Profile;
use super::roles::Roles;
use super::volumes::Volumes;
use super::{Guess, Value};
use crate::base::parallel::try_map;
use crate::dataset::ids::study_id;
use crate::dataset::tables::{self, Table, Wanted};
use crate::error::{Error, Result, shown};
use crate::formats::npz::{self, Array, ArrayChoice, NamedArray};
use crate::volume::{Dialect, Geometry, Span, Values, check_values, span};

/// The volumes that are looked at.
const LOOKED_AT: usize = 8;
/// The axes of a volume.
const AXES: usize = 3;

/// The volumes that are looked at, spread over all.
fn some(volumes: &Volumes) -> Vec<PathBuf> {
    let count = volumes.files.len().min(LOOKED_AT);
    (0..count).map(|n| volumes.files[n * volumes.files.len() / count].clone()).collect()
}

/// The arrays of the files that are looked at; files that cannot be read are left out.
fn listed(files: &[PathBuf]) -> Result<Vec<Vec<NamedArray>>> {
    let arrays = try_map(files, LOOKED_AT, |file| match npz::arrays(file) {
        Ok(arrays) => Ok(Some(arrays)),
        Err(Error::Malformed { .. }) => Ok(None),
        // A link that leads nowhere is a volume that is left out, as in a scan.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })?;
    Ok(arrays.into_iter().flatten().collect())
}

/// The key of the array.
///
/// # Errors
/// [`Error::Io`] if a volume cannot be read.
pub(super) fn key(volumes: &Volumes) -> Result<Guess> {
    let files = some(volumes);
    let listed = listed(&files)?;
    let example = Value::Text("data".into());
    let Some(first) = listed.first() else {
        let reason = format!("none of {} NPZ files that were looked at can be read", files.len());
        return Ok(Guess::open("array", example, reason));
    };
    let of = format!("{} of {} NPZ files that were looked at", listed.len(), files.len());
    let in_all = |name: &str| listed.iter().all(|arrays| arrays.iter().any(|array| array.name == name));
    let may_be = |array: &&NamedArray| {
        let shape = &array.header.shape;
        let single = shape.iter().filter(|length| **length == 1).count(); // these are taken away down to three
        (AXES..=AXES + single).contains(&shape.len()) && in_all(&array.name)
    };
    let candidates: Vec<&NamedArray> = first.iter().filter(may_be).collect();
    let shapes = candidates.iter().map(|array| described(array)).collect::<Vec<_>>().join(", ");
    let files_and_shapes = format!("in {of}: {shapes}");
    let by_default = npz::inspect(&files[0], &ArrayChoice::default()).ok().map(|array| array.member.name);
    Ok(match &candidates[..] {
        [] => {
            let found: Vec<String> = first.iter().map(described).collect();
            let reason =
                format!("no array of three axes has one name in all of {of}; the first has {}", found.join(", "));
            Guess::open("array", example, reason)
        }
        _ if by_default.as_ref().is_some_and(|name| candidates.iter().any(|array| array.name == *name)) => {
            let name = by_default.unwrap_or_default();
            Guess::unneeded("array", format!("'{}' is taken without this key, {files_and_shapes}", shown(&name)))
        }
        candidates => match image(candidates) {
            Some((array, why)) => {
                Guess::found("array", Value::Text(array.name.clone()), format!("{why}, {files_and_shapes}"))
            }
            None => Guess::open(
                "array",
                Value::Text(candidates[0].name.clone()),
                format!("several may be it, {files_and_shapes}"),
            ),
        },
    })
}

fn described(array: &NamedArray) -> String {
    let shape: Vec<String> = array.header.shape.iter().map(u64::to_string).collect();
    format!("'{}' {} ({})", shown(&array.name), array.header.descr(), shape.join(", "))
}

/// The image among arrays of three axes, and why: by its name, or as the others are masks by theirs.
fn image<'a>(candidates: &[&'a NamedArray]) -> Option<(&'a NamedArray, &'static str)> {
    let is = |known: &'static [&'static str]| move |array: &&&NamedArray| names::is_one(&array.name, known);
    let images: Vec<_> = candidates.iter().filter(is(names::IMAGE)).collect();
    let others: Vec<_> = candidates.iter().filter(|array| !is(names::MASK)(array)).collect();
    match (&images[..], &others[..]) {
        ([image], _) => Some((image, "an image by its name")),
        (_, [image]) => Some((image, "the others are masks by their names")),
        _ => None,
    }
}

/// The keys that say what the values of the volumes are.
///
/// # Errors
/// [`Error::Io`] if a volume cannot be read.
pub(super) fn values(volumes: &Volumes, tables: &[Profile], roles: &Roles, array: Option<&str>) -> Result<Vec<Guess>> {
    let files = some(volumes);
    let choice = ArrayChoice { name: array.map(str::to_owned), ..ArrayChoice::default() };
    let found = try_map(&files, LOOKED_AT, |file| match npz::inspect(file, &choice) {
        Ok(array) => Ok(span(file, &array)?.map(|span| Seen { file: file.clone(), array, span })),
        Err(Error::Malformed { .. } | Error::Io { .. }) => Ok(None),
        Err(error) => Err(error),
    })?;
    let seen: Vec<Seen> = found.into_iter().flatten().collect();
    let Some(range) = seen.iter().map(|seen| seen.span).reduce(Span::and) else { return Ok(Vec::new()) };
    let mut keys = vec![];
    keys.extend(dialect(&seen, range));
    keys.extend(rescale(&seen, tables, roles)?);
    Ok(keys)
}

/// A volume that was looked at.
struct Seen {
    file: PathBuf,
    array: Array,
    span: Span,
}

/// The key of the dialect, where the array's name and type stand for none.
fn dialect(seen: &[Seen], range: Span) -> Option<Guess> {
    if seen.iter().all(|seen| Dialect::of(&seen.array).is_some()) {
        return None;
    }
    let Span { low, high, is_whole } = range;
    let values = format!("the first values of {} volumes are {low} to {high}", seen.len());
    let native = Value::Text("native".into());
    Some(match range {
        _ if low <= -850.0 && high > 100.0 || is_whole && low >= 0.0 && high > 1000.0 => {
            Guess::found("dialect", native, format!("{values}: HU or a scanner's values, at the scanner's spacing"))
        }
        _ if !is_whole && low >= -1.5 && high <= 1.5 => {
            let reason =
                format!("{values}: HU / 1000 with axes depth, height, width (\"normalized\"), or something else");
            Guess::open("dialect", Value::Text("normalized".into()), reason)
        }
        _ => Guess::open("dialect", native, format!("{values}: no HU by their range; say what the arrays hold")),
    })
}

/// The key of the source of slope and intercept, as the values fit the metadata table.
fn rescale(seen: &[Seen], tables: &[Profile], roles: &Roles) -> Result<Option<Guess>> {
    let [Some(slope), Some(intercept), ..] = roles.meta_columns else { return Ok(None) };
    let Some(table) = roles.meta.as_ref().map(|chosen| &tables[chosen.table]) else { return Ok(None) };
    let names = [slope, intercept].map(|at| table.columns[at].name.clone());
    let Ok(table) = tables::load(&table.path, &[table.id().name.clone()], &Wanted::Named(&names)) else {
        return Ok(None); // loading it says why, when the data set is planned
    };
    let shown = try_map(seen, LOOKED_AT, |seen| match geometry(&table, seen) {
        Some(geometry) => check_values(&seen.file, &seen.array, Dialect::of(&seen.array), geometry),
        None => Ok(Values::Unclear),
    })?;
    let count = |values: Values| shown.iter().filter(|shown| **shown == values).count();
    let (hu, stored, all) = (count(Values::AlreadyHu), count(Values::Stored), shown.len());
    Ok(match (hu, stored) {
        (0, 0) => None,
        (0, _) => Some(Guess::unneeded(
            "rescale",
            format!("slope and intercept of the table make HU of the values of {stored} of {all} volumes"),
        )),
        (_, 0) => Some(Guess::found(
            "rescale",
            Value::Text("none".into()),
            format!("{hu} of {all} volumes hold HU already, which slope and intercept of the table would shift"),
        )),
        _ => Some(Guess::open(
            "rescale",
            Value::Text("none".into()),
            format!("{hu} volumes hold HU already and {stored} stored values: one table is wrong for some of them"),
        )),
    })
}

/// The slope and the intercept of a volume.
fn geometry(table: &Table, seen: &Seen) -> Option<Geometry<'static>> {
    let fields = table.find(study_id(&seen.file)?).ok()??;
    let number = |at: usize| fields.get(at).trim().parse::<f64>().ok();
    Some(Geometry { slope: number(0)?, intercept: number(1)?, xy_spacing: "1", z_spacing: 1.0 })
}
