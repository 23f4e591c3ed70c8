use std::io::Write;

use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::*;
use crate::base::num::to_usize;
use crate::formats::inflate::Inflater;
use crate::formats::npz::Payload;

/// A NIfTI-1 file of int16 with 0, 1, 2, … as voxels; `change` gets the header before it is written.
fn file_of(shape: [u16; 3], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = vec![0; 352];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &348u32.to_le_bytes());
    for (at, length) in [3, shape[0], shape[1], shape[2], 1, 1, 1, 1].iter().enumerate() {
        put(40 + 2 * at, &length.to_le_bytes());
    }
    put(70, &4u16.to_le_bytes());
    put(72, &16u16.to_le_bytes());
    for (at, spacing) in [1f32, 0.7, -0.8, 0.0].iter().enumerate() {
        put(76 + 4 * at, &spacing.to_le_bytes());
    }
    put(108, &352f32.to_le_bytes());
    put(112, &1f32.to_le_bytes());
    put(344, b"n+1\0");
    change(&mut bytes);
    let voxels: u16 = shape.iter().product();
    bytes.extend((0..voxels).flat_map(u16::to_le_bytes));
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What planning finds in a file of these bytes, and what reading it then gives.
fn read(bytes: &[u8], is_packed: bool) -> Result<(Array, Vec<u8>)> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let path = Path::new("v.nii");
    let array = inspect_file(path, &file, is_packed, &ArrayChoice::default())?;
    let mut inflater = Inflater::new().unwrap();
    let mut payload = Payload::open(path, &file, &array, &mut inflater)?;
    let mut values = vec![0; to_usize(payload.remaining())];
    for piece in values.chunks_mut(1000) {
        payload.read_exact(piece)?;
    }
    payload.finish()?;
    Ok((array, values))
}

fn reason(bytes: &[u8], is_packed: bool) -> String {
    read(bytes, is_packed).unwrap_err().to_string()
}

fn voxels(shape: [u16; 3]) -> Vec<u8> {
    (0..shape.iter().product()).flat_map(u16::to_le_bytes).collect()
}

const SHAPE: [u16; 3] = [7, 9, 11];

/// Numbers that look random, the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    /// A number from 0 on and below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        to_usize((mixed ^ mixed >> 31) % end as u64)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

#[test]
fn a_plain_and_a_packed_file_hold_the_same() {
    let file = file_of(SHAPE, |_| ());
    let (plain, values) = read(&file, false).unwrap();
    assert_eq!(values, voxels(SHAPE));
    assert_eq!((plain.member.crc, plain.conversion), (None, None));
    let spacing = plain.nifti.unwrap().spacing.unwrap();
    assert_eq!(spacing, [f64::from(0.7f32), f64::from(0.8f32), 1.0]);
    let (packed, values) = read(&gzip(&file), true).unwrap();
    assert_eq!(values, voxels(SHAPE));
    assert_eq!((packed.member.crc, packed.header), (Some(crc32fast::hash(&file)), plain.header));
}

#[test]
fn gzip_in_any_form_that_nibabel_reads() {
    let file = file_of(SHAPE, |_| ());
    let parts = |at: &[usize]| {
        let ends = at.iter().copied().chain([file.len()]);
        ends.scan(0, |from, to| Some(gzip(&file[std::mem::replace(from, to)..to]))).collect::<Vec<_>>()
    };
    let several = parts(&[1, 100, 400, 401]).concat();
    let zeros_between = parts(&[300]).join(&[0; 700][..]);
    let mut with_name =
        flate2::GzBuilder::new().filename("v.nii").comment("x").extra(vec![0; 5000]).buf_read(&file[..], Level::best());
    let mut named = Vec::new();
    with_name.read_to_end(&mut named).unwrap();
    let longer = [&file[..], &[7; 100_000]].concat();
    for (what, bytes, has_crc) in [
        ("several members", several, false),
        ("zeros between members", zeros_between, false),
        ("name, comment and extra field", named, true),
        ("zeros behind", [gzip(&file), vec![0; 1000]].concat(), false),
        ("other bytes behind", [gzip(&file), vec![9; 1000]].concat(), false),
        ("an empty member behind, as bgzip's", [gzip(&file), gzip(&[])].concat(), false),
        ("an empty member before", [gzip(&[]), gzip(&file)].concat(), true),
        ("more bytes in the member", gzip(&longer), false),
    ] {
        let (array, values) = read(&bytes, true).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(values, voxels(SHAPE), "{what}");
        assert_eq!(array.member.crc.is_some(), has_crc, "{what}");
    }
    // The last of two members is as long as the file should be, and its sum is not that of the voxels.
    let other = file_of(SHAPE, |header| header[0] = 7);
    assert!(reason(&[gzip(&file), gzip(&other)].concat(), true).contains("the file's end says"));
    let parts = [gzip(&file[..500]), gzip(&file[500..]), gzip(&file)].concat();
    assert!(reason(&parts, true).contains("the file's end says"));
}

