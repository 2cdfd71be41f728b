//! Receipts: cursors that only move forward, merged in memory and written in batches, and the
//! status derived from them.
//!
//! A move is told to others, and a PUT answered, only after the batch that holds it is written.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use parlor_proto::{
    ChatId, ErrorCode, Invalid, MessageId, Seq, Time, UserId,
    chats::ChatType,
    frame::{Receipt, ServerFrame},
    messages::Message,
    receipts::{
        MessageStatus, OwnStatus, PutStatus, ReceiptKind, RecipientState, RecipientStatus, Status,
    },
};
use tokio::sync::{Notify, oneshot};

use crate::{
    Caller, Core,
    access::{self, Act},
    error::{Error, Result},
    ports::{
        bus::Hint,
        chats::ChatState,
        messages::Anchor,
        receipts::{Cursors, Move, Moved},
    },
    privacy::{self, Relation},
    stats,
};

/// Time between two batches; well under the second that is promised.
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// Members up to which authors are told of every move.
const TOLD_MEMBERS: usize = 32;
/// Messages looked at to find the authors that a move concerns.
const TOLD_MESSAGES: u32 = 200;
/// Cursors that may wait; what comes beyond is refused.
const WAITING_CURSORS: usize = 200_000;

/// Moves that wait to be written, one per cursor: a later one replaces an earlier.
#[derive(Default)]
pub struct Pending {
    waiting: Mutex<Waiting>,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    moves: HashMap<(ChatId, UserId, ReceiptKind), (Seq, Time)>,
    answers: Vec<oneshot::Sender<Result<()>>>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Lets the writer see that the core is gone.
        self.wake.notify_one();
    }
}

/// Starts the task that writes what waits; it ends with the core.
pub(crate) fn start_writer(core: &Arc<Core>) {
    let weak = Arc::downgrade(core);
    core.ports.spawn.spawn("receipts", Box::pin(run_writer(weak)));
}

async fn run_writer(core: Weak<Core>) {
    loop {
        let Some(strong) = core.upgrade() else { return };
        let pause = strong.ports.clock.sleep(WRITE_EVERY);
        strong.receipts().write_waiting().await;
        drop(strong);
        pause.await;
        let Some(strong) = core.upgrade() else { return };
        let wake = strong.receipts.wake.clone();
        let is_idle = strong.receipts.waiting.lock().moves.is_empty();
        drop(strong);
        if is_idle {
            wake.notified().await;
        }
    }
}

/// The actions on receipts.
pub struct Receipts<'a>(pub(crate) &'a Core);

