//! `membership`: people are added and removed under load while they read on every path (P7).
//!
//! What they got is judged by position in the log; beside it, each acknowledged removal is followed
//! at once by calls of the removed person, all of which must answer 404.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use parlor_client::{Error, Random, ids::ClientIds};
use parlor_proto::{
    ChatId, ErrorCode, MessageId,
    chats::ListQuery,
    frame::{ServerFrame, SyncQuery},
    members::AddParticipants,
    messages::{EventsQuery, HistoryQuery},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    Base, Outcome, Stage,
    kill9::{Kill9, Writers},
    run_args,
};
use crate::{
    clock,
    device::{Device, attempt_http, message},
    final_reads,
    people::Person,
    record::{DeliverArgs, MemberArgs, Needs, Op, Phase, Recorder, Seen, Way, Who},
    target,
};

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Additions and removals, each counted as one half of a cycle.
    pub cycles: usize,
    /// People who come and go.
    pub guests: usize,
    /// Members who write all the time.
    pub writers: usize,
    /// Pause between two changes of one guest, in ms.
    pub pause_ms: (u64, u64),
}

impl Default for Membership {
    fn default() -> Self {
        Self { cycles: 300, guests: 4, writers: 4, pause_ms: (5, 60) }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Membership) -> anyhow::Result<Outcome> {
    target::check_size(options.guests + options.writers, 0)?;
    if options.guests == 0 || options.writers < 2 {
        bail!("at least one guest and two writers");
    }
    let flags = [
        ("cycles", options.cycles.to_string()),
        ("guests", options.guests.to_string()),
        ("writers", options.writers.to_string()),
        ("pause-ms", format!("{}-{}", options.pause_ms.0, options.pause_ms.1)),
    ];
    let needs = Needs { n_acks: options.cycles as u64, n_faults: 0, final_reads: true };
    let run = run_args("membership", base, &flags, needs);
    let mut stage = Stage::build(base, run, options.writers, 1).await?;
    let chat_id = *stage.chats.first().context("one chat")?;
    let owner = stage.people.first().context("an owner")?.clone();
    let guests = stage.admin.people("guest", options.guests).await?;
    let mut random = Random::from_seed(base.seed);
    let (stop, stopped) = watch::channel(false);
    let writers = Kill9 {
        socket_writers: options.writers,
        http_writers: options.writers / 2,
        ..Kill9::default()
    };
    let writers = Writers::start(&stage, &writers, &mut random, &stopped)?;

    let mut devices = Vec::new();
    let mut readers = JoinSet::new();
    let mut doors = JoinSet::new();
    let each = options.cycles.div_ceil(options.guests);
    for guest in &guests {
        devices.push(Device::start(guest, "guest", &stage.recorder, &mut random)?);
        let reader = Arc::new(Reader {
            person: guest.clone(),
            recorder: Arc::clone(&stage.recorder),
            chat_id,
        });
        readers.spawn(Arc::clone(&reader).read(stopped.clone()));
        readers.spawn(Arc::clone(&reader).poll(stopped.clone()));
        readers.spawn(Arc::clone(&reader).write(random.fork(), stopped.clone()));
        let door = Door {
            owner: owner.clone(),
            guest: guest.clone(),
            recorder: Arc::clone(&stage.recorder),
            chat_id,
            pause_ms: options.pause_ms,
        };
        doors.spawn(door.run(each, random.fork()));
    }
    let mut n_probes = 0;
    while let Some(ended) = doors.join_next().await {
        n_probes += ended??;
    }
    stop.send_replace(true);
    while let Some(ended) = readers.join_next().await {
        ended??;
    }
    writers.finish(&stage).await?;
    for device in devices {
        device.stop().await;
    }
    // The doors leave everybody inside, so that guests have a final history too.
    for guest in &guests {
        final_reads::read_all(guest, &stage.recorder, &[chat_id], None).await?;
    }
    stage.people.truncate(options.writers);
    let note = format!("{n_probes} calls right after a removal, all answered 404");
    stage.judge(vec![note]).await
}

/// Adds and removes one guest.
struct Door {
    owner: Person,
    guest: Person,
    recorder: Arc<Recorder>,
    chat_id: ChatId,
    pause_ms: (u64, u64),
}

impl Door {
    /// Returns how many calls were made right after removals.
    async fn run(self, n_cycles: usize, mut random: Random) -> anyhow::Result<u64> {
        let mut n_probes = 0;
        for _ in 0..n_cycles {
            self.add().await?;
            self.pause(&mut random).await;
            self.remove().await?;
            n_probes += self.probe().await?;
            self.pause(&mut random).await;
        }
        self.add().await?;
        Ok(n_probes)
    }

    async fn pause(&self, random: &mut Random) {
        let (least, most) = self.pause_ms;
        let pause_ms = least + random.below(most.saturating_sub(least) + 1);
        clock::sleep(Duration::from_millis(pause_ms)).await;
    }

    async fn add(&self) -> anyhow::Result<()> {
        let request = AddParticipants { user_ids: vec![self.guest.user_id], client_id: None };
        let op_id = self.begin(true);
        let added = self.owner.client.add_participants(self.chat_id, &request).await;
        self.end(op_id, true, &added);
        added.map(|_| ()).context("add a guest")
    }

