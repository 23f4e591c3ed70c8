//! The shards of a plan, and the threads that fill their volumes.

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use bytes::Bytes;
use ctwds_fs::commands;
use ctwds_fs::dataset::{Condition, Sample};
use ctwds_fs::error::Error;
use ctwds_fs::plan::members::Member;
use ctwds_fs::plan::{Plan, shuffle};
use ctwds_fs::shard::{Serving, ShardSet};
use half::f16;
use half::slice::HalfFloatSliceExt;
use numpy::{PyArray1, PyReadwriteArray1};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{exception, raised};

/// Bytes between two parts of a volume that are read with them, because that is quicker than a second read.
const GAP: u64 = 128 << 10;

/// A plan: which samples there are, and all of them but the voxels. Nothing of it changes, in any process.
#[pyclass(frozen, module = "ctwds._native")]
pub(crate) struct Shards {
    plan: Arc<Plan>,
}

#[pymethods]
impl Shards {
    /// Plans what the flags of `ctwds-fs plan` name, and returns the warnings.
    #[staticmethod]
    fn planned(py: Python<'_>, flags: Vec<OsString>) -> PyResult<(Self, Vec<String>)> {
        let mut warnings = Vec::new();
        let plan = py.detach(|| commands::plan_of(flags, |warning| warnings.push(warning.to_owned())));
        let plan = plan.map_err(|error| raised(py, &error))?;
        Ok((Self { plan: Arc::new(plan) }, warnings))
    }

    /// SHA-256 of all that determines the bytes, in hexadecimal.
    #[getter]
    fn digest(&self) -> &str {
        &self.plan.digest
    }

    /// The dtype of the voxels.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.plan.voxel_format().name()
    }

    /// The kind of the volumes.
    #[getter]
    fn kind(&self) -> String {
        format!("{:?}", self.plan.kind()).to_lowercase()
    }

    /// The study ids, in the order of the data set.
    fn ids(&self) -> Vec<&str> {
        self.samples().iter().map(|sample| &*sample.study_id).collect()
    }

    /// The names of the classes.
    fn label_names(&self) -> Vec<&str> {
        self.plan.dataset.label_names.iter().map(String::as_str).collect()
    }

    /// The names of the arrays beside the volumes.
    fn extra_names(&self) -> Vec<&str> {
        self.plan.members.extra_names().collect()
    }

    /// The studies that are left out, each with the reason.
    fn left_out(&self) -> Vec<(&str, &str)> {
        self.plan.dataset.left_out.iter().map(|left_out| (&*left_out.study_id, &*left_out.reason)).collect()
    }

    /// The bytes of JSON, text and labels of a sample.
    fn small<'py>(&self, py: Python<'py>, sample: usize) -> PyResult<[Bound<'py, PyBytes>; 3]> {
        let found = self.sample(py, sample)?;
        let payload = |member| PyBytes::new(py, &self.plan.members.payload(member, found));
        Ok([payload(Member::Json), payload(Member::Text), payload(Member::Labels)])
    }

    /// The bytes of the volume's member, or of an extra's by its number.
    #[pyo3(signature = (sample, extra=None))]
    fn member_size(&self, py: Python<'_>, sample: usize, extra: Option<u8>) -> PyResult<u64> {
        self.sample(py, sample)?;
        Ok(self.plan.member_size(sample, member(extra)))
    }

    /// The bytes of the largest volume or extra.
    fn largest(&self) -> u64 {
        let members = || self.plan.members.with_voxels();
        let sizes = |sample| members().map(move |member| self.plan.member_size(sample, member));
        (0..self.samples().len()).flat_map(sizes).max().unwrap_or(0)
    }

    /// The samples in the order of an epoch, as `ctwds-fs mount --shuffle-seed` has it.
    fn order<'py>(&self, py: Python<'py>, seed: u64, epoch: u64) -> Bound<'py, PyArray1<u32>> {
        let count = u32::try_from(self.samples().len()).unwrap_or(u32::MAX);
        PyArray1::from_vec(py, py.detach(|| shuffle::order(seed, epoch, count)))
    }

    /// The samples whose labels fulfil a condition, as `ctwds-fs --where` understands it.
    fn chosen(&self, py: Python<'_>, condition: &str) -> PyResult<Vec<usize>> {
        let wrong = |reason: String| exception(py, "UsageError", &format!("where: {reason}"));
        let condition: Condition = condition.parse().map_err(wrong)?;
        let classes = &self.plan.dataset.label_names;
        let rows: Vec<Vec<f32>> = self.samples().iter().map(|sample| self.labels(sample)).collect();
        condition.chosen(classes, rows.iter().map(Vec::as_slice)).map_err(wrong)
    }

    /// Starts `threads` threads that fill volumes, with `cache` bytes for them.
    fn decoders(&self, py: Python<'_>, threads: usize, cache: u64) -> PyResult<Decoders> {
        let serving = Serving { cache_bytes: cache, threads, read_ahead: 0, read_once: true };
        let set = ShardSet::new(self.plan.clone(), serving).and_then(|set| set.check_memory("cache").map(|()| set));
        let set = set.map_err(|error| raised(py, &error))?;
        Ok(Decoders { set: ManuallyDrop::new(set), pid: std::process::id() })
    }
}

