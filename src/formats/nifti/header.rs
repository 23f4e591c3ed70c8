//! The header of a NIfTI-1 or NIfTI-2 file, as nibabel reads it. Pure.
//!
//! Sources: <https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h>, `nifti2.h`; where they leave something open,
//! nibabel 5.4, of which each rule here was tried.

use super::affine::{Affine, Quaternion, centred};
use crate::formats::npz::{Conversion, Element};

/// The bytes of the longer header, that of NIfTI-2.
pub(super) const LONGEST: usize = 540;
/// The bytes of the NIfTI-1 header.
const NIFTI1: usize = 348;
/// The axes that a header has room for.
const AXES: usize = 7;

/// The content of a header that a volume is made of.
#[derive(Debug)]
pub(crate) struct Header {
    /// The elements, and the map to their values.
    pub(crate) conversion: Conversion,
    /// The lengths of the axes, the first varies fastest.
    pub(crate) shape: Vec<u64>,
    /// The spacing along the first three axes, in the unit of the header (mm as a rule); `None` if one is no number.
    pub(crate) spacing: Option<[f64; 3]>,
    /// The place of the first voxel in the file.
    pub(crate) offset: u64,
    /// The matrix from voxels to the body, or why there is none.
    pub(crate) affine: Result<Affine, String>,
}

/// Reads the header at the beginning of `bytes`, which are at least [`LONGEST`] or all that the file has.
///
/// # Errors
/// What is not supported or contradicts itself, with the value found.
pub(crate) fn parse(bytes: &[u8]) -> Result<Header, String> {
    let fields = Fields::of(bytes)?;
    let (element, big_endian) = (element(fields.datatype())?, fields.big_endian);
    let (slope, intercept) = fields.scaling()?;
    let shape = fields.shape()?;
    Ok(Header {
        conversion: Conversion { element, big_endian, slope, intercept },
        spacing: fields.spacing(),
        offset: fields.offset()?,
        affine: fields.affine(&shape),
        shape,
    })
}

