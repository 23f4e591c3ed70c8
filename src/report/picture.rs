//! Slices as grey pictures in PNG.

use std::ops::Range;

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::error::{Error, Result};

/// The side of a picture, in pixels.
const SIDE: usize = 256;

/// How fine a picture is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Detail {
    /// The steps between black and white: an even number, so that no difference is one grey, whatever a float has lost.
    pub(super) levels: u16,
    /// The side, in pixels.
    pub(super) side: usize,
}

/// The details from the finest on. Some 64 grey levels are as many as an eye tells apart, and noise of a scanner takes
/// a third less room than in 255. With the last, pictures that are nothing but noise fit into a page.
pub(super) const DETAILS: [Detail; 4] = [
    Detail { levels: 64, side: SIDE },
    Detail { levels: 32, side: SIDE },
    Detail { levels: 16, side: SIDE },
    Detail { levels: 16, side: SIDE / 2 },
];

/// One slice of a volume, row by row.
pub(super) struct Slice {
    /// The HU.
    pub(super) values: Vec<f32>,
    /// Pixels of a row.
    pub(super) width: usize,
    /// Rows.
    pub(super) height: usize,
    /// The height of a pixel over its width.
    pub(super) aspect: f64,
}

impl Slice {
    /// The difference to a slice of the same shape, 50 times.
    pub(super) fn difference(&self, other: &Self) -> Self {
        let values = self.values.iter().zip(&other.values).map(|(value, other)| (value - other) * 50.0).collect();
        Self { values, ..*self }
    }
}

/// The range of HU that a picture shows, from black to white.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// The name, as radiologists have it.
    pub(super) name: &'static str,
    low: f32,
    high: f32,
}

/// The windows of a volume: for lungs with level -600 and width 1500, for the mediastinum with level 40 and width 400.
pub(super) const BOTH: [Window; 2] = [
    Window { name: "lung window", low: -1350.0, high: 150.0 },
    Window { name: "mediastinal window", low: -160.0, high: 240.0 },
];
/// The window for a difference that was multiplied by 50: 0 is grey.
pub(super) const DIFFERENCE: Window = Window { name: "±10 HU", low: -500.0, high: 500.0 };

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

/// A slice in the square of a picture, by its size in mm: HU row by row, and minus infinity beside it.
pub(super) struct Fitted(Vec<f32>);

impl Fitted {
    /// Each pixel is the mean of the voxels that it covers and that are a number.
    pub(super) fn new(slice: &Slice) -> Self {
        let side = SIDE as f64;
        let (across, down) = (slice.width as f64, slice.height as f64 * slice.aspect);
        let scale = side / across.max(down); // pixels for the width of a voxel
        let (width, height) = (pixels(across * scale), pixels(down * scale));
        let (left, top) = ((SIDE - width) / 2, (SIDE - height) / 2);
        let mut fitted = vec![f32::NEG_INFINITY; SIDE * SIDE];
        let columns: Vec<Range<usize>> = (0..width).map(|x| covered(x, width, slice.width)).collect();
        let mut line = vec![(0.0, 0u32); width]; // the sum of each pixel's voxels, and their number
        for y in 0..height {
            line.fill((0.0, 0));
            for row in covered(y, height, slice.height) {
                let row = &slice.values[row * slice.width..][..slice.width];
                for ((sum, count), columns) in line.iter_mut().zip(&columns) {
                    for voxel in row[columns.clone()].iter().filter(|voxel| !voxel.is_nan()) {
                        *sum += voxel;
                        *count += 1;
                    }
                }
            }
            let pixels = &mut fitted[(top + y) * SIDE + left..][..width];
            for (pixel, (sum, count)) in pixels.iter_mut().zip(&line).filter(|(_, (_, count))| *count > 0) {
                *pixel = sum / *count as f32;
            }
        }
        Self(fitted)
    }

    /// The picture in PNG, as the address of an `<img>`.
    ///
    /// # Errors
    /// None in fact: the picture is written into memory.
    pub(super) fn data_uri(&self, window: Window, detail: Detail) -> Result<String> {
        let grey = self.grey(window, detail);
        let mut png = Vec::new();
        let failed = |error: png::EncodingError| Error::Internal(format!("a picture cannot be written: {error}"));
        let side = u32::try_from(detail.side).unwrap_or(u32::MAX);
        let mut encoder = png::Encoder::new(&mut png, side, side);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::Eight);
        // Few grey levels and noise: rows as they are get smaller than differences of pixels, and this level is ten
        // times as fast as the highest, which saves 4 %.
        encoder.set_filter(png::Filter::NoFilter);
        encoder.set_deflate_compression(png::DeflateCompression::Level(4));
        encoder.write_header().and_then(|mut writer| writer.write_image_data(&grey)).map_err(failed)?;
        Ok(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png)))
    }

    /// The grey values of the picture.
    fn grey(&self, window: Window, detail: Detail) -> Vec<u8> {
        let step = SIDE / detail.side;
        let shades = Shades::new(window, detail.levels);
        if step == 1 {
            return self.0.iter().map(|hu| shades.of(*hu)).collect();
        }
        let mean = |x: usize, y: usize| {
            let rows = (y * step..(y + 1) * step).map(|row| &self.0[row * SIDE + x * step..][..step]);
            rows.flatten().sum::<f32>() / (step * step) as f32
        };
        let pixels = (0..detail.side).flat_map(|y| (0..detail.side).map(move |x| (x, y)));
        pixels.map(|(x, y)| shades.of(mean(x, y))).collect()
    }
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

/// The grey values of a window.
struct Shades {
    low: f32,
    /// Levels for each HU.
    scale: f32,
    /// The grey value of each level, from black to white.
    greys: Vec<u8>,
}

impl Shades {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 255")]
    fn new(window: Window, levels: u16) -> Self {
        let grey = |level: u16| (f32::from(level) * (255.0 / f32::from(levels))).round() as u8;
        let scale = f32::from(levels) / (window.high - window.low);
        Self { low: window.low, scale, greys: (0..=levels).map(grey).collect() }
    }

    /// The grey value of a pixel; one that is no number is black.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is beyond is the first or the last"
    )]
    fn of(&self, hu: f32) -> u8 {
        let level = ((hu - self.low) * self.scale + 0.5) as usize; // the nearest one; below is 0
        self.greys[level.min(self.greys.len() - 1)]
    }
}
