//! NIfTI files: the header, read field by field, and the content of gzip files, by code of its own.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::npy_header::{ElementType, SourceHeader};
use super::source_file::SourceFile;
use super::unread::Unread;
use crate::storage::Store;

/// Bytes of a NIfTI-1 header.
const HEADER_1: usize = 348;
/// Bytes of a NIfTI-2 header.
const HEADER_2: usize = 540;
/// Bytes of a gzip file that are unpacked at a time.
const READ: usize = 64 << 10;
/// First bytes of a gzip member.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The header of a NIfTI file.
pub(super) struct NiftiHeader {
    /// Type, byte order and shape of the voxels.
    pub array: SourceHeader,
    /// Slope and intercept that make the values of the numbers in the file; none where the numbers are the values.
    pub scale: Option<(f64, f64)>,
}

impl NiftiHeader {
    /// The value of a number of the file, in f64 and rounded once to f32, as `get_fdata().astype(float32)` has it.
    #[expect(clippy::cast_possible_truncation, reason = "meant: NumPy's arithmetic")]
    pub(super) fn value(&self, stored: f64) -> f32 {
        let Some((slope, intercept)) = self.scale else { return stored as f32 };
        // nibabel leaves out a step that changes nothing, which keeps -0.0.
        let product = if slope == 1.0 { stored } else { stored * slope };
        (if intercept == 0.0 { product } else { product + intercept }) as f32
    }
}

/// Where the voxels of a file are in the body.
pub(super) struct Place {
    /// The upper three rows of the matrix from an index to mm to the right, to the front, and up.
    pub affine: [[f64; 4]; 3],
    /// Lengths of the first three axes, in voxels.
    pub shape: [usize; 3],
}

/// Numbers of a header in the order of its bytes.
struct Fields {
    bytes: Vec<u8>,
    is_big_endian: bool,
    /// Whether it is a NIfTI-2 header, whose numbers are wider and elsewhere.
    is_second: bool,
}

impl Fields {
    /// The bytes of a number, the least significant first.
    fn le<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut number = [0; N];
        number.copy_from_slice(&self.bytes[at..at + N]);
        if self.is_big_endian {
            number.reverse();
        }
        number
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.le(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.le(at))
    }

    /// The number of dimensions (0), or the length of one (1 to 7).
    fn dim(&self, axis: usize) -> i64 {
        if self.is_second { self.i64(16 + 8 * axis) } else { self.i16(40 + 2 * axis).into() }
    }

    /// Slope (0) or intercept (1).
    fn scale(&self, which: usize) -> f64 {
        if self.is_second {
            f64::from_le_bytes(self.le(176 + 8 * which))
        } else {
            f32::from_le_bytes(self.le(112 + 4 * which)).into()
        }
    }

    /// A float of 4 bytes at `at` in a NIfTI-1 header, of 8 bytes at `second` in a NIfTI-2 header.
    fn float(&self, at: usize, second: usize) -> f64 {
        if self.is_second { f64::from_le_bytes(self.le(second)) } else { f32::from_le_bytes(self.le(at)).into() }
    }

    /// Whether the code of an sform or a qform is one of those that the format knows, besides that of none.
    fn has_form(&self, at: usize, second: usize) -> bool {
        let code = if self.is_second { i32::from_le_bytes(self.le(second)) } else { self.i16(at).into() };
        matches!(code, 1..=5)
    }

    /// The spacing along the first three axes, in mm.
    fn spacing(&self) -> [f64; 3] {
        let spacing = [1, 2, 3].map(|axis| self.float(76 + 4 * axis, 104 + 8 * axis).abs());
        spacing.map(|spacing| if spacing == 0.0 { 1.0 } else { spacing })
    }

    /// The matrix of the quaternion, as the format's description (`nifti1.h`) has it.
    fn qform(&self) -> [[f64; 4]; 3] {
        let [b, c, d] = [0, 1, 2].map(|at| self.float(256 + 4 * at, 352 + 8 * at));
        let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
        let rotation = [
            [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
            [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
            [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ];
        let [x, y, z] = self.spacing();
        let steps = [x, y, if self.float(76, 104) == -1.0 { -z } else { z }];
        let turned = [0, 1, 2].map(|row: usize| [0, 1, 2].map(|axis: usize| rotation[row][axis] * steps[axis]));
        [0, 1, 2].map(|row: usize| {
            let [i, j, k] = turned[row];
            [i, j, k, self.float(268 + 4 * row, 376 + 8 * row)]
        })
    }

    /// The byte at which the voxels begin; fractions are cut off.
    fn voxels_at(&self) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "meant: what nibabel does")]
        if self.is_second { self.i64(168) } else { f32::from_le_bytes(self.le(108)) as i64 }
    }
}

