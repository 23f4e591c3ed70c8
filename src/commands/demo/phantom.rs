//! A data set that nobody had to be measured for: bodies of soft tissue with lungs, and the tables of their reports.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::error::{Error, Result};

/// Voxels along height, width and depth.
const SHAPE: [usize; 3] = [160, 160, 64];
/// Volumes.
pub(super) const COUNT: usize = 8;
/// The classes of the labels, of each of which the bodies show something.
const CLASSES: [&str; 3] = ["Lung nodule", "Pleural effusion", "Cardiomegaly"];
/// What a scanner stores is HU with this much added.
const OFFSET: f32 = 1024.0;

/// Writes the volumes into `folder/volumes`, and three tables beside that folder. Returns the bytes of the NPZ files.
///
/// # Errors
/// [`Error::Io`] if a file cannot be written.
pub(super) fn write(folder: &Path) -> Result<u64> {
    let volumes = folder.join("volumes");
    fs::create_dir_all(&volumes).map_err(|error| Error::io(&volumes, "make the folder", error))?;
    let mut bytes = 0;
    let mut reports = String::from("VolumeName,Findings_EN,Impressions_EN\n");
    let mut meta = String::from("VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\n");
    let mut labels = format!("VolumeName,{}\n", CLASSES.join(","));
    for number in 0..COUNT {
        let (study, mut body) = (format!("phantom_{number}"), Body::new(number));
        let path = volumes.join(format!("{study}.npz"));
        bytes += body.write(&path).map_err(|error| Error::io(&path, "write the volume", error))?;
        let shown: Vec<&str> =
            CLASSES.iter().zip(body.shows).filter(|(_, shows)| *shows).map(|(name, _)| *name).collect();
        let findings = if shown.is_empty() { "Nothing remarkable.".into() } else { format!("{}.", shown.join(", ")) };
        reports += &format!("{study}.nii.gz,\"{findings}\",\"A phantom, not a patient.\"\n");
        meta += &format!("{study}.nii.gz,1,-{OFFSET},\"[0.75, 0.75]\",1.5\n");
        let values: Vec<&str> = body.shows.iter().map(|shows| if *shows { "1" } else { "0" }).collect();
        labels += &format!("{study}.nii.gz,{}\n", values.join(","));
    }
    for (name, text) in [("reports.csv", reports), ("metadata.csv", meta), ("labels.csv", labels)] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| Error::io(&path, "write the table", error))?;
    }
    Ok(bytes)
}

/// A body, by its number.
struct Body {
    /// Whether it has what each of [`CLASSES`] says.
    shows: [bool; 3],
    /// The state of the noise.
    noise: u32,
}

impl Body {
    fn new(number: usize) -> Self {
        Self { shows: [1, 2, 4].map(|bit| number & bit != 0), noise: 0x9e37_79b9 ^ u32::try_from(number).unwrap_or(0) }
    }

    /// Writes an NPZ file as `np.savez_compressed(path, data=…)` does, float32. Returns its bytes.
    fn write(&mut self, path: &Path) -> io::Result<u64> {
        let mut zip = ZipWriter::new(BufWriter::new(File::create_new(path)?));
        zip.start_file("data.npy", SimpleFileOptions::default().compression_method(CompressionMethod::Deflated))?;
        zip.write_all(&header())?;
        let [height, width, depth] = SHAPE;
        let mut row = Vec::with_capacity(width * depth * size_of::<f32>());
        for y in 0..height {
            row.clear();
            for x in 0..width {
                for z in 0..depth {
                    let at = [(y, height), (x, width), (z, depth)].map(|(at, n)| 2.0 * at as f32 / n as f32 - 1.0);
                    row.extend((self.hu(at) + OFFSET).to_le_bytes());
                }
            }
            zip.write_all(&row)?;
        }
        zip.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.metadata().map(|file| file.len())
    }

    /// The HU at a place, whose coordinates are between -1 and 1.
    fn hu(&mut self, at: [f32; 3]) -> f32 {
        let within = |middle: [f32; 3], radii: [f32; 3]| {
            let far: f32 = (0..3).map(|axis| ((at[axis] - middle[axis]) / radii[axis]).powi(2)).sum();
            far < 1.0
        };
        let [nodule, effusion, large_heart] = self.shows;
        let heart = if large_heart { 0.34 } else { 0.22 };
        let lung = within([0.0, -0.38, 0.0], [0.5, 0.28, 0.9]) || within([0.0, 0.38, 0.0], [0.5, 0.28, 0.9]);
        let tissue = if !within([0.0; 3], [0.7, 0.9, 9.0]) {
            return -1000.0; // air has no noise, and is packed to nothing
        } else if within([-0.1, 0.08, 0.1], [heart, heart, 0.4]) {
            45.0
        } else if nodule && within([0.1, -0.4, 0.2], [0.06, 0.06, 0.12]) {
            60.0
        } else if effusion && lung && at[0] > 0.3 {
            10.0
        } else if lung {
            -820.0
        } else if within([0.5, 0.0, 0.0], [0.1, 0.12, 9.0]) {
            400.0 // the spine
        } else {
            30.0
        };
        tissue + self.noise()
    }

    /// A whole number around 0, from a xorshift generator.
    fn noise(&mut self) -> f32 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 17;
        self.noise ^= self.noise << 5;
        (0..4).map(|part| (self.noise >> (8 * part) & 31) as f32).sum::<f32>() - 62.0
    }
}

/// The NPY header of an array of [`SHAPE`] float32 in C order, of a length that NumPy aligns to.
fn header() -> Vec<u8> {
    let [height, width, depth] = SHAPE;
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({height}, {width}, {depth}), }}");
    let mut header = b"\x93NUMPY\x01\x00v\x00".to_vec(); // 'v': 118 bytes follow, 128 in all
    header.extend(format!("{text:117}\n").bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::npz::{self, ArrayChoice};

    #[test]
    fn the_program_reads_what_the_phantom_writes() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = write(folder.path()).unwrap();
        assert!(bytes > 0);
        for number in 0..COUNT {
            let path = folder.path().join(format!("volumes/phantom_{number}.npz"));
            let array = npz::inspect(&path, &ArrayChoice::default()).unwrap();
            assert_eq!(array.header.shape, SHAPE.map(|n| n as u64));
        }
    }
}
