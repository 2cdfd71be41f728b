//! `idempotency`: each send is issued one to five times at once, over sockets and HTTP, and some
//! answers are thrown away (P2). A reuse of a key with another text must be refused.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use parlor_client::{Random, ids::ClientIds, wire};
use parlor_proto::{
    ChatId, ErrorCode,
    frame::{SendFrame, ServerFrame, Tag},
    messages::SendMessage,
};
use tokio::task::JoinSet;

use super::{Base, Outcome, Stage, kill9::choose, run_args};
use crate::{
    clock,
    device::{attempt_http, end_http, invocation, message},
    people::Person,
    record::{Needs, Op, Phase, Recorder, SendArgs, SendResult, Who},
    speaker::Speaker,
    target,
};

/// How large the run is.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// Keys in all.
    pub sends: usize,
    /// Senders at once; each is a person with two sockets and HTTP.
    pub senders: usize,
    /// The share of rounds whose socket is dropped before its answer is read.
    pub lost_answers: f64,
    /// The share of keys that are reused with another text afterwards.
    pub conflicts: f64,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { sends: 2_000, senders: 8, lost_answers: 0.1, conflicts: 0.1 }
    }
}

/// Runs the scenario and judges it.
pub async fn run(base: &Base, options: &Idempotency) -> anyhow::Result<Outcome> {
    target::check_size(options.senders, 0)?;
    if options.senders < 2 {
        bail!("at least two senders");
    }
    let flags = [
        ("sends", options.sends.to_string()),
        ("senders", options.senders.to_string()),
        ("lost-answers", options.lost_answers.to_string()),
        ("conflicts", options.conflicts.to_string()),
    ];
    let needs = Needs { n_acks: options.sends as u64, n_faults: 0, final_reads: true };
    let run = run_args("idempotency", base, &flags, needs);
    let stage = Stage::build(base, run, options.senders, 2).await?;
    let mut random = Random::from_seed(base.seed);
    let mut tasks = JoinSet::new();
    let each = options.sends.div_ceil(options.senders);
    for person in &stage.people {
        let mut sender = Sender {
            person: person.clone(),
            recorder: Arc::clone(&stage.recorder),
            chats: stage.chats.clone(),
            random: random.fork(),
            sockets: Vec::new(),
            n_issued: 0,
        };
        let options = options.clone();
        tasks.spawn(async move { sender.run(&options, each).await.map(|()| sender.n_issued) });
    }
    let mut n_issued = 0;
    while let Some(ended) = tasks.join_next().await {
        n_issued += ended??;
    }
    let n_keys = each * options.senders;
    stage.judge(vec![format!("{n_keys} keys, issued {n_issued} times")]).await
}

struct Sender {
    person: Person,
    recorder: Arc<Recorder>,
    chats: Vec<ChatId>,
    random: Random,
    sockets: Vec<Speaker>,
    n_issued: u64,
}

/// Issues over a socket that wait for their answer, by the `id` of the frame.
type Asked = HashMap<String, u64>;

impl Sender {
    async fn run(&mut self, options: &Idempotency, n_keys: usize) -> anyhow::Result<()> {
        let mut ids = ClientIds::new(self.random.fork());
        for number in 0..n_keys {
            let chat_id = choose(&mut self.random, &self.chats)?;
            let key = ids.next(clock::wall_ms());
            let text = format!("send {number} of {}", self.person.user_id);
            let message = message(chat_id, text, key.clone());
            self.issue(&message, options).await?;
            if self.random.chance(options.conflicts) {
                self.conflict(&message).await?;
            }
        }
        Ok(())
    }

