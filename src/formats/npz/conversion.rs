//! Elements that become float32 as they are read: those of NIfTI files, of which people made NPZ files by
//! `get_fdata().astype(np.float32)`. So a volume of either file has the same values, to the bit.

use serde::{Deserialize, Serialize};

use super::Element;

/// The values that are computed at a time, so that they stay in L1.
const BLOCK: usize = 1024;

/// The elements as a file has them, and the map to the values that they stand for: slope · x + intercept in float64, of
/// two roundings, then float32. A product with 1 and a sum with 0 are left out, as nibabel does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversion {
    /// The type of the elements in the file.
    pub element: Element,
    /// Whether the elements are stored with the most significant byte first.
    pub big_endian: bool,
    /// The slope; 1 where the header scales nothing.
    pub slope: f64,
    /// The intercept; 0 where the header scales nothing.
    pub intercept: f64,
}

impl Conversion {
    /// Whether the map changes values.
    pub fn is_scaled(&self) -> bool {
        (self.slope, self.intercept) != (1.0, 0.0)
    }

    /// Whether elements of this type and map must be converted: whatever is read of them as they are has other bits.
    /// Integers of 64 bits are rounded to float64 first, floats of 64 bits to float32, and NaN of 32 bits is quieted.
    pub fn is_needed(&self) -> bool {
        self.is_scaled() || self.element.is_float() || self.element.size() == 8
    }

    /// Converts the elements in `raw` to little-endian float32 in `out`, which holds as many.
    pub(super) fn apply(&self, raw: &[u8], out: &mut [u8]) {
        if let Some(intercept) = self.whole_intercept()
            && self.add_whole(raw, out, intercept)
        {
            return;
        }
        let mut wide = [0f64; BLOCK];
        for (raw, out) in raw.chunks(BLOCK * self.element.size()).zip(out.chunks_mut(BLOCK * 4)) {
            let wide = &mut wide[..out.len() / 4];
            self.widen(raw, wide);
            if self.slope != 1.0 {
                wide.iter_mut().for_each(|x| *x *= self.slope);
            }
            if self.intercept != 0.0 {
                wide.iter_mut().for_each(|x| *x += self.intercept);
            }
            for (out, x) in out.chunks_exact_mut(4).zip(wide) {
                #[expect(clippy::cast_possible_truncation, reason = "as NumPy's astype: beyond float32 is infinite")]
                out.copy_from_slice(&(*x as f32).to_le_bytes());
            }
        }
    }

    /// The intercept, where nothing is multiplied and float32 holds every sum with an integer of 16 bits as it is: so
    /// for CT, whose scanners' values begin at -1024 or so.
    fn whole_intercept(&self) -> Option<i32> {
        const MOST: f64 = 1_048_576.0;
        let is_whole = self.slope == 1.0 && self.intercept.fract() == 0.0 && self.intercept.abs() <= MOST;
        #[expect(clippy::cast_possible_truncation, reason = "a whole number in range")]
        is_whole.then_some(self.intercept as i32)
    }

    /// Converts integers of 8 or 16 bits, to which only `intercept` is added, without the way to float64; false, and
    /// nothing is done, for others.
    fn add_whole(&self, raw: &[u8], out: &mut [u8], intercept: i32) -> bool {
        fn each<const N: usize>(raw: &[u8], out: &mut [u8], value: impl Fn([u8; N]) -> i32) -> bool {
            for (bytes, out) in raw.chunks_exact(N).zip(out.chunks_exact_mut(4)) {
                let mut element = [0; N];
                element.copy_from_slice(bytes);
                out.copy_from_slice(&(value(element) as f32).to_le_bytes());
            }
            true
        }
        match (self.element, self.big_endian) {
            (Element::I8, _) => each(raw, out, |x| i32::from(i8::from_le_bytes(x)) + intercept),
            (Element::U8, _) => each(raw, out, |x| i32::from(u8::from_le_bytes(x)) + intercept),
            (Element::I16, false) => each(raw, out, |x| i32::from(i16::from_le_bytes(x)) + intercept),
            (Element::I16, true) => each(raw, out, |x| i32::from(i16::from_be_bytes(x)) + intercept),
            (Element::U16, false) => each(raw, out, |x| i32::from(u16::from_le_bytes(x)) + intercept),
            (Element::U16, true) => each(raw, out, |x| i32::from(u16::from_be_bytes(x)) + intercept),
            _ => false,
        }
    }

