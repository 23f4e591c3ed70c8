//! A folder of finished shards, plain or compressed, as a plan: its manifest says which samples there are, its shards
//! say where their bytes are. Reads headers and small members, no voxel.

mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::file_id::FileId;
use crate::base::num::to_usize;
use crate::base::parallel::try_map;
use crate::dataset::{Dataset, Extra, FinishedMembers, Inputs, JsonColumn, Origin, Sample, ScanProgress};
use crate::error::{Error, Result, later_version};
use crate::formats::codec::{Filter, Method};
use crate::output::manifest::{self, Manifest};
use crate::plan::members::{Member, Members, volume_filter, without_codec};
use crate::plan::{Options, Plan, ShardId};
use crate::storage::Store;
use crate::volume::{Overflow, Storage, VolumeMember, VoxelFormat, read_filter, read_table};
use walk::{TarMember, WindowReader};

/// The plan of the shards in `folder` of a store: the plan that they were made by, with the same digest. `threads`
/// threads read the headers of the shards; `progress` counts these.
///
/// # Errors
/// [`Error::Refused`] if the folder has no manifest, [`Error::Malformed`] if a shard is not what the manifest says,
/// [`Error::Io`] if a file cannot be read.
pub fn plan(folder: &Path, store: Arc<dyn Store>, threads: usize, progress: &ScanProgress) -> Result<Plan> {
    // Absolute, because a daemon leaves the folder that it was started in.
    let root = match store.is_remote(folder) {
        true => folder.to_owned(),
        false => std::path::absolute(folder).map_err(|error| Error::io(folder, "resolve the path", error))?,
    };
    let manifest = manifest::read_in(&*store, &root)?;
    let numbered: Vec<(ShardId, &manifest::ShardEntry)> = (0..).zip(&manifest.shards).collect();
    let voxels = manifest.voxel_format().map_err(|reason| Error::malformed(&root.join(manifest::NAME), reason))?;
    let members = match &manifest.members {
        None => Members::new(manifest.format, true, []),
        Some(named) => Members::of_extensions(manifest.format, named).ok_or_else(|| {
            let reason = format!("its samples have the members {}, which only another version reads", named.join(" "));
            Error::malformed(&root.join(manifest::NAME), reason)
        })?,
    };
    let made_of = (&manifest, voxels, &members);
    progress.begin("shards looked into", Some(numbered.len()));
    let samples = try_map(&numbered, threads, |(id, shard)| {
        let samples = read_samples((&*store, &root), made_of, *id, shard)?;
        progress.seen(1);
        Ok::<_, Error>(samples)
    })?;
    let samples: Vec<Sample> = samples.into_iter().flatten().collect();
    let slots = samples.iter().map(|s| s.slot).chain(manifest.left_out.iter().map(|left_out| left_out.slot));
    let slots = slots.max().map_or(0, |last| last + 1);
    let options = Options {
        samples_per_shard: manifest.samples_per_shard,
        format: manifest.format,
        overflow: Overflow::default(), // the voxels are made already
        labels_empty: manifest.label_names.is_empty() && members.place(Member::Labels).is_some(),
    };
    let sizes: Vec<u64> = manifest.shards.iter().map(|shard| shard.plain_size.unwrap_or(shard.size)).collect();
    let digests: Option<Vec<String>> = manifest.shards.iter().map(|shard| shard.plan_digest.clone()).collect();
    let digests =
        digests.ok_or_else(|| Error::malformed(&root.join(manifest::NAME), "it is that of a shuffled view"))?;
    let dataset = Dataset {
        root,
        store,
        samples,
        slots,
        selected: manifest.selection,
        left_out: manifest.left_out,
        unmatched: manifest.unmatched.into_iter().map(|unmatched| (unmatched.study_id, unmatched.not_in)).collect(),
        nearest: None,
        rows_without_volume: 0,
        label_names: manifest.label_names,
        missing_labels: Vec::new(),
        extras: members.extra_names().map(|name| Extra { name: name.to_owned(), root: PathBuf::new() }).collect(),
        text_columns: manifest.text_columns,
        extra_columns: manifest.extra_columns.into_iter().map(JsonColumn::of_shards).collect(),
        warnings: Vec::new(),
        inputs: Inputs::default(),
    };
    let plan = Plan::of_shards(dataset, options, manifest.plan_digest, digests)?;
    let plan = plan.with_values(manifest.value_groups);
    let planned: Vec<u64> = plan.shards.iter().map(|shard| shard.layout.len()).collect();
    if planned != sizes {
        let reason = "its sizes of plain shards are not those of the shards beside it; make them again";
        return Err(Error::malformed(&folder.join(manifest::NAME), reason));
    }
    Ok(plan)
}

/// Reads the samples of one shard from its headers and small members.
fn read_samples(
    (store, root): (&dyn Store, &Path),
    (manifest, voxels, members): (&Manifest, VoxelFormat, &Members),
    id: ShardId,
    shard: &manifest::ShardEntry,
) -> Result<Vec<Sample>> {
    // A name from a file must not lead out of the folder.
    if shard.name != Plan::shard_name(id) {
        return Err(Error::malformed(&root.join(manifest::NAME), format!("shard {id} is called {:?}", shard.name)));
    }
    let path = root.join(&shard.name);
    let file = store.open(&path).map_err(|error| Error::io(&path, "open the shard", error))?;
    let mut reader = WindowReader::new(&path, &*file);
    let file_id = reader.identity()?;
    if file_id.size != shard.size {
        let reason = format!("it has {} bytes, {} says {}", file_id.size, manifest::NAME, shard.size);
        return Err(Error::malformed(&path, reason));
    }
    let mut opened = OpenShard { path: &path, reader, manifest, voxels, members, file_id };
    let found = walk::members(&mut opened.reader, file_id.size)?;
    if found.len() != shard.samples.len() * members.count() {
        let reason = format!("it has {} members, {} has {} samples", found.len(), manifest::NAME, shard.samples.len());
        return Err(Error::malformed(&path, reason));
    }
    found
        .chunks_exact(members.count())
        .zip(&shard.samples)
        .map(|(found, listed)| opened.sample(id, found, listed))
        .collect()
}