    /// Issues one send one to five times at once.
    async fn issue(&mut self, message: &SendMessage, options: &Idempotency) -> anyhow::Result<()> {
        while self.sockets.len() < 2 {
            let (speaker, _, _) = Speaker::connect(&self.person.client, None, None).await?;
            self.sockets.push(speaker);
        }
        let key = message.client_id.clone().context("a send has a key")?;
        let n_times = 1 + self.random.below(5);
        self.n_issued += n_times;
        let who = Who::device(self.person.user_id, "many");
        let mut asked = [Asked::new(), Asked::new()];
        let mut over_http = JoinSet::new();
        for time in 0..n_times {
            let way = self.random.below(3);
            let socket = usize::try_from(way)?;
            match (self.sockets.get_mut(socket), asked.get_mut(socket)) {
                (Some(speaker), Some(asked)) => {
                    let op_id = self.recorder.invoke(&who, invocation(message, &key, None));
                    let id = format!("{time}");
                    asked.insert(id.clone(), op_id);
                    speaker.say(frame(message, id)).await?;
                }
                _ => {
                    let (person, recorder) = (self.person.clone(), Arc::clone(&self.recorder));
                    let (message, key) = (message.clone(), key.clone());
                    over_http.spawn(async move {
                        attempt_http(&person, "many", &recorder, &message, &key).await
                    });
                }
            }
        }
        for (number, mut asked) in asked.into_iter().enumerate() {
            if !asked.is_empty() && self.random.chance(options.lost_answers) {
                // The answers are on their way, and nobody will read them.
                self.drop_answers(&who, asked);
                self.replace_socket(number).await?;
                continue;
            }
            let speaker = self.sockets.get_mut(number).context("two sockets")?;
            read_answers(speaker, &self.recorder, &who, &mut asked).await?;
        }
        while let Some(ended) = over_http.join_next().await {
            ended?;
        }
        // A key that was only issued into the void is settled by one more attempt.
        attempt_http(&self.person, "many", &self.recorder, message, &key).await;
        Ok(())
    }

    fn drop_answers(&self, who: &Who, asked: Asked) {
        for op_id in asked.into_values() {
            let error = Some("the answer was thrown away".to_owned());
            let op = Op::Send { args: None, result: None, error };
            self.recorder.end(who, op_id, Phase::Info, op);
        }
    }

    async fn replace_socket(&mut self, number: usize) -> anyhow::Result<()> {
        let (speaker, _, _) = Speaker::connect(&self.person.client, None, None).await?;
        if let Some(old) = self.sockets.get_mut(number) {
            *old = speaker;
        }
        Ok(())
    }

    /// Uses the key again with another text, which must be refused.
    async fn conflict(&mut self, message: &SendMessage) -> anyhow::Result<()> {
        let other =
            SendMessage { message: format!("{} changed", message.message), ..message.clone() };
        let args = SendArgs {
            chat_id: other.chat_id,
            key: other.client_id.as_ref().context("a send has a key")?.as_str().to_owned(),
            text: other.message.clone(),
            lane: None,
            conflicts: true,
        };
        let who = Who::device(self.person.user_id, "many");
        let op = Op::Send { args: Some(args), result: None, error: None };
        let op_id = self.recorder.invoke(&who, op);
        let answer = self.person.client.send_message(&other).await;
        let code = answer.as_ref().err().and_then(parlor_client::Error::code);
        end_http(&self.recorder, &who, op_id, answer.map(|m| (m.message_id, m.seq)));
        if code.is_some_and(|code| code != ErrorCode::IdempotencyConflict) {
            bail!("a reused key was refused with {code:?} instead of idempotency_conflict");
        }
        Ok(())
    }
}

async fn read_answers(
    speaker: &mut Speaker,
    recorder: &Recorder,
    who: &Who,
    asked: &mut Asked,
) -> anyhow::Result<()> {
    while !asked.is_empty() {
        let frames = speaker.next_within(Duration::from_secs(30)).await?;
        for frame in frames.context("no answer within 30 s")? {
            match frame {
                ServerFrame::Ack(ack) => {
                    let id = ack.id.context("an ack without the id of its frame")?;
                    let op_id = asked.remove(&id).context("an ack that nobody waits for")?;
                    let result = SendResult { message_id: ack.message_id, seq: ack.seq };
                    let op = Op::Send { args: None, result: Some(result), error: None };
                    recorder.end(who, op_id, Phase::Ok, op);
                }
                ServerFrame::Error(error) => {
                    let Some(op_id) = error.id.as_ref().and_then(|id| asked.remove(id)) else {
                        bail!("{}: {}", error.code, error.detail);
                    };
                    let phase = if error.code.may_retry() { Phase::Info } else { Phase::Fail };
                    let text = Some(format!("{}: {}", error.code, error.detail));
                    recorder.end(
                        who,
                        op_id,
                        phase,
                        Op::Send { args: None, result: None, error: text },
                    );
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn frame(message: &SendMessage, id: String) -> String {
    wire::send(&SendFrame {
        tag: Tag,
        id: Some(id),
        chat_id: message.chat_id,
        message: message.message.clone(),
        kind: message.kind,
        attachments: Vec::new(),
        client_id: message.client_id.clone(),
        reply_to: None,
    })
}
