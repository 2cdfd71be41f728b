//! `disk`: a full disk, syncs that fail, slow syncs (P1, P15, goal G10).
//!
//! While the disk fails every send is either acknowledged and kept, or refused within 2 s with
//! `Retry-After`; 5 s after the disk is well again sends are acknowledged. At the end the server is
//! killed and started again, and the checker compares.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use parlor_client::{Error, Random, ids::ClientIds};
use parlor_proto::ChatId;
use tokio::{sync::watch, task::JoinSet};

use super::{
    Base, Place, QUIET_LIMIT, Stage,
    kill9::{Kill9, Writers},
    run_args,
};
use crate::{
    clock,
    device::{end_http, invocation, message},
    disk::{SmallDisk, Strace, lift_file_limit},
    finding::Finding,
    people::Person,
    process::Launch,
    record::{Needs, Recorder, Who},
};

/// A refusal may take so long.
const REFUSAL_LIMIT_S: f64 = 2.0;
/// Sends are acknowledged again so long after the disk is well.
const HEAL_LIMIT_S: f64 = 5.0;
/// Answers that were under way when a fault began belong to neither side.
const GRACE_US: u64 = 300_000;

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Writers over HTTP, with texts of some KiB.
    pub writers: usize,
    /// How long each fault lasts.
    pub fault_ms: u64,
    /// Files may grow to so many KiB before the disk is full.
    pub full_kib: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self { writers: 4, fault_ms: 3_000, full_kib: 1_500 }
    }
}

/// What the disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Limit,
    Tmpfs,
    Eio,
    Slow,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Limit, Self::Tmpfs, Self::Eio, Self::Slow];

    const fn name(self) -> &'static str {
        match self {
            Self::Limit => "full (limit)",
            Self::Tmpfs => "full (tmpfs)",
            Self::Eio => "EIO",
            Self::Slow => "200 ms sync",
        }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Disk) -> anyhow::Result<Finding> {
    let mut finding = Finding::default();
    for fault in Fault::ALL {
        run_one(base, options, fault, &mut finding)
            .await
            .with_context(|| fault.name().to_owned())?;
    }
    Ok(finding)
}

