//! `bench`: the measuring scenarios one after the other, each on a fresh server that it starts
//! itself, with a probe of the disk before and after.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    latency::Figure,
    load::{Field, Times},
    people::Admin,
    process::ServerProcess,
    procfs,
    report::{self, Binary, Machine, Measured, Report, Run},
    scenarios::{
        fanout::{self, Fanout},
        history::{self, History, Pages},
        idle::{self, Idle},
        probe,
        sends::{self, Arrivals, Sends},
    },
};

/// Bytes of a text, as in published comparisons.
const BODY_BYTES: usize = 100;

/// Idle sockets are watched over two heartbeats at least: without one there is nothing to measure.
const IDLE_HOLD: Duration = Duration::from_secs(32);

/// How large the bench is.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The server's binary; figures of anything but a release build say nothing.
    pub binary: PathBuf,
    /// Where the report goes.
    pub out: PathBuf,
    /// Where the server's data goes: the disk that is measured.
    pub data: PathBuf,
    /// Runs of each scenario.
    pub runs: usize,
    /// How long each load runs.
    pub times: Times,
    /// Names of the scenarios to run; all without any.
    pub only: Vec<String>,
    /// Pairs of the largest closed loop and of the open loop.
    pub pairs: usize,
    /// Rates of the open loop, in sends per second.
    pub rates: Vec<f64>,
    /// Idle sockets.
    pub connections: usize,
    /// Decides arrivals and pages.
    pub seed: u64,
    /// The command that repeats it.
    pub replay: String,
}

#[derive(Debug, Clone, Copy)]
enum Load {
    Sends(Sends),
    Fanout(Fanout),
    Idle(Idle),
    History(History),
}

struct Plan {
    name: String,
    what: String,
    load: Load,
}

/// Runs the bench; writes `NAME.json` and `NAME.md` into the folder and returns the second path.
pub async fn run(bench: &Bench) -> anyhow::Result<PathBuf> {
    let plans = plans(bench)?;
    std::fs::create_dir_all(&bench.out)?;
    std::fs::create_dir_all(&bench.data)?;
    let mut report = Report {
        at: report::now(),
        machine: Machine::of(&bench.data),
        server: Binary::of(&bench.binary)?,
        durability: "class D: an acknowledged message was synced to disk (SQLite, WAL, \
                     synchronous=FULL); empty database; rate limits off"
            .to_owned(),
        mode: "shared: server and generator on the same CPUs, no TLS, loopback".to_owned(),
        replay: bench.replay.clone(),
        results: Vec::new(),
    };
    let path = bench.out.join(format!("bench-{}", report.at.replace([':', '.'], "-")));
    for plan in plans {
        let mut runs = Vec::new();
        for number in 1..=bench.runs {
            tracing::info!("{} run {number} of {}", plan.name, bench.runs);
            runs.push(measure(bench, plan.load).await.with_context(|| plan.name.clone())?);
        }
        report.results.push(Measured { name: plan.name, load: plan.what, runs });
        // Written after each scenario, so that a failure does not cost the ones before.
        std::fs::write(path.with_extension("json"), serde_json::to_vec_pretty(&report)?)?;
        std::fs::write(path.with_extension("md"), report.markdown())?;
    }
    Ok(path.with_extension("md"))
}

async fn measure(bench: &Bench, load: Load) -> anyhow::Result<Run> {
    let folder = tempfile::Builder::new().prefix("parlor-bench-").tempdir_in(&bench.data)?;
    let load_before = procfs::load_average();
    let probe_before = probe::run(folder.path()).await?;
    let figures = on_fresh_server(&bench.binary, folder.path(), load).await?;
    let probe_after = probe::run(folder.path()).await?;
    let mut run = Run { figures, probe_before, probe_after, load_before };
    add_ratio(&mut run);
    Ok(run)
}

async fn on_fresh_server(binary: &Path, folder: &Path, load: Load) -> anyhow::Result<Vec<Figure>> {
    let log = folder.join("server.log");
    let server = ServerProcess::start(binary, &folder.join("data"), &log).await?;
    let admin = Admin::sign_up(&server.client()?).await?;
    let mut field = Field { server, admin };
    let figures = match load {
        Load::Sends(options) => sends::run(&field, &options).await,
        Load::Fanout(options) => fanout::run(&field, &options).await,
        Load::Idle(options) => idle::run(&field, &options).await,
        Load::History(options) => history::run(&field, &options).await,
    };
    let figures = figures.with_context(|| tail(&log))?;
    field.server.stop().await?;
    Ok(figures)
}

