//! Voxels of the array's own dtype: the elements as they are, for extras. The types of unsigned and 8-bit integers
//! stand for elements of their size, whatever these are; floats that are resampled have their own.

use bytemuck::Pod;

use super::cast::{self, Linear, Unfit};
use super::linear_planes::LinearPlanes;
use super::nearest_planes::NearestPlanes;
use super::voxel::{Computed, Elements, Rules, Voxel};
use super::voxel_format::VoxelFormat;
use crate::formats::npz::Element;

/// What the elements of an array become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ArrayFormat {
    /// The voxels of a volume.
    Voxels(VoxelFormat),
    /// Elements of the same dtype, little-endian: those of an extra.
    Own(Element),
}

impl ArrayFormat {
    /// The bytes of a voxel, or of an element.
    pub fn voxel_len(self) -> usize {
        match self {
            Self::Voxels(format) => format.voxel_len(),
            Self::Own(element) => element.size(),
        }
    }

    /// The dtype as an NPY header spells it.
    pub fn descr(self) -> String {
        match self {
            Self::Voxels(format) => format.descr().to_owned(),
            Self::Own(element) => element.descr(false),
        }
    }

    /// The window of values that voxels of uint8 hold.
    pub(super) fn window(self) -> Option<[f64; 2]> {
        match self {
            Self::Voxels(format) => format.window(),
            Self::Own(_) => None,
        }
    }

    /// The message about a value that a voxel cannot be: which, why, and the remedy.
    pub(super) fn refusal(self, value: f64) -> String {
        match self {
            Self::Voxels(format) => format.refusal(value),
            Self::Own(element) => format!("{value}, which {} cannot hold", element.name()),
        }
    }
}

/// Evaluates an expression with the type of a volume's voxels as `$T`.
macro_rules! with_voxel_type {
    ($volume:expr, $T:ident => $body:expr) => {{
        macro_rules! with {
            ($type:ty) => {{
                type $T = $type;
                $body
            }};
        }
        use crate::formats::npz::Element;
        use crate::volume::{ArrayFormat, Kind, VoxelFormat};
        let is_computed = $volume.recipe.kind() == Kind::Preprocessed;
        match $volume.format {
            ArrayFormat::Voxels(VoxelFormat::Float16) => with!(half::f16),
            ArrayFormat::Voxels(VoxelFormat::Float32) => with!(f32),
            ArrayFormat::Voxels(VoxelFormat::Int16) => with!(i16),
            ArrayFormat::Voxels(VoxelFormat::Uint8 { .. }) => with!(u8),
            ArrayFormat::Own(Element::F16) if is_computed => with!(half::f16),
            ArrayFormat::Own(Element::F32) if is_computed => with!(f32),
            ArrayFormat::Own(Element::F64) if is_computed => with!(f64),
            ArrayFormat::Own(element) => match element.size() {
                1 => with!(i8),
                2 => with!(u16),
                4 => with!(u32),
                _ => with!(u64),
            },
        }
    }};
}
pub(super) use with_voxel_type;

/// Copies elements as they are, little-endian.
fn copied<T: Pod>(elements: Elements<'_>, voxels: &mut [T]) {
    let Elements { element, big_endian, bytes } = elements;
    if big_endian {
        cast::swap_bytes(element.size(), bytes);
    }
    bytemuck::cast_slice_mut(voxels).copy_from_slice(bytes);
}

macro_rules! raw_voxels {
    ($($type:ty),*) => {$(
        impl Voxel for $type {
            type Planes<'a> = NearestPlanes<'a, Self>;

            fn of_elements(
                elements: Elements<'_>,
                _: Option<Linear>,
                voxels: &mut [Self],
                _: Rules,
            ) -> Result<(), Unfit> {
                copied(elements, voxels);
                Ok(())
            }

            fn of_f64(value: f64, rules: Rules) -> Option<Self> {
                let bytes = element_of(value, rules.element)?;
                Some(bytemuck::pod_read_unaligned(&bytes[..size_of::<Self>()]))
            }
        }
    )*};
}
raw_voxels!(i8, u16, u32, u64);

impl Voxel for f64 {
    type Planes<'a> = LinearPlanes<'a, Self>;

    fn of_elements(elements: Elements<'_>, _: Option<Linear>, voxels: &mut [Self], _: Rules) -> Result<(), Unfit> {
        copied(elements, voxels);
        Ok(())
    }

    fn of_f64(value: f64, _: Rules) -> Option<Self> {
        Some(value)
    }
}

impl Computed for f64 {
    fn of_f32(values: &[f32], voxels: &mut [Self], _: Rules) -> Result<(), Unfit> {
        voxels.iter_mut().zip(values).for_each(|(voxel, value)| *voxel = f64::from(*value));
        Ok(())
    }
}

/// The little-endian bytes of an element with this value, in front of zeros; `None` if its type cannot hold the value.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whether it fits is looked at after")]
pub(super) fn element_of(value: f64, element: Element) -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    macro_rules! put {
        ($number:expr, $back:expr) => {{
            let number = $number;
            let little = number.to_le_bytes();
            bytes[..little.len()].copy_from_slice(&little);
            $back(number) == value
        }};
    }
    let fits = match element {
        Element::F16 => put!(half::f16::from_f64(value), |_| value),
        Element::F32 => put!(value as f32, |_| value),
        Element::F64 => put!(value, |_| value),
        Element::I8 => put!(value as i8, f64::from),
        Element::I16 => put!(value as i16, f64::from),
        Element::I32 => put!(value as i32, f64::from),
        Element::I64 => put!(value as i64, |x: i64| x as f64),
        Element::U8 => put!(value as u8, f64::from),
        Element::U16 => put!(value as u16, f64::from),
        Element::U32 => put!(value as u32, f64::from),
        Element::U64 => put!(value as u64, |x: u64| x as f64),
        Element::Bool => put!(u8::from(value != 0.0), f64::from),
    };
    fits.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padding_is_an_element_or_none() {
        assert_eq!(element_of(-1.0, Element::I16), Some([255, 255, 0, 0, 0, 0, 0, 0]));
        assert_eq!(element_of(255.0, Element::U8), Some([255, 0, 0, 0, 0, 0, 0, 0]));
        for (value, element) in [
            (256.0, Element::U8),
            (-1.0, Element::U16),
            (0.5, Element::I32),
            (2.0, Element::Bool),
            (f64::NAN, Element::I8),
            (1e300, Element::U64),
        ] {
            assert_eq!(element_of(value, element), None, "{value} {element:?}");
        }
        assert_eq!(element_of(f64::NAN, Element::F32).unwrap()[..4], f32::NAN.to_le_bytes());
    }
}
