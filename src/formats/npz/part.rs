//! The part of an array that is the volume: axes of length 1 are taken away, and one channel of several is taken. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most channels of an array: more are no channels, and a turn of them would not fit the memory for reading.
const MOST_CHANNELS: u64 = 1024;

/// An end of an array's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The first axis.
    First,
    /// The last axis.
    Last,
}

/// The channel that is taken of arrays with four axes longer than 1. As text it is the value of `--channel`: `N` or
/// `first:N` for the first axis, `last:N` for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The axis of the channels as the user named it; unnamed, it is the first, unless the last is shorter.
    pub axis: Option<End>,
    /// The number of the channel, from 0 on.
    pub index: u64,
}

impl FromStr for Channel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (axis, number) = match text.split_once(':') {
            Some(("first", number)) => (Some(End::First), number),
            Some(("last", number)) => (Some(End::Last), number),
            Some(_) => (None, ""),
            None => (None, text),
        };
        let index = number.parse().map_err(|_| "expected N, first:N or last:N with a number from 0 on")?;
        Ok(Self { axis, index })
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.axis {
            None => write!(f, "{}", self.index),
            Some(End::First) => write!(f, "first:{}", self.index),
            Some(End::Last) => write!(f, "last:{}", self.index),
        }
    }
}

/// One channel of several in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The channel as it was asked for.
    pub asked: Channel,
    /// The axis of the channels.
    pub axis: End,
    /// The number of channels.
    pub count: u64,
    /// Whether the channels' elements take turns in the file; else each channel's lie together.
    pub is_interleaved: bool,
}

impl Part {
    /// Whether the channels are along the last axis; else they are along the first.
    pub fn is_last(&self) -> bool {
        self.axis == End::Last
    }

    /// The channel with the name of its axis, however it was asked for.
    pub fn channel(&self) -> Channel {
        Channel { axis: Some(self.axis), index: self.asked.index }
    }
}

/// The three axes of the volume in an array of this shape, and the part of the array that it is, if not all. Axes of
/// length 1 are taken away from the first axis on, until three are left.
///
/// # Errors
/// The reason why the array is no volume, with the remedy if there is one.
pub(in crate::formats) fn of_shape(
    shape: &[u64],
    is_fortran: bool,
    channel: Option<Channel>,
) -> Result<(Vec<u64>, Option<Part>), String> {
    let mut axes = shape.to_vec();
    while axes.len() > 3
        && let Some(single) = axes.iter().position(|&length| length == 1)
    {
        axes.remove(single);
    }
    match (axes.len(), channel) {
        (3, None | Some(Channel { index: 0, .. })) => Ok((axes, None)),
        (3, Some(Channel { index, .. })) => {
            Err(format!("it has one channel, and --channel asks for number {index}; they count from 0"))
        }
        (4, Some(asked)) => one_channel(axes, is_fortran, asked),
        (4, None) => {
            let what = "four of its axes are longer than 1";
            Err(format!(
                "{what}; --channel N takes number N (from 0 on) of the first axis, --channel last:N of the last"
            ))
        }
        (..3, _) => Err("a volume has three dimensions".into()),
        (more, _) => Err(format!("a volume has three dimensions, and {more} of its axes are longer than 1")),
    }
}

fn one_channel(mut axes: Vec<u64>, is_fortran: bool, asked: Channel) -> Result<(Vec<u64>, Option<Part>), String> {
    if asked.axis.is_none() && axes[3] < axes[0] {
        return Err(format!(
            "its last axis is shorter than its first, and may be that of the channels; --channel last:{index} or \
             --channel first:{index} says which is",
            index = asked.index
        ));
    }
    let axis = asked.axis.unwrap_or(End::First);
    let count = axes.remove(if axis == End::First { 0 } else { 3 });
    if asked.index >= count {
        let index = asked.index;
        return Err(format!("it has {count} channels, and --channel asks for number {index}; they count from 0"));
    }
    if count > MOST_CHANNELS {
        return Err(format!("its axis of channels has length {count}, and at most {MOST_CHANNELS} channels are read"));
    }
    let is_interleaved = (axis == End::First) == is_fortran;
    Ok((axes, Some(Part { asked, axis, count, is_interleaved })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(shape: &[u64]) -> Vec<u64> {
        of_shape(shape, false, None).unwrap().0
    }

    #[test]
    fn axes_of_length_one_go_from_the_first_on_until_three_are_left() {
        assert_eq!(axes(&[512, 512, 1]), [512, 512, 1]);
        assert_eq!(axes(&[1, 1, 1]), [1, 1, 1]);
        assert_eq!(axes(&[1, 512, 512, 1]), [512, 512, 1]);
        assert_eq!(axes(&[1, 1, 5, 6, 7, 1]), [5, 6, 7]);
        assert_eq!(axes(&[5, 1, 6, 1, 1]), [5, 6, 1]);
        assert!(of_shape(&[1, 7], false, None).unwrap_err().contains("three dimensions"));
        assert!(of_shape(&[2, 3, 4, 5, 6], false, None).unwrap_err().contains("5 of its axes"));
    }

    #[test]
    fn channels_are_taken_where_the_user_says_so() {
        let take = |shape: &[u64], fortran, text: &str| of_shape(shape, fortran, Some(text.parse().unwrap()));
        let part = |shape: &[u64], fortran, text| take(shape, fortran, text).unwrap().1.unwrap().is_interleaved;
        assert_eq!(take(&[2, 1, 5, 6, 7], false, "1").unwrap().0, [5, 6, 7]);
        assert!(!part(&[2, 5, 6, 7], false, "1") && part(&[2, 5, 6, 7], true, "1"));
        assert!(part(&[5, 6, 7, 2], false, "last:1") && !part(&[5, 6, 7, 2], true, "last:1"));
        assert_eq!(take(&[5, 6, 7], false, "0").unwrap(), (vec![5, 6, 7], None));
        for (shape, text, says) in [
            (&[5, 6, 7, 2][..], "1", "--channel last:1"),
            (&[2, 5, 6, 7], "2", "2 channels"),
            (&[1, 5, 6, 7], "1", "one channel"),
            (&[1025, 5, 6, 7], "first:1", "at most 1024"),
        ] {
            assert!(take(shape, false, text).unwrap_err().contains(says), "{shape:?} {text}");
        }
        assert!(of_shape(&[2, 5, 6, 7], false, None).unwrap_err().contains("--channel N"));
        for text in ["", "-1", "a", "middle:1", "last:", "1.0"] {
            assert!(text.parse::<Channel>().is_err(), "{text}");
        }
        for text in ["0", "first:3", "last:12"] {
            assert_eq!(text.parse::<Channel>().unwrap().to_string(), text);
        }
    }
}
