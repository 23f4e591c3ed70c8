//! The cache as a whole, on a real folder.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::format::{BLOCK, PAGE, file_len, header_len};
use super::*;
use crate::formats::codec::{Filter, Method};

/// The memory of a volume, as the memory cache gives it.
struct Memory {
    bytes: Vec<u8>,
    published: usize,
    is_cancelled: bool,
}

impl Sink for Memory {
    fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.published..]
    }

    fn publish(&mut self, len: usize) {
        self.published += len;
    }

    fn cancelled(&mut self) -> bool {
        self.is_cancelled
    }
}

struct Folder {
    temporary: tempfile::TempDir,
    is_packed: bool,
}

impl Folder {
    fn new() -> Self {
        Self { temporary: tempfile::tempdir().unwrap(), is_packed: false }
    }

    /// A folder of plain volumes, and one of packed ones.
    fn both() -> [Self; 2] {
        [Self::new(), Self { is_packed: true, ..Self::new() }]
    }

    fn path(&self) -> PathBuf {
        self.temporary.path().join("cache")
    }

    fn cache(&self, limit: Option<u64>) -> DiskCache {
        let request =
            Request { folder: &self.path(), limit, waiting: 1 << 30, is_packed: self.is_packed, forbidden: &[] };
        DiskCache::open(request).unwrap()
    }

    fn file(&self, number: u8) -> PathBuf {
        self.path().join(name_of(&digest(number)))
    }

    /// The names of all files but the tag, sorted.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.filter(|name| name != place::TAG).collect();
        names.sort();
        names
    }
}

fn digest(number: u8) -> VolumeDigest {
    [number; 32]
}

fn volume(number: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251 + usize::from(number)) % 256).unwrap()).collect()
}

/// What packs volumes of single bytes.
fn filter() -> RowFilter {
    RowFilter::new(Filter::new(Method::Predict, 1, false), 100)
}

