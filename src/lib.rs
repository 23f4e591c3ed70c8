//! `ctwds-fs` presents CT volumes in NPZ, NPY and NIfTI files as WebDataset shards: a read-only FUSE mount whose tar
//! files are made on demand, or the same bytes on disk. This page is the project's architecture; it changes in the
//! commit that changes the code.
//!
//! # Words
//!
//! Each has one meaning, in code, messages and documents.
//!
//! | word | meaning |
//! |---|---|
//! | volume | the three-dimensional array of one CT scan, in one NPZ, NPY or NIfTI file |
//! | extra | an array beside the volume, such as a mask, that is a member of the sample too (`--also`) |
//! | channel | one volume of several in an array of four axes |
//! | study | a volume and its rows of the tables; its id is the file's name without the suffix |
//! | kind | what is made of a volume: `stored`, `rescaled` (HU) or `preprocessed` (resampled, cropped, HU / 1000) |
//! | dialect | which values a file holds: those of the scanner, HU, or HU / 1000 |
//! | conversion | the elements of a NIfTI file and its header's map to float32, done as they are read |
//! | recipe | kind, dialect, slope, intercept and axes of one volume: what turns its array into values |
//! | voxel format | the dtype of one volume's voxels, and the window of values that they hold |
//! | sample | what a reader gets of one study: volume, JSON, text, labels and extras |
//! | member | one file of a shard: a plan lists those of a sample; an NPZ file, which is a zip, has members too |
//! | store | what is read from, and shards are written to, by [`storage`]: files on disk, or objects of buckets |
//! | place | an output folder: on a disk, or a prefix in a bucket ([`output::place`]) |
//! | key | the name that a sample's members share, by which readers group them (`cache::Key`: the number of a volume) |
//! | profile | the names and encodings of a sample's members (`--format`; `plan::members::Profile`) |
//! | slot | a sample's place in the data set; it stays empty when the sample is left out, so no other key changes |
//! | shard | a tar file of the samples of consecutive slots |
//! | extent | consecutive bytes of a shard: a header, a member's payload, or zeros |
//! | plan | which bytes of which shard come from where, and the digest of all that determines them |
//! | view | all samples once as shards: the plain view in the data set's order, one view an epoch in a shuffled order |
//! | kept volume | the bytes of a volume in the folder of a disk cache (`--disk-cache`), found by the volume's digest |
//! | fill | making the bytes of one volume, once, for all its readers, by a filling thread ("decoder" for users) |
//! | waist | the one function that makes shard bytes for every caller ([`shard::ShardSet`]) |
//! | part | the shards that one run makes of an output folder: all, or one of several parts (`--partition`) |
//! | group, split | studies of one patient; studies for training, validation or test (`plan --split-by`) |
//! | journal | lines that say which shards of a part are finished, each durable before the next; `reclaim` has one |
//! | manifest | the file that says what all shards of a folder hold; written after all shards and indexes |
//!
//! # One waist
//!
//! Everything that makes plain shard bytes asks [`shard::ShardSet`], which makes them in one function
//! (`shard/read.rs`): the extension of the Python package, a crate of its own in `python/`, as well. Two ways lead on
//! from there: `materialize/compress.rs` packs these bytes anew, with headers of their own, and a mount with
//! `--materialized` hands out finished files (`fs/tree.rs`, `fs/passthrough.rs`). The mount and `materialize` are
//! callers of it, side by side, and neither imports the other. So a virtual shard equals its materialised file by
//! construction. That both are *right* is shown by tests with code of its own: a naive shard in `tests/common`, and
//! NumPy's and `tarfile`'s in `tests/python`.
//!
//! ```text
//! cli ─► commands ─► dataset ─► plan ─► shard ─► fs            a mount
//!                                        ▲  └──► materialize   files, beside which output/ describes them
//!                    formats ─► volume ──┤
//!                                cache ──┘
//! ```
//!
//! One read, from the top: `fs/fuse.rs` gets a read of the kernel, `fs/tree.rs` finds the shard, `shard/read.rs` asks
//! the plan for the extents in the range ([`plan::layout`]). Name and size in a header are chosen in `plan/content.rs`
//! and written by [`formats::tar`]; JSON, text and labels come from [`plan::members`], voxels from the cache, whose
//! threads fill them by [`volume`], which unpacks by [`formats::npz`].
//!
//! # Rooms
//!
//! A room imports only rooms above it in this table, and no two modules import each other in a circle; `tests/tidy`
//! holds both, and the rest of this table as far as it can be read off the source text.
//!
//! | room | owns | does not know |
//! |---|---|---|
//! | [`error`] | the one error type: file, reason, remedy | libc, FUSE |
//! | [`base`] | numbers, threads, memory, locks, limits, mount tables, whole files, others' folders, the user's | CT |
//! | [`storage`] | files on disk and objects in a bucket by one trait; all that is asynchronous | shards, tar |
//! | [`formats`] | others' formats: NPZ, NIfTI, deflate, tar, JSON, compressed blocks, SHA-256 | samples, shards |
//! | [`volume`] | source array to voxel bytes: kinds, casts, transposition; check of values | tar, caching, offsets |
//! | [`dataset`] | the ordered scan of folders and tables; who is left out and why; bad samples; guesses | plans, tar |
//! | [`plan`] | data set + options → shards, members, layout, shuffled views, digests | reading voxels |
//! | [`cache`] | byte-budgeted volumes being filled or full, their threads; `cache/disk`: kept volumes | CT, tar |
//! | [`shard`] | the waist: layout × volume × cache, and each reader's cursor | FUSE, files on disk |
//! | [`output`] | what describes a folder of shards, and reads it: manifest, journals, parts, indexes | making bytes |
//! | [`mod@estimate`] | what kinds and codecs would take, from a seeded sample | files on disk |
//! | [`fs`] | inodes, attributes, handles, status files; three files alone import `fuser` | decoding |
//! | [`materialize`] | shards to disk (temporary name, rename) or bucket (uploads), resume | how bytes are made |
//! | [`verify`] | whether a folder of shards is what it should be, by code that makes none | the makers' code |
//! | [`reclaim`] | which source files finished shards make superfluous, and their removal | how bytes are made |
//! | [`mod@bench`] | readers, interleaved runs, what is best | how shards are made or mounted |
//! | [`mod@report`] | the page that shows a data set: slices, histograms, charts in HTML | files on disk |
//! | [`cli`], [`commands`] | parsing, messages, progress, exit codes, the background process | tar |
//! | `fuzzing` (hidden) | what the fuzzer and its corpus run | all but parsers |
//!
//! # Where to add or look
//!
//! - A kind of volume: a variant of [`volume::Kind`] and of [`volume::Recipe`] with the planes that it makes in
//!   `volume/`, its digest text (pinned) in `plan/digest_text.rs`, its options in `cli/dataset.rs`, and its definition
//!   anew in `verify/expected.rs`. The compiler names these places and the others in `src/`, because kinds are told
//!   apart by `match` without a wildcard ([`volume::Kind::is_resampled`] and its like), but for the names of kinds in
//!   `verify/payload.rs`. It does not name the loader (`python/ctwds/`) and `docs/kinds.md`.
//! - A service that holds objects: a client in `storage/settings.rs`, its errors in `storage/reason.rs`.
//! - What is made of extras: [`volume::Recipe::of_extra`], `volume/own.rs` and `volume/nearest_planes.rs`; anew in
//!   `verify/extras.rs`, and in the loader (`Steps.extra`).
//! - A dtype of voxels: a variant of [`volume::VoxelFormat`], with its type in `volume/voxel.rs`, its digest text in
//!   `plan/digest_text.rs`, and its definition anew in `verify/dtype.rs`; the loader's `values_of`.
//! - A format of files with volumes: a [`formats::volume_file::Format`], and a module beside [`formats::nifti`] that
//!   makes an [`formats::npz::Array`] of a file, so that all that follows is there; `--source` in `dataset/files.rs`.
//! - A dtype or a container of arrays: [`formats::npz`], then [`volume`]; anew in `verify/npy_header.rs`, in the
//!   loader (`read_volume`), and in the table of `docs/volume-files.md`, of which a test tries every entry.
//! - A name by which columns or arrays of a data set are known: `dataset/guess/names.rs`.
//! - The Python package: `python/src/` calls [`commands::plan_of`], the waist, for single files [`volume`], and for
//!   compressed members that Python has read [`formats::codec::unpack`]; all else is Python in `python/ctwds/`. The
//!   core does not know it.
//! - An index for another reader: [`output::indexes`]; mount and disk show it from there.
//! - What may write to disk: `materialize` (shards, manifest, indexes, the list of bad samples; by [`output::place`]
//!   into buckets too); [`output`] (folder and journals, by `part_lock`, `journal::append` and `object_journal`);
//!   `reclaim`, which alone removes sources; `verify --sources` (its list); `init` (`ctwds.toml`); `demo` (its data
//!   set); `bench` (a temporary folder); `plan --split-by` (its lists); `report` (its page); [`cache::disk`] (its
//!   folder, which a file in it marks); `run` (the folders of `--at`); `man` (its pages); a mount's log
//!   (`commands/log_file.rs`); the user's cache folder ([`base::user_cache`]). Shards, manifests, indexes and lists
//!   appear whole, by [`base::durable`]; journals and logs grow by lines; files of both caches are renamed into place,
//!   without waiting for the disk. Nothing is ever written into a data folder that the user did not name for it, or
//!   through a mount. Kernel settings are in `fs/mount.rs`, `fs/mount_table.rs` and `commands/run/namespace.rs`.
//!
//! # Invariants
//!
//! - **dataset**: which files are taken depends on their paths alone. The order is that of the relative paths' bytes,
//!   the same on every machine; study ids are unique. Only malformed content, or a link that leads nowhere, leaves a
//!   sample out: an I/O error is fatal, because a plan must not depend on the weather. A sample that is left out leaves
//!   its slot empty, so no other key or shard changes because of it.
//! - **guess**: nothing is guessed silently: what is found has its reason, what is not sure is left to the user. No
//!   plan depends on a guess but through the file that the user has seen.
//! - **tables**: a table is read whole or refused; one that is not given leaves every volume in, and no value is made
//!   up in its place. A column without a name is no class; a label is finite, or NaN where the user asked for that. One
//!   rule reads `XYSpacing` for all kinds; a slope of 0, or a spacing that is not above 0, is never applied. What
//!   `--extra-columns` makes of a field, its spelling alone decides: no other row changes a sample.
//! - **npz**: every length read from a file is checked before anything is allocated; what is not supported is an error
//!   that names it, never a guess; nothing is unpickled. What is read, `np.load` reads alike: the dtype and the header
//!   in any spelling; of names that are there twice, none. An NPY file is an array without a name and without a CRC:
//!   its length is checked when planning, and its state at every chunk; nothing else tells that its values are others.
//! - **nifti**: a file is the array that nibabel's `get_fdata().astype(np.float32)` makes of it, to the bit; turned by
//!   `--orientation`, that of its `as_reoriented`, before any other step. A gzip file of one member has its CRC-32 in
//!   the plan; any other, and a `.nii` file, has none that a plan could know. Whatever gzip unpacks was compared with
//!   its member's CRC-32 and length when [`formats::npz::Payload::finish`] returns.
//! - **inflate**: a stream is unpacked to the bytes that zlib-ng makes of it, or refused where zlib-ng refuses it; no
//!   damage reaches beyond the stream's own memory, and none is found by a panic. Tests and a fuzz target compare.
//! - **user cache**: a saved plan or finding counts only while size, modification time, ctime and inode of all that it
//!   was made from are the same, or the list of its bucket is, and only for the program that wrote it. `verify` and
//!   `reclaim` use no saved plan.
//! - **plan**: its digest covers relative paths, file sizes, array CRCs (of NPZ and packed NIfTI files) and headers,
//!   the channel, the table values used, and every option that changes bytes; never times, inodes, absolute paths or
//!   thread counts.
//! - **shuffle**: seed, epoch and number of samples determine an order, on every machine and for every later version.
//!   A shuffled view is not part of the plan's digest: each sample keeps its key and bytes.
//! - **layout**: extents start at 0, are contiguous and sum to the length; payloads are 512-aligned. The length is
//!   known without reading a voxel.
//! - **volume**: exactly the planned length. The source's size, times and inode are checked before the first byte is
//!   handed on and with every chunk; a source that changed is an error, never a mixture. Where only the ctime differs
//!   (`chmod`, hard links, or other content under the old time), the headers are compared with the plan's, and nothing
//!   more is handed on before the checksum was found right; without a checksum the source counts as changed. The last
//!   chunk is handed on only when the CRC was right, so whoever reads a whole volume cannot miss that it is damaged; a
//!   volume whose end was peeked at is checked as a whole before any of it is handed on.
//! - **storage**: an object is told by its size and `ETag`: every answer has those of the plan, or is an error. A body
//!   that breaks off is asked for again; no answer is handed on before all of it is there. Lists are compared with
//!   lists, and where they have `ETag`s, with what was read. Credentials come from the environment or a profile, and
//!   are printed nowhere.
//! - **cache**: accounted bytes, fills in flight and what they take beside their volumes included, stay within the
//!   budget; a volume larger than that is filled when it is alone, and not kept. One fill per key; its bytes or its
//!   error reach every waiter; errors are not kept. A volume that a reader is in the middle of stays until it was read
//!   past, or its reader was idle while others wait: for less time where the kernel may have given it the rest
//!   (`cache/patience.rs`). Demands are served in order; what is read ahead gives way to them.
//! - **disk cache**: no byte is handed on before the checksums of the whole volume were compared, and its source found
//!   in the planned state. A volume's digest covers all that determines its bytes, and no plan, shard or slot
//!   (`plan/volume_digest.rs`). Whatever is wrong with the folder or its disk costs time only, and only files of the
//!   cache's own names are removed. Readers never wait for a write; what waits to be written holds half of the memory
//!   for volumes at most, or one volume.
//! - **shard**: a pure function of the plan: cache size, threads, read sizes and order never change a byte. Header
//!   walks fill nothing where a volume's last bytes can be made alone (stored, C order). A volume that is in
//!   the disk cache (`shard/kept.rs`) or in a finished shard file (`shard/copies.rs`) is copied from there, all of it
//!   before any of it is handed on, else made.
//! - **fs**: nothing is ever written; every inode names one thing (`fs/node.rs`); its bytes and size never change: a
//!   shard that has become a file gets a new inode under its old name, and so does one whose file came back after
//!   somebody had missed it: all handles of an inode have one reader, the kernel or the daemon. A mount is ended by the
//!   kernel's number and device and by its source, never by path alone: the next mount gets both from one that is gone.
//!   No lock is held across I/O, a decode or a copy.
//! - **fuse**: no session thread waits for a decode: a read that is not ready is parked with its volume and answered by
//!   the thread that fills it. One errno for each error, in a match without a wildcard. Never ENOSYS for a failure.
//! - **materialize**: a final name never holds a partial file; the manifest is written last, and removed before a shard
//!   of it is made again; a run that was stopped goes on where it was. Whatever journals, manifests and temporaries
//!   were cut or lost, no shard is taken for finished that is not, and no file is replaced that no run is known to have
//!   written; no link in the folder is followed to write. Two runs that could write the same shard never go on at once;
//!   where locks do not bind, each writes files of its own, and a final name gets the very file that was written. A
//!   file that a user has changed stays.
//! - **materialize to a bucket**: an object appears whole. The journal is one object, written over what this run wrote
//!   last or not at all, so it is the lock as well: the run that begins last has the part, and an earlier one ends at
//!   its next line. An upload is in the journal before its first part. Manifest and indexes are written over what was
//!   there while the run was known to have the part.
//! - **skip**: a shard without a bad sample is, to the byte, that of the plan without it; only content makes a sample
//!   bad, never storage.
//! - **reclaim**: an NPZ or NPY is removed only when a durable shard of the recorded SHA-256 was found to hold, to the
//!   byte, what the plan makes of it, as long as both are the files that were compared; nothing of a shard that is in
//!   doubt, is a link, or is in memory alone.
//! - **verify**: shares no code with what makes a shard's bytes, so that a fault in one is seen by the other. What is
//!   to be made (table values, texts, the recipe of each volume) it takes from the plan; a fault in reading a table is
//!   seen by tests against pandas and Python's `csv` alone. Bytes of sources come to it by [`storage`], as to all; it
//!   reads them whole, each for itself. What could not be looked at is said, and never counts as fine: a source that
//!   did not come is no damaged one.
//! - **run**: its mount ends with the command, and is never seen outside. Where `run` or the mount is killed, all
//!   processes of the namespace end; never one outside of it.
//! - **signals**: the first one ends a command, with 128 and its number and with what is kept; a second one ends it at
//!   once. What must not be left half-done looks at a flag, or is not ended (`commands/interrupt.rs`).
//! - **terminal**: one file writes to standard output and standard error (`commands/terminal.rs`). What cannot be
//!   written to standard error changes nothing; a result that cannot be written to standard output is an error, after
//!   the work is safe.
//! - **names** of files, columns and studies are shown by [`error::shown`], on one line; what still gets to the
//!   terminal is escaped there.
//! - **limits**: `base/parallel.rs` alone starts threads, by calls that can fail; buffers whose size the data choose
//!   are had by calls that can fail ([`base::memory`]). Lack of memory, threads, descriptors or room is no damage, and
//!   its message names the limit ([`error`], [`base::limits`]).
//! - **pipes**: nothing waits for a writer of a FIFO. Files that the user names are read by [`base::given`], which
//!   knows an end for a pipe that says nothing; all others by [`base::files`], which opens regular files alone.
//! - **unsafe**: in `cache/growing.rs` and `cache/region.rs` (the buffer that grows while it is read, with its proof
//!   and a model test), `volume/narrow.rs`, `volume/transpose.rs`, `formats/codec/running_sum.rs`,
//!   `formats/codec/whole.rs`, `formats/inflate/symbols.rs` and `formats/sha256.rs` (processor instructions, each
//!   beside a portable definition that the tests compare with), one system call in `commands/daemon.rs`, and one
//!   parameter of the C library's allocator in `base/limits.rs`.
//!
//! There is no async outside [`storage`], no global state besides each decoder thread's scratch memory and what
//! concerns the whole process (arguments, program file, loudness, bars, the signal that came), and no second place that
//! knows the tar or JSON dialect, besides `verify`, on purpose.

pub mod base;
pub mod bench;
pub mod cache;
pub mod cli;
pub mod commands;
pub mod dataset;
pub mod error;
pub mod estimate;
pub mod formats;
pub mod fs;
#[doc(hidden)]
pub mod fuzzing;
pub mod materialize;
pub mod output;
pub mod plan;
pub mod reclaim;
pub mod report;
pub mod shard;
pub mod storage;
pub mod verify;
pub mod volume;
