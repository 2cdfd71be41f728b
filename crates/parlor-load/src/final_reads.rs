//! The final phase: every member reads every chat by socket resume, by the log forward and by the
//! history backward. What was read is judged in `check.rs`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use parlor_client::wire;
use parlor_proto::{
    ChatId, Event, Seq,
    chats::ListQuery,
    frame::{ServerFrame, SyncFrame, Tag},
    messages::{EventsQuery, HistoryQuery},
};

use crate::{
    people::Person,
    record::{CursorsArgs, DeliverArgs, Op, Phase, ReadArgs, ReadResult, Recorder, Seen, Way, Who},
    speaker::Speaker,
};

const PAGE: u32 = 200;
/// A replay without a frame for so long is over.
const REPLAY_SILENCE: Duration = Duration::from_millis(700);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A resume position of a person, taken before the load began.
#[derive(Debug, Clone)]
pub struct Bookmark {
    cursor: String,
    heads: BTreeMap<ChatId, Seq>,
}

/// Takes the resume position of a person who has seen the chats up to their present heads.
pub async fn bookmark(person: &Person, chats: &[ChatId]) -> anyhow::Result<Bookmark> {
    let (mut speaker, welcome, first) = Speaker::connect(&person.client, None, None).await?;
    let mut cursor = welcome.cursor;
    let mut frames = first;
    loop {
        for frame in &frames {
            if let ServerFrame::Cursor(frame) = frame {
                cursor.clone_from(&frame.cursor);
            }
        }
        match speaker.next_within(REPLAY_SILENCE).await? {
            Some(more) => frames = more,
            None => break,
        }
    }
    let mut heads = BTreeMap::new();
    for chat_id in chats {
        heads.insert(*chat_id, person.client.chat(*chat_id).await?.head_seq);
    }
    Ok(Bookmark { cursor, heads })
}

/// Reads all chats of a person on all ways.
pub async fn read_all(
    person: &Person,
    recorder: &Arc<Recorder>,
    chats: &[ChatId],
    bookmark: Option<&Bookmark>,
) -> anyhow::Result<()> {
    let reader = Reader { person, recorder, who: Who::device(person.user_id, "final") };
    reader.resume(chats, bookmark).await.context("read by socket resume")?;
    for chat_id in chats {
        reader.events(*chat_id).await.context("read the log forward")?;
        reader.history(*chat_id).await.context("read the history backward")?;
        reader.cursors(*chat_id).await.context("read the members")?;
    }
    Ok(())
}

struct Reader<'a> {
    person: &'a Person,
    recorder: &'a Recorder,
    who: Who,
}