/// Reads a header and what stands between it and the first voxel.
///
/// # Errors
/// The reason why the header, or the volume, is not read.
pub(super) fn read(file: &mut dyn Read) -> Result<NiftiHeader, String> {
    let fields = fields(file)?;
    let own = fields.bytes.len() as i64;
    let at = match fields.voxels_at() {
        at if at >= own + 4 => at,
        at if at == 0 && !fields.is_second && &fields.bytes[344..348] == b"ni1\0" => own + 4,
        at => return Err(format!("its voxels begin at byte {at} by its header")),
    };
    let skipped = io::copy(&mut file.take((at - own).unsigned_abs()), &mut io::sink());
    if skipped.map_err(|error| error.to_string())? != (at - own).unsigned_abs() {
        return Err("the file ends before its first voxel".into());
    }
    let scale = match (fields.scale(0), fields.scale(1)) {
        (slope, _) if slope == 0.0 || !slope.is_finite() => None,
        (1.0, 0.0) => None,
        (slope, intercept) if intercept.is_finite() => Some((slope, intercept)),
        (slope, intercept) => return Err(format!("its slope is {slope}, and its intercept {intercept}")),
    };
    let code = fields.i16(if fields.is_second { 12 } else { 70 });
    let element = element(code).ok_or_else(|| format!("voxels of datatype {code} are not compared"))?;
    let count = usize::try_from(fields.dim(0)).ok().filter(|count| (1..=7).contains(count));
    let count = count.ok_or_else(|| format!("it has {} dimensions by its header", fields.dim(0)))?;
    let length = |axis| {
        let length = fields.dim(axis);
        usize::try_from(length).map_err(|_| format!("dimension {axis} has {length} voxels"))
    };
    let shape = (1..=count).map(length).collect::<Result<Vec<usize>, String>>()?;
    let is_big_endian = fields.is_big_endian;
    Ok(NiftiHeader { array: SourceHeader { element, is_big_endian, is_fortran: true, shape }, scale })
}

/// Reads where the voxels of a file are: by the sform of its header, else by its qform, else with the middle of the
/// volume at 0 and the first axis to the left, as nibabel does.
///
/// # Errors
/// The reason why the file's header is not read.
pub(super) fn place(store: &dyn Store, path: &Path) -> Result<Place, Unread> {
    let failed = |reason: Unread| reason.behind(path.display());
    let file = SourceFile::open(store, path).map_err(|error| failed(error.into()))?;
    let fields = fields(&mut *content(&file, path)).map_err(|reason| failed(file.failure_or(reason.into())))?;
    let shape = [1, 2, 3].map(|axis| usize::try_from(fields.dim(axis)).unwrap_or(0).max(1));
    let affine = if fields.has_form(254, 348) {
        let entry = |row: usize, at: usize| fields.float(280 + 16 * row + 4 * at, 400 + 32 * row + 8 * at);
        [0, 1, 2].map(|row| [0, 1, 2, 3].map(|at| entry(row, at)))
    } else if fields.has_form(252, 344) {
        fields.qform()
    } else {
        let [x, y, z] = fields.spacing();
        let middle = |axis: usize, step: f64| -step * (shape[axis] - 1) as f64 / 2.0;
        [[-x, 0.0, 0.0, middle(0, -x)], [0.0, y, 0.0, middle(1, y)], [0.0, 0.0, z, middle(2, z)]]
    };
    Ok(Place { affine, shape })
}

/// The header's numbers, in the version and byte order that nibabel finds.
fn fields(file: &mut dyn Read) -> Result<Fields, String> {
    let mut bytes = vec![0; HEADER_1];
    let failed = |error: io::Error| format!("the NIfTI header cannot be read: {error}");
    file.read_exact(&mut bytes).map_err(failed)?;
    let is_second = !matches!(&bytes[344..348], b"n+1\0" | b"ni1\0");
    let size = [bytes[0], bytes[1], bytes[2], bytes[3]];
    if is_second {
        if u32::from_le_bytes(size) != 540 && u32::from_be_bytes(size) != 540 {
            return Err("the file does not begin as NIfTI".into());
        }
        bytes.resize(HEADER_2, 0);
        file.read_exact(&mut bytes[HEADER_1..]).map_err(failed)?;
    }
    let mut fields = Fields { bytes, is_big_endian: false, is_second };
    fields.is_big_endian = match fields.dim(0) {
        0 => u32::from_be_bytes(size) == if is_second { 540 } else { 348 },
        count => !(1..=7).contains(&count),
    };
    Ok(fields)
}