impl Receipts<'_> {
    /// Takes a report of a device without waiting for its write.
    pub async fn report(
        &self,
        caller: &Caller,
        chat_id: ChatId,
        kind: ReceiptKind,
        seq: Seq,
    ) -> Result<()> {
        self.queue(caller, chat_id, kind, seq, None).await
    }

    /// Takes a report by message id.
    pub async fn report_message(
        &self,
        caller: &Caller,
        chat_id: ChatId,
        kind: ReceiptKind,
        message_id: MessageId,
    ) -> Result<()> {
        let (chat, message) = self.0.messages().visible(caller, message_id).await?;
        if chat.chat_id != chat_id {
            return Err(Error::NotFound);
        }
        self.report(caller, chat_id, kind, message.seq).await
    }

    /// Moves the caller's cursor over a message and answers when that is durable.
    pub async fn put(
        &self,
        caller: &Caller,
        message_id: MessageId,
        request: PutStatus,
    ) -> Result<OwnStatus> {
        let core = self.0;
        let (chat, message) = core.messages().visible(caller, message_id).await?;
        let (answer, written) = oneshot::channel();
        self.queue(caller, chat.chat_id, request.status, message.seq, Some(answer)).await?;
        written.await.unwrap_or(Err(Error::unavailable()))?;
        let cursors = core.ports.receipts.cursors(chat.chat_id, caller.user_id).await?;
        let status = status_at(cursors.unwrap_or_default(), message.seq);
        let reached = core.ports.receipts.reached(chat.chat_id, message.seq).await?;
        let at = reached
            .iter()
            .filter(|reached| {
                reached.user_id == caller.user_id && Status::from(reached.kind) == status
            })
            .map(|reached| reached.at)
            .min();
        Ok(OwnStatus { message_id, status, updated_at: at.unwrap_or(message.created_at) })
    }

    /// Returns the state of a message for each of its recipients.
    pub async fn status(&self, caller: &Caller, message_id: MessageId) -> Result<MessageStatus> {
        let core = self.0;
        let (chat, message) = core.messages().visible(caller, message_id).await?;
        let cursors = core.ports.receipts.cursors_of_chat(chat.chat_id).await?;
        let reached = core.ports.receipts.reached(chat.chat_id, message.seq).await?;
        let mut recipients = Vec::new();
        let mut lowest = None;
        for (user_id, cursors) in cursors {
            if !is_recipient(&chat, user_id, &message) {
                continue;
            }
            if !core.shows_receipts(&chat, user_id, caller.user_id).await? {
                recipients.push(RecipientStatus {
                    user_id,
                    status: RecipientState::Hidden,
                    updated_at: None,
                    delivered_at: None,
                    read_at: None,
                });
                continue;
            }
            let status = status_at(cursors, message.seq);
            let when = |kind| {
                reached
                    .iter()
                    .find(|reached| reached.user_id == user_id && reached.kind == kind)
                    .map(|reached| reached.at)
            };
            let delivered_at = when(ReceiptKind::Delivered).filter(|_| status >= Status::Delivered);
            let read_at = when(ReceiptKind::Read).filter(|_| status >= Status::Read);
            lowest = Some(lowest.unwrap_or(status).min(status));
            recipients.push(RecipientStatus {
                user_id,
                status: status.into(),
                updated_at: read_at.or(delivered_at).or(Some(message.created_at)),
                delivered_at,
                read_at,
            });
        }
        Ok(MessageStatus { message_id, status: lowest.unwrap_or(Status::Sent), recipients })
    }

    /// Puts the sender's view of the status on the caller's own messages.
    pub(crate) async fn with_statuses(
        &self,
        caller: &Caller,
        chat: &ChatState,
        mut messages: Vec<Message>,
    ) -> Result<Vec<Message>> {
        let core = self.0;
        if !messages.iter().any(|message| message.sender_id == caller.user_id) {
            return Ok(messages);
        }
        let mut shown = Vec::new();
        for (user_id, cursors) in core.ports.receipts.cursors_of_chat(chat.chat_id).await? {
            if user_id != caller.user_id
                && core.shows_receipts(chat, user_id, caller.user_id).await?
            {
                shown.push((user_id, cursors));
            }
        }
        for message in messages.iter_mut().filter(|message| message.sender_id == caller.user_id) {
            let states = shown
                .iter()
                .filter(|(user_id, _)| is_recipient(chat, *user_id, message))
                .map(|(_, cursors)| status_at(*cursors, message.seq));
            message.status = states.min().unwrap_or(Status::Sent);
        }
        Ok(messages)
    }

    /// Writes everything that waits.
    pub async fn flush(&self) {
        self.write_waiting().await;
    }

    async fn queue(
        &self,
        caller: &Caller,
        chat_id: ChatId,
        kind: ReceiptKind,
        seq: Seq,
        answer: Option<oneshot::Sender<Result<()>>>,
    ) -> Result<()> {
        let core = self.0;
        let chat = core.chats.load(chat_id).await?;
        access::check(&chat, caller.user_id, &Act::See)?;
        let head = core.ports.messages.head(chat_id).await?.ok_or(Error::NotFound)?;
        if seq > head.seq {
            let detail = "the log ends before this position";
            return Err(Invalid::with_code(ErrorCode::OutOfRange, "seq", detail).into());
        }
        stats::add(&core.stats.receipts_reported, 1);
        if kind == ReceiptKind::Read {
            core.presence().note_activity(caller.user_id);
        }
        let at = core.now();
        let mut waiting = core.receipts.waiting.lock();
        if waiting.moves.len() >= WAITING_CURSORS {
            stats::add(&core.stats.receipts_overflowed, 1);
            return Err(Error::unavailable());
        }
        let entry = waiting.moves.entry((chat_id, caller.user_id, kind)).or_insert((seq, at));
        if seq > entry.0 {
            *entry = (seq, at);
        }
        waiting.answers.extend(answer);
        drop(waiting);
        core.receipts.wake.notify_one();
        Ok(())
    }

    async fn write_waiting(&self) {
        let core = self.0;
        let Waiting { moves, answers } = std::mem::take(&mut *core.receipts.waiting.lock());
        if moves.is_empty() {
            return;
        }
        let mut batch: Vec<Move> = moves
            .iter()
            .map(|((chat_id, user_id, kind), (seq, at))| Move {
                chat_id: *chat_id,
                user_id: *user_id,
                kind: *kind,
                to_seq: *seq,
                at: *at,
            })
            .collect();
        // Delivered before read, and always in the same order.
        batch.sort_unstable_by_key(|step| (step.chat_id, step.user_id, step.kind));
        let result = match core.ports.receipts.write_moves(batch).await {
            Ok(moved) => {
                stats::add(&core.stats.receipts_written, moved.len() as u64);
                for step in moved {
                    if let Err(error) = self.tell(step).await {
                        // Others find the move when they next ask for the status.
                        tracing::warn!(%error, "a receipt was written and not told");
                    }
                }
                Ok(())
            }
            Err(error) => {
                stats::add(&core.stats.receipts_failed, 1);
                let mut waiting = core.receipts.waiting.lock();
                for (cursor, (seq, at)) in moves {
                    let entry = waiting.moves.entry(cursor).or_insert((seq, at));
                    if seq > entry.0 {
                        *entry = (seq, at);
                    }
                }
                Err(Error::from(error))
            }
        };
        for answer in answers {
            // Who asked may have gone away; the move is written all the same.
            drop(answer.send(result.clone()));
        }
    }

    /// Tells a move to the reader's own devices and to the authors of the messages it covers.
    async fn tell(&self, step: Moved) -> Result<()> {
        let core = self.0;
        let chat = core.chats.load(step.chat_id).await?;
        let message_id = core.ports.messages.event_id(step.chat_id, step.to_seq).await?;
        let mut to = vec![step.user_id];
        if chat.members.len() <= TOLD_MEMBERS {
            for author in self.authors(&chat, &step).await? {
                if core.shows_receipts(&chat, step.user_id, author).await? {
                    to.push(author);
                }
            }
        }
        let frame = ServerFrame::Receipt(Receipt {
            chat_id: step.chat_id,
            user_id: step.user_id,
            status: step.kind,
            seq: step.to_seq,
            message_id: message_id.ok_or(Error::NotFound)?,
            at: step.at,
        });
        core.ports.bus.publish(Hint::Lasting { to, frame });
        Ok(())
    }

    async fn authors(&self, chat: &ChatState, step: &Moved) -> Result<Vec<UserId>> {
        let others = || chat.members.keys().copied().filter(|user_id| *user_id != step.user_id);
        if chat.kind == ChatType::OneOnOne
            || step.to_seq.get().saturating_sub(step.from_seq.get()) > u64::from(TOLD_MESSAGES)
        {
            return Ok(others().collect());
        }
        let page = self.0.ports.messages.history(
            chat.chat_id,
            step.from_seq.next(),
            Anchor::Before(step.to_seq.next()),
            TOLD_MESSAGES,
        );
        let messages = page.await?.messages;
        Ok(others().filter(|id| messages.iter().any(|message| message.sender_id == *id)).collect())
    }
}

