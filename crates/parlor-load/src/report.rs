//! The report of a bench: machine, probes and figures, as JSON and as Markdown.

use std::{fmt::Write as _, fs::File, io::Read, path::Path};

use anyhow::Context;
use parlor_proto::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    clock,
    latency::{Figure, Summary, ms},
    procfs,
    scenarios::probe::Probe,
};

/// Probes that differ by more than this within one run make its times worthless.
const STEADY: f64 = 2.0;

/// A whole bench.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// When it began.
    pub at: String,
    /// What it ran on.
    pub machine: Machine,
    /// What was measured.
    pub server: Binary,
    /// What an acknowledged message survives.
    pub durability: String,
    /// Where server and generator ran.
    pub mode: String,
    /// The command that repeats it.
    pub replay: String,
    /// The results.
    pub results: Vec<Measured>,
}

/// The machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Number and model of the CPUs.
    pub cpus: String,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// The kernel.
    pub kernel: String,
    /// The file system of the server's data.
    pub file_system: String,
}

/// The server under test.
#[derive(Debug, Serialize, Deserialize)]
pub struct Binary {
    /// Its version as it says it.
    pub version: String,
    /// Its hash.
    pub sha256: String,
    /// Whether it was built for release.
    pub profile: String,
}

/// One scenario, measured several times, each time on a fresh server.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The short name, as `--only` takes it.
    pub name: String,
    /// What the load was.
    pub load: String,
    /// The runs.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    /// What was measured.
    pub figures: Vec<Figure>,
    /// The disk before it.
    pub probe_before: Probe,
    /// The disk after it.
    pub probe_after: Probe,
    /// Load averages of the machine before it: what the neighbours did.
    pub load_before: String,
}

impl Run {
    /// Returns how far the two probes of the run are apart.
    pub fn probe_drift(&self) -> f64 {
        let of = |probe: &Probe| ms(probe.append.p50_us.max(1));
        let (before, after) = (of(&self.probe_before), of(&self.probe_after));
        before.max(after) / before.min(after)
    }
}

impl Machine {
    /// Describes this machine and the folder of the data.
    pub fn of(folder: &Path) -> Self {
        Self {
            cpus: procfs::cpus(),
            memory_gib: crate::latency::ratio(procfs::memory_bytes(), 1 << 30),
            kernel: procfs::kernel(),
            file_system: procfs::file_system(folder),
        }
    }
}

impl Binary {
    /// Describes a server's binary.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let said = std::process::Command::new(path).arg("--version").output();
        let said = said.with_context(|| format!("run {}", path.display()))?;
        let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        let in_release = path.components().any(|part| part.as_os_str() == "release");
        let profile = if in_release { "release" } else { "debug, or unknown" };
        Ok(Self { version, sha256: sha256(path)?, profile: profile.to_owned() })
    }
}

/// Returns the hash of a file.
pub fn sha256(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let (mut hasher, mut block) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let n_bytes = file.read(&mut block)?;
        match block.get(..n_bytes) {
            Some([]) | None => break,
            Some(bytes) => hasher.update(bytes),
        }
    }
    Ok(hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        hex.push_str(&format!("{byte:02x}"));
        hex
    }))
}

/// Returns the present time as it stands in reports.
pub fn now() -> String {
    Time::from_millis(clock::wall_ms()).to_string()
}

