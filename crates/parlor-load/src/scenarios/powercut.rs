//! `powercut`: the power of the server's disk is cut in the middle of the writes (P1).
//!
//! The data lies on ext4 on a loop device. The cut is the file system's own shutdown without a flush
//! of its log: what was not written through is gone. The server is killed, the disk mounted again,
//! the server started, and everything that was acknowledged must be there. With `no_sync` every sync
//! of the server is answered without being made: then rows must be lost, or the tool does not bite.

use std::time::Duration;

use anyhow::{Context, bail};
use parlor_client::Random;
use tokio::sync::watch;

use super::{
    Base, Place, Stage,
    kill9::{Kill9, Writers, millis_since, wait_for_acks},
    run_args,
};
use crate::{
    check::{Rule, Verdict},
    clock,
    disk::{LoopDisk, Strace},
    finding::Finding,
    process::Launch,
    record::Needs,
    target,
};

const DISK_MIB: u64 = 512;

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Powercut {
    /// Cuts.
    pub cuts: usize,
    /// Writers over sockets.
    pub socket_writers: usize,
    /// Writers over HTTP.
    pub http_writers: usize,
    /// A cut comes between these times after the first acknowledgement since the start, in ms.
    pub up_ms: (u64, u64),
    /// Plants the fault that this scenario must find: syncs are not made.
    pub no_sync: bool,
}

impl Default for Powercut {
    fn default() -> Self {
        Self { cuts: 5, socket_writers: 16, http_writers: 8, up_ms: (200, 1_500), no_sync: false }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Powercut) -> anyhow::Result<Finding> {
    target::check_size(options.socket_writers + options.http_writers, 0)?;
    if options.cuts == 0 || options.socket_writers == 0 {
        bail!("at least one cut and one writer over a socket");
    }
    let mut disk = match LoopDisk::create(DISK_MIB) {
        Ok(disk) => disk,
        Err(error) => return Ok(Finding::skipped(format!("no disk to cut: {error:#}"))),
    };
    if options.no_sync
        && let Some(why) = Strace::reason_against()
    {
        return Ok(Finding::skipped(format!("the fault cannot be planted: {why}")));
    }
    let flags = [
        ("cuts", options.cuts.to_string()),
        ("socket-writers", options.socket_writers.to_string()),
        ("http-writers", options.http_writers.to_string()),
        ("up-ms", format!("{}-{}", options.up_ms.0, options.up_ms.1)),
        ("no-sync", options.no_sync.to_string()),
    ];
    let n_cuts = options.cuts as u64;
    let needs = Needs { n_acks: n_cuts * 20, n_faults: n_cuts, final_reads: true };
    let run = run_args("powercut", base, &flags, needs);
    let place = Place { data: Some(disk.path().join("data")), launch: Launch::default() };
    let mut stage = Stage::build_in(place, base, run, 4, 3).await?;
    // What the stage itself made is on the disk: the planted fault is about the load only.
    clock::sleep(Duration::from_millis(if options.no_sync { 6_000 } else { 0 })).await;
    let outcome = cut_again_and_again(base, options, &mut disk, &mut stage).await;
    match outcome {
        Err(error) if options.no_sync => {
            // Without syncs anything may be gone, a readable database or a writer's whole session.
            let mut finding = Finding::default();
            finding.notes.push(format!("the planted fault broke the run itself: {error:#}"));
            finding.figure("lost with no_sync", 1.0, "(the run broke)");
            stage.server.stop().await.or_else(|error| {
                tracing::debug!(%error, "the server of the planted fault");
                anyhow::Ok(())
            })?;
            Ok(finding)
        }
        Err(error) => Err(error),
        Ok(mut finding) => {
            let outcome = stage.judge(Vec::new()).await?;
            let lost = outcome.judgement.broken.get(&Rule::Lost).map_or(0, |lost| lost.count);
            if options.no_sync {
                #[expect(clippy::cast_precision_loss, reason = "a count for people")]
                finding.figure("lost with no_sync", lost as f64, "messages");
                if outcome.judgement.verdict != Verdict::Broken {
                    finding.missing.push("the planted fault was not found".to_owned());
                }
                finding.notes.push(format!("recording: {}", outcome.recording.display()));
            } else {
                finding.judge(outcome);
            }
            Ok(finding)
        }
    }
}

async fn cut_again_and_again(
    base: &Base,
    options: &Powercut,
    disk: &mut LoopDisk,
    stage: &mut Stage,
) -> anyhow::Result<Finding> {
    let mut random = Random::from_seed(base.seed);
    let (stop, stopped) = watch::channel(false);
    let writers = Kill9 {
        socket_writers: options.socket_writers,
        http_writers: options.http_writers,
        ..Kill9::default()
    };
    let mut strace = None;
    if options.no_sync {
        strace = Some(Strace::attach(stage.server.pid()?, Strace::NO_SYNC).await?);
    }
    let writers = Writers::start(stage, &writers, &mut random, &stopped)?;
    let (mut serving_ms, mut up_us) = (Vec::new(), 0);
    for round in 1..=options.cuts {
        let n_before = stage.recorder.n_acks();
        wait_for_acks(&stage.recorder, n_before + 1)
            .await
            .with_context(|| format!("round {round}: no acknowledgement since the start"))?;
        let up = clock::now();
        let (least, most) = options.up_ms;
        let up_ms = least + random.below(most.saturating_sub(least) + 1);
        clock::sleep(Duration::from_millis(up_ms)).await;
        let op_id = stage.fault("powercut");
        disk.cut()?;
        stage.fired(op_id, "powercut");
        up_us += clock::micros_since(up);
        // The server meets a dead disk for a moment: whatever it acknowledges now must be there.
        clock::sleep(Duration::from_millis(random.below(100))).await;
        stage.server.kill9().await?;
        drop(strace.take());
        let killed = clock::now();
        disk.unmount()?;
        disk.mount()?;
        stage.server.restart().await.with_context(|| format!("round {round}"))?;
        serving_ms.push(millis_since(killed));
        if options.no_sync && round < options.cuts {
            strace = Some(Strace::attach(stage.server.pid()?, Strace::NO_SYNC).await?);
        }
        writers.connect_now().await?;
    }
    let n_acks = stage.recorder.n_acks();
    wait_for_acks(&stage.recorder, n_acks + 1).await.context("no sends after the last cut")?;
    stop.send_replace(true);
    writers.finish(stage).await?;
    let mut finding = Finding::default();
    finding.evidence("acknowledged up to the last cut", n_acks, options.cuts as u64 * 20);
    finding.figure("durable sends", crate::latency::per_second(n_acks, up_us), "/s");
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let most = serving_ms.iter().max().copied().unwrap_or_default() as f64;
    finding.figure("serving again after a cut, most", most, "ms");
    Ok(finding)
}
