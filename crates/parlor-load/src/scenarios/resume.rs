//! `resume`: the stream from the server is cut at byte positions, and the client resumes (P5).
//!
//! One recorded stream is cut at each of its positions (a sample of them, when there are many), each
//! time for a device that stands where the stream began. It must end with each event once, in order.
//! Beside that: cursors of another person, of another device, and damaged ones answer `reset`.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use parlor_client::{
    Random,
    store::{MemoryStore, Position, Step, Store},
};
use parlor_proto::{Seq, frame::ServerFrame};
use tokio::{sync::watch, task::JoinSet};

use super::{Base, Stage, run_args};
use crate::{
    clock,
    device::{Device, message, send_http},
    finding::Finding,
    people::Person,
    proxy::{Faults, Plan, Proxy},
    record::{Needs, Recorder},
    speaker::Speaker,
    target,
};

const LEVEL_LIMIT: Duration = Duration::from_secs(20);

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Resume {
    /// Messages of the stream.
    pub messages: usize,
    /// Most positions at which it is cut.
    pub cuts: u64,
    /// Devices at once.
    pub lanes: usize,
}

impl Default for Resume {
    fn default() -> Self {
        Self { messages: 6, cuts: 800, lanes: 8 }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Resume) -> anyhow::Result<Finding> {
    target::check_size(options.lanes, 0)?;
    if options.messages < 2 || options.lanes == 0 || options.cuts == 0 {
        bail!("at least two messages, one cut and one lane");
    }
    let flags = [
        ("messages", options.messages.to_string()),
        ("cuts", options.cuts.to_string()),
        ("lanes", options.lanes.to_string()),
    ];
    let needs = Needs { n_acks: options.messages as u64, n_faults: 1, final_reads: true };
    let run = run_args("resume", base, &flags, needs);
    let stage = Stage::build(base, run, 2, 1).await?;
    let mut random = Random::from_seed(base.seed);
    let (writer, reader) = (stage.person(0)?.clone(), stage.person(1)?.clone());
    let chat_id = *stage.chats.first().context("a chat")?;
    let begin = Begin {
        cursor: cursor_of(&reader).await?,
        have: reader.client.chat(chat_id).await?.head_seq,
        chat_id,
    };
    let mut ids = parlor_client::ids::ClientIds::new(random.fork());
    for number in 0..options.messages {
        let message =
            message(chat_id, format!("{number} of the stream"), ids.next(clock::wall_ms()));
        let (_stop, stopped) = watch::channel(false);
        send_http(&writer, "writer", &stage.recorder, &message, stopped).await?;
    }
    let head = reader.client.chat(chat_id).await?.head_seq;

    // How long the stream is: one device that is not cut.
    let proxy = Proxy::start(&stage.server.url(), base.seed, Plan::default()).await?;
    let whole = reader.via(&proxy.url())?;
    let device = begin.device(&whole, "whole", &stage.recorder, &mut random)?;
    if !device.settle(&[(chat_id, head)], LEVEL_LIMIT).await? {
        bail!("a device that was not cut did not get the stream");
    }
    device.stop().await;
    let n_bytes = proxy.down_bytes();
    let step = n_bytes.div_ceil(options.cuts).max(1);
    let at: Vec<u64> = (0..n_bytes).step_by(usize::try_from(step)?).collect();

    let op_id = stage.fault("cut");
    let next = Arc::new(AtomicU64::new(0));
    let at = Arc::new(at);
    let mut lanes = JoinSet::new();
    for lane in 0..options.lanes {
        let proxy = Proxy::start(&stage.server.url(), random.bits(), Plan::default()).await?;
        let lane = Lane {
            reader: reader.via(&proxy.url())?,
            proxy,
            name: format!("lane{lane}"),
            begin: begin.clone(),
            head,
            recorder: Arc::clone(&stage.recorder),
            random: random.fork(),
            at: Arc::clone(&at),
            next: Arc::clone(&next),
        };
        lanes.spawn(lane.run());
    }
    let mut done = Done::default();
    while let Some(ended) = lanes.join_next().await {
        let lane = ended??;
        done.cuts += lane.cuts;
        done.never_level.extend(lane.never_level);
    }
    stage.fired(op_id, "cut");
    let mut finding = Finding::default();
    finding.figure("bytes of the stream", crate::latency::ratio(n_bytes, 1), "");
    judge(&done, at.len() as u64, &mut finding);
    let refused = forged_cursors(&stage, &begin, &writer, &reader).await?;
    judge_cursors(&refused, &mut finding);
    finding.judge(stage.judge(Vec::new()).await?);
    Ok(finding)
}

#[derive(Debug, Default)]
struct Done {
    cuts: u64,
    never_level: BTreeSet<u64>,
}

fn judge(done: &Done, n_positions: u64, finding: &mut Finding) {
    finding.evidence("cut at positions", done.cuts, n_positions.min(50));
    if done.cuts * 10 < n_positions * 9 {
        finding.missing.push(format!("{} of {n_positions} positions were cut", done.cuts));
    }
    for position in &done.never_level {
        finding.broken.push(format!("RESUME: cut after byte {position}, and never level again"));
    }
}

/// Which cursor was shown, and whether the answer was `reset`.
fn judge_cursors(answers: &[(&str, bool, bool)], finding: &mut Finding) {
    finding.evidence("cursors judged", answers.len() as u64, 4);
    for (what, wanted, reset) in answers {
        if wanted != reset {
            finding.broken.push(format!("RESUME: {what}: reset is {reset}, not {wanted}"));
        }
    }
}

/// Where every device of the run begins.
#[derive(Debug, Clone)]
struct Begin {
    cursor: String,
    have: Seq,
    chat_id: parlor_proto::ChatId,
}

impl Begin {
    fn device(
        &self,
        person: &Person,
        name: &str,
        recorder: &Arc<Recorder>,
        random: &mut Random,
    ) -> anyhow::Result<Device> {
        let mut store = MemoryStore::new();
        let position = Position { have: self.have, head: self.have };
        store.commit(&Step {
            cursor: Some(self.cursor.clone()),
            positions: [(self.chat_id, position)].into(),
            ..Step::default()
        })?;
        Device::start_with(person, name, recorder, random, store)
    }
}

struct Lane {
    proxy: Proxy,
    reader: Person,
    name: String,
    begin: Begin,
    head: Seq,
    recorder: Arc<Recorder>,
    random: Random,
    at: Arc<Vec<u64>>,
    next: Arc<AtomicU64>,
}

impl Lane {
    async fn run(mut self) -> anyhow::Result<Done> {
        let mut done = Done::default();
        loop {
            let number = usize::try_from(self.next.fetch_add(1, Ordering::Relaxed))?;
            let Some(position) = self.at.get(number).copied() else { return Ok(done) };
            let n_before = self.proxy.n_cuts();
            let down = Faults { cut_after: Some(position), ..Faults::default() };
            self.proxy.set(Plan { down, reset: self.random.chance(0.5), ..Plan::default() });
            let name = format!("{}-{position}", self.name);
            let device =
                self.begin.device(&self.reader, &name, &self.recorder, &mut self.random)?;
            let begin = clock::now();
            while self.proxy.n_cuts() == n_before && begin.elapsed() < Duration::from_secs(2) {
                clock::sleep(Duration::from_millis(1)).await;
            }
            done.cuts += u64::from(self.proxy.n_cuts() > n_before);
            self.proxy.set(Plan::default());
            let begin = clock::now();
            let heads = [(self.begin.chat_id, self.head)];
            // The backoff is for crowds.
            while !device.settle(&heads, Duration::from_millis(30)).await? {
                if begin.elapsed() > LEVEL_LIMIT {
                    done.never_level.insert(position);
                    break;
                }
                device.replica.connect_now().await?;
            }
            // What would be a repeat comes before the cursor at the end of the replay.
            device.note_position(self.begin.chat_id).await?;
            device.stop().await;
        }
    }
}

/// Returns a resume position that covers everything so far.
async fn cursor_of(person: &Person) -> anyhow::Result<String> {
    let (mut speaker, welcome, first) = Speaker::connect(&person.client, None, None).await?;
    let mut cursor = welcome.cursor;
    let mut frames = first;
    loop {
        for frame in &frames {
            if let ServerFrame::Cursor(frame) = frame {
                cursor.clone_from(&frame.cursor);
            }
        }
        match speaker.next_within(Duration::from_millis(500)).await? {
            Some(more) => frames = more,
            None => break,
        }
    }
    speaker.socket.close().await;
    Ok(cursor)
}

async fn forged_cursors(
    stage: &Stage,
    begin: &Begin,
    writer: &Person,
    reader: &Person,
) -> anyhow::Result<Vec<(&'static str, bool, bool)>> {
    let other_device = stage.admin.device(reader.user_id).await?;
    let mut middle = begin.cursor.clone().into_bytes();
    let at = middle.len() / 2;
    if let Some(byte) = middle.get_mut(at) {
        *byte = if *byte == b'A' { b'B' } else { b'A' };
    }
    let middle = String::from_utf8(middle)?;
    let short = begin.cursor.get(..begin.cursor.len() - 3).unwrap_or_default().to_owned();
    let cases = [
        ("the own cursor", reader, begin.cursor.clone(), false),
        ("a cursor of another person", writer, begin.cursor.clone(), true),
        ("a cursor of another device", &other_device, begin.cursor.clone(), true),
        ("a cursor with another byte", reader, middle, true),
        ("a cursor cut short", reader, short, true),
        ("a cursor that is none", reader, "AAAA".to_owned(), true),
    ];
    let mut answers = Vec::new();
    for (what, person, cursor, wanted) in cases {
        let (speaker, welcome, _) = Speaker::connect(&person.client, Some(cursor), None).await?;
        speaker.socket.close().await;
        answers.push((what, wanted, welcome.reset));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Verdict;

    #[test]
    fn planted_bad_resumes_are_found() {
        let verdict = |done: &Done, answers: &[(&'static str, bool, bool)]| {
            let mut finding = Finding::default();
            judge(done, 100, &mut finding);
            judge_cursors(answers, &mut finding);
            finding.verdict()
        };
        let good = [("own", false, false), ("a", true, true), ("b", true, true), ("c", true, true)];
        let all = Done { cuts: 100, ..Done::default() };
        assert_eq!(verdict(&all, &good), Verdict::Holds);
        let stuck = Done { cuts: 100, never_level: [7].into() };
        assert_eq!(verdict(&stuck, &good), Verdict::Broken);
        let few = Done { cuts: 60, ..Done::default() };
        assert_eq!(verdict(&few, &good), Verdict::NoEvidence);
        let mut taken = good;
        taken[2].2 = false;
        assert_eq!(verdict(&all, &taken), Verdict::Broken, "a foreign cursor was used");
        assert_eq!(verdict(&all, &good[..2]), Verdict::NoEvidence);
    }
}