/// The end of the server's log, since its folder goes with the run.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(20).collect();
    format!("the server said last:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

/// Sets the median time to an acknowledgement beside the probe of the same run.
fn add_ratio(run: &mut Run) {
    let acked = run.figures.iter().find(|figure| figure.name == "send to ack p50");
    let Some(acked_ms) = acked.map(|figure| figure.value) else { return };
    // The mean of the two probes of the run.
    let mean_ms = |before_us, after_us| crate::latency::ms(before_us + after_us) / 2.0;
    let (before, after) = (run.probe_before, run.probe_after);
    let append_ms = mean_ms(before.append.p50_us, after.append.p50_us);
    let overwrite_ms = mean_ms(before.overwrite.p50_us, after.overwrite.p50_us);
    for (name, probe_ms) in
        [("ack p50 / append probe p50", append_ms), ("ack p50 / overwrite probe p50", overwrite_ms)]
    {
        run.figures.push(Figure::new(name, acked_ms / probe_ms.max(0.001), ""));
    }
}

fn plans(bench: &Bench) -> anyhow::Result<Vec<Plan>> {
    let times = bench.times;
    let mut plans = Vec::new();
    let mut add = |name: String, what: String, load: Load| plans.push(Plan { name, what, load });
    let sends = |pairs, arrivals, with_receipts| {
        let seed = bench.seed;
        Load::Sends(Sends { pairs, arrivals, body_bytes: BODY_BYTES, with_receipts, times, seed })
    };
    for (name, pairs, depth, with_receipts) in [
        ("sends-lone", 1, 1, false),
        ("sends-32", 32, 1, false),
        ("sends-most", bench.pairs, 4, false),
        ("sends-most-receipts", bench.pairs, 4, true),
    ] {
        let receipts = if with_receipts { "recipients report delivered" } else { "no receipts" };
        add(
            name.to_owned(),
            format!(
                "One-to-one sends of {BODY_BYTES} bytes, **closed loop**: {pairs} pairs, {depth} \
                 in flight each, {receipts}."
            ),
            sends(pairs, Arrivals::Closed { depth }, with_receipts),
        );
    }
    for rate in &bench.rates {
        add(
            format!("sends-{rate}-per-second"),
            format!(
                "One-to-one sends of {BODY_BYTES} bytes, **open loop**: {rate}/s by a Poisson \
                 process over {} pairs; latency from the intended time; recipients report \
                 delivered.",
                bench.pairs
            ),
            sends(bench.pairs, Arrivals::Open { per_second: *rate }, true),
        );
    }
    for (members, burst) in [(10, 1), (100, 1), (100, 10), (1_000, 1), (1_000, 10)] {
        add(
            format!("fanout-{members}-burst-{burst}"),
            format!(
                "A group of {members} members online; {burst} message(s) of {BODY_BYTES} bytes at \
                 once, the next when the last member has them (closed loop)."
            ),
            Load::Fanout(Fanout { members, burst, body_bytes: BODY_BYTES, times }),
        );
    }
    let (connections, users) = (bench.connections, bench.connections.div_ceil(5));
    add(
        "idle".to_owned(),
        format!("{connections} greeted sockets of {users} people with 10 chats each, never used."),
        Load::Idle(Idle { connections, users, chats: 10, hold: times.measured.max(IDLE_HOLD) }),
    );
    for (name, pages) in [("history-newest", Pages::Newest), ("history-random", Pages::Random)] {
        let what = if pages == Pages::Newest { "the newest" } else { "random" };
        add(
            name.to_owned(),
            format!(
                "Pages of 50 out of 10,000 messages over HTTP, {what}; 16 readers (closed loop)."
            ),
            Load::History(History {
                messages: 10_000,
                readers: 16,
                pages,
                body_bytes: BODY_BYTES,
                times,
                seed: bench.seed,
            }),
        );
    }
    if !bench.only.is_empty() {
        let known: Vec<_> = plans.iter().map(|plan| plan.name.clone()).collect();
        for name in &bench.only {
            if !known.iter().any(|known| known.starts_with(name.as_str())) {
                bail!("no scenario begins with {name}; there are {}", known.join(", "));
            }
        }
        plans.retain(|plan| bench.only.iter().any(|name| plan.name.starts_with(name.as_str())));
    }
    Ok(plans)
}

/// The times of a quick look: enough to see that everything runs.
pub const QUICK: Times =
    Times { warm_up: Duration::from_secs(1), measured: Duration::from_secs(4) };

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn bench(only: &[&str]) -> Bench {
        Bench {
            binary: PathBuf::new(),
            out: PathBuf::new(),
            data: PathBuf::new(),
            runs: 1,
            times: QUICK,
            only: only.iter().map(|name| (*name).to_owned()).collect(),
            pairs: 10,
            rates: vec![100.0],
            connections: 10,
            seed: 1,
            replay: String::new(),
        }
    }

    #[test]
    fn scenarios_are_chosen_by_the_beginning_of_their_names() {
        let names = |only: &[&str]| {
            let plans = plans(&bench(only)).unwrap();
            plans.into_iter().map(|plan| plan.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["history-newest", "idle"]), ["idle", "history-newest"]);
        assert_eq!(names(&["sends"]).len(), 5);
        assert!(names(&[]).len() > 10);
        assert!(plans(&bench(&["nothing"])).is_err());
    }
}
