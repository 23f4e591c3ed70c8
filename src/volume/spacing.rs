//! The spacing of a volume's voxels as metadata tables spell it. Pure.

use super::kind::Geometry;

/// The largest relative difference of two in-plane spacings that count as equal: that of the same number in float32.
const EQUAL: f64 = 1e-6;

impl Geometry<'_> {
    /// The spacing along height, width and depth in mm: the first two numbers of `XYSpacing`, the first along the
    /// height, and `ZSpacing`. One number, or two that differ by rounding only, hold for both axes of the plane. `None`
    /// if there is no number for an axis, or one that is not finite and above 0.
    pub fn spacing(&self) -> Option<[f64; 3]> {
        let is_usable = |mm: &f64| mm.is_finite() && *mm > 0.0;
        let in_plane = numbers(self.xy_spacing).filter(|numbers| numbers.iter().all(is_usable))?;
        let [height, width] = match in_plane[..] {
            [both] => [both, both],
            [height, width] | [height, width, _] => [height, width],
            _ => return None,
        };
        let width = if (height - width).abs() <= EQUAL * height { height } else { width };
        Some([height, width, self.z_spacing]).filter(|_| is_usable(&self.z_spacing))
    }
}

/// The numbers of a list in any of the spellings of Python's: `0.7`, `[0.7, 0.7]`, `(0.7, 0.7)`, `['0.7', '0.7']`,
/// `[np.float64(0.7), np.float64(0.7)]`, NumPy's `[0.7 0.7]`, DICOM's `0.7\0.7`. `None` if anything else stands there,
/// or a bracket or a quote is not closed.
fn numbers(text: &str) -> Option<Vec<f64>> {
    let (mut open, mut numbers) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        match first {
            _ if is_between(first) => (),
            '[' => open.push(']'),
            '(' => open.push(')'),
            ']' | ')' => _ = open.pop().filter(|expected| *expected == first)?,
            '\'' | '"' if open.last() == Some(&first) => _ = open.pop(),
            '\'' | '"' => open.push(first),
            _ => {
                length = rest.find(|next| is_between(next) || "[(])'\"".contains(next)).unwrap_or(rest.len());
                let word = &rest[..length];
                match rest[length..].starts_with('(') {
                    true if first.is_ascii_alphabetic() => (), // the name of a type, as in `np.float64(0.7)`
                    true => return None,
                    false => numbers.push(number(word)?),
                }
            }
        }
        rest = &rest[length..];
    }
    open.is_empty().then_some(numbers)
}

/// Whether a character may stand between two numbers: a comma, a backslash, or white space, such as the no-break space
/// of spreadsheets.
fn is_between(character: char) -> bool {
    matches!(character, ',' | '\\') || character.is_whitespace()
}

/// A decimal number; not what Rust reads beside these (`inf`, `nan`).
fn number(word: &str) -> Option<f64> {
    word.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)).then(|| word.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spacing(xy_spacing: &str, z_spacing: f64) -> Option<[f64; 3]> {
        Geometry { slope: 1.0, intercept: 0.0, xy_spacing, z_spacing }.spacing()
    }

    #[test]
    fn every_spelling_of_two_numbers() {
        for (text, expected) in [
            ("0.7", [0.7, 0.7]),
            ("[0.7]", [0.7, 0.7]),
            ("(0.7,)", [0.7, 0.7]),
            (" [0.7, 0.7] ", [0.7, 0.7]),
            ("0.7, 0.7", [0.7, 0.7]),
            ("[0.7 0.7]", [0.7, 0.7]),
            ("0.7\\0.9", [0.7, 0.9]),
            ("[0.7, 0.7, 1.5]", [0.7, 0.7]),
            ("[0.7, 0.9]", [0.7, 0.9]),
            ("(0.7, 0.9)", [0.7, 0.9]),
            ("['0.7', \"0.9\"]", [0.7, 0.9]),
            ("[np.float64(0.7), np.float64(9e-1)]", [0.7, 0.9]),
            ("array([0.7, 0.9])", [0.7, 0.9]),
            ("[Decimal('0.7'), Decimal('0.9')]", [0.7, 0.9]),
            ("[0.7, 0.70000001]", [0.7, 0.7]),
            ("[+.7, 7e-1]", [0.7, 0.7]),
        ] {
            assert_eq!(spacing(text, 1.5), Some([expected[0], expected[1], 1.5]), "{text}");
        }
    }

    #[test]
    fn what_is_no_spacing() {
        for text in [
            "",
            "[]",
            "nan",
            "[nan, nan]",
            "[0, 0]",
            "0.0",
            "[0.7, 0]",
            "[-0.7, 0.7]",
            "[inf, 0.7]",
            "[0.7, 0.7",
            "0.7]",
            "(0.7]",
            "['0.7, 0.7]",
            "0.7 mm",
            "0.7x0.7",
            "[1, 2, 3, 4]",
            "[0.7, None]",
            "1e999",
            "np.float64",
            "--1",
        ] {
            assert_eq!(spacing(text, 1.5), None, "{text}");
        }
        for z in [0.0, -1.5, f64::NAN, f64::INFINITY] {
            assert_eq!(spacing("[0.7, 0.7]", z), None, "{z}");
        }
    }
}
