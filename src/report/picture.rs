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
        for y in 0..height {
            let rows = covered(y, height, slice.height);
            for x in 0..width {
                let columns = covered(x, width, slice.width);
                let voxels = rows.clone().flat_map(|row| &slice.values[row * slice.width..][columns.clone()]);
                let (mut sum, mut count) = (0.0, 0usize);
                for voxel in voxels.filter(|voxel| !voxel.is_nan()) {
                    sum += voxel;
                    count += 1;
                }
                if count > 0 {
                    fitted[(top + y) * SIDE + left + x] = sum / count as f32;
                }
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
        encoder.set_compression(png::Compression::High);
        encoder.write_header().and_then(|mut writer| writer.write_image_data(&grey)).map_err(failed)?;
        Ok(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png)))
    }

    /// The grey values of the picture.
    fn grey(&self, window: Window, detail: Detail) -> Vec<u8> {
        let step = SIDE / detail.side;
        let mean = |x: usize, y: usize| {
            let rows = (y * step..(y + 1) * step).map(|row| &self.0[row * SIDE + x * step..][..step]);
            rows.flatten().sum::<f32>() / (step * step) as f32
        };
        let pixels = (0..detail.side).flat_map(|y| (0..detail.side).map(move |x| (x, y)));
        pixels.map(|(x, y)| window.grey(mean(x, y), detail.levels)).collect()
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

impl Window {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 255")]
    fn grey(self, hu: f32, levels: u16) -> u8 {
        let levels = f32::from(levels);
        let level = ((hu - self.low) / (self.high - self.low) * levels).clamp(0.0, levels).round();
        (level * (255.0 / levels)).round() as u8
    }
}
