//! Data sets for the tests, written with code of their own, and the naive shard that every reader must agree with.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ctwds_fs::dataset::{Columns, Config, Dataset, FileChoice, MissingLabel, MissingMeta, ScanProgress, Selection};
use ctwds_fs::error::Result;
use ctwds_fs::formats::npz::ArrayChoice;
use ctwds_fs::formats::tar;
use ctwds_fs::plan::members::Profile;
use ctwds_fs::plan::{Options, Plan};
use ctwds_fs::volume::{KindOptions, Overflow};
use half::f16;
use zip::write::SimpleFileOptions;

/// How a volume is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) shape: [usize; 3],
    pub(crate) descr: &'static str,
    pub(crate) fortran: bool,
    pub(crate) deflated: bool,
}

/// A data set on disk, and what its shards must hold.
pub(crate) struct Example {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) per_shard: u32,
    volumes: Vec<Stored>,
}

/// A value that float16 and every tested dtype hold exactly.
fn value(volume: usize, at: usize) -> i32 {
    i32::try_from((volume * 31 + at * 7) % 113).unwrap()
}

impl Example {
    pub(crate) fn write(volumes: Vec<Stored>, per_shard: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("volumes");
        fs::create_dir(&data).unwrap();
        let mut tables = [
            "VolumeName,Findings_EN,Impressions_EN\n".to_owned(),
            "VolumeName,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\n".to_owned(),
            "VolumeName,Nodule,Effusion\n".to_owned(),
        ];
        for (number, stored) in volumes.iter().enumerate() {
            let name = format!("v_{number:03}");
            write_npz(&data.join(format!("{name}.npz")), number, stored);
            tables[0] += &format!("{name}.nii.gz,findings {number},\"impression, {number}\"\n");
            tables[1] += &format!("{name}.nii.gz,1,-1024,\"[0.5, 0.5]\",1.{number}\n");
            tables[2] += &format!("{name}.nii.gz,{},1\n", number % 2);
        }
        for (name, text) in ["reports.csv", "meta.csv", "labels.csv"].iter().zip(&tables) {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self { folder, per_shard, volumes }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command's flags for this data set.
    pub(crate) fn flags(&self) -> Vec<String> {
        let files = [
            ("--data-folder", "volumes"),
            ("--reports-file", "reports.csv"),
            ("--meta-file", "meta.csv"),
            ("--labels-file", "labels.csv"),
        ];
        let mut flags: Vec<String> =
            files.iter().flat_map(|(flag, name)| [(*flag).to_owned(), self.path(name).display().to_string()]).collect();
        flags.extend(["--samples-per-shard".to_owned(), self.per_shard.to_string()]);
        flags
    }

    pub(crate) fn plan(&self) -> Plan {
        self.try_plan().unwrap()
    }

    pub(crate) fn try_plan(&self) -> Result<Plan> {
        let config = Config {
            store: ctwds_fs::storage::local(),
            data_folder: self.path("volumes"),
            reports_files: vec![self.path("reports.csv")],
            meta_files: vec![self.path("meta.csv")],
            labels_files: vec![self.path("labels.csv")],
            spacing_from: None,
            array: ArrayChoice::default(),
            files: FileChoice::default(),
            extras: Vec::new(),
            extra_pad: 0.0,
            volumes: None,
            selection: Selection::default(),
            limit: None,
            strict: true,
            missing_text: String::new(),
            missing_meta: MissingMeta::Exclude,
            missing_label: MissingLabel::Error,
            columns: Columns::default(),
            kind: KindOptions::default(),
            exclude: None,
            scan_cache: None,
            rescan: false,
            threads: 2,
            progress: ScanProgress::default(),
        };
        let options = Options {
            samples_per_shard: self.per_shard,
            format: Profile::Ctclip,
            overflow: Overflow::Error,
            labels_empty: false,
        };
        Plan::new(Dataset::scan(&config)?, options)
    }

    /// Every shard as one vector, made the simplest way.
    pub(crate) fn naive_shards(&self) -> Vec<Vec<u8>> {
        self.naive_view(&(0..self.volumes.len()).collect::<Vec<_>>())
    }

    /// The same with the samples in another order, under their own keys.
    pub(crate) fn naive_view(&self, order: &[usize]) -> Vec<Vec<u8>> {
        order.chunks(self.per_shard as usize).map(|samples| self.naive_shard(samples)).collect()
    }

    fn naive_shard(&self, samples: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &number in samples {
            let per_shard = self.per_shard as usize;
            let key = format!("{:06}_{:06}", number / per_shard, number % per_shard);
            push_sample(&mut bytes, &key, number, &self.volumes[number]);
        }
        bytes.resize((bytes.len() + 1024).next_multiple_of(10_240), 0);
        bytes
    }
}

fn push_sample(bytes: &mut Vec<u8>, key: &str, number: usize, stored: &Stored) {
    let count = stored.shape.iter().product();
    let voxels: Vec<u8> = (0..count).flat_map(|at| f16::from_f32(value(number, at) as f32).to_le_bytes()).collect();
    let shape = format!("[{}, {}, {}]", stored.shape[0], stored.shape[1], stored.shape[2]);
    let json = format!(
        "{{\"study_id\": \"v_{number:03}\", \"RescaleSlope\": 1.0, \"RescaleIntercept\": -1024.0, \
         \"XYSpacing\": \"[0.5, 0.5]\", \"ZSpacing\": {:?}, \"original_shape\": {shape}, \"volume_shape\": {shape}, \
         \"volume_dtype\": \"float16\"}}",
        format!("1.{number}").parse::<f64>().unwrap()
    );
    let text = format!("findings {number}\nimpression, {number}");
    let labels: Vec<u8> = [(number % 2) as f32, 1.0].iter().flat_map(|label| label.to_le_bytes()).collect();
    for (extension, payload) in [("bin", voxels), ("json", json.into()), ("txt", text.into()), ("labels", labels)] {
        bytes.extend(tar::header(&format!("{key}.{extension}"), payload.len() as u64));
        bytes.extend(&payload);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
}

fn write_npz(path: &Path, number: usize, stored: &Stored) {
    let [a, b, c] = stored.shape;
    let order = if stored.fortran { "True" } else { "False" };
    let text = format!("{{'descr': '{}', 'fortran_order': {order}, 'shape': ({a}, {b}, {c}), }}", stored.descr);
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend(118u16.to_le_bytes());
    npy.extend(format!("{text:<117}\n").bytes());
    let mut push = |i: usize, j: usize, k: usize| npy.extend(element(stored.descr, value(number, (i * b + j) * c + k)));
    if stored.fortran {
        (0..c).for_each(|k| (0..b).for_each(|j| (0..a).for_each(|i| push(i, j, k))));
    } else {
        (0..a).for_each(|i| (0..b).for_each(|j| (0..c).for_each(|k| push(i, j, k))));
    }
    let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let method = if stored.deflated { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    archive.start_file("data.npy", SimpleFileOptions::default().compression_method(method)).unwrap();
    archive.write_all(&npy).unwrap();
    archive.finish().unwrap();
}

fn element(descr: &str, value: i32) -> Vec<u8> {
    match descr {
        "<f4" => (value as f32).to_le_bytes().to_vec(),
        ">f4" => (value as f32).to_be_bytes().to_vec(),
        "<f8" => f64::from(value).to_le_bytes().to_vec(),
        "<f2" => f16::from_f32(value as f32).to_le_bytes().to_vec(),
        "|u1" => vec![u8::try_from(value).unwrap()],
        "<i2" => i16::try_from(value).unwrap().to_le_bytes().to_vec(),
        ">i4" => value.to_be_bytes().to_vec(),
        other => panic!("no element for {other}"),
    }
}
