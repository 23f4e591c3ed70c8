//! Voxels of the array's own dtype: the elements as they are, for extras. The types of unsigned and 8-bit integers
//! stand for elements of their size, whatever these are; floats that are resampled have their own. And which voxels of
//! a resampled volume are computed, and which are copied.

use bytemuck::Pod;

use super::cast::{self, Linear, Unfit};
use super::element::element_of;
use super::linear_planes::LinearPlanes;
use super::nearest_planes::NearestPlanes;
use super::planes::InPlanes;
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
    /// Whether the voxels, or elements, are no whole numbers.
    pub fn is_float(self) -> bool {
        match self {
            Self::Voxels(format) => !format.is_integer(),
            Self::Own(element) => element.is_float(),
        }
    }

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
        use crate::volume::{ArrayFormat, VoxelFormat};
        let is_computed = $volume.recipe.kind().is_resampled();
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
        impl InPlanes for $type {
            type Planes<'a> = NearestPlanes<'a, Self>;
        }

        impl Voxel for $type {
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

macro_rules! computed_voxels {
    ($($type:ty),*) => {$(
        impl InPlanes for $type {
            type Planes<'a> = LinearPlanes<'a, Self>;
        }
    )*};
}
computed_voxels!(half::f16, f32, f64, i16, u8);

impl Voxel for f64 {
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
