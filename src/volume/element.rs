//! One element of an array from its value. Pure.

use crate::formats::npz::Element;

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
    (fits || element.is_float()).then_some(bytes)
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
