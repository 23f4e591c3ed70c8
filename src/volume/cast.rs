//! Array elements to float16, with NumPy's results to the bit.
//!
//! Rounding is to nearest, ties to even, once. NaN keeps the top bits of its payload as NumPy's does; the processor's
//! instruction would set the quiet bit as well, so chunks that hold a NaN or a value beyond ±65504 take a slow path.

use half::f16;

use super::narrow::{LinearF32, narrow};
use crate::formats::npz::Element;

/// The treatment of a finite value that rounds beyond the largest voxel: ±65504 for float16. For integers, infinities
/// are such values too; NaN is an error whatever the treatment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Overflow {
    /// The volume is refused, with the voxel's place and value.
    #[default]
    Error,
    /// The value becomes the largest or smallest voxel: ±65504 for float16.
    Saturate,
    /// The value becomes ±infinity, as with NumPy; only for floats.
    Inf,
}

/// The linear map of every value before the cast: x becomes slope · x + intercept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Linear {
    /// The slope.
    pub slope: f64,
    /// The intercept.
    pub intercept: f64,
}

impl Linear {
    /// The map in f32, as NumPy computes it for an array of f32 and Python floats.
    #[expect(clippy::cast_possible_truncation, reason = "meant")]
    pub(super) fn in_f32(self) -> LinearF32 {
        LinearF32 { slope: self.slope as f32, intercept: self.intercept as f32 }
    }
}

/// A value that a voxel cannot hold: too large, under [`Overflow::Error`], or NaN for integers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unfit {
    /// The index of the value in the converted slice.
    pub index: usize,
    /// The value, after the linear map.
    pub value: f64,
}

impl Unfit {
    /// The value with an index that is `count` larger.
    pub(super) fn after(self, count: usize) -> Self {
        Self { index: self.index + count, ..self }
    }
}

/// The smallest magnitude that rounds to infinity.
const LIMIT: f64 = 65_520.0;

/// Converts the elements in `source` (whose bytes it may swap in place) to `voxels`, after the map `linear` if there is
/// one. Both have the same number of elements, and `source` is aligned to 8 bytes.
///
/// # Errors
/// [`Unfit`] under [`Overflow::Error`]; `voxels` is then unspecified.
pub(super) fn to_f16(
    element: Element,
    big_endian: bool,
    source: &mut [u8],
    voxels: &mut [f16],
    overflow: Overflow,
    linear: Option<Linear>,
) -> Result<(), Unfit> {
    debug_assert_eq!(source.len(), voxels.len() * element.size());
    if let Some(linear) = linear {
        return mapped(element, big_endian, source, voxels, overflow, linear);
    }
    if big_endian {
        swap_bytes(element.size(), source);
    }
    match element {
        Element::F16 => voxels.copy_from_slice(bytemuck::cast_slice(source)),
        Element::F32 => from_f32(bytemuck::cast_slice(source), voxels, overflow)?,
        Element::F64 => from_f64(bytemuck::cast_slice(source), voxels, overflow)?,
        Element::I8 => through_f32(bytemuck::cast_slice::<_, i8>(source), voxels, overflow, f32::from)?,
        Element::U8 => through_f32(source, voxels, overflow, f32::from)?,
        Element::I16 => through_f32(bytemuck::cast_slice::<_, i16>(source), voxels, overflow, f32::from)?,
        Element::U16 => through_f32(bytemuck::cast_slice::<_, u16>(source), voxels, overflow, f32::from)?,
        // Every integer that float16 can hold is exact in f32, and no other one rounds below the limit.
        Element::I32 => through_f32(bytemuck::cast_slice::<_, i32>(source), voxels, overflow, |x| x as f32)?,
        Element::U32 => through_f32(bytemuck::cast_slice::<_, u32>(source), voxels, overflow, |x| x as f32)?,
        Element::I64 => through_f32(bytemuck::cast_slice::<_, i64>(source), voxels, overflow, |x| x as f32)?,
        Element::U64 => through_f32(bytemuck::cast_slice::<_, u64>(source), voxels, overflow, |x| x as f32)?,
        Element::Bool => through_f32(source, voxels, overflow, truth)?,
    }
    Ok(())
}

/// Converts as [`to_f16`] does, after the map `linear`.
fn mapped(
    element: Element,
    big_endian: bool,
    source: &mut [u8],
    voxels: &mut [f16],
    overflow: Overflow,
    linear: Linear,
) -> Result<(), Unfit> {
    match element {
        Element::F32 => {
            if big_endian {
                swap_bytes(4, source);
            }
            from_mapped_f32(bytemuck::cast_slice(source), Some(linear.in_f32()), voxels, overflow)
        }
        Element::F64 => {
            // In f64, and rounded once.
            if big_endian {
                swap_bytes(8, source);
            }
            let values: &mut [f64] = bytemuck::cast_slice_mut(source);
            values.iter_mut().for_each(|x| *x = *x * linear.slope + linear.intercept);
            from_f64(values, voxels, overflow)
        }
        _ => {
            const BLOCK: usize = 2048; // stays in L1
            let mut wide = [0f32; BLOCK];
            let blocks = source.chunks_mut(BLOCK * element.size()).zip(voxels.chunks_mut(BLOCK));
            for (block, (source, voxels)) in blocks.enumerate() {
                let wide = &mut wide[..voxels.len()];
                widen(element, big_endian, source, Some(linear), wide);
                from_f32(wide, voxels, overflow).map_err(|error| error.after(block * BLOCK))?;
            }
            Ok(())
        }
    }
}