    fn widen(&self, raw: &[u8], wide: &mut [f64]) {
        macro_rules! each {
            ($type:ty, $wide:expr) => {
                if self.big_endian {
                    decode(raw, wide, |bytes| $wide(<$type>::from_be_bytes(bytes)))
                } else {
                    decode(raw, wide, |bytes| $wide(<$type>::from_le_bytes(bytes)))
                }
            };
        }
        match self.element {
            Element::I8 => each!(i8, f64::from),
            Element::U8 => each!(u8, f64::from),
            Element::I16 => each!(i16, f64::from),
            Element::U16 => each!(u16, f64::from),
            Element::I32 => each!(i32, f64::from),
            Element::U32 => each!(u32, f64::from),
            Element::I64 => each!(i64, |x| x as f64),
            Element::U64 => each!(u64, |x| x as f64),
            Element::F32 => each!(u32, quiet),
            Element::F64 => each!(f64, |x| x),
            // No NIfTI file has these two.
            Element::F16 => each!(u16, |x| half::f16::from_bits(x).to_f64()),
            Element::Bool => each!(u8, |x| f64::from(u8::from(x != 0))),
        }
    }
}

/// The value of a float32. A signalling NaN becomes a quiet one here already: a compiler may leave out the way to
/// float64 and back, which would do it.
fn quiet(bits: u32) -> f64 {
    const QUIET: u32 = 1 << 22;
    let x = f32::from_bits(bits);
    f64::from(if x.is_nan() { f32::from_bits(bits | QUIET) } else { x })
}

fn decode<const N: usize>(raw: &[u8], wide: &mut [f64], value: impl Fn([u8; N]) -> f64) {
    for (bytes, wide) in raw.chunks_exact(N).zip(wide) {
        let mut element = [0; N];
        element.copy_from_slice(bytes);
        *wide = value(element);
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "as NumPy's astype")]
mod tests {
    use super::*;

    fn converted(conversion: Conversion, raw: &[u8]) -> Vec<f32> {
        let mut out = vec![0; raw.len() / conversion.element.size() * 4];
        conversion.apply(raw, &mut out);
        out.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// Values of NumPy: `(raw.astype(np.float64) * slope + intercept).astype(np.float32)`.
    #[test]
    fn two_roundings_in_float64() {
        let of = |element, slope, intercept| Conversion { element, big_endian: false, slope, intercept };
        // A fused operation would give 0x3f800001 in place of 0x3f800000 for the second.
        let slope = f64::from(0.1f32);
        for raw in [-32768i16, -1, 0, 1, 7, 12_345, 32_767] {
            let expected = (f64::from(raw) * slope - 1024.0) as f32;
            assert_eq!(converted(of(Element::I16, slope, -1024.0), &raw.to_le_bytes()), [expected]);
            let mut big = of(Element::I16, slope, -1024.0);
            big.big_endian = true;
            assert_eq!(converted(big, &raw.to_be_bytes()), [expected]);
        }
        let many: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
        let expected: Vec<f32> = (0..5000u16).map(|x| (f64::from(x) * 0.5 + 3.0) as f32).collect();
        assert_eq!(converted(of(Element::U32, 0.5, 3.0), &many), expected);
    }

    #[test]
    fn small_whole_sums_are_those_of_float64() {
        for (element, intercept) in [Element::I8, Element::U8, Element::I16, Element::U16]
            .into_iter()
            .flat_map(|element| [-1_048_576.0, -1024.0, -0.5, 3.0, 1_048_577.0].map(|intercept| (element, intercept)))
        {
            for big_endian in [false, true] {
                let raw: Vec<u8> = (0..=u16::MAX).step_by(7).flat_map(|x| x.to_le_bytes()).collect();
                let conversion = Conversion { element, big_endian, slope: 1.0, intercept };
                let mut wide = vec![0.0; raw.len() / element.size()];
                conversion.widen(&raw, &mut wide);
                let expected: Vec<f32> = wide.iter().map(|x| (x + intercept) as f32).collect();
                assert_eq!(converted(conversion, &raw), expected, "{element:?} {intercept}");
            }
        }
    }

    #[test]
    fn what_float64_cannot_hold_is_rounded_twice() {
        let plain = |element| Conversion { element, big_endian: false, slope: 1.0, intercept: 0.0 };
        // To float64 it is a tie of float32's, which goes down to even; at once it would go up.
        let x = (1i64 << 54) + (1 << 30) + 1;
        assert_eq!(converted(plain(Element::I64), &x.to_le_bytes()), [(1u64 << 54) as f32]);
        assert_ne!(x as f32, (1u64 << 54) as f32);
        assert_eq!(converted(plain(Element::F64), &1e300f64.to_le_bytes()), [f32::INFINITY]);
    }

    #[test]
    fn signalling_nan_is_quieted() {
        let plain = Conversion { element: Element::F32, big_endian: false, slope: 1.0, intercept: 0.0 };
        let found = converted(plain, &0xff80_0001u32.to_le_bytes());
        assert_eq!(found[0].to_bits(), 0xffc0_0001);
        assert_eq!(converted(plain, &(-0.0f32).to_le_bytes())[0].to_bits(), 0x8000_0000);
    }
}