/// The type of a datatype's code.
fn element(code: i16) -> Option<ElementType> {
    Some(match code {
        2 => ElementType::Unsigned(1),
        4 => ElementType::Signed(2),
        8 => ElementType::Signed(4),
        16 => ElementType::Float(4),
        64 => ElementType::Float(8),
        256 => ElementType::Signed(1),
        512 => ElementType::Unsigned(2),
        768 => ElementType::Unsigned(4),
        1024 => ElementType::Signed(8),
        1280 => ElementType::Unsigned(8),
        _ => return None,
    })
}

/// Whether a file's name says that it is NIfTI.
pub(super) fn is_named_so(path: &Path) -> bool {
    let name = path.as_os_str().as_encoded_bytes();
    name.ends_with(b".nii") || name.ends_with(b".nii.gz")
}

/// The content of a NIfTI file, of which `path` tells whether it is packed: what a gzip file holds is unpacked as it is
/// read.
pub(super) fn content<'a>(file: &'a SourceFile, path: &Path) -> Box<dyn Read + 'a> {
    if path.extension().is_some_and(|suffix| suffix == "gz") {
        let packed = BufReader::with_capacity(READ, file);
        return Box::new(Unpacked { member: Some(GzDecoder::new(packed)) });
    }
    Box::new(file)
}

/// The content of the members of a gzip file. At the end of each, `flate2` compares its CRC-32 and its length.
struct Unpacked<R: BufRead> {
    /// The member that is being read; none behind the last one.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            while let Some(0) = rest.fill_buf()?.first() {
                rest.consume(1); // padding
            }
            // What else may stand behind a member is none of its content.
            if rest.fill_buf()?.starts_with(&GZIP[..1]) {
                self.member = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn header(slope: f32, intercept: f32) -> Vec<u8> {
        let mut bytes = vec![0; 352];
        bytes[..2].copy_from_slice(&348u16.to_le_bytes());
        for (at, number) in [(40, 3u16), (42, 2), (44, 30), (46, 4), (48, 9), (70, 4)] {
            bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
        }
        for (at, number) in [(108, 352.0), (112, slope), (116, intercept)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes[344..348].copy_from_slice(b"n+1\0");
        bytes
    }

    #[test]
    fn fields_of_a_header() {
        let cases = [
            ((1.0, 0.0), Some(None)),
            ((0.0, 7.0), Some(None)),
            ((f32::NAN, 7.0), Some(None)),
            ((0.5, -3.0), Some(Some((0.5, -3.0)))),
            ((0.5, f32::NAN), None),
        ];
        for ((slope, intercept), scale) in cases {
            let found = read(&mut &header(slope, intercept)[..]);
            assert_eq!(found.as_ref().ok().map(|found| found.scale), scale, "{slope} {intercept}");
            if let Ok(NiftiHeader { array, .. }) = found {
                let shape = vec![2, 30, 4];
                let element = ElementType::Signed(2);
                assert_eq!(array, SourceHeader { element, is_big_endian: false, is_fortran: true, shape });
            }
        }
    }

    #[test]
    fn steps_that_change_nothing_keep_negative_zero() {
        let value = |slope, intercept, stored| read(&mut &header(slope, intercept)[..]).unwrap().value(stored);
        assert!(value(0.5, 0.0, -0.0).is_sign_negative());
        assert!(value(0.5, 1.0, -2.0).is_sign_positive());
        assert_eq!(value(1.0, -1024.0, 24.0), -1000.0);
    }

    #[test]
    fn members_of_a_gzip_file() {
        let packed = |content: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        };
        let unpacked = |file: &[u8]| {
            let mut content = Vec::new();
            let result = Unpacked { member: Some(GzDecoder::new(file)) }.read_to_end(&mut content);
            result.map(|_| content)
        };
        let two = [packed(b"one, "), packed(b"two")].concat();
        assert_eq!(unpacked(&two).unwrap(), b"one, two");
        assert_eq!(unpacked(&[&two[..], &[0; 700]].concat()).unwrap(), b"one, two");
        assert_eq!(unpacked(&[&two[..], b"else"].concat()).unwrap(), b"one, two");
        for back in 1..=8 {
            let mut wrong = two.clone();
            let at = wrong.len() - back;
            wrong[at] ^= 1;
            assert!(unpacked(&wrong).is_err(), "byte {back} from the end");
            assert!(unpacked(&two[..at]).is_err(), "{at} bytes");
        }
    }
}
