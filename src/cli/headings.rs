//! The headings of options in the help of all commands.

/// The heading of what is read.
pub(super) const INPUT: &str = "Input";
/// The heading of what chooses samples.
pub(super) const SELECTION: &str = "Selection";
/// The heading of what becomes of voxels.
pub(super) const VOLUME: &str = "Volume";
/// The heading of what costs time or memory, and changes no byte.
pub(super) const PERFORMANCE: &str = "Performance";
/// The heading of what is written or shown.
pub(super) const OUTPUT: &str = "Output";
/// The heading of what every command has.
pub(super) const GENERAL: &str = "General";