impl Report {
    /// Writes the report for people.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_markdown(&mut text).expect("writing to a string cannot fail");
        text
    }

    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        let (machine, server) = (&self.machine, &self.server);
        writeln!(text, "# Bench of {}\n", self.at)?;
        writeln!(text, "| | |\n|---|---|")?;
        writeln!(text, "| machine | {}, {:.0} GiB |", machine.cpus, machine.memory_gib)?;
        writeln!(text, "| system | {}, {} |", machine.kernel, machine.file_system)?;
        writeln!(text, "| server | {}, {} build |", server.version, server.profile)?;
        writeln!(text, "| sha256 | {} |", server.sha256)?;
        writeln!(text, "| durability | {} |", self.durability)?;
        writeln!(text, "| mode | {} |", self.mode)?;
        writeln!(text, "| repeat | `{}` |\n", self.replay)?;
        writeln!(
            text,
            "Figures are the median of the runs, with the lowest and the highest beside it.\n\
             Times are worth something only against the probe of the same run.\n"
        )?;
        for measured in &self.results {
            writeln!(text, "## {}\n\n{}\n", measured.name, measured.load)?;
            let n_runs = measured.runs.len();
            writeln!(text, "| figure, {n_runs} run(s) | median | lowest | highest | unit |")?;
            writeln!(text, "|---|---:|---:|---:|---|")?;
            for (figure, [low, middle, high]) in measured.spread() {
                let (name, unit) = (&figure.name, &figure.unit);
                let (middle, low, high) = (plain(middle), plain(low), plain(high));
                writeln!(text, "| {name} | {middle} | {low} | {high} | {unit} |")?;
            }
            for (number, run) in (1..).zip(&measured.runs) {
                let probe = |summary: Summary| {
                    format!("{:.2} / {:.2}", ms(summary.p50_us), ms(summary.p99_us))
                };
                write!(
                    text,
                    "\nRun {number}: append 4 KiB + fdatasync p50 / p99 {} ms before, {} ms after; \
                     overwrite {} ms before; load {}.",
                    probe(run.probe_before.append),
                    probe(run.probe_after.append),
                    probe(run.probe_before.overwrite),
                    run.load_before,
                )?;
                if run.probe_drift() > STEADY {
                    write!(
                        text,
                        " **The probes differ by {:.1}: the times of this run say little.**",
                        run.probe_drift()
                    )?;
                }
            }
            writeln!(text, "\n")?;
        }
        Ok(())
    }
}

impl Measured {
    /// Returns each figure with the lowest, the median and the highest of its runs.
    fn spread(&self) -> Vec<(&Figure, [f64; 3])> {
        let first = self.runs.first().map(|run| &run.figures);
        let of_figure = |figure: &Figure| {
            let of_run = |run: &Run| {
                run.figures.iter().find(|other| other.name == figure.name).map(|it| it.value)
            };
            let mut values: Vec<f64> = self.runs.iter().filter_map(of_run).collect();
            values.sort_by(f64::total_cmp);
            let value = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
            [value(0), value(values.len() / 2), value(values.len().saturating_sub(1))]
        };
        first.into_iter().flatten().map(|figure| (figure, of_figure(figure))).collect()
    }
}

/// Writes a number with about three digits that mean something.
fn plain(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn run(value: f64, before_us: u64, after_us: u64) -> Run {
        let summary = |p50_us| Summary { p50_us, ..Summary::default() };
        let probe = |p50_us| Probe { append: summary(p50_us), overwrite: summary(p50_us) };
        Run {
            figures: vec![Figure::new("pages", value, "/s")],
            probe_before: probe(before_us),
            probe_after: probe(after_us),
            load_before: "0.1 0.1 0.1".to_owned(),
        }
    }

    #[test]
    fn the_report_shows_median_and_spread_and_names_a_moving_disk() {
        let runs = vec![run(10.0, 1_000, 1_500), run(30.0, 1_000, 2_100), run(20.0, 900, 900)];
        let report = Report {
            at: now(),
            machine: Machine::of(Path::new("/tmp")),
            server: Binary {
                version: "parlor 0".to_owned(),
                sha256: String::new(),
                profile: "release".to_owned(),
            },
            durability: "D".to_owned(),
            mode: "shared".to_owned(),
            replay: "parlor-load bench".to_owned(),
            results: vec![Measured { name: "history".to_owned(), load: "pages".to_owned(), runs }],
        };
        let text = report.markdown();
        assert!(text.contains("| pages | 20.0 | 10.0 | 30.0 | /s |"), "{text}");
        assert_eq!(text.matches("The probes differ by 2.1").count(), 1, "{text}");
        let json = serde_json::to_string(&report).unwrap();
        let read: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(read.markdown(), text);
    }

    #[test]
    fn files_are_known_by_their_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "abc").unwrap();
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&path).unwrap(), hash);
    }
}