/// Converts the elements in `source` (whose bytes it may swap in place) to f32 values in `out`, after the map `linear`
/// if there is one.
pub(super) fn widen(element: Element, big_endian: bool, source: &mut [u8], linear: Option<Linear>, out: &mut [f32]) {
    if big_endian {
        swap_bytes(element.size(), source);
    }
    fn each<T: bytemuck::AnyBitPattern>(source: &[u8], out: &mut [f32], wide: impl Fn(T) -> f32) {
        let source: &[T] = bytemuck::cast_slice(source);
        out.iter_mut().zip(source).for_each(|(out, x)| *out = wide(*x));
    }
    match element {
        Element::F16 => each(source, out, f16::to_f32),
        Element::F32 => out.copy_from_slice(bytemuck::cast_slice(source)),
        #[expect(clippy::cast_possible_truncation, reason = "the steps after this are done in f32")]
        Element::F64 => each(source, out, |x: f64| x as f32),
        Element::I8 => each::<i8>(source, out, f32::from),
        Element::U8 => each::<u8>(source, out, f32::from),
        Element::I16 => each::<i16>(source, out, f32::from),
        Element::U16 => each::<u16>(source, out, f32::from),
        Element::I32 => each(source, out, |x: i32| x as f32),
        Element::U32 => each(source, out, |x: u32| x as f32),
        Element::I64 => each(source, out, |x: i64| x as f32),
        Element::U64 => each(source, out, |x: u64| x as f32),
        Element::Bool => each(source, out, truth),
    }
    if let Some(map) = linear.map(Linear::in_f32) {
        out.iter_mut().for_each(|x| *x = map.apply(*x));
    }
}

/// A boolean of NumPy, of which every byte but 0 is true.
fn truth(byte: u8) -> f32 {
    f32::from(u8::from(byte != 0))
}

/// Turns values of `size` bytes from one byte order to the other.
pub(super) fn swap_bytes(size: usize, bytes: &mut [u8]) {
    match size {
        2 => bytemuck::cast_slice_mut::<_, u16>(bytes).iter_mut().for_each(|x| *x = x.swap_bytes()),
        4 => bytemuck::cast_slice_mut::<_, u32>(bytes).iter_mut().for_each(|x| *x = x.swap_bytes()),
        8 => bytemuck::cast_slice_mut::<_, u64>(bytes).iter_mut().for_each(|x| *x = x.swap_bytes()),
        _ => {}
    }
}

/// Converts f32 values to float16.
///
/// # Errors
/// [`Unfit`] under [`Overflow::Error`]; `voxels` is then unspecified.
pub(super) fn from_f32(source: &[f32], voxels: &mut [f16], overflow: Overflow) -> Result<(), Unfit> {
    from_mapped_f32(source, None, voxels, overflow)
}

fn from_mapped_f32(
    source: &[f32],
    map: Option<LinearF32>,
    voxels: &mut [f16],
    overflow: Overflow,
) -> Result<(), Unfit> {
    const BLOCK: usize = 4096; // of which one value that does not fit makes a slow one
    for (block, (source, voxels)) in source.chunks(BLOCK).zip(voxels.chunks_mut(BLOCK)).enumerate() {
        if narrow(source, map, voxels) {
            continue;
        }
        for (index, (x, voxel)) in source.iter().zip(voxels).enumerate() {
            let x = map.map_or(*x, |map| map.apply(*x));
            let too_large = Unfit { index: block * BLOCK + index, value: f64::from(x) };
            *voxel = one_f32(x, overflow).ok_or(too_large)?;
        }
    }
    Ok(())
}

fn one_f32(x: f32, overflow: Overflow) -> Option<f16> {
    if x.is_nan() {
        return Some(nan(x.is_sign_negative(), u64::from(x.to_bits() >> 13)));
    }
    if x.is_infinite() || f64::from(x.abs()) < LIMIT { Some(f16::from_f32(x)) } else { beyond(x < 0.0, overflow) }
}

