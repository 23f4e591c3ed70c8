//! What was measured, and what follows from it.

use std::fmt::Write;

use bytesize::ByteSize;
use serde::Serialize;

use super::{Data, Source};

/// One combination, measured several times.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was read.
    pub source: Source,
    /// By how many readers.
    pub readers: usize,
    /// How long each run took until the last reader was done.
    pub seconds: Vec<f64>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was read.
    pub data: Data,
    /// Whether the files could come out of the page cache.
    pub warm: bool,
    /// How long materialising took, its digest and syncs included; none where the shards were there already.
    pub materialize_seconds: Option<f64>,
    /// Why NPZ was not measured, if it was not.
    pub no_npz: Option<String>,
    /// The combinations.
    pub rows: Vec<Row>,
}

impl Source {
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
    pub(super) fn name(&self) -> String {
        format!("{}, {}", self.source.name(), readers(self.readers))
    }

    fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let (low, high) = ((seconds.len() - 1) / 2, seconds.len() / 2);
        (seconds[low] + seconds[high]) / 2.0
    }
}

impl Report {
    fn rate(&self, row: &Row) -> f64 {
        self.data.samples as f64 / row.median()
    }

    /// The fastest combination of those whose source is of this kind; of those within 5 % of it, which is noise, the one
    /// with the fewest readers and the least read-ahead.
    fn best(&self, wanted: impl Fn(&Source) -> bool) -> Option<&Row> {
        let rows = || self.rows.iter().filter(|row| wanted(&row.source));
        let fastest = rows().map(|row| self.rate(row)).max_by(f64::total_cmp)?;
        let ahead = |row: &Row| if let Source::Mount { read_ahead } = row.source { read_ahead } else { 0 };
        rows().filter(|row| self.rate(row) >= 0.95 * fastest).min_by_key(|row| (row.readers, ahead(row)))
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let data = &self.data;
        let _ = writeln!(
            text,
            "{} of {} samples: {} of NPZ, {} of float32 voxels, {} of shards; medians of {} interleaved runs;\n{}\n",
            data.samples,
            data.samples_in_all,
            ByteSize(data.npz_bytes),
            ByteSize(data.voxels * 4),
            ByteSize(data.shard_bytes),
            self.rows.first().map_or(0, |row| row.seconds.len()),
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
            if last != Some(&row.source) {
                let _ = write!(text, "\n{:28}", row.source.name());
                last = Some(&row.source);
            }
            let _ = write!(text, "{:>12.2}", self.rate(row));
        }
        text.push_str("\n\n");
    }

    fn conclude(&self, text: &mut String) {
        let data = &self.data;
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
        let npz = self.best(|source| *source == Source::Npz);
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
            self.best(|source| matches!(source, Source::Mount { .. })),
            self.best(|source| *source == Source::Files),
            self.best(|source| *source == Source::Given),
        ];
        let of_npz = ("the best of NPZ: ", npz);
        conclude("without a copy on disk", mount, [of_npz, ("", files)]);
        conclude("of the shards that are there", given, [of_npz, ("", mount)]);
    }
}

fn readers(count: usize) -> String {
    format!("{count} reader{}", if count == 1 { "" } else { "s" })
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

    fn report(rows: Vec<Row>) -> Report {
        let data =
            Data { volumes: Vec::new(), samples: 10, samples_in_all: 20, voxels: 1, npz_bytes: 1, shard_bytes: 1 };
        Report { data, warm: true, materialize_seconds: Some(2.0), no_npz: None, rows }
    }

    #[test]
    fn the_best_is_the_simplest_of_those_that_noise_cannot_tell_apart() {
        let row = |source, readers, seconds: &[f64]| Row { source, readers, seconds: seconds.to_vec() };
        let mount = |read_ahead| Source::Mount { read_ahead };
        let report = report(vec![
            row(Source::Npz, 1, &[10.0, 9.0, 30.0]),
            row(Source::Npz, 2, &[5.0, 6.0, 5.0]),
            row(mount(0), 1, &[4.0; 3]),
            row(mount(3), 1, &[1.02, 1.03, 9.0]),
            row(mount(6), 1, &[1.0; 3]),
            row(mount(3), 2, &[1.0; 3]),
        ]);
        let best = report.best(|source| matches!(source, Source::Mount { .. })).unwrap();
        assert_eq!((&best.source, best.readers), (&mount(3), 1));
        let text = report.text();
        assert!(text.contains("4.85 times as fast as the best of NPZ: NPZ by np.load, 2 readers"), "{text}");
    }
}
