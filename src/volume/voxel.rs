//! The types of voxels, and how elements of an array and computed values become such.
//!
//! Integers become integers as they are; everything else is computed in f32, or in f64 for arrays of f64, and rounded
//! once, ties to even.

use bytemuck::Pod;
use half::f16;

use super::cast::{self, Linear, Overflow, Unfit, widen};
use super::narrow::LinearF32;
use super::rounding::{self, WindowF32};
use crate::formats::npz::Element;

/// What becomes of values that are converted, besides the linear map of elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// The treatment of values that the voxels cannot hold.
    pub(super) overflow: Overflow,
    /// The window of values that voxels of u8 hold; the others have none.
    pub(super) window: [f64; 2],
    /// The type of the array's elements.
    pub(super) element: Element,
}

/// Elements of an array, whose bytes may be swapped in place.
pub(super) struct Elements<'a> {
    /// The type of the elements.
    pub(super) element: Element,
    /// Whether the elements are big-endian.
    pub(super) big_endian: bool,
    /// The bytes of the elements, aligned to 8 bytes.
    pub(super) bytes: &'a mut [u8],
}

/// A type of voxels.
pub(super) trait Voxel: Pod + Default {
    /// Converts elements, after the map `linear` if there is one; there are as many voxels.
    ///
    /// # Errors
    /// [`Unfit`] for a value that the rules do not let in; `voxels` is then unspecified.
    fn of_elements(
        elements: Elements<'_>,
        linear: Option<Linear>,
        voxels: &mut [Self],
        rules: Rules,
    ) -> Result<(), Unfit>;

    /// The voxel of one value; `None` if the rules do not let it in.
    fn of_f64(value: f64, rules: Rules) -> Option<Self>;
}

/// A type of voxels that are computed.
pub(super) trait Computed: Voxel {
    /// Converts computed values; there are as many voxels.
    ///
    /// # Errors
    /// [`Unfit`] for a value that the rules do not let in; `voxels` is then unspecified.
    fn of_f32(values: &[f32], voxels: &mut [Self], rules: Rules) -> Result<(), Unfit>;
}

impl Voxel for f16 {
    fn of_elements(
        elements: Elements<'_>,
        linear: Option<Linear>,
        voxels: &mut [Self],
        rules: Rules,
    ) -> Result<(), Unfit> {
        cast::to_f16(elements.element, elements.big_endian, elements.bytes, voxels, rules.overflow, linear)
    }

    fn of_f64(value: f64, _: Rules) -> Option<Self> {
        Some(Self::from_f64(value))
    }
}

impl Computed for f16 {
    fn of_f32(values: &[f32], voxels: &mut [Self], rules: Rules) -> Result<(), Unfit> {
        cast::from_f32(values, voxels, rules.overflow)
    }
}