#[test]
fn what_is_no_nifti_file_has_a_reason() {
    let file = file_of(SHAPE, |_| ());
    let with = |at: usize, field: &[u8]| file_of(SHAPE, |header| header[at..at + field.len()].copy_from_slice(field));
    for (bytes, is_packed, expected) in [
        (Vec::new(), false, "0 bytes, fewer than a NIfTI header"),
        (Vec::new(), true, "not compressed by gzip"),
        (file.clone(), true, "not compressed by gzip, as its name says"),
        (gzip(&file), false, "compressed by gzip; name it *.nii.gz"),
        (file[..file.len() - 1].to_vec(), false, "cut short"),
        (gzip(&file[..file.len() - 1]), true, "ends before the array does"),
        (gzip(&file)[..30].to_vec(), true, "the gzip data is cut"),
        (with(344, b"none"), false, "no NIfTI header"),
        (with(70, &32u16.to_le_bytes()), false, "complex64 (datatype 32)"),
        (with(70, &128u16.to_le_bytes()), false, "RGB (datatype 128)"),
        (with(70, &1536u16.to_le_bytes()), false, "float128 (datatype 1536)"),
        (with(40, &8u16.to_le_bytes()), false, "axes"),
        (with(42, &(-7i16).to_le_bytes()), false, "axis 1 has the length -7"),
        (with(44, &0u16.to_le_bytes()), false, "empty"),
        (with(40, &2u16.to_le_bytes()), false, "three dimensions"),
        (with(108, &0f32.to_le_bytes()), false, "begin at byte 0"),
        (with(108, &351.9f32.to_le_bytes()), false, "begin at byte 351"),
        (with(108, &f32::NAN.to_le_bytes()), false, "no place"),
        (with(108, &1e18f32.to_le_bytes()), false, "cut short"),
        (with(116, &f32::NAN.to_le_bytes()), false, "intercept NaN"),
        (gzip(&with(108, &1e18f32.to_le_bytes())), true, "more than its"),
    ] {
        let reason = reason(&bytes, is_packed);
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "as NumPy's astype")]
fn scaling_is_that_of_nibabel() {
    let scaled = |slope: f32, intercept: f32| {
        let change = |header: &mut [u8]| {
            header[112..116].copy_from_slice(&slope.to_le_bytes());
            header[116..120].copy_from_slice(&intercept.to_le_bytes());
        };
        let (array, values) = read(&file_of(SHAPE, change), false).unwrap();
        assert_eq!(array.nifti.unwrap().is_scaled, array.conversion.is_some());
        (array.conversion.is_some(), values)
    };
    for (slope, intercept) in [(0.0, 5.0), (-0.0, f32::NAN), (f32::NAN, 5.0), (f32::NEG_INFINITY, 5.0), (1.0, -0.0)] {
        assert!(scaled(slope, intercept) == (false, voxels(SHAPE)), "{slope} {intercept}");
    }
    for (slope, intercept) in [(1.0, -1024.0), (-0.5, 0.0), (1e-45, 3.0), (0.1, 0.1)] {
        let sum = |x: f64| if intercept == 0.0 { x } else { x + f64::from(intercept) };
        let value = |x: u16| sum(f64::from(x) * f64::from(slope)) as f32;
        let expected: Vec<u8> = (0..SHAPE.iter().product()).flat_map(|x| value(x).to_le_bytes()).collect();
        assert!(scaled(slope, intercept) == (true, expected), "{slope} {intercept}");
    }
}

