//! Where the axes of an array lead in the body, and how an array is turned so that they lead elsewhere. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The letters of each direction of the body, of NIfTI's world: towards lower values, and towards higher ones.
const LETTERS: [[char; 2]; 3] = [['L', 'R'], ['P', 'A'], ['I', 'S']];

/// A direction of the body that an axis leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// The axis of the world: left-right (0), posterior-anterior (1), inferior-superior (2).
    pub world: usize,
    /// Whether the axis runs against it.
    pub is_reversed: bool,
}

/// The directions that a volume's axes are to lead to. As text it is the value of `--orientation`: `keep`, or three
/// letters such as `LPS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Orientation {
    /// The directions of the file.
    Keep,
    /// One for each axis.
    Along([Direction; 3]),
}

impl FromStr for Orientation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("keep") {
            return Ok(Self::Keep);
        }
        let wrong = || "expected keep, or three letters such as LPS: one of L and R, one of P and A, one of I and S";
        let letters: Vec<char> = text.to_ascii_uppercase().chars().collect();
        let direction = |letter: &char| {
            let world = LETTERS.iter().position(|letters| letters.contains(letter))?;
            Some(Direction { world, is_reversed: LETTERS[world][0] == *letter })
        };
        let directions: Option<Vec<Direction>> = letters.iter().map(direction).collect();
        let directions: [Direction; 3] = directions.and_then(|found| found.try_into().ok()).ok_or_else(wrong)?;
        let is_there = |world: usize| directions.iter().any(|direction| direction.world == world);
        if (0..3).all(is_there) { Ok(Self::Along(directions)) } else { Err(wrong().into()) }
    }
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Along(directions) => {
                directions.iter().try_for_each(|at| write!(f, "{}", LETTERS[at.world][usize::from(!at.is_reversed)]))
            }
        }
    }
}

/// How the array of a volume is made of that in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// For each axis of the array, the axis in the file.
    pub axes: [usize; 3],
    /// For each axis of the array, whether it runs against the axis in the file.
    pub flipped: [bool; 3],
}

impl Turn {
    /// The turn from axes that lead to `from` to those that lead to `to`; `None` if nothing changes.
    pub fn new(from: [Direction; 3], to: [Direction; 3]) -> Option<Self> {
        let mut turn = Self { axes: [0, 1, 2], flipped: [false; 3] };
        for (at, wanted) in to.iter().enumerate() {
            let axis = from.iter().position(|found| found.world == wanted.world).unwrap_or(at);
            turn.axes[at] = axis;
            turn.flipped[at] = from[axis].is_reversed != wanted.is_reversed;
        }
        (turn.axes != [0, 1, 2] || turn.flipped != [false; 3]).then_some(turn)
    }

    /// Values of the file's axes in the order of the array's.
    pub fn of_axes<T: Copy>(&self, values: [T; 3]) -> [T; 3] {
        self.axes.map(|axis| values[axis])
    }

    /// Values of the array's axes in the order of the file's.
    pub fn in_file<T: Copy>(&self, values: [T; 3]) -> [T; 3] {
        let mut of_file = values;
        for (axis, value) in self.axes.into_iter().zip(values) {
            of_file[axis] = value;
        }
        of_file
    }
}

/// The place of a volume's array in the body, where the user asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// The orientation as it was asked for.
    pub asked: Orientation,
    /// How the array is made of that in the file; `None` if it is the one in the file.
    pub turn: Option<Turn>,
    /// The upper three rows of the matrix from the array's indexes to the world, in mm.
    pub affine: [[f64; 4]; 3],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_48_orientations_and_nothing_else() {
        let mut found = 0;
        for a in "LRPAISX".chars() {
            for (b, c) in "LRPAISX".chars().flat_map(|b| "LRPAISX".chars().map(move |c| (b, c))) {
                let text: String = [a, b, c].iter().collect();
                let Ok(orientation) = text.parse::<Orientation>() else { continue };
                assert_eq!(orientation.to_string(), text);
                assert_eq!(text.to_lowercase().parse(), Ok(orientation));
                found += 1;
            }
        }
        assert_eq!(found, 48);
        assert_eq!("keep".parse(), Ok(Orientation::Keep));
        assert!(["", "LP", "LPSS", "LRS", "ras+"].iter().all(|text| text.parse::<Orientation>().is_err()));
    }

    #[test]
    fn a_turn_leads_from_one_to_the_other() {
        let along = |text: &str| match text.parse() {
            Ok(Orientation::Along(directions)) => directions,
            _ => panic!("{text}"),
        };
        assert_eq!(Turn::new(along("LAS"), along("LAS")), None);
        let turn = Turn::new(along("LAS"), along("RPS")).unwrap();
        assert_eq!(turn, Turn { axes: [0, 1, 2], flipped: [true, true, false] });
        // Of a sagittal scan: the first axis leads to the front, the second down, the third to the left.
        let turn = Turn::new(along("AIL"), along("LPS")).unwrap();
        assert_eq!(turn, Turn { axes: [2, 0, 1], flipped: [false, true, true] });
        assert_eq!(turn.of_axes(['a', 'i', 'l']), ['l', 'a', 'i']);
        assert_eq!(turn.in_file(['l', 'a', 'i']), ['a', 'i', 'l']);
    }
}