/// Returns the state of a position for a member with these cursors.
pub fn status_at(cursors: Cursors, seq: Seq) -> Status {
    if cursors.read_seq >= seq {
        Status::Read
    } else if cursors.delivered_seq >= seq {
        Status::Delivered
    } else {
        Status::Sent
    }
}

fn is_recipient(chat: &ChatState, user_id: UserId, message: &Message) -> bool {
    user_id != message.sender_id
        && chat.members.get(&user_id).is_some_and(|member| member.visible_seq <= message.seq)
}

impl Core {
    /// Tells whether a member's receipts may be shown to another member of the same chat.
    pub(crate) async fn shows_receipts(
        &self,
        chat: &ChatState,
        owner: UserId,
        viewer: UserId,
    ) -> Result<bool> {
        let account = self.account(owner).await?;
        let rule = &account.privacy.receipts;
        let relation = if rule.who == parlor_proto::accounts::Audience::Contacts
            && chat.kind != ChatType::OneOnOne
        {
            self.relation(owner, viewer).await?
        } else {
            let is_contact = chat.kind == ChatType::OneOnOne;
            Relation { shares_chat: true, is_contact }
        };
        Ok(privacy::may_see(rule, owner, viewer, relation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_covers_all_earlier_messages() {
        let cursors = Cursors { delivered_seq: Seq::new(5), read_seq: Seq::new(3) };
        for (seq, status) in [
            (1, Status::Read),
            (3, Status::Read),
            (4, Status::Delivered),
            (5, Status::Delivered),
            (6, Status::Sent),
        ] {
            assert_eq!(status_at(cursors, Seq::new(seq)), status);
        }
    }

    /// What the seed's table would hold: one state for each message, covered by later ones.
    fn naive(moves: &[(ReceiptKind, u64)], seq: u64) -> Status {
        let covering = moves.iter().filter(|(_, to)| *to >= seq);
        covering.map(|(kind, _)| Status::from(*kind)).max().unwrap_or(Status::Sent)
    }

    /// The cursors of a member of a chat with 11 messages, after each of the moves.
    async fn cursors_after(moves: &[(ReceiptKind, u64)]) -> Vec<Cursors> {
        use crate::{
            clock::{Ids, ManualClock},
            memory::Memory,
            ports::{
                clock::{Clock, Random},
                messages::{Append, Expects, Messages as _, NewChat, NewEvent},
                receipts::Receipts as _,
            },
        };
        struct Zeros;
        impl Random for Zeros {
            fn fill(&self, bytes: &mut [u8]) {
                bytes.fill(0);
            }
        }
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Time::from_millis(1_000)));
        let ids = Ids::new(clock.clone(), Arc::new(Zeros));
        let (chat_id, [writer, reader]) = (ids.chat_id(), [1, 2].map(UserId::from_raw));
        let memory = Memory::new(ids, clock, "epoch".to_owned());
        let role = parlor_proto::members::Role::Member;
        let members =
            [writer, reader].map(|user_id| parlor_proto::members::MemberRole { user_id, role });
        let new = NewChat {
            kind: ChatType::OneOnOne,
            title: None,
            settings: parlor_proto::chats::ChatSettings::default(),
            direct_key: None,
            members: members.to_vec(),
        };
        let message = || NewEvent::Message {
            kind: parlor_proto::messages::MessageType::Text,
            text: "hi".to_owned(),
            attachments: Vec::new(),
            reply_to: None,
        };
        let unit =
            |expects, events| Append { chat_id, sender_id: writer, key: None, expects, events };
        let made = unit(Expects::NewChat(new), vec![NewEvent::Created]);
        memory.write_batch(vec![made]).await.unwrap();
        let messages = (0..11).map(|_| unit(Expects::Epoch(1), vec![message()])).collect();
        memory.write_batch(messages).await.unwrap();
        assert_eq!(memory.head(chat_id).await.unwrap().unwrap().seq, Seq::new(12));
        let mut after = Vec::new();
        for (kind, to) in moves {
            let (to_seq, at) = (Seq::new(*to), Time::default());
            let step = Move { chat_id, user_id: reader, kind: *kind, to_seq, at };
            memory.write_moves(vec![step]).await.unwrap();
            after.push(memory.cursors(chat_id, reader).await.unwrap().unwrap());
        }
        after
    }

    proptest::proptest! {
        #[test]
        fn cursors_say_what_a_row_for_each_message_would_and_never_go_back(
            moves in proptest::collection::vec((proptest::bool::ANY, 0_u64..=12), 0..24),
        ) {
            let kind = |is_read| if is_read { ReceiptKind::Read } else { ReceiptKind::Delivered };
            let moves: Vec<_> = moves.into_iter().map(|(is_read, to)| (kind(is_read), to)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let after = runtime.block_on(cursors_after(&moves));
            let mut before = Cursors::default();
            for (number, cursors) in after.into_iter().enumerate() {
                proptest::prop_assert!(cursors.read_seq <= cursors.delivered_seq);
                proptest::prop_assert!(cursors.delivered_seq <= Seq::new(12), "not above the head");
                proptest::prop_assert!(cursors.read_seq >= before.read_seq);
                proptest::prop_assert!(cursors.delivered_seq >= before.delivered_seq);
                before = cursors;
                for seq in 2..=12 {
                    let status = status_at(cursors, Seq::new(seq));
                    proptest::prop_assert_eq!(status, naive(&moves[..=number], seq), "#{}", seq);
                }
            }
        }
    }
}
