//! The checks that the fuzzer and the replay of its corpus (`tests/corpus.rs`) run: each gives any bytes to a parser of
//! bytes that others wrote, and asserts what must hold of the answer. Not part of the interface.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use crate::dataset::tables::{self, Wanted};
use crate::dataset::{Columns, quarantine};
use crate::formats::codec::{BlockEntry, Decoder, Encoder, FOOTER, Filter, RowFilter, SeekTable};
use crate::formats::gzip::Gzip;
use crate::formats::inflate::Inflater;
use crate::formats::nifti;
use crate::formats::npz::{self, Payload, npy};
use crate::output::journal::Journals;

/// The bytes of the largest array that is unpacked: larger ones would only make the fuzzer slow.
const MAX_ARRAY: u64 = 16 << 20;

/// A check of one parser, which panics if what must hold of the parser's answer does not hold.
type Check = fn(&[u8]);

/// The checks of all fuzz targets, each with its name, which is also that of its corpus folder.
pub const TARGETS: [(&str, Check); 8] = [
    ("npy_header", npy_header),
    ("npz", npz),
    ("nifti_header", nifti_header),
    ("inflate", inflate),
    ("gzip", gzip),
    ("codec", codec),
    ("tables", tables),
    ("journal", journal),
];

/// Checks that every filter gives back any block, that any bytes in the place of a frame are refused or unpacked within
/// its block, and that an accepted seek table accounts for all bytes before it. The first five bytes choose filter and
/// row.
pub fn codec(bytes: &[u8]) {
    const NAMES: [&str; 11] = [
        "shuffle", "shuffle1", "shuffle4", "shuffle8", "predict", "predict1", "predict2", "predict4", "predict8",
        "split", "split2",
    ];
    let Some(([kind, row @ ..], block)) = bytes.split_first_chunk::<5>() else { return };
    let filter = Filter::of_extension(&format!("{}.zst", NAMES[usize::from(*kind) % NAMES.len()])).expect("a filter");
    let block = &block[..block.len() / filter.width() * filter.width()];
    let filter = RowFilter::new(filter, u64::from(u32::from_le_bytes(*row)));
    let mut encoder = Encoder::new("zstd".parse().expect("a codec")).expect("memory");
    let frame = encoder.encode(block, filter).expect("memory");
    let mut table = SeekTable::default();
    table.push(&frame, block.len());
    let (mut decoder, mut out) = (Decoder::new().expect("memory"), vec![0; block.len()]);
    if let Some((_, entry)) = table.covering(&(0..1)).next() {
        decoder.decode(entry, &frame, filter, &mut out).expect("what was packed");
        assert!(out == block, "{filter:?}");
        let _ = decoder.decode(&BlockEntry { checksum: None, ..entry.clone() }, block, filter, &mut out);
    }
    let Some(footer) = bytes.last_chunk::<FOOTER>() else { return };
    let Ok(len) = SeekTable::len_in(footer, bytes.len() as u64) else { return };
    let Ok(table) = SeekTable::parse(&bytes[bytes.len() - len..], bytes.len() as u64, filter.filter.mark_len()) else {
        return;
    };
    let _ = RowFilter::of_member(filter.filter, &table, |head| {
        *head = *bytes.first_chunk().ok_or_else(|| "it is short".to_owned())?;
        Ok(())
    });
    let packed: u64 = table.covering(&(0..u64::MAX)).map(|(_, entry)| entry.packed.end - entry.packed.start).sum();
    assert!(packed <= (bytes.len() - len) as u64);
}

