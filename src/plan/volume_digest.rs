//! The digest by which a volume that was made is found again, whatever plan, shard or slot it stands in. Pure.
//!
//! It is SHA-256 over fields, each behind its length, in this order:
//!
//! 1. `ctwds-fs volume 1`, and the version of the program: what makes volumes may be mended.
//! 2. Of an array with a checksum: its path relative to the data folder, and the file's modification time; the folder
//!    may be elsewhere another time. Of one without: the absolute path, and the file's times and inode, as nothing else
//!    tells that the content is another one.
//! 3. How the array is packed, where in the file, and its lengths.
//! 4. The file's size; the array's name, CRC-32 and header; the elements of a NIfTI file; the channel; the recipe: as
//!    in the digest of a sample.
//! 5. The format of the voxels or values, and what becomes of values that they cannot hold.
//!
//! Of a volume in a finished shard file: 1., the absolute path or the address, the file's size, times and inode (of an
//! object, its size and what stands for its `ETag`), and the member's place and storage.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Plan;
use super::digest_text::DigestText;
use super::digests::{FieldHasher, add_array};
use super::members::Member;
use crate::base::file_id::FileId;
use crate::formats::npz::Compression;
use crate::volume::{ArrayFormat, NpzVolume, ShardVolume, Storage, Volume};

/// The meaning of the fields; another one for another list of them.
const DEFINITION: &[u8] = b"ctwds-fs volume 1";

impl Plan {
    /// The digests of all volumes and extras, by [`Plan::volume_number`]. Relative paths start at `here`.
    pub fn volume_digests(&self, here: &Path) -> Vec<[u8; 32]> {
        let count = self.dataset.samples.len() * self.members.with_voxels().count();
        let digest = |number| {
            let (sample, member) = self.volume_numbered(number);
            match self.volume(&self.dataset.samples[sample], member) {
                Volume::Npz(volume) => of_array(&volume, self.root_of(member), here, env!("CARGO_PKG_VERSION")),
                Volume::Shard(volume) => of_shard(&volume, here, env!("CARGO_PKG_VERSION")),
            }
        };
        (0..count).map(digest).collect()
    }

    /// The folder that the paths of volumes, or of an extra, are relative to.
    fn root_of(&self, member: Member) -> &Path {
        match member {
            Member::Extra(number) => &self.dataset.extras[usize::from(number)].root,
            _ => &self.dataset.root,
        }
    }
}

fn begin(version: &str) -> FieldHasher {
    let mut fields = FieldHasher::new();
    fields.add(DEFINITION);
    fields.add(version.as_bytes());
    fields
}

/// The digest of a volume that is made of an array of a file below `root`.
fn of_array(volume: &NpzVolume<'_>, root: &Path, here: &Path, version: &str) -> [u8; 32] {
    let NpzVolume { store, path, array, recipe, format, overflow } = volume;
    let (member, id) = (&array.member, &array.file_id);
    let mut fields = begin(version);
    let is_remote = store.is_remote(path);
    if member.crc.is_some() && !is_remote {
        fields.add(path.strip_prefix(root).unwrap_or(path).as_os_str().as_bytes());
        fields.add(format!("mtime {}", id.mtime_ns).as_bytes());
    } else {
        // An address is whole; it only stands where a path stands. Of an object, the state has the `ETag`.
        let path = if is_remote { path.clone() } else { here.join(path) };
        fields.add(path.as_os_str().as_bytes());
        fields.add(state(id).as_bytes());
    }
    let packing = match member.compression {
        Compression::Stored => "stored",
        Compression::Deflated => "deflated",
        Compression::Gzip => "gzip",
    };
    fields.add(format!("{packing} {} {} {}", member.offset, member.packed_len, member.len).as_bytes());
    add_array(&mut fields, array, recipe);
    fields.add(
        match format {
            ArrayFormat::Voxels(format) => format.digest_text(),
            ArrayFormat::Own(element) => format!("Own {}", element.descr(false)),
        }
        .as_bytes(),
    );
    fields.add(overflow.digest_text().as_bytes());
    fields.finish()
}

/// The digest of a volume in a finished shard file.
fn of_shard(volume: &ShardVolume<'_>, here: &Path, version: &str) -> [u8; 32] {
    let member = volume.member;
    let mut fields = begin(version);
    // An address is whole; it only stands where a path stands.
    let path = if volume.store.is_remote(&volume.path) { volume.path.clone() } else { here.join(&volume.path) };
    fields.add(path.as_os_str().as_bytes());
    fields.add(state(&member.file_id).as_bytes());
    let storage = match &member.storage {
        Storage::Plain => "plain".to_owned(),
        Storage::Blocks { packed_len, table_crc, .. } => {
            let crc = table_crc.map_or_else(String::new, |crc| crc.to_string());
            format!("blocks {packed_len} {crc}")
        }
    };
    fields.add(format!("member {} {} {} {storage}", member.file_id.size, member.offset, member.len).as_bytes());
    fields.finish()
}