/// A header whose version and byte order are known.
struct Fields<'a> {
    bytes: &'a [u8],
    is_nifti2: bool,
    big_endian: bool,
}

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, String> {
        const SIZE_OF_NIFTI2: [u8; 4] = [0x1c, 2, 0, 0];
        let reversed = |[a, b, c, d]: [u8; 4]| [d, c, b, a];
        if bytes.starts_with(&super::GZIP_MAGIC) {
            return Err("it is compressed by gzip; name it *.nii.gz".into());
        }
        if bytes.len() < NIFTI1 {
            return Err(format!("it has {} bytes, fewer than a NIfTI header", bytes.len()));
        }
        let size = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if size == SIZE_OF_NIFTI2 || reversed(size) == SIZE_OF_NIFTI2 {
            if bytes.len() < LONGEST {
                return Err(format!("it has {} bytes, fewer than a NIfTI-2 header", bytes.len()));
            }
            if !matches!(&bytes[4..12], b"n+2\0\r\n\x1a\n" | b"ni2\0\r\n\x1a\n") {
                return Err(
                    "its NIfTI-2 header does not have the magic bytes: it was changed on its way, as text?".into()
                );
            }
            return Ok(Self { bytes, is_nifti2: true, big_endian: size != SIZE_OF_NIFTI2 });
        }
        if !matches!(&bytes[344..348], b"n+1\0" | b"ni1\0") {
            return Err("it has no NIfTI header: the magic bytes n+1 are not there (an Analyze file has none)".into());
        }
        // As nibabel tells the byte order; the header's size may be wrong.
        let number_of_axes = i16::from_le_bytes([bytes[40], bytes[41]]);
        let is_little = (1..=7).contains(&number_of_axes) || number_of_axes == 0 && size == [0x5c, 1, 0, 0];
        Ok(Self { bytes, is_nifti2: false, big_endian: !is_little })
    }

    /// The bytes of a field at `at`, least significant first.
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[at..at + N]);
        if self.big_endian {
            field.reverse();
        }
        field
    }

    /// A field of NIfTI-1 at `at`, of f32; of NIfTI-2 at `at2`, of f64.
    fn float(&self, at: usize, at2: usize) -> f64 {
        match self.is_nifti2 {
            true => f64::from_le_bytes(self.field(at2)),
            false => f64::from(f32::from_le_bytes(self.field(at))),
        }
    }

    fn datatype(&self) -> i16 {
        i16::from_le_bytes(self.field(if self.is_nifti2 { 12 } else { 70 }))
    }

    /// Entry `at` of the list of axes, of which the first is their number.
    fn dim(&self, at: usize) -> i64 {
        match self.is_nifti2 {
            true => i64::from_le_bytes(self.field(16 + 8 * at)),
            false => i64::from(i16::from_le_bytes(self.field(40 + 2 * at))),
        }
    }

    /// The lengths of the axes.
    fn shape(&self) -> Result<Vec<u64>, String> {
        let count = usize::try_from(self.dim(0)).ok().filter(|count| (1..=AXES).contains(count));
        let count = count.ok_or_else(|| format!("its header says {} axes; 1 to 7 are possible", self.dim(0)))?;
        let mut shape = Vec::with_capacity(count);
        for at in 1..=count {
            let length = self.dim(at);
            shape.push(u64::try_from(length).map_err(|_| format!("its axis {at} has the length {length}"))?);
        }
        Ok(shape)
    }

    /// Slope and intercept; 1 and 0 where the header says that nothing is scaled.
    fn scaling(&self) -> Result<(f64, f64), String> {
        let (slope, intercept) = (self.float(112, 176), self.float(116, 184));
        if slope == 0.0 || !slope.is_finite() {
            return Ok((1.0, 0.0)); // whatever the intercept is
        }
        if !intercept.is_finite() {
            return Err(format!(
                "its header has the slope {slope} with the intercept {intercept}, which makes no values"
            ));
        }
        Ok((slope, intercept + 0.0)) // no negative zero: it changes no value, and is compared with 0
    }

    /// Entry `at` of the list of spacings, of which the first is a sign.
    fn pixdim(&self, at: usize) -> f64 {
        self.float(76 + 4 * at, 104 + 8 * at)
    }

    fn spacing(&self) -> Option<[f64; 3]> {
        let spacing = [1, 2, 3].map(|at| match self.pixdim(at).abs() {
            0.0 => 1.0,
            spacing => spacing,
        });
        spacing.iter().all(|spacing| spacing.is_finite()).then_some(spacing)
    }

    /// The matrix of the sform if there is one, else of the qform, else the one of files without either.
    fn affine(&self, shape: &[u64]) -> Result<Affine, String> {
        let code = |at: usize, at2: usize| match self.is_nifti2 {
            true => i32::from_le_bytes(self.field(at2)),
            false => i32::from(i16::from_le_bytes(self.field(at))),
        };
        let is_form = |code: i32| (1..=5).contains(&code);
        let no_spacing = || "its header has a spacing that is no number".to_owned();
        let affine = if is_form(code(254, 348)) {
            let entry = |row: usize, at: usize| self.float(280 + 16 * row + 4 * at, 400 + 32 * row + 8 * at);
            [0, 1, 2].map(|row| [0, 1, 2, 3].map(|at| entry(row, at)))
        } else if is_form(code(252, 344)) {
            let epsilon = if self.is_nifti2 { f64::EPSILON } else { f64::from(f32::EPSILON) };
            Quaternion {
                vector: [0, 1, 2].map(|at| self.float(256 + 4 * at, 352 + 8 * at)),
                spacing: self.spacing().ok_or_else(no_spacing)?,
                is_mirrored: self.pixdim(0) == -1.0,
                place: [0, 1, 2].map(|at| self.float(268 + 4 * at, 376 + 8 * at)),
                tolerance: 3.0 * epsilon,
            }
            .affine()?
        } else {
            let [Some(a), Some(b), Some(c)] = [0, 1, 2].map(|at| shape.get(at).copied()) else {
                return Err("it has fewer than three axes".into());
            };
            centred([a, b, c].map(|length| length.max(1)), self.spacing().ok_or_else(no_spacing)?)
        };
        let is_finite = affine.iter().flatten().all(|entry| entry.is_finite());
        if is_finite { Ok(affine) } else { Err("the matrix of its header has entries that are no numbers".into()) }
    }

    /// The place of the first voxel.
    fn offset(&self) -> Result<u64, String> {
        let least: u64 = if self.is_nifti2 { 544 } else { 352 };
        let offset = match self.is_nifti2 {
            true => u64::try_from(i64::from_le_bytes(self.field(168))).ok(),
            false => {
                let offset = self.float(108, 0);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, and truncated")]
                (0.0..9e18).contains(&offset).then_some(offset as u64)
            }
        };
        match offset {
            Some(offset) if offset >= least => Ok(offset),
            Some(0) => Err(format!(
                "its header says that the voxels begin at byte 0, where the header is; readers differ on such files: \
                 write it anew with {least}"
            )),
            Some(offset) => Err(format!(
                "its header says that the voxels begin at byte {offset}; behind the header is from {least} on"
            )),
            None => Err("its header says no place where the voxels begin (vox_offset)".into()),
        }
    }
}

/// The element type of a datatype code.
fn element(code: i16) -> Result<Element, String> {
    let other = match code {
        2 => return Ok(Element::U8),
        4 => return Ok(Element::I16),
        8 => return Ok(Element::I32),
        16 => return Ok(Element::F32),
        64 => return Ok(Element::F64),
        256 => return Ok(Element::I8),
        512 => return Ok(Element::U16),
        768 => return Ok(Element::U32),
        1024 => return Ok(Element::I64),
        1280 => return Ok(Element::U64),
        1 => "single bits",
        32 => "complex64",
        128 => "RGB",
        1536 => "float128",
        1792 => "complex128",
        2048 => "complex256",
        2304 => "RGBA",
        _ => "of no known type",
    };
    Err(format!("its voxels are {other} (datatype {code}), which no volume has; save it as float32 or an integer"))
}