/// Runs `check` on a file in memory that holds `bytes`, for parsers that take a path.
fn with_file(bytes: &[u8], check: impl FnOnce(&Path, &File)) {
    let memory = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory");
    let file = File::from(memory);
    file.write_all_at(bytes, 0).expect("memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
    check(&path, &file);
}

/// Checks that an accepted NPY header lies within the bytes, and reads as the same header when it is written again.
pub fn npy_header(bytes: &[u8]) {
    let Ok(header) = npy::parse(bytes) else { return };
    assert!(header.header_len <= bytes.len() as u64 && header.shape.len() <= 32);
    let mut again = b"\x93NUMPY\x02\x00".to_vec();
    let shape: String = header.shape.iter().map(|n| format!("{n}, ")).collect();
    let order = if header.fortran_order { "True" } else { "False" };
    let text = format!("{{'descr': '{}', 'fortran_order': {order}, 'shape': ({shape}), }}", header.descr());
    again.extend(u32::try_from(text.len()).expect("a short header").to_le_bytes());
    again.extend(text.bytes());
    let read = npy::parse(&again).expect("what was written");
    assert_eq!(npz::ArrayHeader { header_len: header.header_len, ..read }, header);
}

/// Checks that the member of an accepted volume lies within the file and has the length that its header gives, and that
/// reading it panics nowhere.
pub fn npz(bytes: &[u8]) {
    with_file(bytes, |path, file| {
        let Ok(array) = npz::inspect(path, &npz::ArrayChoice::default()) else { return };
        let member = &array.member;
        assert!(member.offset.checked_add(member.packed_len).is_some_and(|end| end <= bytes.len() as u64));
        assert_eq!(array.header.payload_len().map(|len| len + array.header.header_len), Some(member.len));
        if member.len > MAX_ARRAY {
            return;
        }
        let mut inflater = Inflater::new().expect("memory");
        let Ok(mut payload) = Payload::open(path, file, &array, &mut inflater) else { return };
        let mut chunk = vec![0; 10_000];
        while payload.remaining() > 0 {
            let len = chunk.len().min(crate::base::num::to_usize(payload.remaining()));
            if payload.read_exact(&mut chunk[..len]).is_err() {
                return;
            }
        }
        let _ = payload.finish();
    });
}

/// Checks that a deflate stream is unpacked to the bytes that `flate2` makes of it, or refused where `flate2` refuses
/// it; `tests/zlib_ng` and the fuzzer make `flate2` use zlib-ng. Bytes before a refusal are the same, too.
pub fn inflate(bytes: &[u8]) {
    let mut expected = Vec::with_capacity(64 + bytes.len() * 1032); // deflate cannot pack better
    let status = Decompress::new(false).decompress_vec(bytes, &mut expected, FlushDecompress::Finish);
    let mut inflater = Inflater::new().expect("memory");
    let (mut source, mut unpacked, mut piece) = (bytes, Vec::new(), vec![0; 10_000]);
    let is_whole = loop {
        match inflater.read(&mut source, &mut piece) {
            Ok(0) => break true,
            Ok(n) => unpacked.extend_from_slice(&piece[..n]),
            Err(_) => break false,
        }
    };
    assert_eq!(is_whole, matches!(status, Ok(Status::StreamEnd)), "{status:?}");
    assert!(if is_whole { unpacked == expected } else { expected.starts_with(&unpacked) });
}

/// Checks that an accepted NIfTI header says voxels behind itself, a finite map, a spacing that can be divided by, and
/// axes that lead to three directions or nowhere.
pub fn nifti_header(bytes: &[u8]) {
    let Ok(header) = nifti::parse(&bytes[..bytes.len().min(540)]) else { return };
    assert!(header.offset >= 352 && (1..=7).contains(&header.shape.len()));
    assert!(header.conversion.slope.is_finite() && header.conversion.slope != 0.0);
    assert!(header.conversion.intercept.is_finite());
    assert!(header.spacing.iter().flatten().all(|spacing| *spacing > 0.0 && spacing.is_finite()));
    let Ok(affine) = header.affine else { return };
    assert!(affine.iter().flatten().all(|entry| entry.is_finite()));
    if let Some(directions) = nifti::directions(affine) {
        assert!((0..3).all(|world| directions.iter().any(|direction| direction.world == world)));
    }
}

/// Checks that a gzip file is unpacked to the bytes that `flate2` makes of it, which refuses more: what stands behind
/// the last member, and headers with long names or wrong sums.
pub fn gzip(bytes: &[u8]) {
    let mut expected = Vec::new();
    let is_expected_whole = MultiGzDecoder::new(bytes).read_to_end(&mut expected).is_ok();
    let (mut inflater, mut gzip) = (Inflater::new().expect("memory"), Gzip::default());
    let (mut source, mut unpacked, mut piece) = (bytes, Vec::new(), vec![0; 10_000]);
    let is_whole = loop {
        match gzip.read(&mut inflater, &mut source, &mut piece) {
            Ok(n) => unpacked.extend_from_slice(&piece[..n]),
            Err(_) => break false,
        }
        if gzip.is_at_end() {
            break true;
        }
    };
    assert!(unpacked.starts_with(&expected) || expected.starts_with(&unpacked));
    assert!(!is_expected_whole || bytes.is_empty() || is_whole && unpacked == expected);
}

/// Checks that an accepted table has the columns that were asked for.
pub fn tables(bytes: &[u8]) {
    with_file(bytes, |path, _| {
        let _ = quarantine::read(path);
        let Columns { ids, texts, meta, .. } = Columns::default();
        for names in [&[][..], &texts, &meta[..1]] {
            let wanted = if names.is_empty() { Wanted::Classes(&[]) } else { Wanted::Named(names) };
            let Ok(table) = tables::load(&[path], &ids, &wanted) else { continue };
            assert!(names.is_empty() || table.columns == names);
            assert!(!table.columns.is_empty());
        }
    });
}

/// Checks that a journal is read by whole lines, so that bytes after the last line change nothing.
pub fn journal(bytes: &[u8]) {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let [all, cut] = [bytes, &bytes[..whole]].map(|text| format!("{:?}", Journals::parse(text)));
    assert_eq!(all, cut);
}