impl Voxel for f32 {
    fn of_elements(
        elements: Elements<'_>,
        linear: Option<Linear>,
        voxels: &mut [Self],
        rules: Rules,
    ) -> Result<(), Unfit> {
        if elements.element == Element::F64 {
            return of_f64s(elements, linear, voxels, rules);
        }
        let Elements { element, big_endian, bytes } = elements;
        widen(element, big_endian, bytes, linear, voxels);
        Ok(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounded once, here")]
    fn of_f64(value: f64, rules: Rules) -> Option<Self> {
        let rounded = value as f32;
        match rules.overflow {
            _ if rounded.is_finite() || !value.is_finite() => Some(rounded),
            Overflow::Error => None,
            Overflow::Saturate => Some(Self::MAX.copysign(rounded)),
            Overflow::Inf => Some(rounded),
        }
    }
}

impl Computed for f32 {
    fn of_f32(values: &[f32], voxels: &mut [Self], _: Rules) -> Result<(), Unfit> {
        voxels.copy_from_slice(values);
        Ok(())
    }
}

impl Voxel for i16 {
    fn of_elements(
        elements: Elements<'_>,
        linear: Option<Linear>,
        voxels: &mut [Self],
        rules: Rules,
    ) -> Result<(), Unfit> {
        let element = elements.element;
        match element {
            Element::F64 => of_f64s(elements, linear, voxels, rules),
            _ if linear.is_none() && !element.is_float() => whole_numbers(elements, voxels, rules),
            Element::F32 => mapped_f32(elements, linear, voxels, rules, rounding::to_i16),
            _ => through_f32(elements, linear, voxels, rules),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range, or clipped to it by the cast")]
    fn of_f64(value: f64, rules: Rules) -> Option<Self> {
        let rounded = value.round_ties_even();
        let fits = (f64::from(Self::MIN)..=f64::from(Self::MAX)).contains(&rounded);
        (fits || rules.overflow != Overflow::Error && !value.is_nan()).then_some(rounded as Self)
    }
}

impl Computed for i16 {
    fn of_f32(values: &[f32], voxels: &mut [Self], rules: Rules) -> Result<(), Unfit> {
        blocks_of_f32(values, None, voxels, rules, rounding::to_i16)
    }
}

impl Voxel for u8 {
    fn of_elements(
        elements: Elements<'_>,
        linear: Option<Linear>,
        voxels: &mut [Self],
        rules: Rules,
    ) -> Result<(), Unfit> {
        if elements.element == Element::F64 {
            return of_f64s(elements, linear, voxels, rules);
        }
        if elements.element == Element::F32 {
            let window = WindowF32::new(rules.window);
            return mapped_f32(elements, linear, voxels, rules, |x, map, voxels| {
                rounding::to_u8(x, map, window, voxels)
            });
        }
        through_f32(elements, linear, voxels, rules)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
    fn of_f64(value: f64, rules: Rules) -> Option<Self> {
        let [low, high] = rules.window;
        let voxel = (value.clamp(low, high) - low) / (high - low) * 255.0;
        (!value.is_nan()).then_some(voxel.round_ties_even() as Self)
    }
}

impl Computed for u8 {
    fn of_f32(values: &[f32], voxels: &mut [Self], rules: Rules) -> Result<(), Unfit> {
        let window = WindowF32::new(rules.window);
        blocks_of_f32(values, None, voxels, rules, |x, map, voxels| rounding::to_u8(x, map, window, voxels))
    }
}

/// Converts elements of f64, mapped in f64.
fn of_f64s<T: Voxel>(
    elements: Elements<'_>,
    linear: Option<Linear>,
    voxels: &mut [T],
    rules: Rules,
) -> Result<(), Unfit> {
    if elements.big_endian {
        cast::swap_bytes(8, elements.bytes);
    }
    let values: &[f64] = bytemuck::cast_slice(elements.bytes);
    for (index, (x, voxel)) in values.iter().zip(voxels).enumerate() {
        let value = linear.map_or(*x, |map| *x * map.slope + map.intercept);
        *voxel = T::of_f64(value, rules).ok_or(Unfit { index, value })?;
    }
    Ok(())
}

/// Converts elements that are mapped in f32, block by block: one stays in L1.
fn through_f32<T: Computed>(
    elements: Elements<'_>,
    linear: Option<Linear>,
    voxels: &mut [T],
    rules: Rules,
) -> Result<(), Unfit> {
    let Elements { element, big_endian, bytes } = elements;
    const BLOCK: usize = 2048;
    let mut wide = [0f32; BLOCK];
    let blocks = bytes.chunks_mut(BLOCK * element.size()).zip(voxels.chunks_mut(BLOCK));
    for (block, (bytes, voxels)) in blocks.enumerate() {
        let wide = &mut wide[..voxels.len()];
        widen(element, big_endian, bytes, linear, wide);
        T::of_f32(wide, voxels, rules).map_err(|error| error.after(block * BLOCK))?;
    }
    Ok(())
}

/// Converts elements of f32 by `fast`, which maps them as well: in one pass over them.
fn mapped_f32<T: Voxel>(
    elements: Elements<'_>,
    linear: Option<Linear>,
    voxels: &mut [T],
    rules: Rules,
    fast: impl Fn(&[f32], Option<LinearF32>, &mut [T]) -> bool,
) -> Result<(), Unfit> {
    if elements.big_endian {
        cast::swap_bytes(4, elements.bytes);
    }
    blocks_of_f32(bytemuck::cast_slice(elements.bytes), linear.map(Linear::in_f32), voxels, rules, fast)
}

/// Converts values by `fast`; where that finds one that does not fit, one by one.
fn blocks_of_f32<T: Voxel>(
    values: &[f32],
    map: Option<LinearF32>,
    voxels: &mut [T],
    rules: Rules,
    fast: impl Fn(&[f32], Option<LinearF32>, &mut [T]) -> bool,
) -> Result<(), Unfit> {
    const BLOCK: usize = 4096; // of which one value that does not fit makes a slow one
    for (block, (values, voxels)) in values.chunks(BLOCK).zip(voxels.chunks_mut(BLOCK)).enumerate() {
        if fast(values, map, voxels) {
            continue;
        }
        for (index, (x, voxel)) in values.iter().zip(voxels).enumerate() {
            let value = f64::from(map.map_or(*x, |map| map.apply(*x)));
            *voxel = T::of_f64(value, rules).ok_or(Unfit { index: block * BLOCK + index, value })?;
        }
    }
    Ok(())
}

/// Converts integers to i16 as they are.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "whether it fits is the second value")]
fn whole_numbers(elements: Elements<'_>, voxels: &mut [i16], rules: Rules) -> Result<(), Unfit> {
    let Elements { element, big_endian, bytes } = elements;
    if big_endian {
        cast::swap_bytes(element.size(), bytes);
    }
    let bytes = &*bytes;
    match element {
        Element::I8 => each(bytes, voxels, rules, |x: i8| (x.into(), true), |x| x.into()),
        Element::U8 => each(bytes, voxels, rules, |x: u8| (x.into(), true), |x| x.into()),
        Element::U16 => each(bytes, voxels, rules, |x: u16| (x as i16, x >> 15 == 0), |x| x.into()),
        Element::I32 => each(bytes, voxels, rules, |x: i32| (x as i16, i32::from(x as i16) == x), |x| x.into()),
        Element::U32 => each(bytes, voxels, rules, |x: u32| (x as i16, x >> 15 == 0), |x| x.into()),
        Element::I64 => each(bytes, voxels, rules, |x: i64| (x as i16, i64::from(x as i16) == x), |x| x as f64),
        Element::U64 => each(bytes, voxels, rules, |x: u64| (x as i16, x >> 15 == 0), |x| x as f64),
        // Booleans of NumPy, of which every byte but 0 is true.
        Element::Bool => each(bytes, voxels, rules, |x: u8| (i16::from(x != 0), true), |x| x.into()),
        Element::I16 | Element::F16 | Element::F32 | Element::F64 => {
            voxels.copy_from_slice(bytemuck::cast_slice(bytes));
            Ok(())
        }
    }
}

/// Converts integers by `narrow`, which also says whether each fits; where one does not, by way of f64, which holds all
/// that fit.
fn each<T: Pod>(
    bytes: &[u8],
    voxels: &mut [i16],
    rules: Rules,
    narrow: impl Fn(T) -> (i16, bool),
    wide: impl Fn(T) -> f64,
) -> Result<(), Unfit> {
    let source: &[T] = bytemuck::cast_slice(bytes);
    let mut all_fit = true;
    for (x, voxel) in source.iter().zip(&mut *voxels) {
        let fits;
        (*voxel, fits) = narrow(*x);
        all_fit &= fits;
    }
    if all_fit {
        return Ok(());
    }
    for (index, (x, voxel)) in source.iter().zip(voxels).enumerate() {
        let value = wide(*x);
        *voxel = i16::of_f64(value, rules).ok_or(Unfit { index, value })?;
    }
    Ok(())
}