/// The times and the inode of a file.
fn state(id: &FileId) -> String {
    format!("mtime {} ctime {} inode {}", id.mtime_ns, id.ctime_ns, id.inode)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::formats::npz::{Array, ArrayHeader, Channel, Element, End, Part, ZipMember};
    use crate::storage::Files;
    use crate::volume::{Axes, Overflow, Recipe, VolumeMember, VoxelFormat};

    const ID: FileId = FileId { size: 900, mtime_ns: 5, ctime_ns: 6, inode: 7 };

    fn array() -> Array {
        Array {
            member: ZipMember {
                name: "data".into(),
                compression: Compression::Deflated,
                offset: 43,
                packed_len: 800,
                len: 1128,
                crc: Some(0x1234_5678),
            },
            header: ArrayHeader {
                element: Element::F32,
                big_endian: false,
                fortran_order: true,
                shape: vec![5, 5, 10],
                header_len: 128,
            },
            part: None,
            spacing: None,
            conversion: None,
            nifti: None,
            file_id: ID,
        }
    }

    fn digest<'a>(array: &'a Array, change: impl Fn(&mut NpzVolume<'a>)) -> [u8; 32] {
        let mut volume = NpzVolume {
            store: &Files,
            path: PathBuf::from("/data/a/x.npz"),
            array,
            recipe: &Recipe::Stored,
            format: ArrayFormat::Voxels(VoxelFormat::Float16),
            overflow: Overflow::Error,
        };
        change(&mut volume);
        of_array(&volume, Path::new("/data"), Path::new("/here"), "1.2.3")
    }

    /// The digest of fields, written apart from the code above.
    fn of_fields(fields: &[&[u8]]) -> [u8; 32] {
        let mut hasher = FieldHasher::new();
        fields.iter().for_each(|field| hasher.add(field));
        hasher.finish()
    }

    #[test]
    fn the_fields_are_as_the_definition_has_them() {
        let fields: [&[u8]; 11] = [
            b"ctwds-fs volume 1",
            b"1.2.3",
            b"a/x.npz",
            b"mtime 5",
            b"deflated 43 800 1128",
            &900u64.to_le_bytes(),
            b"data",
            &0x1234_5678u32.to_le_bytes(),
            b"<f4 true [5, 5, 10]",
            b"Voxels Float16",
            b"Error",
        ];
        assert_eq!(digest(&array(), |_| ()), of_fields(&fields));
        let mut npy = array();
        npy.member = ZipMember { name: String::new(), compression: Compression::Stored, crc: None, ..npy.member };
        let mut of_npy = fields;
        of_npy[2] = b"/here/d/x.npy";
        of_npy[3] = b"mtime 5 ctime 6 inode 7";
        of_npy[4] = b"stored 43 800 1128";
        of_npy[6] = b"";
        of_npy[7] = b"";
        assert_eq!(digest(&npy, |volume| volume.path = "d/x.npy".into()), of_fields(&of_npy));
        let member = VolumeMember { file: "s.tar".into(), file_id: ID, offset: 512, len: 77, storage: Storage::Plain };
        let shard = ShardVolume { store: &Files, path: "out/s.tar".into(), member: &member };
        let of_plain: [&[u8]; 5] = [
            b"ctwds-fs volume 1",
            b"1.2.3",
            b"/here/out/s.tar",
            b"mtime 5 ctime 6 inode 7",
            b"member 900 512 77 plain",
        ];
        assert_eq!(of_shard(&shard, Path::new("/here"), "1.2.3"), of_fields(&of_plain));
    }

    #[test]
    fn whatever_changes_a_voxel_changes_the_digest() {
        let right = array();
        let changed = |change: &dyn Fn(&mut Array)| {
            let mut array = right.clone();
            change(&mut array);
            digest(&array, |_| ())
        };
        let rescaled = Recipe::Rescaled { slope: 1.0, intercept: -1024.0, axes: Axes::Hwd };
        let channel =
            |index| Part { asked: Channel { axis: None, index }, axis: End::Last, count: 4, is_interleaved: true };
        let all = [
            digest(&right, |_| ()),
            changed(&|array| array.member.crc = Some(1)),
            changed(&|array| array.member.name = "mask".into()),
            changed(&|array| array.member.offset = 44),
            changed(&|array| array.member.packed_len = 801),
            changed(&|array| array.member.compression = Compression::Stored),
            changed(&|array| array.file_id.size = 901),
            changed(&|array| array.file_id.mtime_ns = 50),
            changed(&|array| array.header.fortran_order = false),
            changed(&|array| array.header.big_endian = true),
            changed(&|array| array.header.shape = vec![5, 10, 5]),
            changed(&|array| array.header.element = Element::I32),
            changed(&|array| array.part = Some(channel(0))),
            changed(&|array| array.part = Some(channel(1))),
            digest(&right, |volume| volume.path = "/data/b/x.npz".into()),
            digest(&right, |volume| volume.recipe = &rescaled),
            digest(&right, |volume| volume.format = ArrayFormat::Voxels(VoxelFormat::Float32)),
            digest(&right, |volume| volume.format = ArrayFormat::Own(Element::F16)),
            digest(&right, |volume| volume.overflow = Overflow::Inf),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(!all[..number].contains(one), "number {number} is that of another volume");
        }
        // Whoever copies the data, or changes permissions, has the same volumes.
        assert_eq!(changed(&|array| (array.file_id.inode, array.file_id.ctime_ns) = (70, 60)), all[0]);
    }
}