async fn run_one(
    base: &Base,
    options: &Disk,
    fault: Fault,
    finding: &mut Finding,
) -> anyhow::Result<()> {
    let skip = |why: String| format!("{}: {why}", fault.name());
    let mut place = Place::default();
    let mut small = None;
    match fault {
        Fault::Limit => {
            place.launch = Launch { file_kib: Some(options.full_kib), ..Launch::default() };
        }
        Fault::Tmpfs => match SmallDisk::create((options.full_kib * 4).div_ceil(1_024)) {
            Ok(disk) => {
                place.data = Some(disk.path().join("data"));
                small = Some(disk);
            }
            Err(error) => {
                finding.skipped.push(skip(format!("{error:#}")));
                return Ok(());
            }
        },
        Fault::Eio | Fault::Slow => {
            if let Some(why) = Strace::reason_against() {
                finding.skipped.push(skip(why));
                return Ok(());
            }
        }
    }
    let flags = [
        ("writers", options.writers.to_string()),
        ("fault-ms", options.fault_ms.to_string()),
        ("full-kib", options.full_kib.to_string()),
    ];
    let needs = Needs { n_acks: 20, n_faults: 1, final_reads: true };
    let scenario = format!("disk-{fault:?}").to_lowercase();
    let run = run_args(&scenario, base, &flags, needs);
    let mut stage = Stage::build_in(place, base, run, 3, 2).await?;
    let mut random = Random::from_seed(base.seed);
    let (stop, stopped) = watch::channel(false);
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for number in 0..options.writers {
        let writer = Writer {
            name: format!("large{number}"),
            person: stage.people.get(number % 3).context("people")?.clone(),
            recorder: Arc::clone(&stage.recorder),
            chat_id: *stage.chats.get(number % 2).context("chats")?,
            ids: ClientIds::new(random.fork()),
            // A full disk takes large texts to fill, and then a small one may still fit.
            n_bytes: if matches!(fault, Fault::Limit | Fault::Tmpfs) { 8_000 } else { 200 },
            attempts: Arc::clone(&attempts),
        };
        tasks.spawn(writer.run(stopped.clone()));
    }
    let small_writers = Kill9 { socket_writers: 2, http_writers: 0, ..Kill9::default() };
    let writers = Writers::start(&stage, &small_writers, &mut random, &stopped)?;

    let lasts = Duration::from_millis(options.fault_ms);
    let now_us = || clock::micros_since(stage.recorder.start());
    let op_id = stage.fault(fault.name());
    let (from_us, healed_us) = match fault {
        Fault::Limit | Fault::Tmpfs => {
            let begin = clock::now();
            while !lock(&attempts).iter().any(|attempt| attempt.kind != Kind::Acked) {
                if begin.elapsed() > QUIET_LIMIT {
                    finding.missing.push(skip("the disk was never full".to_owned()));
                    break;
                }
                clock::sleep(Duration::from_millis(2)).await;
            }
            let from_us = now_us();
            clock::sleep(lasts).await;
            let healed_us = match &small {
                Some(small) => small.resize(256).map(|()| now_us())?,
                None => lift_file_limit(stage.server.pid()?).map(|()| now_us())?,
            };
            (from_us, healed_us)
        }
        Fault::Eio | Fault::Slow => {
            clock::sleep(Duration::from_millis(500)).await;
            let what = if fault == Fault::Eio { Strace::EIO } else { Strace::SLOW };
            let strace = Strace::attach(stage.server.pid()?, what).await?;
            let from_us = now_us();
            clock::sleep(lasts).await;
            let end_us = now_us();
            drop(strace);
            (from_us, end_us)
        }
    };
    stage.fired(op_id, fault.name());
    let begin = clock::now();
    // Long enough to be healed, or to have broken the promise.
    while !lock(&attempts).iter().any(|at| at.kind == Kind::Acked && at.from_us > healed_us)
        && begin.elapsed() < Duration::from_secs(10)
    {
        clock::sleep(Duration::from_millis(5)).await;
    }
    clock::sleep(Duration::from_millis(300)).await;
    stop.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    writers.connect_now().await?;
    writers.finish(&stage).await?;
    let span = Span { from_us, healed_us };
    judge(fault, &lock(&attempts), span, finding);
    // What was acknowledged must be on the disk, not in the memory of the server.
    stage.server.lift_file_limit();
    stage.server.kill9().await?;
    stage.server.restart().await?;
    finding.judge(stage.judge(Vec::new()).await?);
    drop(small);
    Ok(())
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Acked,
    /// Refused for now, with a time to come again.
    Refused,
    /// Refused for now, without one.
    RefusedBare,
    NoAnswer,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    from_us: u64,
    to_us: u64,
    kind: Kind,
}

/// When the disk failed.
#[derive(Debug, Clone, Copy)]
struct Span {
    from_us: u64,
    healed_us: u64,
}

/// The rules of this scenario, beside those of the checker.
fn judge(fault: Fault, attempts: &[Attempt], span: Span, finding: &mut Finding) {
    let name = |what: &str| format!("{} {what}", fault.name());
    let is_during = |attempt: &&Attempt| {
        let is_after = attempt.from_us >= span.from_us.saturating_sub(GRACE_US);
        is_after && attempt.from_us < span.healed_us
    };
    let during: Vec<_> = attempts.iter().filter(is_during).collect();
    let count = |kind| during.iter().filter(|attempt| attempt.kind == kind).count() as u64;
    let seconds = |micros: u64| crate::latency::ms(micros) / 1_000.0;
    let longest = |kind| {
        let of_kind = during.iter().filter(|attempt| attempt.kind == kind);
        seconds(of_kind.map(|at| at.to_us - at.from_us).max().unwrap_or_default())
    };
    if fault == Fault::Slow {
        finding.evidence(&name("acknowledged"), count(Kind::Acked), 3);
        finding.at_most(&name("longest ack"), longest(Kind::Acked), REFUSAL_LIMIT_S, "s");
    } else {
        finding.evidence(&name("refusals"), count(Kind::Refused), 5);
        finding.at_most(&name("longest refusal"), longest(Kind::Refused), REFUSAL_LIMIT_S, "s");
    }
    let bare = count(Kind::RefusedBare) + count(Kind::NoAnswer);
    if bare > 0 {
        finding.broken.push(name(&format!("{bare} sends without an answer or Retry-After")));
    }
    if fault == Fault::Eio {
        // No sync succeeds: whoever acknowledges now has not stored.
        let settled = during.iter().filter(|at| at.from_us > span.from_us + GRACE_US);
        let n_false = settled
            .filter(|at| at.kind == Kind::Acked && at.to_us + 1_000 < span.healed_us)
            .count();
        if n_false > 0 {
            finding.broken.push(name(&format!("{n_false} acknowledged while no sync succeeded")));
        }
    }
    let healed = attempts
        .iter()
        .filter(|at| at.kind == Kind::Acked && at.to_us > span.healed_us)
        .map(|at| at.to_us - span.healed_us)
        .min();
    let healed_s = healed.map_or(f64::NAN, seconds);
    finding.at_most(&name("healed after"), healed_s, HEAL_LIMIT_S, "s");
}

