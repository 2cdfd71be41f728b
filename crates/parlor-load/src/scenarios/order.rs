//! `order`: many writers in one hot chat, over sockets and HTTP at once (P3, P4). No faults.

use anyhow::bail;
use parlor_client::Random;
use tokio::sync::watch;

use super::{
    Base, Outcome, Stage,
    kill9::{Kill9, Writers},
    run_args,
};
use crate::{clock, record::Needs, target};

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Order {
    /// Acknowledged messages after which the run ends.
    pub messages: u64,
    /// Writers over sockets, each on a device of its own.
    pub socket_writers: usize,
    /// Writers over HTTP.
    pub http_writers: usize,
    /// People in the chat.
    pub people: usize,
    /// The run ends after so many seconds at the latest.
    pub limit_s: u64,
}

impl Default for Order {
    fn default() -> Self {
        Self { messages: 10_000, socket_writers: 16, http_writers: 8, people: 6, limit_s: 120 }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Order) -> anyhow::Result<Outcome> {
    target::check_size(options.socket_writers + options.http_writers, options.limit_s)?;
    if options.people < 2 || options.socket_writers + options.http_writers < 2 {
        bail!("at least two people and two writers");
    }
    let flags = [
        ("messages", options.messages.to_string()),
        ("socket-writers", options.socket_writers.to_string()),
        ("http-writers", options.http_writers.to_string()),
        ("people", options.people.to_string()),
        ("limit-s", options.limit_s.to_string()),
    ];
    let needs = Needs { n_acks: options.messages, n_faults: 0, final_reads: true };
    let run = run_args("order", base, &flags, needs);
    let stage = Stage::build(base, run, options.people, 1).await?;
    let mut random = Random::from_seed(base.seed);
    let (stop, stopped) = watch::channel(false);
    let writers = Kill9 {
        socket_writers: options.socket_writers,
        http_writers: options.http_writers,
        ..Kill9::default()
    };
    let writers = Writers::start(&stage, &writers, &mut random, &stopped)?;
    let begin = clock::now();
    while stage.recorder.n_acks() < options.messages && begin.elapsed().as_secs() < options.limit_s
    {
        clock::sleep(std::time::Duration::from_millis(10)).await;
    }
    let (n_acks, seconds) = (stage.recorder.n_acks(), begin.elapsed().as_secs_f64());
    stop.send_replace(true);
    writers.finish(&stage).await?;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = n_acks as f64 / seconds;
    let note = format!("{n_acks} acknowledgements in {seconds:.1} s, {rate:.0}/s, recorded");
    stage.judge(vec![note]).await
}
