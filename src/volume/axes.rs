//! The order of a source array's axes, and of the numbers of a spacing. Pure.

use std::convert::Infallible;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The order of a source array's axes, or of the numbers that belong to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "UPPER")]
pub enum Axes {
    /// Height, width, depth.
    Hwd,
    /// Height, depth, width.
    Hdw,
    /// Width, height, depth.
    Whd,
    /// Width, depth, height.
    Wdh,
    /// Depth, height, width.
    Dhw,
    /// Depth, width, height.
    Dwh,
}

impl Axes {
    /// The number of each axis among height (0), width (1) and depth (2), in the array's order.
    pub fn order(self) -> [usize; 3] {
        match self {
            Self::Hwd => [0, 1, 2],
            Self::Hdw => [0, 2, 1],
            Self::Whd => [1, 0, 2],
            Self::Wdh => [1, 2, 0],
            Self::Dhw => [2, 0, 1],
            Self::Dwh => [2, 1, 0],
        }
    }

    /// The values of height, width and depth, of those of the array's axes in their order.
    pub fn hwd<T: Copy>(self, of_axes: [T; 3]) -> [T; 3] {
        let mut hwd = of_axes;
        for (axis, value) in self.order().into_iter().zip(of_axes) {
            hwd[axis] = value;
        }
        hwd
    }
}

/// The array of an NPZ file with the spacing, and the order of its numbers: `spacing`, or `spacing:WHD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpacingArray {
    /// The name of the array.
    pub name: String,
    /// The order of its numbers; by default that of the volume's axes.
    pub axes: Option<Axes>,
}

impl FromStr for SpacingArray {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let parts = text.rsplit_once(':');
        let ordered = parts.and_then(|(name, order)| Some((name, <Axes as ValueEnum>::from_str(order, true).ok()?)));
        let (name, axes) = ordered.map_or((text, None), |(name, axes)| (name, Some(axes)));
        Ok(Self { name: name.to_owned(), axes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_is_its_name() {
        for axes in Axes::value_variants() {
            let name = format!("{axes:?}").to_uppercase();
            let letters: Vec<char> = name.chars().collect();
            assert_eq!(axes.hwd([letters[0], letters[1], letters[2]]), ['H', 'W', 'D'], "{name}");
            assert_eq!(axes.to_possible_value().unwrap().get_name(), name);
        }
    }

    #[test]
    fn a_spacing_may_have_an_order() {
        let parse = |text: &str| text.parse::<SpacingArray>().unwrap();
        assert_eq!(parse("spacing"), SpacingArray { name: "spacing".into(), axes: None });
        assert_eq!(parse("spacing:whd"), SpacingArray { name: "spacing".into(), axes: Some(Axes::Whd) });
        assert_eq!(parse("a:b"), SpacingArray { name: "a:b".into(), axes: None });
    }
}
