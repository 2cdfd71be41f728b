//! The command line: one subcommand for each scenario, and `check` for a recording.
//!
//! Exit codes: 0 the promises hold, 1 broken, 2 no evidence, 3 the run itself failed, 4 skipped: the
//! machine gives no right for it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use parlor_load::{
    bench::{self, Bench},
    check, clock,
    finding::Finding,
    load::Times,
    scenarios::{
        Base,
        disk::{self, Disk},
        halfopen::{self, Halfopen},
        idempotency::{self, Idempotency},
        kill9::{self, Kill9},
        membership::{self, Membership},
        order::{self, Order},
        overload::{self, Overload},
        powercut::{self, Powercut},
        probe,
        resume::{self, Resume},
        slowreader::{self, Slowreader},
        storm::{self, Storm},
    },
    torture,
};

/// Load generator and checker of Parlor.
#[derive(Parser)]
#[command(name = "parlor-load", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kill the server again and again under load, and start it on the same data.
    Kill9 {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Kill9::default().rounds)]
        rounds: usize,
        #[arg(long, default_value_t = Kill9::default().socket_writers)]
        socket_writers: usize,
        #[arg(long, default_value_t = Kill9::default().http_writers)]
        http_writers: usize,
        #[arg(long, default_value_t = Kill9::default().people)]
        people: usize,
        #[arg(long, default_value_t = Kill9::default().chats)]
        chats: usize,
        /// A kill comes so many milliseconds after the first acknowledgement since the start.
        #[arg(long, default_value = "50-1000", value_parser = range)]
        up_ms: (u64, u64),
    },
    /// Many writers in one hot chat.
    Order {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Order::default().messages)]
        messages: u64,
        #[arg(long, default_value_t = Order::default().socket_writers)]
        socket_writers: usize,
        #[arg(long, default_value_t = Order::default().http_writers)]
        http_writers: usize,
        #[arg(long, default_value_t = Order::default().people)]
        people: usize,
        #[arg(long, default_value_t = Order::default().limit_s)]
        limit_s: u64,
    },
    /// Each send issued one to five times at once.
    Idempotency {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Idempotency::default().sends)]
        sends: usize,
        #[arg(long, default_value_t = Idempotency::default().senders)]
        senders: usize,
        #[arg(long, default_value_t = Idempotency::default().lost_answers)]
        lost_answers: f64,
        #[arg(long, default_value_t = Idempotency::default().conflicts)]
        conflicts: f64,
    },
    /// Additions and removals under load, read on every path.
    Membership {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Membership::default().cycles)]
        cycles: usize,
        #[arg(long, default_value_t = Membership::default().guests)]
        guests: usize,
        #[arg(long, default_value_t = Membership::default().writers)]
        writers: usize,
        #[arg(long, default_value = "5-60", value_parser = range)]
        pause_ms: (u64, u64),
    },
    /// Cut the power of the disk in the middle of the writes (needs root).
    Powercut {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Powercut::default().cuts)]
        cuts: usize,
        #[arg(long, default_value_t = Powercut::default().socket_writers)]
        socket_writers: usize,
        #[arg(long, default_value_t = Powercut::default().http_writers)]
        http_writers: usize,
        /// A cut comes so many milliseconds after the first acknowledgement since the start.
        #[arg(long, default_value = "200-1500", value_parser = range)]
        up_ms: (u64, u64),
        /// Plant the fault that must be found: the syncs of the server are not made.
        #[arg(long)]
        no_sync: bool,
    },
    /// A full disk, failing and slow syncs.
    Disk {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Disk::default().writers)]
        writers: usize,
        #[arg(long, default_value_t = Disk::default().fault_ms)]
        fault_ms: u64,
        #[arg(long, default_value_t = Disk::default().full_kib)]
        full_kib: u64,
    },
    /// Cut the stream from the server at its byte positions, and resume.
    Resume {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Resume::default().messages)]
        messages: usize,
        #[arg(long, default_value_t = Resume::default().cuts)]
        cuts: u64,
        #[arg(long, default_value_t = Resume::default().lanes)]
        lanes: usize,
    },
    /// Cut the cables of many people without a word; watchers must see them go.
    Halfopen {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Halfopen::default().cut)]
        cut: usize,
        #[arg(long, default_value_t = Halfopen::default().kept)]
        kept: usize,
        #[arg(long, default_value_t = Halfopen::default().heartbeat_ms)]
        heartbeat_ms: u64,
    },
    /// Some members read one byte a second; the others must not feel it.
    Slowreader {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Slowreader::default().members)]
        members: usize,
        #[arg(long, default_value_t = Slowreader::default().slow_percent)]
        slow_percent: usize,
        #[arg(long, default_value_t = Slowreader::default().per_second)]
        per_second: u64,
        #[arg(long, default_value_t = Slowreader::default().body_bytes)]
        body_bytes: usize,
        #[arg(long, default_value_t = Slowreader::default().seconds)]
        seconds: u64,
    },
    /// Cut many sockets at once; all must be back soon, and the others go on.
    Storm {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Storm::default().sockets)]
        sockets: usize,
        #[arg(long, default_value_t = Storm::default().kept)]
        kept: usize,
        #[arg(long, default_value_t = Storm::default().per_ten_seconds)]
        per_ten_seconds: u64,
    },
    /// Offer ten times what the server can do.
    Overload {
        #[command(flatten)]
        base: BaseArgs,
        #[arg(long, default_value_t = Overload::default().senders)]
        senders: usize,
        #[arg(long, default_value_t = Overload::default().times)]
        times: u64,
        #[arg(long, default_value_t = Overload::default().rated_s)]
        rated_s: u64,
        #[arg(long, default_value_t = Overload::default().overload_s)]
        overload_s: u64,
    },
    /// All scenarios in their order; one table at the end.
    Torture {
        #[command(flatten)]
        base: BaseArgs,
        /// The long lengths.
        #[arg(long)]
        full: bool,
        /// Scenarios whose name begins so; all without any.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Measure, each scenario on a fresh server, and write a report.
    Bench(BenchArgs),
    /// Measure the disk of a folder: append or overwrite 4 KiB, then fdatasync.
    Probe {
        /// The folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Judge a recording.
    Check {
        /// The recording.
        file: PathBuf,
        /// Print the judgement as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct BenchArgs {
    /// The server's binary; figures of anything but a release build say nothing.
    #[arg(long, default_value = "target/release/parlor")]
    binary: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/parlor-load")]
    out: PathBuf,
    /// Where the server's data goes: the disk that is measured. The folder for temporary files
    /// without it.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Runs of each scenario.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds before the measured part.
    #[arg(long, default_value_t = 5)]
    warm_up_s: u64,
    /// Seconds of the measured part.
    #[arg(long, default_value_t = 20)]
    measured_s: u64,
    /// A quick look: one short run each.
    #[arg(long)]
    quick: bool,
    /// Scenarios whose name begins so; all without any.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Pairs of the largest closed loop and of the open loop.
    #[arg(long, default_value_t = 500)]
    pairs: usize,
    /// Rates of the open loop, in sends per second.
    #[arg(long, value_delimiter = ',', default_values_t = [300.0, 1_000.0, 3_000.0])]
    rates: Vec<f64>,
    /// Idle sockets.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// Decides arrivals and pages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl BenchArgs {
    fn bench(self) -> Bench {
        let times = Times {
            warm_up: Duration::from_secs(self.warm_up_s),
            measured: Duration::from_secs(self.measured_s),
        };
        Bench {
            binary: self.binary,
            out: self.out,
            data: self.data.unwrap_or_else(std::env::temp_dir),
            runs: if self.quick { 1 } else { self.runs.max(1) },
            times: if self.quick { bench::QUICK } else { times },
            only: self.only,
            pairs: self.pairs,
            rates: self.rates,
            connections: self.connections,
            seed: self.seed,
            replay: repeat_command(self.seed),
        }
    }
}

#[derive(Args)]
struct BaseArgs {
    /// The server's binary.
    #[arg(long, default_value = "target/debug/parlor")]
    binary: PathBuf,
    /// Decides all dice; chosen by the clock without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Where recordings and logs go.
    #[arg(long, default_value = "target/parlor-load")]
    out: PathBuf,
}

impl BaseArgs {
    fn base(self) -> Base {
        let seed = self.seed.unwrap_or_else(|| clock::wall_ms() % 1_000_000);
        Base { binary: self.binary, seed, out: self.out }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse().command).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("parlor-load: {error:#}");
            ExitCode::from(3)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<u8> {
    let (base, outcome) = match command {
        Command::Kill9 { base, rounds, socket_writers, http_writers, people, chats, up_ms } => {
            let base = base.base();
            let options = Kill9 { rounds, socket_writers, http_writers, people, chats, up_ms };
            let outcome = kill9::run(&base, &options).await.map(Finding::from);
            (base, outcome)
        }
        Command::Order { base, messages, socket_writers, http_writers, people, limit_s } => {
            let base = base.base();
            let options = Order { messages, socket_writers, http_writers, people, limit_s };
            let outcome = order::run(&base, &options).await.map(Finding::from);
            (base, outcome)
        }
        Command::Idempotency { base, sends, senders, lost_answers, conflicts } => {
            let base = base.base();
            let options = Idempotency { sends, senders, lost_answers, conflicts };
            let outcome = idempotency::run(&base, &options).await.map(Finding::from);
            (base, outcome)
        }
        Command::Membership { base, cycles, guests, writers, pause_ms } => {
            let base = base.base();
            let options = Membership { cycles, guests, writers, pause_ms };
            let outcome = membership::run(&base, &options).await.map(Finding::from);
            (base, outcome)
        }
        Command::Powercut { base, cuts, socket_writers, http_writers, up_ms, no_sync } => {
            let base = base.base();
            let options = Powercut { cuts, socket_writers, http_writers, up_ms, no_sync };
            let outcome = powercut::run(&base, &options).await;
            (base, outcome)
        }
        Command::Disk { base, writers, fault_ms, full_kib } => {
            let base = base.base();
            let outcome = disk::run(&base, &Disk { writers, fault_ms, full_kib }).await;
            (base, outcome)
        }
        Command::Resume { base, messages, cuts, lanes } => {
            let base = base.base();
            let outcome = resume::run(&base, &Resume { messages, cuts, lanes }).await;
            (base, outcome)
        }
        Command::Halfopen { base, cut, kept, heartbeat_ms } => {
            let base = base.base();
            let outcome = halfopen::run(&base, &Halfopen { cut, kept, heartbeat_ms }).await;
            (base, outcome)
        }
        Command::Slowreader { base, members, slow_percent, per_second, body_bytes, seconds } => {
            let base = base.base();
            let options = Slowreader { members, slow_percent, per_second, body_bytes, seconds };
            let outcome = slowreader::run(&base, &options).await;
            (base, outcome)
        }
        Command::Storm { base, sockets, kept, per_ten_seconds } => {
            let base = base.base();
            let outcome = storm::run(&base, &Storm { sockets, kept, per_ten_seconds }).await;
            (base, outcome)
        }
        Command::Overload { base, senders, times, rated_s, overload_s } => {
            let base = base.base();
            let options = Overload { senders, times, rated_s, overload_s };
            let outcome = overload::run(&base, &options).await;
            (base, outcome)
        }
        Command::Torture { base, full, only } => {
            return torture::run(&base.base(), full, &only).await;
        }
        Command::Bench(args) => {
            let path = bench::run(&args.bench()).await?;
            print!("{}", std::fs::read_to_string(&path)?);
            println!("report: {}", path.display());
            return Ok(0);
        }
        Command::Probe { folder } => {
            let probe = probe::run(&folder).await?;
            println!("{}", serde_json::to_string_pretty(&probe)?);
            return Ok(0);
        }
        Command::Check { file, json } => {
            let judgement = check::check_file(&file)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&judgement)?);
            } else {
                print!("{judgement}");
            }
            return Ok(judgement.exit_code());
        }
    };
    match outcome {
        Ok(finding) => {
            print!("{finding}");
            Ok(finding.verdict().exit_code())
        }
        Err(error) => {
            // Every failure names its seed and how to see it again.
            eprintln!("seed {}; all options: {}", base.seed, repeat_command(base.seed));
            Err(error)
        }
    }
}

/// The command as it was given, with the seed that was chosen for it.
fn repeat_command(seed: u64) -> String {
    // Without its folder, which says nothing on another machine.
    let mut words = vec!["parlor-load".to_owned()];
    words.extend(std::env::args().skip(1));
    if !words.iter().any(|word| word.starts_with("--seed")) {
        words.push(format!("--seed {seed}"));
    }
    words.join(" ")
}

/// Reads `50-1000`.
fn range(text: &str) -> Result<(u64, u64), String> {
    let (least, most) = text.split_once('-').ok_or("a range is two numbers with `-` between")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let (least, most) = (number(least)?, number(most)?);
    if least > most {
        return Err("the first number is the smaller one".to_owned());
    }
    Ok((least, most))
}