/// Keeps a volume, and waits until it is written or given up.
fn keep(cache: &DiskCache, number: u8, len: usize) {
    let before = cache.stats();
    cache.keep(digest(number), volume(number, len).into(), filter());
    let until = Instant::now() + Duration::from_secs(20);
    let done = |stats: &DiskCacheStats| stats.kept + stats.skipped + stats.errors;
    while done(&cache.stats()) == done(&before) || cache.stats().waiting_bytes > 0 {
        assert!(Instant::now() < until, "not written: {:?}", cache.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The volume as the cache fills it; `None` if it must be made.
fn filled(cache: &DiskCache, number: u8, len: usize) -> Option<Vec<u8>> {
    let mut memory = Memory { bytes: vec![0xee; len], published: 0, is_cancelled: false };
    match cache.fill(&digest(number), &mut memory) {
        Some(Filled::Complete) => {
            assert_eq!(memory.published, len);
            Some(memory.bytes)
        }
        Some(Filled::Cancelled) => panic!("nobody has cancelled"),
        None => {
            assert_eq!(memory.published, 0, "a byte was handed on of a volume that cannot be had");
            None
        }
    }
}

fn set_used(file: &std::path::Path, ago: u64) {
    let time = SystemTime::now() - Duration::from_secs(ago);
    File::open(file).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_volume_comes_back_in_this_process_and_the_next() {
    Folder::both().iter().for_each(comes_back);
}

fn comes_back(folder: &Folder) {
    for (number, len) in [(1, 1), (2, BLOCK), (3, 3 * BLOCK + 77)] {
        let cache = folder.cache(None);
        assert!(filled(&cache, number, len).is_none());
        keep(&cache, number, len);
        assert_eq!(filled(&cache, number, len), Some(volume(number, len)));
        drop(cache);
        let cache = folder.cache(None);
        assert!(cache.has(&digest(number)));
        assert_eq!(filled(&cache, number, len), Some(volume(number, len)));
        assert_eq!((cache.stats().hits, cache.stats().misses, cache.stats().errors), (1, 0, 0));
        for (offset, part) in [(0, 1), (len / 2, len - len / 2), (len - 1, 1), (len / 3, len / 3)] {
            let mut out = vec![0; part];
            cache.peek(&digest(number), len as u64, offset as u64, &mut out).unwrap();
            assert_eq!(out, volume(number, len)[offset..offset + part]);
        }
        assert_eq!(fs::metadata(folder.file(number)).unwrap().mode() & 0o777, 0o600);
    }
    let found = contents(&folder.path()).unwrap();
    assert_eq!((found.volumes.len(), found.unfinished, found.foreign), (3, 0, 0));
}

#[test]
fn damage_anywhere_is_noticed_and_mended() {
    let len = BLOCK + 5000;
    let header = header_len(len as u64);
    let places = (0..header).step_by(61).chain([header, header + 1, header + BLOCK - 1, header + BLOCK]);
    is_noticed_and_mended(&Folder::new(), len, places, [0, 1, header - 1, header, header + BLOCK]);
}

#[test]
fn damage_anywhere_of_a_packed_volume_is_noticed_and_mended() {
    let [_, folder] = Folder::both();
    let len = 3000; // few enough bytes to damage each behind the header
    keep(&folder.cache(None), 9, len);
    let size = usize::try_from(fs::metadata(folder.file(9)).unwrap().len()).unwrap();
    assert!(size < PAGE + len && size > PAGE + 60, "{size}");
    let places = (0..PAGE).step_by(61).chain(PAGE..size);
    is_noticed_and_mended(&folder, len, places, [0, 1, PAGE - 1, PAGE, PAGE + 20, size - 9]);
}

/// Damages the file of a volume at each of these places, and cuts it to these lengths.
fn is_noticed_and_mended(
    folder: &Folder,
    len: usize,
    places: impl Iterator<Item = usize>,
    cuts: impl IntoIterator<Item = usize>,
) {
    let cache = folder.cache(None);
    keep(&cache, 1, len);
    let right = fs::read(folder.file(1)).unwrap();
    let damaged = |at: usize| {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        (format!("byte {at}"), wrong)
    };
    let mut damages: Vec<(String, Vec<u8>)> = places.chain([right.len() - 1]).map(damaged).collect();
    for cut in cuts.into_iter().chain([right.len() - 1]) {
        damages.push((format!("cut at {cut}"), right[..cut].to_vec()));
    }
    damages.push(("longer".into(), [&right[..], b"x"].concat()));
    damages.push(("foreign".into(), b"no volume at all".repeat(40_000)));
    for (errors, (what, wrong)) in (1..).zip(damages) {
        fs::write(folder.file(1), wrong).unwrap();
        assert!(filled(&cache, 1, len).is_none(), "{what}");
        assert_eq!(cache.stats().errors, errors, "{what}");
        assert!(!cache.has(&digest(1)) && !folder.file(1).exists(), "{what}");
        keep(&cache, 1, len);
        assert_eq!(filled(&cache, 1, len), Some(volume(1, len)), "{what}");
        assert_eq!(fs::read(folder.file(1)).unwrap(), right, "{what}");
    }
}

#[test]
fn both_forms_stand_side_by_side() {
    let [plain, _] = Folder::both();
    let len = 2 * BLOCK + 10;
    keep(&plain.cache(None), 1, len);
    let packed = Folder { is_packed: true, ..plain };
    let cache = packed.cache(None);
    keep(&cache, 2, len);
    let size = |number| fs::metadata(packed.file(number)).unwrap().len();
    assert_eq!(size(1), file_len(len as u64));
    assert!(size(2) < size(1) / 2 && cache.stats().bytes == size(1) + size(2));
    let packed = Folder { is_packed: false, ..packed };
    for cache in [cache, packed.cache(None)] {
        assert_eq!([1, 2].map(|number| filled(&cache, number, len)), [1, 2].map(|number| Some(volume(number, len))));
    }
}

#[test]
fn a_file_under_the_name_of_another_is_noticed() {
    let folder = Folder::new();
    let cache = folder.cache(None);
    keep(&cache, 1, 9000);
    fs::rename(folder.file(1), folder.file(2)).unwrap();
    assert!(filled(&cache, 2, 9000).is_none());
    assert!(filled(&cache, 1, 9000).is_none(), "it is gone");
    keep(&cache, 1, 9000);
    assert!(filled(&cache, 1, 9001).is_none(), "of another length");
    fs::create_dir(folder.file(3)).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.file(4)).unwrap();
    assert!(filled(&cache, 3, 9000).is_none() && filled(&cache, 4, 9000).is_none());
}

#[test]
fn the_least_recently_used_make_room() {
    let folder = Folder::new();
    let len = 100_000;
    let each = file_len(len as u64);
    {
        let cache = folder.cache(None);
        for number in 1..=4 {
            keep(&cache, number, len);
            set_used(&folder.file(number), 1000 - u64::from(number));
        }
    }
    let cache = folder.cache(Some(4 * each));
    assert!(filled(&cache, 1, len).is_some(), "now used last");
    assert!(fs::metadata(folder.file(1)).unwrap().modified().unwrap().elapsed().unwrap() < Duration::from_secs(100));
    keep(&cache, 5, len);
    keep(&cache, 6, len);
    let names = [1, 4, 5, 6].map(|number| name_of(&digest(number)));
    assert_eq!(folder.names(), names);
    assert_eq!((cache.stats().bytes, cache.stats().volumes, cache.stats().removed), (4 * each, 4, 2));
    keep(&cache, 7, 5 * len); // larger than all
    assert_eq!((folder.names(), cache.stats().skipped), (names.to_vec(), 1));
    drop(cache);
    let cache = folder.cache(Some(2 * each)); // less than there is
    keep(&cache, 8, len);
    assert_eq!((folder.names().len(), cache.stats().bytes), (2, 2 * each));
}

#[test]
fn two_caches_share_a_folder() {
    let folder = Folder::new();
    let (one, other) = (folder.cache(None), folder.cache(None));
    let len = 300_000;
    std::thread::scope(|scope| {
        for cache in [&one, &other] {
            scope.spawn(move || (1..=20).for_each(|number| keep(cache, number, len)));
        }
    });
    for cache in [&one, &other] {
        (1..=20).for_each(|number| assert_eq!(filled(cache, number, len), Some(volume(number, len))));
        assert_eq!(cache.stats().errors, 0);
    }
    // What one removes, the other makes anew; what one writes, the other finds.
    fs::remove_file(folder.file(3)).unwrap();
    assert!(filled(&one, 3, len).is_none());
    keep(&one, 3, len);
    assert_eq!(filled(&other, 3, len), Some(volume(3, len)));
    keep(&one, 30, len);
    assert!(!other.has(&digest(30)));
    assert_eq!(filled(&other, 30, len), Some(volume(30, len)));
    assert!(other.has(&digest(30)));
}

#[test]
fn what_killed_writers_left_goes_and_other_files_stay() {
    let folder = Folder::new();
    drop(folder.cache(None));
    let this = crate::base::partial_name::Writer::this_process();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let running = this.name(&name_of(&digest(1)), 0);
    let left = running.replace(&format!("-{}-", this.process), &format!("-{}-", child.id()));
    for file in [&*left, &*running, "notes.txt", "shard-000000.tar"] {
        fs::write(folder.path().join(file), "x").unwrap();
    }
    let found = contents(&folder.path()).unwrap();
    assert_eq!((found.unfinished, found.foreign), (1, 2));
    let cache = folder.cache(None);
    assert!(!folder.path().join(&left).exists() && folder.path().join(&running).exists());
    keep(&cache, 1, 5000); // under another temporary name
    assert_eq!(filled(&cache, 1, 5000), Some(volume(1, 5000)));
    let cleared = clear(&folder.path()).unwrap();
    assert_eq!(cleared, Cleared { volumes: 1, bytes: file_len(5000), unfinished: 0, foreign: 2 });
    assert_eq!(folder.names(), [running, "notes.txt".into(), "shard-000000.tar".into()]);
}

#[test]
fn a_fill_that_nobody_wants_ends() {
    let folder = Folder::new();
    let cache = folder.cache(None);
    keep(&cache, 1, 2 * BLOCK);
    let mut memory = Memory { bytes: vec![0; 2 * BLOCK], published: 0, is_cancelled: true };
    assert_eq!(cache.fill(&digest(1), &mut memory), Some(Filled::Cancelled));
    assert!(memory.published == 0 && cache.has(&digest(1)));
}

#[test]
fn what_waits_is_written_when_the_cache_is_closed() {
    let folder = Folder::new();
    let cache = folder.cache(None);
    (1..=10).for_each(|number| cache.keep(digest(number), volume(number, 100_000).into(), filter()));
    cache.close();
    assert_eq!((folder.names().len(), cache.stats().kept), (10, 10));
    cache.keep(digest(11), volume(11, 10).into(), filter());
    assert_eq!(cache.stats().skipped, 1);
}

#[test]
fn what_has_no_room_as_it_is_is_packed_while_processors_idle() {
    let (folder, len) = (Folder::new(), 3 * BLOCK);
    let plain = file_len(len as u64);
    let cache = folder.cache(Some(3 * plain));
    let kept_len = || {
        let _ = fs::remove_file(folder.file(1));
        assert_eq!(filled(&cache, 1, len), None); // which notes that the file is gone
        keep(&cache, 1, len);
        fs::metadata(folder.file(1)).unwrap().len()
    };
    assert_eq!(kept_len(), plain);
    cache.expect(4 * plain);
    // Beside other tests, the thread may have to wait for a processor: then some are kept as they are.
    let deadline = Instant::now() + Duration::from_secs(120);
    while kept_len() == plain {
        assert!(Instant::now() < deadline, "there was no time when processors idled");
    }
    assert_eq!(filled(&cache, 1, len), Some(volume(1, len)));
    cache.expect(3 * plain);
    assert_eq!(kept_len(), plain);
}
