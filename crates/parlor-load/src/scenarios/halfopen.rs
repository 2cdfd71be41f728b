//! `halfopen`: the cable of many people is cut without a word, and watchers see them go (P9).
//!
//! The heartbeat of the run is short, and the bound is three of them, as 45 s is for 15 s; the server
//! looks once a second, which is added. Each person is seen to go once, and those whose cable is
//! whole are never seen to go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::bail;
use futures_util::{StreamExt, TryStreamExt, stream};
use parlor_client::wire;
use parlor_proto::{
    UserId,
    frame::{ServerFrame, Tag, WatchFrame},
    presence::PresenceStatus,
};
use tokio::{sync::watch, task::JoinSet};

use super::{Base, Place, own_log};
use crate::{
    clock,
    finding::Finding,
    people::Admin,
    process::{Launch, ServerProcess},
    proxy::{Faults, Plan, Proxy},
    speaker::Speaker,
    target,
};

/// The server looks at its connections once a second, and presence once a second too.
const LOOKS_MS: u64 = 2_000;
/// Scheduling on a busy machine.
const SLACK_MS: u64 = 1_500;
/// One socket may watch so many.
const WATCHED: usize = 400;

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Halfopen {
    /// People whose cable is cut.
    pub cut: usize,
    /// People whose cable stays.
    pub kept: usize,
    /// The heartbeat of the server.
    pub heartbeat_ms: u64,
}

impl Default for Halfopen {
    fn default() -> Self {
        Self { cut: 200, kept: 50, heartbeat_ms: 2_000 }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Halfopen) -> anyhow::Result<Finding> {
    let n_people = options.cut + options.kept;
    // The proxy holds two sockets more for each that is cut.
    target::check_size(options.cut * 3 + options.kept, 0)?;
    if options.cut == 0 || options.kept == 0 || options.heartbeat_ms < 100 {
        bail!("somebody whose cable is cut, somebody whose cable stays, and 100 ms");
    }
    let env = vec![("PARLOR_HEARTBEAT_MS".to_owned(), options.heartbeat_ms.to_string())];
    let place = Place { data: None, launch: Launch { env, file_kib: None } };
    let data = tempfile::Builder::new().prefix("parlor-load-").tempdir()?;
    let log = own_log(base, "halfopen")?;
    let mut server = ServerProcess::launch(&base.binary, data.path(), &log, place.launch).await?;
    let admin = Admin::sign_up(&server.client()?).await?;
    let people = admin.people("half", n_people).await?;
    // Only those who share a chat see each other's presence.
    let watcher = admin.person("watcher").await?;
    for group in people.chunks(500) {
        let others: Vec<_> = group.iter().map(|person| person.user_id).collect();
        watcher.client.create_group("hall", &others).await?;
    }
    let proxy = Proxy::start(&server.url(), base.seed, Plan::default()).await?;
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let sockets: Vec<Speaker> = stream::iter(people.iter().enumerate())
        .map(|(number, person)| {
            let proxied = number < options.cut;
            let client = if proxied { person.via(&proxy.url()) } else { Ok(person.clone()) };
            async move { anyhow::Ok(Speaker::connect(&client?.client, None, None).await?.0) }
        })
        .buffered(32)
        .try_collect()
        .await?;
    for speaker in sockets {
        tasks.spawn(answer_pings(speaker, stopped.clone()));
    }
    let ids: Vec<UserId> = people.iter().map(|person| person.user_id).collect();
    let (heard, mut seen) = tokio::sync::mpsc::unbounded_channel();
    for watched in ids.chunks(WATCHED) {
        let (mut speaker, _, _) = Speaker::connect(&watcher.client, None, None).await?;
        let frame = WatchFrame { tag: Tag, id: None, user_ids: watched.to_vec() };
        speaker.say(wire::watch(&frame)).await?;
        let (heard, mut stopped) = (heard.clone(), stopped.clone());
        tasks.spawn(async move {
            loop {
                let frames = tokio::select! {
                    frames = speaker.next() => frames?,
                    changed = stopped.changed() => return Ok(changed?),
                };
                for frame in frames {
                    if let ServerFrame::Presence(presence) = frame {
                        heard.send((clock::now(), presence.user_id, presence.status))?;
                    }
                }
            }
        });
    }
    // Two heartbeats with everybody there: pings are answered.
    clock::sleep(Duration::from_millis(options.heartbeat_ms * 2)).await;
    let cut_at = clock::now();
    let silent = Faults { is_silent: true, ..Faults::default() };
    proxy.set(Plan { up: silent, down: silent, ..Plan::default() });
    let bound_ms = options.heartbeat_ms * 3 + LOOKS_MS + SLACK_MS;
    // Long enough to see somebody go twice.
    clock::sleep(Duration::from_millis(bound_ms + options.heartbeat_ms * 2)).await;
    let mut events = Vec::new();
    while let Ok(event) = seen.try_recv() {
        events.push(event);
    }
    stop.send_replace(true);
    drop(proxy);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended? {
            tracing::debug!(%error, "a socket of the run");
        }
    }
    let (cut, kept) = ids.split_at(options.cut);
    let mut finding = Finding::default();
    judge(&events, cut_at, cut, kept, bound_ms, &mut finding);
    server.stop().await?;
    Ok(finding)
}