impl Shards {
    fn samples(&self) -> &[Sample] {
        &self.plan.dataset.samples
    }

    fn sample(&self, py: Python<'_>, sample: usize) -> PyResult<&Sample> {
        self.samples().get(sample).ok_or_else(|| no_sample(py, sample))
    }

    /// The labels of a sample, which stand at the end of their member.
    fn labels(&self, sample: &Sample) -> Vec<f32> {
        let payload = self.plan.members.payload(Member::Labels, sample);
        let start = payload.len().saturating_sub(4 * self.plan.dataset.label_names.len());
        payload[start..].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

fn no_sample(py: Python<'_>, sample: usize) -> PyErr {
    exception(py, "UsageError", &format!("there is no sample number {sample}"))
}

fn member(extra: Option<u8>) -> Member {
    extra.map_or(Member::Volume, Member::Extra)
}

/// The threads that fill the volumes of a plan, and the volumes that they keep; of one process.
#[pyclass(frozen, module = "ctwds._native")]
pub(crate) struct Decoders {
    set: ManuallyDrop<ShardSet>,
    /// The process that has the threads.
    pid: u32,
}

#[pymethods]
impl Decoders {
    /// Fills `out` with the bytes of a member from `from_end` bytes before its end on.
    #[pyo3(signature = (sample, from_end, out, extra=None))]
    fn read_into(
        &self,
        py: Python<'_>,
        sample: usize,
        from_end: u64,
        mut out: PyReadwriteArray1<'_, u8>,
        extra: Option<u8>,
    ) -> PyResult<()> {
        let out = out.as_slice_mut()?;
        let len = out.len();
        self.with(py, move |set| {
            let bytes = read(set, (sample, member(extra)), from_end, len, Wanted::Whole)?;
            out.copy_from_slice(&bytes);
            Ok(())
        })
    }

    /// Fills `out` with float16 voxels, as float32, from `from_end` bytes before the end of the volume's member on.
    fn read_wide(
        &self,
        py: Python<'_>,
        sample: usize,
        from_end: u64,
        mut out: PyReadwriteArray1<'_, f32>,
    ) -> PyResult<()> {
        let out = out.as_slice_mut()?;
        self.with(py, move |set| {
            let bytes = read(set, (sample, Member::Volume), from_end, 2 * out.len(), Wanted::Whole)?;
            widen(&bytes, out);
            Ok(())
        })
    }

    /// Fills `out` with a box of a volume in C order. `of` is the volume's shape and the bytes of a voxel, `between`
    /// the first place of the box, and that behind its last.
    fn read_box(
        &self,
        py: Python<'_>,
        sample: usize,
        of: ([u64; 3], u64),
        between: ([u64; 3], [u64; 3]),
        mut out: PyReadwriteArray1<'_, u8>,
    ) -> PyResult<()> {
        let ((shape, size), (start, stop)) = (of, between);
        let out = out.as_slice_mut()?;
        let wanted = (0..3).map(|axis| stop[axis].saturating_sub(start[axis])).product::<u64>() * size;
        if (0..3).any(|axis| stop[axis] > shape[axis]) || wanted != out.len() as u64 || wanted == 0 {
            return Err(exception(py, "UsageError", "the box is not in the volume, or the array has another size"));
        }
        self.with(py, move |set| Box3 { shape, size, start, stop }.read(set, sample, out))
    }

    /// Counters: volumes decoded, bytes of memory for volumes, and the most of these at one time.
    fn stats(&self) -> (u64, u64, u64) {
        let stats = self.set.stats();
        (stats.volumes_decoded, stats.cache_bytes, stats.cache_peak_bytes)
    }
}

impl Decoders {
    /// Runs `work` without Python's lock.
    fn with(&self, py: Python<'_>, work: impl FnOnce(&ShardSet) -> Result<(), Error> + Send) -> PyResult<()> {
        if self.pid != std::process::id() {
            return Err(exception(py, "Error", "these decoders are of the process that forked; open the data again"));
        }
        let set: &ShardSet = &self.set;
        py.detach(|| work(set)).map_err(|error| raised(py, &error))
    }
}

impl Drop for Decoders {
    /// Ends the threads. A process that forked has none of them, and would wait for them for ever.
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // SAFETY: the set is not used again: this is its owner's end.
            unsafe { ManuallyDrop::drop(&mut self.set) };
        }
    }
}

