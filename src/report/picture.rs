//! Slices as grey pictures in PNG.

use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::volume::Slice;
use crate::error::{Error, Result};

/// The side of a picture, in pixels.
pub(super) const SIDE: usize = 256;
/// The grey levels of a picture. 64 are as many as an eye tells apart, and noise of a scanner takes a third less room.
const LEVELS: f32 = 63.0;

/// The range of HU that a picture shows, from black to white.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    low: f32,
    high: f32,
}

/// The window for lungs: level -600, width 1500.
pub(super) const LUNG: Window = Window { low: -1350.0, high: 150.0 };
/// The window for the mediastinum: level 40, width 400.
pub(super) const MEDIASTINUM: Window = Window { low: -160.0, high: 240.0 };
/// The window for a difference that was multiplied by 50: 0 is grey.
pub(super) const DIFFERENCE: Window = Window { low: -500.0, high: 500.0 };

/// The plane of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plane {
    /// One depth.
    Axial,
    /// One height.
    Coronal,
    /// One width.
    Sagittal,
}

impl Plane {
    /// All planes.
    pub(super) const ALL: [Self; 3] = [Self::Axial, Self::Coronal, Self::Sagittal];

    /// The name, as radiologists have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Axial => "axial",
            Self::Coronal => "coronal",
            Self::Sagittal => "sagittal",
        }
    }
}

impl Plane {
    /// The axis that the slices follow each other along, among height, width and depth.
    pub(super) fn axis(self) -> usize {
        match self {
            Self::Axial => 2,
            Self::Coronal => 0,
            Self::Sagittal => 1,
        }
    }
}

/// A slice as a square picture, as the address of an `<img>`: fitted by its size in mm, on black.
///
/// # Errors
/// None in fact: the picture is written into memory.
pub(super) fn data_uri(slice: &Slice, window: Window) -> Result<String> {
    let grey = fitted(slice, window);
    let mut png = Vec::new();
    let failed = |error: png::EncodingError| Error::Internal(format!("a picture cannot be written: {error}"));
    let side = u32::try_from(SIDE).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(&mut png, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&grey)).map_err(failed)?;
    Ok(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png)))
}

/// The grey values of a picture: each pixel is the mean of the voxels that it covers.
fn fitted(slice: &Slice, window: Window) -> Vec<u8> {
    let side = SIDE as f64;
    let (across, down) = (slice.width as f64, slice.height as f64 * slice.aspect);
    let scale = side / across.max(down); // pixels for the width of a voxel
    let (width, height) = (pixels(across * scale), pixels(down * scale));
    let (left, top) = ((SIDE - width) / 2, (SIDE - height) / 2);
    let mut grey = vec![0; SIDE * SIDE];
    for y in 0..height {
        let rows = covered(y, height, slice.height);
        for x in 0..width {
            let columns = covered(x, width, slice.width);
            let count = rows.len() * columns.len();
            let sum: f32 = rows.clone().map(|row| sum(&slice.values[row * slice.width..][columns.clone()])).sum();
            grey[(top + y) * SIDE + left + x] = window.grey(sum / count as f32);
        }
    }
    grey
}

fn sum(values: &[f32]) -> f32 {
    values.iter().filter(|value| !value.is_nan()).sum()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and SIDE")]
fn pixels(length: f64) -> usize {
    (length.round() as usize).clamp(1, SIDE)
}

/// The voxels under pixel `at` of `pixels`, at least one.
fn covered(at: usize, pixels: usize, voxels: usize) -> Range<usize> {
    let start = at * voxels / pixels;
    start..((at + 1) * voxels / pixels).max(start + 1)
}

impl Window {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 255")]
    fn grey(self, hu: f32) -> u8 {
        let level = ((hu - self.low) / (self.high - self.low) * LEVELS).clamp(0.0, LEVELS).round();
        (level * (255.0 / LEVELS)).round() as u8
    }
}