    async fn remove(&self) -> anyhow::Result<()> {
        let op_id = self.begin(false);
        let (chat_id, user_id) = (self.chat_id, self.guest.user_id);
        let removed = self.owner.client.remove_participant(chat_id, user_id).await;
        self.end(op_id, false, &removed);
        removed.context("remove a guest")
    }

    fn begin(&self, added: bool) -> u64 {
        let args = MemberArgs { chat_id: self.chat_id, user_id: self.guest.user_id, added };
        let who = Who::device(self.owner.user_id, "door");
        self.recorder.invoke(&who, Op::Member { args })
    }

    fn end<T>(&self, op_id: u64, added: bool, answer: &Result<T, Error>) {
        let args = MemberArgs { chat_id: self.chat_id, user_id: self.guest.user_id, added };
        let who = Who::device(self.owner.user_id, "door");
        let phase = if answer.is_ok() { Phase::Ok } else { Phase::Info };
        self.recorder.end(&who, op_id, phase, Op::Member { args });
    }

    /// The removal is acknowledged: from now on every route answers 404.
    async fn probe(&self) -> anyhow::Result<u64> {
        let client = &self.guest.client;
        let (of_log, of_history) = (EventsQuery::default(), HistoryQuery::default());
        let of_members = ListQuery::default();
        let (events, history, chat, members) = tokio::join!(
            client.events(self.chat_id, &of_log),
            client.history(self.chat_id, &of_history),
            client.chat(self.chat_id),
            client.participants(self.chat_id, &of_members),
        );
        must_be_absent("events", events)?;
        must_be_absent("history", history)?;
        must_be_absent("chat", chat)?;
        must_be_absent("participants", members)?;
        Ok(4)
    }
}

fn must_be_absent<T>(route: &str, answer: Result<T, Error>) -> anyhow::Result<()> {
    match answer {
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(()),
        Err(error) => Err(error).context(format!("{route} after a removal")),
        Ok(_) => bail!("LEAK: {route} answered a removed member"),
    }
}

/// Reads for a guest on every path, whether the guest is a member or not.
struct Reader {
    person: Person,
    recorder: Arc<Recorder>,
    chat_id: ChatId,
}

impl Reader {
    fn deliver(&self, path: Way, seen: Seen) {
        let who = Who::device(self.person.user_id, "reader");
        let args = DeliverArgs { connection: 0, chat_id: self.chat_id, path };
        self.recorder.note(&who, Op::Deliver { args, result: seen });
    }

    async fn read(self: Arc<Self>, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let client = &self.person.client;
        let mut last: Option<MessageId> = None;
        while !*stopped.borrow() {
            let query = HistoryQuery { limit: Some(10), ..HistoryQuery::default() };
            if let Some(page) = while_member(client.history(self.chat_id, &query).await)? {
                last = page.messages.last().map(|message| message.message_id).or(last);
                for message in &page.messages {
                    self.deliver(Way::History, Seen::of_message(message));
                }
                let after_seq = Some(page.head_seq.get().saturating_sub(10));
                let query = EventsQuery { after_seq, limit: Some(20) };
                let events = client.events(self.chat_id, &query).await;
                for event in while_member(events)?.iter().flat_map(|page| &page.events) {
                    self.deliver(Way::Events, Seen::of_event(event));
                }
            }
            let chats = client.chats(&ListQuery::default()).await.context("list the chats")?;
            let own = chats.items.iter().filter(|chat| chat.chat_id == self.chat_id);
            for message in own.filter_map(|chat| chat.last_message.as_ref()) {
                self.deliver(Way::ChatList, Seen::of_message(message));
            }
            if let Some(message_id) = last
                && let Some(message) = while_member(client.message(message_id).await)?
            {
                self.deliver(Way::Message, Seen::of_message(&message));
            }
        }
        Ok(())
    }

    async fn poll(self: Arc<Self>, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut query = SyncQuery::default();
        while !*stopped.borrow() {
            let answer = self.person.client.poll(&query).await.context("long poll")?;
            for frame in &answer.frames {
                match frame {
                    ServerFrame::Event(event) if event.chat_id == self.chat_id => {
                        self.deliver(Way::Poll, Seen::of_event(event));
                    }
                    _ => {}
                }
            }
            query = SyncQuery { cursor: Some(answer.cursor), wait: Some(1) };
        }
        Ok(())
    }

    async fn write(
        self: Arc<Self>,
        mut random: Random,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut ids = ClientIds::new(random.fork());
        while !*stopped.borrow() {
            let key = ids.next(clock::wall_ms());
            let text = format!("guest {key}");
            let message = message(self.chat_id, text, key.clone());
            attempt_http(&self.person, "reader", &self.recorder, &message, &key).await;
            clock::sleep(Duration::from_millis(5 + random.below(20))).await;
        }
        Ok(())
    }
}

/// A guest who is no member right now is told that there is nothing.
fn while_member<T>(answer: Result<T, Error>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