/// How much of a volume a reader wants.
#[derive(Clone, Copy)]
enum Wanted {
    /// All of it.
    Whole,
    /// No more than these bytes.
    Excerpt,
}

/// Reads `len` bytes of a member from `from_end` bytes before its end on.
fn read(
    set: &ShardSet,
    (sample, member): (usize, Member),
    from_end: u64,
    len: usize,
    wanted: Wanted,
) -> Result<Bytes, Error> {
    let plan = set.plan();
    let range = if sample < plan.dataset.samples.len() { plan.member_range(sample, member) } else { None };
    let (shard, range) = range.ok_or_else(|| Error::Refused(format!("there is no sample number {sample}")))?;
    let start = range.end.checked_sub(from_end).filter(|start| *start >= range.start);
    let start = start.filter(|start| start + len as u64 <= range.end);
    let start = start.ok_or_else(|| Error::Internal("a read beyond a member".into()))?;
    let bytes = match wanted {
        Wanted::Whole => set.read(shard, start, len),
        Wanted::Excerpt => set.read_excerpt(shard, start, len),
    }?;
    if bytes.len() == len { Ok(bytes) } else { Err(Error::Internal("a read gave fewer bytes".into())) }
}

/// Converts float16, little-endian, to float32.
fn widen(bytes: &[u8], out: &mut [f32]) {
    match bytemuck::try_cast_slice::<u8, f16>(bytes) {
        Ok(voxels) if cfg!(target_endian = "little") => voxels.convert_to_f32_slice(out),
        _ => {
            for (voxel, out) in bytes.as_chunks().0.iter().zip(out) {
                *out = f16::from_le_bytes(*voxel).to_f32();
            }
        }
    }
}

/// A box of a volume.
struct Box3 {
    /// The volume's shape.
    shape: [u64; 3],
    /// The bytes of a voxel.
    size: u64,
    start: [u64; 3],
    stop: [u64; 3],
}

impl Box3 {
    /// The bytes from a plane's first wanted voxel to its last.
    fn span(&self, plane: u64) -> (u64, u64) {
        let [_, rows, columns] = self.shape;
        let at = |row: u64, column: u64| ((plane * rows + row) * columns + column) * self.size;
        (at(self.start[1], self.start[2]), at(self.stop[1] - 1, self.stop[2]))
    }

    /// Reads the box: planes that lie close together at once.
    fn read(&self, set: &ShardSet, sample: usize, out: &mut [u8]) -> Result<(), Error> {
        let total = self.shape.iter().product::<u64>() * self.size;
        let plane_len = out.len() / usize::try_from(self.stop[0] - self.start[0]).unwrap_or(usize::MAX);
        let mut outs = out.chunks_mut(plane_len.max(1));
        let mut plane = self.start[0];
        while plane < self.stop[0] {
            let mut last = plane;
            while last + 1 < self.stop[0] && self.span(last + 1).0 <= self.span(last).1 + GAP {
                last += 1;
            }
            let (start, end) = (self.span(plane).0, self.span(last).1);
            let len = usize::try_from(end - start).unwrap_or(usize::MAX);
            let bytes = read(set, (sample, Member::Volume), total - start, len, Wanted::Excerpt)?;
            for (plane, out) in (plane..=last).zip(&mut outs) {
                self.copy_plane(&bytes, self.span(plane).0 - start, out);
            }
            plane = last + 1;
        }
        Ok(())
    }

    /// Copies the rows of a plane, whose first wanted voxel is at `first` of `bytes`.
    fn copy_plane(&self, bytes: &[u8], first: u64, out: &mut [u8]) {
        let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let len = index((self.stop[2] - self.start[2]) * self.size);
        let step = index(self.shape[2] * self.size);
        for (row, out) in out.chunks_exact_mut(len).enumerate() {
            let at = index(first) + row * step;
            out.copy_from_slice(&bytes[at..at + len]);
        }
    }
}
