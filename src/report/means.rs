//! The memory that a report takes, and so how many threads work on it.

use bytesize::ByteSize;

use super::Request;
use crate::base::num::to_usize;
use crate::dataset::Sample;
use crate::error::{Error, Result, shown};
use crate::plan::Plan;
use crate::plan::members::Member;
use crate::volume::{ArrayFormat, DECODER_SCRATCH, NpzVolume, Overflow, Volume, VoxelFormat};

/// Volumes of so many bytes fit into what every command has, whatever the limits are.
const LEAST: u64 = 128 << 20;

/// The memory for volumes is counted in units that are a multiple of the kernel's pages.
const COUNTED: u64 = 64 << 10;

/// What a thread takes for the largest volume of a report, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    /// For the volume, and to make it.
    volume: u64,
    /// For the same volume in float32, if it is made of a file.
    source: u64,
}

/// What a report works with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Means {
    /// The number of threads.
    pub(super) threads: usize,
    /// The memory for volumes, in bytes, without those in float32.
    pub(super) cache_bytes: u64,
}

impl Means {
    /// The means for these samples: as many threads as are asked for and as half of the memory is enough for, and at
    /// least one. Each has one volume at a time, as its shard holds it and, of those that are shown, in float32.
    ///
    /// # Errors
    /// [`Error::Refused`] if the memory is not enough for one volume.
    pub(super) fn new(plan: &Plan, request: &Request, chosen: &[usize]) -> Result<Self> {
        let samples = chosen.iter().map(|index| &plan.dataset.samples[*index]);
        let needs: Vec<(Needs, &Sample)> = samples.map(|sample| (Needs::new(plan, sample), sample)).collect();
        let Some((largest, sample)) = needs.iter().max_by_key(|(needs, _)| needs.all()) else {
            return Ok(Self { threads: 1, cache_bytes: 0 });
        };
        let memory = request.memory.max(LEAST);
        if largest.all() > memory {
            let beside = match largest.source {
                0 => String::new(),
                bytes => format!(", and its source in float32 {}", ByteSize(bytes)),
            };
            return Err(Error::Refused(format!(
                "{}: its volume takes {}{beside}; this process may use {} for volumes: raise the limit (the memory of \
                 the job or the container, or ulimit -v), or leave the volume out with --exclude",
                shown(&sample.study_id),
                ByteSize(largest.volume),
                ByteSize(memory),
            )));
        }
        let threads = to_usize(memory / 2 / largest.all().max(1)).clamp(1, request.threads);
        if threads < request.threads {
            log::warn!(
                "report works with {threads} of {} threads: each takes up to {} for a volume, and this process may use \
                 {}; half of that is taken",
                request.threads,
                ByteSize(largest.all()),
                ByteSize(memory)
            );
        }
        let volume = needs.iter().map(|(needs, _)| needs.volume).fold(0, u64::max);
        Ok(Self { threads, cache_bytes: threads as u64 * volume.next_multiple_of(COUNTED) })
    }
}

impl Needs {
    fn new(plan: &Plan, sample: &Sample) -> Self {
        let volume = plan.volume(sample, Member::Volume);
        let source = in_float32(&volume).map_or(0, |source| source.byte_len() + beyond(source.scratch_bytes()));
        Self { volume: volume.byte_len() + beyond(volume.scratch_bytes()), source }
    }

    fn all(self) -> u64 {
        self.volume + self.source
    }
}

/// What a volume takes beside itself while it is made, without what every thread may take.
fn beyond(scratch: u64) -> u64 {
    scratch.saturating_sub(DECODER_SCRATCH)
}

/// A volume in float32, as its shard has it but for rounding; `None` for a finished shard, beside which there is no
/// file.
pub(super) fn in_float32<'a>(volume: &Volume<'a>) -> Option<NpzVolume<'a>> {
    let Volume::Npz(volume) = volume else { return None };
    let format = ArrayFormat::Voxels(VoxelFormat::Float32);
    Some(NpzVolume { format, overflow: Overflow::default(), ..volume.clone() })
}
