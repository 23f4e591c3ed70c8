//! Names that columns and arrays of well-known CT data sets have, without case and signs. Pure.

/// Columns with the slope of rescaling: DICOM and CT-RATE, NIfTI, RAD-ChestCT.
pub(super) const SLOPE: &[&str] = &["rescaleslope", "slope", "sclslope", "origslope"];
/// Columns with the intercept of rescaling.
pub(super) const INTERCEPT: &[&str] = &["rescaleintercept", "intercept", "sclinter", "originter", "offset"];
/// Columns with the spacing in the plane. RAD-ChestCT has that of its arrays beside that of the scanner.
pub(super) const IN_PLANE: &[&str] = &[
    "xyspacing",
    "finalspacing",
    "pixelspacing",
    "spacingxy",
    "yxspacing",
    "inplanespacing",
    "pixelsize",
    "origyxspacing",
];
/// Columns with the spacing of the slices: the distance of slices before their thickness.
pub(super) const OF_SLICES: &[&str] = &[
    "zspacing",
    "finalspacing",
    "spacingz",
    "slicespacing",
    "spacingbetweenslices",
    "sliceinterval",
    "origzdiff",
    "slicethickness",
];
/// Columns of 0 and 1 that are no classes: DICOM's, and how data sets are split.
pub(super) const NO_CLASS: &[&str] = &[
    "pixelrepresentation",
    "samplesperpixel",
    "seriesnumber",
    "acquisitionnumber",
    "instancenumber",
    "numberofframes",
    "planarconfiguration",
    "split",
    "fold",
    "fewshot",
    "zdiffsallequal",
];
/// Arrays with the spacing of the volume.
pub(super) const SPACING: &[&str] = &["spacing", "spacings", "voxelspacing", "pixelspacing", "voxelsize"];
/// Arrays that are images.
pub(super) const IMAGE: &[&str] =
    &["data", "volume", "ct", "image", "images", "img", "imgs", "vol", "scan", "hu", "pixels", "x"];
/// Arrays and folders that are masks.
pub(super) const MASK: &[&str] = &[
    "mask",
    "masks",
    "label",
    "labels",
    "seg",
    "segs",
    "segmentation",
    "segmentations",
    "gt",
    "gts",
    "annotation",
    "annotations",
    "roi",
];

/// The part of a report that a column has, by its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Part {
    /// The findings.
    Findings,
    /// The impression.
    Impression,
    /// The whole report.
    Whole,
}

/// A name without case and signs.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether a name is one of these.
pub(super) fn is_one(name: &str, names: &[&str]) -> bool {
    names.contains(&&*plain(name))
}

/// The part of a report that a column of this name has; `None` for any other name.
pub(super) fn part(name: &str) -> Option<Part> {
    let plain = plain(name);
    // "Findings_EN", "findings_clean"; but not a class such as "finding site".
    if plain.starts_with("findings") || plain == "finding" {
        Some(Part::Findings)
    } else if plain.starts_with("impression") || plain == "conclusion" {
        Some(Part::Impression)
    } else if plain.starts_with("report") || ["text", "narrative", "fulltext", "radiologyreport"].contains(&&*plain) {
        Some(Part::Whole)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_case_do_not_count() {
        assert!(is_one("Rescale_Slope", SLOPE) && is_one("spacing (xy)", IN_PLANE) && !is_one("slopes", SLOPE));
        assert_eq!(
            ["Findings_EN", "Impression:", "report text", "Age"].map(part).map(|part| part.is_some()),
            [true, true, true, false]
        );
    }
}