#[test]
fn axes_of_length_one_go_as_those_of_an_npz() {
    let with_axes = |axes: &[u16]| {
        file_of(SHAPE, |header| {
            for (at, length) in axes.iter().enumerate() {
                header[40 + 2 * at..42 + 2 * at].copy_from_slice(&length.to_le_bytes());
            }
        })
    };
    for axes in [&[4, 7, 9, 11, 1][..], &[7, 7, 9, 11, 1, 1, 1, 1], &[3, 7, 9, 11, 5, 5, 5, 5]] {
        assert_eq!(read(&with_axes(axes), false).unwrap().0.shape(), [7, 9, 11]);
    }
    // As of the NPZ that NumPy makes of it.
    assert_eq!(read(&with_axes(&[4, 1, 63, 11, 1]), false).unwrap().0.shape(), [63, 11, 1]);
    assert_eq!(read(&with_axes(&[4, 1, 7, 9, 11]), false).unwrap().0.shape(), [7, 9, 11]);
    assert!(reason(&with_axes(&[4, 3, 3, 7, 11]), false).contains("--channel"));
}

/// A damaged file is refused, or gives the voxels that it gave before the damage.
#[test]
fn no_damage_of_a_packed_file_gives_other_voxels() {
    let mut random = Random(20_261_129);
    let file = file_of(SHAPE, |header| header[112..116].copy_from_slice(&0.5f32.to_le_bytes()));
    let (_, expected) = read(&file, false).unwrap();
    let one = gzip(&file);
    let two = [gzip(&file[..500]), gzip(&file[500..])].concat();
    let mut refused = 0;
    for round in 0..1500 {
        let mut bytes = if round % 2 == 0 { one.clone() } else { two.clone() };
        let len = bytes.len();
        // The first header, the end, or anywhere.
        let at = match round % 3 {
            0 => random.below(40),
            1 => len - 1 - random.below(12),
            _ => random.below(len),
        };
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.byte(),
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            _ => bytes[at..(at + 8).min(len)].fill(0),
        }
        match read(&bytes, true) {
            Ok((_, values)) => assert!(values == expected, "round {round}, byte {at}"),
            Err(Error::Malformed { .. }) => refused += 1,
            Err(other) => panic!("round {round}: {other}"),
        }
    }
    assert!((1000..1500).contains(&refused), "{refused}");
}

/// A header of any content is refused, or says an array that lies within the file.
#[test]
fn no_header_leads_out_of_its_file() {
    let mut random = Random(348);
    let mut accepted = 0;
    for round in 0..3000 {
        let mut bytes = file_of(SHAPE, |_| ());
        for _ in 0..1 + random.below(3) {
            const FIELDS: [(usize, usize); 7] = [(0, 4), (40, 16), (70, 4), (76, 16), (108, 12), (344, 4), (0, 352)];
            let (begin, len) = FIELDS[random.below(FIELDS.len())];
            let at = begin + random.below(len);
            bytes[at] = if random.below(2) == 0 { random.byte() } else { bytes[at] ^ (1 << random.below(8)) };
        }
        let is_packed = round % 2 == 0;
        let file = if is_packed { gzip(&bytes) } else { bytes };
        match read(&file, is_packed) {
            Ok((array, values)) => {
                assert_eq!(Some(values.len() as u64), array.header.payload_len());
                accepted += 1;
            }
            Err(Error::Malformed { .. }) => {}
            Err(other) => panic!("round {round}: {other}"),
        }
    }
    assert!((300..2900).contains(&accepted), "{accepted}");
}
