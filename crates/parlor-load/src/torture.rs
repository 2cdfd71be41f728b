//! All proving scenarios in their order, and one table of what they found.

use std::{future::Future, pin::Pin, time::Duration};

use crate::{
    clock,
    finding::{Finding, Verdict},
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
        resume::{self, Resume},
        slowreader::{self, Slowreader},
        storm::{self, Storm},
    },
};

/// A scenario that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(1_800);

type Run<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Finding>> + 'a>>;

/// Names of the scenarios, in their order.
pub const NAMES: [&str; 12] = [
    "kill9",
    "powercut",
    "powercut-no-sync",
    "disk",
    "order",
    "idempotency",
    "membership",
    "resume",
    "halfopen",
    "slowreader",
    "storm",
    "overload",
];

fn start<'a>(name: &str, base: &'a Base, full: bool) -> Option<Run<'a>> {
    Some(match name {
        "kill9" => {
            let options = Kill9 { rounds: if full { 100 } else { 6 }, ..Kill9::default() };
            Box::pin(async move { kill9::run(base, &options).await.map(Finding::from) })
        }
        "powercut" => {
            let options = Powercut { cuts: if full { 20 } else { 4 }, ..Powercut::default() };
            Box::pin(async move { powercut::run(base, &options).await })
        }
        "powercut-no-sync" => {
            let options = Powercut { cuts: 2, no_sync: true, ..Powercut::default() };
            Box::pin(async move { powercut::run(base, &options).await })
        }
        "disk" => {
            let options = Disk { fault_ms: if full { 10_000 } else { 2_000 }, ..Disk::default() };
            Box::pin(async move { disk::run(base, &options).await })
        }
        "order" => {
            let messages = if full { 200_000 } else { 1_000 };
            let limit_s = if full { 600 } else { 60 };
            let options = Order { messages, limit_s, ..Order::default() };
            Box::pin(async move { order::run(base, &options).await.map(Finding::from) })
        }
        "idempotency" => {
            let sends = if full { 50_000 } else { 500 };
            let options = Idempotency { sends, ..Idempotency::default() };
            Box::pin(async move { idempotency::run(base, &options).await.map(Finding::from) })
        }
        "membership" => {
            let cycles = if full { 5_000 } else { 100 };
            let options = Membership { cycles, ..Membership::default() };
            Box::pin(async move { membership::run(base, &options).await.map(Finding::from) })
        }
        "resume" => {
            let cuts = if full { u64::MAX } else { 400 };
            let options = Resume { cuts, ..Resume::default() };
            Box::pin(async move { resume::run(base, &options).await })
        }
        "halfopen" => {
            let mut options = Halfopen::default();
            if full {
                options = Halfopen { cut: 2_000, kept: 200, heartbeat_ms: 15_000 };
            }
            Box::pin(async move { halfopen::run(base, &options).await })
        }
        "slowreader" => {
            let mut options = Slowreader::default();
            if full {
                options = Slowreader { members: 1_000, seconds: 30, ..options };
            }
            Box::pin(async move { slowreader::run(base, &options).await })
        }
        "storm" => {
            let mut options = Storm::default();
            if full {
                options = Storm { sockets: 10_000, kept: 1_000, ..options };
            }
            Box::pin(async move { storm::run(base, &options).await })
        }
        "overload" => {
            let mut options = Overload::default();
            if full {
                options = Overload { overload_s: 60, ..options };
            }
            Box::pin(async move { overload::run(base, &options).await })
        }
        _ => return None,
    })
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    name: &'static str,
    verdict: String,
    code: u8,
    seconds: u64,
    line: String,
}

/// Runs the scenarios whose names begin as asked, and returns the exit code of all.
pub async fn run(base: &Base, full: bool, only: &[String]) -> anyhow::Result<u8> {
    let mut rows = Vec::new();
    for name in NAMES {
        let is_asked = only.is_empty() || only.iter().any(|asked| name.starts_with(asked.as_str()));
        let Some(run) = start(name, base, full).filter(|_| is_asked) else { continue };
        println!("=== {name}");
        let begin = clock::now();
        let found = clock::within(LONGEST, run).await;
        let (verdict, code, line) = match found {
            Some(Ok(finding)) => {
                print!("{finding}");
                let verdict = finding.verdict();
                (verdict.to_string(), verdict.exit_code(), finding.line())
            }
            Some(Err(error)) => {
                println!("the run failed: {error:#}");
                ("FAILED".to_owned(), 3, format!("{error:#}"))
            }
            None => ("FAILED".to_owned(), 3, format!("longer than {LONGEST:?}")),
        };
        rows.push(Row { name, verdict, code, seconds: begin.elapsed().as_secs(), line });
    }
    println!("\nseed {}", base.seed);
    println!("{:<17} {:<12} {:>5}  figures", "scenario", "verdict", "s");
    for row in &rows {
        println!("{:<17} {:<12} {:>5}  {}", row.name, row.verdict, row.seconds, row.line);
    }
    Ok(exit_code(rows.iter().map(|row| row.code)))
}

/// Broken outranks failed, failed outranks no evidence; a skip alone is no failure of the others.
fn exit_code(codes: impl IntoIterator<Item = u8>) -> u8 {
    let codes: Vec<u8> = codes.into_iter().collect();
    for code in [1, 3, 2] {
        if codes.contains(&code) {
            return code;
        }
    }
    let skipped = Verdict::Skipped.exit_code();
    let all_skipped = codes.iter().all(|code| *code == skipped);
    if codes.is_empty() {
        Verdict::NoEvidence.exit_code()
    } else if all_skipped {
        skipped
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_scenario_and_the_worst_verdict_counts() {
        let base = Base { binary: "none".into(), seed: 1, out: "none".into() };
        for name in NAMES {
            assert!(start(name, &base, false).is_some() && start(name, &base, true).is_some());
        }
        assert!(start("nothing", &base, false).is_none());
        assert_eq!(exit_code([0, 4, 0]), 0);
        assert_eq!(exit_code([0, 2, 4]), 2);
        assert_eq!(exit_code([2, 3, 1, 0]), 1);
        assert_eq!(exit_code([2, 3, 0]), 3);
        assert_eq!(exit_code([4]), 4);
        assert_eq!(exit_code([]), 2, "nothing was run");
    }
}