/// The file of a shard, open for reading.
struct OpenShard<'a> {
    path: &'a Path,
    reader: WindowReader<'a>,
    manifest: &'a Manifest,
    voxels: VoxelFormat,
    /// The members that each sample has.
    members: &'a Members,
    file_id: FileId,
}

impl OpenShard<'_> {
    /// The sample whose members were found, as the manifest lists it.
    fn sample(&mut self, shard: ShardId, found: &[TarMember], listed: &manifest::SampleEntry) -> Result<Sample> {
        let (key, path) = (&listed.key, self.path);
        let other = |what: String| Error::malformed(path, format!("{what}: the shard is not that of the manifest"));
        let per_shard = self.manifest.samples_per_shard;
        let index = key.strip_prefix(&format!("{shard:06}_")).and_then(|index| index.parse().ok());
        let Some(index) = index.filter(|index: &u32| *index < per_shard) else {
            return Err(other(format!("a sample of key {key}")));
        };
        let (mut voxels, mut small, mut filter) = (Vec::new(), Vec::with_capacity(found.len()), None);
        for (member, tar_member) in self.members.list().iter().zip(found) {
            let name = format!("{key}.{}", self.members.extension(*member));
            if member.has_voxels() {
                voxels.push(self.with_voxels(*member, &name, tar_member)?);
                if *member == Member::Volume {
                    filter = voxels[0].storage.filter();
                }
                continue;
            }
            if tar_member.name != name {
                return Err(other(format!("member {} stands where {name} belongs", tar_member.name)));
            }
            let bytes = self.reader.read(tar_member.offset, to_usize(tar_member.len))?;
            small.push(match (member, filter) {
                (Member::Json, Some(filter)) => without_codec(bytes, filter).ok_or_else(|| {
                    Error::malformed(path, format!("{key}: its JSON names no codec and filter that this program knows"))
                })?,
                _ => bytes.to_vec(),
            });
        }
        let mut voxels = voxels.into_iter();
        let volume = voxels.next().ok_or_else(|| other(format!("{key}: it has no volume")))?;
        let no_crc = |_| other(format!("{key}: its source has the CRC-32 {:?}", listed.source_crc32));
        let npz_crc = match &*listed.source_crc32 {
            "" => None, // an NPY file
            crc => Some(u32::from_str_radix(crc, 16).map_err(no_crc)?),
        };
        let finished = FinishedMembers {
            volume,
            extras: voxels.collect(),
            kind: self.manifest.volume_kind,
            format: self.voxels,
            dialect: self.manifest.value_groups.as_ref().and_then(|_| listed.dialect()),
            small,
            npz_size: listed.source_size,
            npz_crc,
        };
        Ok(Sample {
            slot: shard * per_shard + index,
            study_id: listed.study_id.clone(),
            path: PathBuf::from(&listed.source),
            origin: Origin::Finished(Box::new(finished)),
        })
    }

    /// The place of a member with voxels, which is plain and has this name, or compressed and has a suffix behind it.
    fn with_voxels(&mut self, member: Member, name: &str, found: &TarMember) -> Result<VolumeMember> {
        let path = self.path;
        let other = |what: String| Error::malformed(path, format!("{what}: the shard is not that of the manifest"));
        let Some(rest) = found.name.strip_prefix(name) else {
            return Err(other(format!("member {} stands where {name} belongs", found.name)));
        };
        let added = rest.strip_prefix('.');
        if let Some(unknown) = added.and_then(Filter::unknown) {
            let reason = later_version(format_args!("{}: the filter {unknown}", found.name));
            return Err(Error::malformed(self.path, reason));
        }
        let filter = added.and_then(Filter::of_extension);
        if filter.is_none() && !rest.is_empty() {
            return Err(other(format!("member {} stands where {name} belongs", found.name)));
        }
        let known = [Method::Shuffle, Method::Predict, Method::Split].map(|method| volume_filter(method, self.voxels));
        if member == Member::Volume && filter.is_some_and(|filter| !known.contains(&filter)) {
            let dtype = self.voxels.name();
            return Err(other(format!("{name}: its volume is not filtered as voxels of {dtype} are")));
        }
        let (offset, file_id) = (found.offset, self.file_id);
        let file = PathBuf::from(self.path.file_name().unwrap_or_default());
        let Some(filter) = filter else {
            return Ok(VolumeMember { file, file_id, offset, len: found.len, storage: Storage::Plain });
        };
        let mut read = |out: &mut [u8], at| self.reader.read(at, out.len()).map(|bytes| out.copy_from_slice(bytes));
        let table = read_table(path, (offset, found.len), filter, &mut read)?;
        let filter = read_filter(path, (offset, filter), &table, &mut read)?;
        let (packed_len, largest, table_crc) = (found.len, table.largest(), table.crc());
        let storage = Storage::Blocks { packed_len, largest, filter, table_crc };
        Ok(VolumeMember { file, file_id, offset, len: table.plain_len(), storage })
    }
}