fn from_f64(source: &[f64], voxels: &mut [f16], overflow: Overflow) -> Result<(), Unfit> {
    for (index, (&x, voxel)) in source.iter().zip(voxels).enumerate() {
        *voxel = if x.is_nan() {
            nan(x.is_sign_negative(), x.to_bits() >> 42)
        } else if x.is_infinite() || x.abs() < LIMIT {
            f16::from_f32(round_to_odd(x))
        } else {
            beyond(x < 0.0, overflow).ok_or(Unfit { index, value: x })?
        };
    }
    Ok(())
}

/// Truncates to f32 and sets its last bit if anything was cut off. Rounding that to float16, which has 13 bits
/// fewer, gives what rounding the f64 once would give.
#[expect(clippy::cast_possible_truncation, reason = "the rounding is undone below")]
fn round_to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest) == x {
        return nearest;
    }
    let truncated = if f64::from(nearest).abs() > x.abs() { nearest.to_bits() - 1 } else { nearest.to_bits() };
    f32::from_bits(truncated | 1)
}

/// NumPy's float16 NaN: the top ten bits of the payload, or 1 where those are zero.
fn nan(negative: bool, payload: u64) -> f16 {
    let payload = u16::try_from(payload & 0x3ff).unwrap_or(1).max(1);
    f16::from_bits(if negative { 0xfc00 } else { 0x7c00 } | payload)
}

fn beyond(negative: bool, overflow: Overflow) -> Option<f16> {
    let magnitude = match overflow {
        Overflow::Error => return None,
        Overflow::Saturate => f16::MAX,
        Overflow::Inf => f16::INFINITY,
    };
    Some(if negative { -magnitude } else { magnitude })
}

fn through_f32<T: Copy>(
    source: &[T],
    voxels: &mut [f16],
    overflow: Overflow,
    widen: impl Fn(T) -> f32,
) -> Result<(), Unfit> {
    let mut wide = [0f32; 2048];
    for (block, (source, voxels)) in source.chunks(2048).zip(voxels.chunks_mut(2048)).enumerate() {
        let wide = &mut wide[..source.len()];
        wide.iter_mut().zip(source).for_each(|(wide, x)| *wide = widen(*x));
        from_f32(wide, voxels, overflow).map_err(|error| error.after(block * 2048))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f64_to_f16(x: f64, overflow: Overflow) -> Result<u16, Unfit> {
        let mut voxel = [f16::ZERO];
        from_f64(&[x], &mut voxel, overflow).map(|()| voxel[0].to_bits())
    }

    #[test]
    fn f64_rounds_once() {
        // Just above the tie between 1.0 and its successor: through f32 it would fall onto the tie and down to 1.0.
        assert_eq!(f64_to_f16(1.0 + 2f64.powi(-11) + 2f64.powi(-40), Overflow::Error), Ok(0x3c01));
        assert_eq!(f64_to_f16(1.0 + 2f64.powi(-11), Overflow::Error), Ok(0x3c00));
        assert_eq!(f64_to_f16(1.0 + 3.0 * 2f64.powi(-11) - 2f64.powi(-40), Overflow::Error), Ok(0x3c01));
        assert_eq!(f64_to_f16(2f64.powi(-25) + 2f64.powi(-60), Overflow::Error), Ok(1));
        assert_eq!(f64_to_f16(2f64.powi(-25), Overflow::Error), Ok(0));
        assert_eq!(f64_to_f16(-1e-320, Overflow::Error), Ok(0x8000));
        assert_eq!(f64_to_f16(65_519.999_999_999, Overflow::Error), Ok(0x7bff));
    }

    #[test]
    fn overflow_is_what_was_asked_for() {
        assert_eq!(f64_to_f16(65_520.0, Overflow::Error), Err(Unfit { index: 0, value: 65_520.0 }));
        assert_eq!(f64_to_f16(-1e300, Overflow::Saturate), Ok(0xfbff));
        assert_eq!(f64_to_f16(1e300, Overflow::Inf), Ok(0x7c00));
        assert_eq!(f64_to_f16(f64::INFINITY, Overflow::Error), Ok(0x7c00));
        let mut source = vec![0f32; 5000];
        source[4100] = -65_520.0;
        let mut voxels = vec![f16::ZERO; 5000];
        assert_eq!(from_f32(&source, &mut voxels, Overflow::Error), Err(Unfit { index: 4100, value: -65_520.0 }));
        from_f32(&source, &mut voxels, Overflow::Saturate).unwrap();
        assert_eq!(voxels[4100].to_bits(), 0xfbff);
    }

    #[test]
    fn nan_keeps_its_payload() {
        for (bits, expected) in
            [(0x7fc0_0000, 0x7e00), (0x7f80_0001, 0x7c01), (0xffff_ffff, 0xffff), (0x7fa0_0000, 0x7d00)]
        {
            let mut voxel = [f16::ZERO];
            from_f32(&[f32::from_bits(bits)], &mut voxel, Overflow::Error).unwrap();
            assert_eq!(voxel[0].to_bits(), expected, "{bits:08x}");
        }
    }
}
