//! Values of flags that are several numbers.

use crate::volume::floats;

/// Values for height, width and depth.
pub(super) type Triple = [f64; 3];

/// Parses three positive numbers.
pub(super) fn positive(text: &str) -> std::result::Result<Triple, String> {
    floats::<3>(text).and_then(|values| {
        if values.iter().all(|value| *value > 0.0) { Ok(values) } else { Err("they must be positive".into()) }
    })
}

/// Parses two numbers in ascending order.
pub(super) fn range(text: &str) -> std::result::Result<[f64; 2], String> {
    floats::<2>(text).and_then(|[low, high]| {
        if low < high { Ok([low, high]) } else { Err("the first must be less than the second".into()) }
    })
}

/// Parses three positive whole numbers below 100,000.
pub(super) fn whole(text: &str) -> std::result::Result<Triple, String> {
    let is_size = |value: &f64| value.fract() == 0.0 && *value < 1e5;
    positive(text).and_then(|values| {
        if values.iter().all(is_size) { Ok(values) } else { Err("they must be whole numbers below 100,000".into()) }
    })
}