impl Reader<'_> {
    fn begin(&self, args: ReadArgs) -> u64 {
        self.recorder.invoke(&self.who, Op::Read { args, result: None })
    }

    fn end(&self, op_id: u64, args: ReadArgs, head_seq: Seq) {
        let op = Op::Read { args, result: Some(ReadResult { head_seq }) };
        self.recorder.end(&self.who, op_id, Phase::Ok, op);
    }

    fn deliver(&self, chat_id: ChatId, path: Way, seen: Seen) {
        let args = DeliverArgs { connection: 0, chat_id, path };
        self.recorder.note(&self.who, Op::Deliver { args, result: seen });
    }

    async fn resume(&self, chats: &[ChatId], bookmark: Option<&Bookmark>) -> anyhow::Result<()> {
        let cursor = bookmark.map(|bookmark| bookmark.cursor.clone());
        let had_cursor = cursor.is_some();
        let mut reads = BTreeMap::new();
        for chat_id in chats {
            let after_seq = bookmark
                .and_then(|bookmark| bookmark.heads.get(chat_id))
                .copied()
                .unwrap_or_default();
            let args = ReadArgs { chat_id: *chat_id, path: Way::FinalResume, after_seq };
            reads.insert(*chat_id, (self.begin(args), args, after_seq));
        }
        let (mut speaker, welcome, first) =
            Speaker::connect(&self.person.client, cursor, None).await?;
        if had_cursor && welcome.reset {
            bail!("a cursor of the same store was answered with `reset`");
        }
        // What the resume itself hands over, as far as it goes.
        let mut frames = first;
        loop {
            for frame in &frames {
                if let ServerFrame::Event(event) = frame
                    && let Some((_, _, have)) = reads.get_mut(&event.chat_id)
                {
                    self.take(have, event);
                }
            }
            match speaker.next_within(REPLAY_SILENCE).await? {
                Some(more) => frames = more,
                None => break,
            }
        }
        // The rest of each chat by `sync`, from the last position without a hole.
        for (chat_id, (op_id, args, mut have)) in reads {
            let head_seq = loop {
                let frame = SyncFrame {
                    tag: Tag,
                    id: Some("final".to_owned()),
                    chat_id,
                    after_seq: have,
                    limit: Some(PAGE),
                };
                speaker.say(wire::sync(&frame)).await?;
                let page = self.page(&mut speaker, chat_id).await?;
                for event in &page.0 {
                    self.take(&mut have, event);
                }
                let last = page.0.last().map_or(Seq::ZERO, |event| event.seq);
                // A newcomer's first page begins above a hole that is none.
                have = have.max(last);
                if page.0.is_empty() || have >= page.1 {
                    break page.1;
                }
            };
            self.end(op_id, args, head_seq);
        }
        speaker.socket.close().await;
        Ok(())
    }

    fn take(&self, have: &mut Seq, event: &Event) {
        self.deliver(event.chat_id, Way::FinalResume, Seen::of_event(event));
        if event.seq == have.next() {
            *have = event.seq;
        }
    }

    async fn page(
        &self,
        speaker: &mut Speaker,
        chat_id: ChatId,
    ) -> anyhow::Result<(Vec<Event>, Seq)> {
        loop {
            let frames = speaker.next_within(ANSWER_LIMIT).await?.context("no page in time")?;
            for frame in frames {
                match frame {
                    ServerFrame::Events(page) if page.chat_id == chat_id => {
                        return Ok((page.events, page.head_seq));
                    }
                    ServerFrame::Error(error) => {
                        bail!("the page was refused: {}: {}", error.code, error.detail);
                    }
                    _ => {}
                }
            }
        }
    }

    async fn events(&self, chat_id: ChatId) -> anyhow::Result<()> {
        let args = ReadArgs { chat_id, path: Way::FinalEvents, after_seq: Seq::ZERO };
        let op_id = self.begin(args);
        let mut after_seq = Seq::ZERO;
        let head_seq = loop {
            let query = EventsQuery { after_seq: Some(after_seq.get()), limit: Some(PAGE) };
            let page = self.person.client.events(chat_id, &query).await?;
            for event in &page.events {
                self.deliver(chat_id, Way::FinalEvents, Seen::of_event(event));
            }
            match page.events.last() {
                Some(last) if last.seq < page.head_seq => after_seq = last.seq,
                _ => break page.head_seq,
            }
        };
        self.end(op_id, args, head_seq);
        Ok(())
    }

    async fn history(&self, chat_id: ChatId) -> anyhow::Result<()> {
        let args = ReadArgs { chat_id, path: Way::FinalHistory, after_seq: Seq::ZERO };
        let op_id = self.begin(args);
        let mut before = None;
        let head_seq = loop {
            let query = HistoryQuery { limit: Some(PAGE), before, ..HistoryQuery::default() };
            let page = self.person.client.history(chat_id, &query).await?;
            for message in &page.messages {
                self.deliver(chat_id, Way::FinalHistory, Seen::of_message(message));
            }
            match page.messages.first() {
                Some(first) if page.has_more => before = Some(first.message_id),
                _ => break page.head_seq,
            }
        };
        self.end(op_id, args, head_seq);
        Ok(())
    }

    /// Reads the positions of all members.
    async fn cursors(&self, chat_id: ChatId) -> anyhow::Result<()> {
        let mut cursor = None;
        loop {
            let query = ListQuery { limit: Some(PAGE), cursor };
            let page = self.person.client.participants(chat_id, &query).await?;
            // Read after the positions, which pass no head of their time.
            let head_seq = self.person.client.chat(chat_id).await?.head_seq;
            for member in &page.items {
                if let (Some(delivered_seq), Some(read_seq)) =
                    (member.delivered_seq, member.read_seq)
                {
                    let user_id = member.user_id;
                    let args = CursorsArgs { chat_id, user_id, delivered_seq, read_seq, head_seq };
                    self.recorder.note(&self.who, Op::Cursors { args });
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}
