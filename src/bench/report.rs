//! The measurements, and what follows from them.

use std::fmt::Write;

use bytesize::ByteSize;
use serde::Serialize;

use super::workload::{Target, Workload};
use crate::base::num::counted;

/// One combination, measured several times.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The way to read.
    #[serde(rename = "source")]
    pub target: Target,
    /// The number of readers.
    pub readers: usize,
    /// The seconds of each run until the last reader was done.
    pub seconds: Vec<f64>,
}

/// All measurements; the fields are those of `--json`.
#[derive(Debug, Serialize)]
pub struct BenchReport {
    /// The samples that were read.
    #[serde(rename = "data")]
    pub workload: Workload,
    /// Whether files could come out of the page cache.
    pub warm: bool,
    /// The seconds that materialising took, its digest and syncs included; `None` if the shards existed already.
    pub materialize_seconds: Option<f64>,
    /// The reason why NPZ was not measured, if it was not.
    pub no_npz: Option<String>,
    /// The measured combinations.
    pub rows: Vec<Row>,
}

impl Target {
    /// The name in the report for people.
    fn name(&self) -> String {
        match self {
            Self::Npz => "NPZ by np.load".into(),
            Self::Mount { read_ahead } => format!("mount --read-ahead {read_ahead}"),
            Self::Files => "materialised files".into(),
            Self::Given => "the given shards".into(),
        }
    }
}

impl Row {
    /// The name in the report for people, and of the progress bar.
    pub(super) fn name(&self) -> String {
        format!("{}, {}", self.target.name(), readers(self.readers))
    }

    /// The median of the seconds of all runs.
    fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let (low, high) = ((seconds.len() - 1) / 2, seconds.len() / 2);
        (seconds[low] + seconds[high]) / 2.0
    }
}

impl BenchReport {
    /// The samples per second of a row.
    fn rate(&self, row: &Row) -> f64 {
        self.workload.samples as f64 / row.median()
    }

    /// The best row of the `wanted` targets. Rows within 5 % of the fastest differ by noise only: the best of them has
    /// the fewest readers and the least read-ahead.
    fn best(&self, wanted: impl Fn(&Target) -> bool) -> Option<&Row> {
        let rows = || self.rows.iter().filter(|row| wanted(&row.target));
        let fastest = rows().map(|row| self.rate(row)).max_by(f64::total_cmp)?;
        let ahead = |row: &Row| if let Target::Mount { read_ahead } = row.target { read_ahead } else { 0 };
        rows().filter(|row| self.rate(row) >= 0.95 * fastest).min_by_key(|row| (row.readers, ahead(row)))
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let data = &self.workload;
        let _ = writeln!(
            text,
            "{} of {}: {} of source files, {} of float32 voxels, {} of shards; medians of {};\n{}\n",
            data.samples,
            counted(data.samples_in_all, "sample", "samples"),
            ByteSize(data.npz_bytes),
            ByteSize(data.voxels * 4),
            ByteSize(data.shard_bytes),
            counted(self.rows.first().map_or(0, |row| row.seconds.len()), "run", "interleaved runs"),
            if self.warm {
                "source files may come out of the page cache"
            } else {
                "files were dropped from the page cache before each run, as far as the file system heeds that"
            }
        );
        self.table(&mut text);
        if let Some(reason) = &self.no_npz {
            let _ = writeln!(text, "NPZ by np.load was not measured ({reason}); --python names a Python with NumPy");
        }
        self.conclude(&mut text);
        text
    }

    /// Adds the table of rates.
    fn table(&self, text: &mut String) {
        let mut readers: Vec<usize> = self.rows.iter().map(|row| row.readers).collect();
        readers.sort_unstable();
        readers.dedup();
        let _ = write!(text, "{:28}", "samples/s");
        for n in readers {
            let _ = write!(text, "{:>12}", self::readers(n));
        }
        let mut last = None;
        for row in &self.rows {
            if last != Some(&row.target) {
                let _ = write!(text, "\n{:28}", row.target.name());
                last = Some(&row.target);
            }
            let _ = write!(text, "{:>12.2}", self.rate(row));
        }
        text.push_str("\n\n");
    }

    /// Adds what is fastest, and how much faster than the rest.
    fn conclude(&self, text: &mut String) {
        let data = &self.workload;
        if let Some(seconds) = self.materialize_seconds {
            let per_second = data.samples as f64 / seconds;
            let projected = data.shard_bytes / (data.samples as u64).max(1) * data.samples_in_all as u64;
            let _ = writeln!(
                text,
                "materialize: {per_second:.2} samples/s; all {} would take about {} and {}",
                data.samples_in_all,
                duration(data.samples_in_all as f64 / per_second),
                ByteSize(projected),
            );
        }
        let npz = self.best(|target| *target == Target::Npz);
        let mut conclude = |what: &str, best: Option<&Row>, others: [(&str, Option<&Row>); 2]| {
            let Some(best) = best else { return };
            let _ = writeln!(text, "Best {what}: {} ({:.2} samples/s)", best.name(), self.rate(best));
            for (what, other) in others {
                if let Some(other) = other {
                    let speed = self.rate(best) / self.rate(other);
                    let _ = writeln!(text, "  {speed:.2} times as fast as {what}{}", other.name());
                }
            }
        };
        let [mount, files, given] = [
            self.best(|target| matches!(target, Target::Mount { .. })),
            self.best(|target| *target == Target::Files),
            self.best(|target| *target == Target::Given),
        ];
        let of_npz = ("the best of NPZ: ", npz);
        conclude("without a copy on disk", mount, [of_npz, ("", files)]);
        conclude("of the shards that are there", given, [of_npz, ("", mount)]);
    }
}

fn readers(count: usize) -> String {
    counted(count, "reader", "readers")
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: Vec<Row>) -> BenchReport {
        let workload =
            Workload { volumes: Vec::new(), samples: 10, samples_in_all: 20, voxels: 1, npz_bytes: 1, shard_bytes: 1 };
        BenchReport { workload, warm: true, materialize_seconds: Some(2.0), no_npz: None, rows }
    }

    #[test]
    fn the_best_is_the_simplest_of_those_that_noise_cannot_tell_apart() {
        let row = |target, readers, seconds: &[f64]| Row { target, readers, seconds: seconds.to_vec() };
        let mount = |read_ahead| Target::Mount { read_ahead };
        let report = report(vec![
            row(Target::Npz, 1, &[10.0, 9.0, 30.0]),
            row(Target::Npz, 2, &[5.0, 6.0, 5.0]),
            row(mount(0), 1, &[4.0; 3]),
            row(mount(3), 1, &[1.02, 1.03, 9.0]),
            row(mount(6), 1, &[1.0; 3]),
            row(mount(3), 2, &[1.0; 3]),
        ]);
        let best = report.best(|target| matches!(target, Target::Mount { .. })).unwrap();
        assert_eq!((&best.target, best.readers), (&mount(3), 1));
        let text = report.text();
        assert!(text.contains("4.85 times as fast as the best of NPZ: NPZ by np.load, 2 readers"), "{text}");
    }
}