fn lock(attempts: &Mutex<Vec<Attempt>>) -> std::sync::MutexGuard<'_, Vec<Attempt>> {
    attempts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends one large text after the other, each until it is acknowledged.
struct Writer {
    name: String,
    person: Person,
    recorder: Arc<Recorder>,
    chat_id: ChatId,
    ids: ClientIds,
    n_bytes: usize,
    attempts: Arc<Mutex<Vec<Attempt>>>,
}

impl Writer {
    async fn run(mut self, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let who = Who::device(self.person.user_id, &self.name);
        let mut number = 0;
        while !*stopped.borrow() {
            number += 1;
            let mut text = format!("{} {number} ", self.name);
            text.extend(std::iter::repeat_n('x', self.n_bytes));
            let key = self.ids.next(clock::wall_ms());
            let message = message(self.chat_id, text, key.clone());
            let begin = clock::now();
            loop {
                let from_us = clock::micros_since(self.recorder.start());
                let op_id = self.recorder.invoke(&who, invocation(&message, &key, None));
                let answer = self.person.client.send_message(&message).await;
                let to_us = clock::micros_since(self.recorder.start());
                let kind = match &answer {
                    Ok(_) => Kind::Acked,
                    Err(error) if error.retry_after().is_some() => Kind::Refused,
                    Err(Error::Network(_)) => Kind::NoAnswer,
                    Err(_) => Kind::RefusedBare,
                };
                let answer = answer.map(|message| (message.message_id, message.seq));
                end_http(&self.recorder, &who, op_id, answer);
                lock(&self.attempts).push(Attempt { from_us, to_us, kind });
                if kind == Kind::Acked {
                    break;
                }
                if *stopped.borrow() && begin.elapsed() > QUIET_LIMIT {
                    anyhow::bail!("a send was not acknowledged after the disk was well");
                }
                clock::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Verdict;

    const SPAN: Span = Span { from_us: 1_000_000, healed_us: 4_000_000 };

    fn good() -> Vec<Attempt> {
        let refused = (0..10).map(|n| Attempt {
            from_us: 1_500_000 + n * 100_000,
            to_us: 1_600_000 + n * 100_000,
            kind: Kind::Refused,
        });
        let acked = Attempt { from_us: 4_100_000, to_us: 4_200_000, kind: Kind::Acked };
        refused.chain([acked]).collect()
    }

    fn verdict(fault: Fault, attempts: &[Attempt]) -> Verdict {
        let mut finding = Finding::default();
        judge(fault, attempts, SPAN, &mut finding);
        finding.verdict()
    }

    #[test]
    fn planted_bad_disks_are_found() {
        assert_eq!(verdict(Fault::Eio, &good()), Verdict::Holds);
        let with = |attempt| {
            let mut attempts = good();
            attempts.push(attempt);
            attempts
        };
        let at = |from_us, to_us, kind| Attempt { from_us, to_us, kind };
        let false_ack = with(at(2_000_000, 2_001_000, Kind::Acked));
        assert_eq!(verdict(Fault::Eio, &false_ack), Verdict::Broken);
        assert_eq!(verdict(Fault::Limit, &false_ack), Verdict::Holds, "a small one may fit");
        for bad in [
            at(2_000_000, 4_100_000, Kind::Refused),
            at(2_000_000, 2_001_000, Kind::RefusedBare),
            at(2_000_000, 2_001_000, Kind::NoAnswer),
        ] {
            assert_eq!(verdict(Fault::Limit, &with(bad)), Verdict::Broken, "{bad:?}");
        }
        let never_healed: Vec<_> = good().into_iter().filter(|at| at.kind != Kind::Acked).collect();
        assert_eq!(verdict(Fault::Tmpfs, &never_healed), Verdict::Broken);
        let idle: Vec<_> = good().into_iter().filter(|at| at.kind == Kind::Acked).collect();
        assert_eq!(verdict(Fault::Tmpfs, &idle), Verdict::NoEvidence);
    }
}