async fn answer_pings(
    mut speaker: Speaker,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            frames = speaker.next() => drop(frames?),
            changed = stopped.changed() => return Ok(changed?),
        }
    }
}

fn judge(
    events: &[(Instant, UserId, PresenceStatus)],
    cut_at: Instant,
    cut: &[UserId],
    kept: &[UserId],
    bound_ms: u64,
    finding: &mut Finding,
) {
    let mut online = BTreeSet::new();
    let mut gone: BTreeMap<UserId, (u64, u64)> = BTreeMap::new();
    for (at, user_id, status) in events {
        match status {
            PresenceStatus::Online if *at < cut_at => drop(online.insert(*user_id)),
            PresenceStatus::Offline => {
                let after = at.saturating_duration_since(cut_at);
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                gone.entry(*user_id).or_insert((after_ms, 0)).1 += 1;
            }
            _ => {}
        }
    }
    finding.evidence("seen online before the cut", online.len() as u64, cut.len() as u64);
    let times: Vec<u64> = cut.iter().filter_map(|id| gone.get(id)).map(|(ms, _)| *ms).collect();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    if times.len() < cut.len() {
        let n_missing = cut.len() - times.len();
        finding.broken.push(format!("STUCK: {n_missing} people were never seen to go"));
    }
    let longest = times.iter().max().copied().unwrap_or(u64::MAX);
    finding.at_most("cut to offline, longest", seconds(longest), seconds(bound_ms), "s");
    if let Some(first) = times.iter().min() {
        finding.figure("cut to offline, shortest", seconds(*first), "s");
    }
    let n_twice = gone.values().filter(|(_, times)| *times > 1).count();
    if n_twice > 0 {
        finding.broken.push(format!("{n_twice} people were seen to go more than once"));
    }
    let n_wrong = kept.iter().filter(|id| gone.contains_key(id)).count();
    if n_wrong > 0 {
        finding.broken.push(format!("{n_wrong} people whose cable was whole were seen to go"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Verdict;

    #[test]
    fn planted_bad_presence_is_found() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (ann, ben) = (UserId::from_raw(1), UserId::from_raw(2));
        let on = |id| (at(0), id, PresenceStatus::Online);
        let off = |ms, id| (at(ms), id, PresenceStatus::Offline);
        let verdict = |events: &[(Instant, UserId, PresenceStatus)]| {
            let mut finding = Finding::default();
            judge(events, at(1_000), &[ann], &[ben], 6_000, &mut finding);
            finding.verdict()
        };
        assert_eq!(verdict(&[on(ann), on(ben), off(5_000, ann)]), Verdict::Holds);
        assert_eq!(verdict(&[on(ann), on(ben)]), Verdict::Broken, "never seen to go");
        assert_eq!(verdict(&[on(ann), off(9_000, ann)]), Verdict::Broken, "too late");
        assert_eq!(verdict(&[on(ann), off(5_000, ann), off(6_000, ann)]), Verdict::Broken);
        assert_eq!(verdict(&[on(ann), off(5_000, ann), off(6_000, ben)]), Verdict::Broken);
        assert_eq!(verdict(&[off(5_000, ann)]), Verdict::NoEvidence, "nobody was there before");
    }
}
