//! `kill9`: the server is killed again and again under load and started on the same data (P1 to P4).
//!
//! Writers send over sockets and over HTTP, each send under its key, and repeat what has no answer.
//! Each round waits for the first acknowledgement after the start, so that no kill hits an idle
//! server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use parlor_client::{Random, ids::ClientIds};
use parlor_proto::ChatId;
use tokio::{sync::watch, task::JoinSet};

use super::{Base, Outcome, QUIET_LIMIT, Stage, run_args};
use crate::{
    clock,
    device::{Device, Sent, message, send_http},
    people::Person,
    record::{Needs, Recorder},
    target,
};

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Kill9 {
    /// Kills.
    pub rounds: usize,
    /// Writers over sockets, each on a device of its own.
    pub socket_writers: usize,
    /// Writers over HTTP.
    pub http_writers: usize,
    /// People; the writers are spread over them.
    pub people: usize,
    /// Chats, of all people each.
    pub chats: usize,
    /// A kill comes between these times after the first acknowledgement since the start, in ms.
    pub up_ms: (u64, u64),
}

impl Default for Kill9 {
    fn default() -> Self {
        Self {
            rounds: 20,
            socket_writers: 12,
            http_writers: 4,
            people: 4,
            chats: 3,
            up_ms: (50, 1_000),
        }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Kill9) -> anyhow::Result<Outcome> {
    target::check_size(options.socket_writers + options.http_writers, 0)?;
    if options.people < 2 || options.chats == 0 || options.socket_writers == 0 {
        bail!("at least two people, one chat and one writer over a socket");
    }
    let flags = [
        ("rounds", options.rounds.to_string()),
        ("socket-writers", options.socket_writers.to_string()),
        ("http-writers", options.http_writers.to_string()),
        ("people", options.people.to_string()),
        ("chats", options.chats.to_string()),
        ("up-ms", format!("{}-{}", options.up_ms.0, options.up_ms.1)),
    ];
    let n_rounds = options.rounds as u64;
    let needs = Needs { n_acks: n_rounds.max(1) * 5, n_faults: n_rounds, final_reads: true };
    let run = run_args("kill9", base, &flags, needs);
    let mut stage = Stage::build(base, run, options.people, options.chats).await?;
    let mut random = Random::from_seed(base.seed);

    let (stop, stopped) = watch::channel(false);
    let writers = Writers::start(&stage, options, &mut random, &stopped)?;
    let mut serving_ms = Vec::new();
    for round in 1..=options.rounds {
        let n_before = stage.recorder.n_acks();
        wait_for_acks(&stage.recorder, n_before + 1)
            .await
            .with_context(|| format!("round {round}: no acknowledgement since the start"))?;
        let (least, most) = options.up_ms;
        let up_ms = least + random.below(most.saturating_sub(least) + 1);
        clock::sleep(Duration::from_millis(up_ms)).await;
        let op_id = stage.fault("kill9");
        stage.server.kill9().await?;
        stage.fired(op_id, "kill9");
        let killed = clock::now();
        stage.server.restart().await.with_context(|| format!("round {round}"))?;
        serving_ms.push(millis_since(killed));
        // The backoff of a client is for crowds; here it would only stretch the run.
        writers.connect_now().await?;
    }
    let n_before = stage.recorder.n_acks();
    wait_for_acks(&stage.recorder, n_before + 1).await.context("no sends after the last kill")?;
    let mut notes = vec![format!("{} acknowledgements", stage.recorder.n_acks())];
    stop.send_replace(true);
    writers.finish(&stage).await?;
    serving_ms.sort_unstable();
    if let (Some(middle), Some(most)) = (serving_ms.get(serving_ms.len() / 2), serving_ms.last()) {
        notes.push(format!("serving again after a kill: median {middle} ms, most {most} ms"));
    }
    stage.judge(notes).await
}

pub(crate) async fn wait_for_acks(recorder: &Recorder, n_acks: u64) -> anyhow::Result<()> {
    let begin = clock::now();
    while recorder.n_acks() < n_acks {
        if begin.elapsed() > QUIET_LIMIT {
            bail!("stuck: nothing was acknowledged within {QUIET_LIMIT:?}");
        }
        clock::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

pub(crate) fn millis_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Writers that send one message after the other until they are told to stop.
pub(crate) struct Writers {
    devices: Vec<Arc<Device>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Writers {
    /// Connects the devices and starts all writers.
    pub fn start(
        stage: &Stage,
        options: &Kill9,
        random: &mut Random,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let mut writers = Self { devices: Vec::new(), tasks: JoinSet::new() };
        let people = stage.people.iter().cycle();
        for (number, person) in (1..=options.socket_writers).zip(people.clone()) {
            let name = format!("socket{number}");
            let device = Arc::new(Device::start(person, &name, &stage.recorder, random)?);
            writers.devices.push(Arc::clone(&device));
            let (chats, dice) = (stage.chats.clone(), random.fork());
            writers.tasks.spawn(write_by_socket(device, name, chats, dice, stopped.clone()));
        }
        // Begin with another person than the socket writers did.
        for (number, person) in (1..=options.http_writers).zip(people.skip(1)) {
            let writer = HttpWriter {
                name: format!("http{number}"),
                person: person.clone(),
                recorder: Arc::clone(&stage.recorder),
                chats: stage.chats.clone(),
                random: random.fork(),
            };
            writers.tasks.spawn(writer.run(stopped.clone()));
        }
        Ok(writers)
    }

    /// Lets every device try at once instead of waiting for its backoff.
    pub async fn connect_now(&self) -> anyhow::Result<()> {
        for device in &self.devices {
            device.replica.connect_now().await?;
        }
        Ok(())
    }

    /// Waits for the last sends and until every device is level, and ends the devices.
    pub async fn finish(mut self, stage: &Stage) -> anyhow::Result<()> {
        let joined = clock::within(QUIET_LIMIT, async {
            while let Some(ended) = self.tasks.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        });
        joined.await.context("stuck: a writer has no answer after the last fault")??;
        drop(self.tasks);
        let reader = stage.people.first().context("a run has people")?;
        let mut heads = Vec::new();
        for chat_id in &stage.chats {
            heads.push((*chat_id, reader.client.chat(*chat_id).await?.head_seq));
        }
        for device in &self.devices {
            device.settle(&heads, QUIET_LIMIT).await?;
            for chat_id in &stage.chats {
                // A device that did not come to rest is STUCK by what it notes here.
                device.note_position(*chat_id).await?;
            }
        }
        for device in self.devices {
            let device = Arc::into_inner(device).context("a writer still holds its device")?;
            device.stop().await;
        }
        Ok(())
    }
}

async fn write_by_socket(
    device: Arc<Device>,
    name: String,
    chats: Vec<ChatId>,
    mut random: Random,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut number = 0;
    while !*stopped.borrow() {
        number += 1;
        let chat_id = choose(&mut random, &chats)?;
        if device.send(chat_id, format!("{name} {number}"), &name).await? == Sent::Refused {
            bail!("a member's send was refused");
        }
    }
    Ok(())
}

struct HttpWriter {
    name: String,
    person: Person,
    recorder: Arc<Recorder>,
    chats: Vec<ChatId>,
    random: Random,
}

impl HttpWriter {
    async fn run(mut self, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut ids = ClientIds::new(self.random.fork());
        let mut number = 0;
        while !*stopped.borrow() {
            number += 1;
            let chat_id = choose(&mut self.random, &self.chats)?;
            let text = format!("{} {number}", self.name);
            let message = message(chat_id, text, ids.next(clock::wall_ms()));
            let (person, recorder) = (&self.person, &self.recorder);
            let sent = send_http(person, &self.name, recorder, &message, stopped.clone()).await?;
            if sent == Sent::Refused {
                bail!("a member's send was refused");
            }
        }
        Ok(())
    }
}

/// Chooses one of several.
pub(crate) fn choose<T: Copy>(random: &mut Random, from: &[T]) -> anyhow::Result<T> {
    let number = usize::try_from(random.below(from.len() as u64))?;
    from.get(number).copied().context("nothing to choose from")
}
