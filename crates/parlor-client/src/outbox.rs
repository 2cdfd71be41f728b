//! The outbox: orders to send, kept until the server has acknowledged or refused them.
//!
//! Each chat has a queue with one order in flight, so the own order of a chat is kept whatever is
//! lost on the way (promise P4); the `client_id` makes a repeat harmless (invariant I3). Nothing is
//! read from a clock or a socket here, and what must outlive the process is written by the caller
//! (`session.rs`) through `store.rs`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parlor_proto::{
    ChatId, ClientId, MessageId, Seq,
    frame::{Ack, ErrorFrame, SendFrame, Tag},
    messages::SendMessage,
};

/// An order without an answer is said again after this time, even on a socket that seems well.
const ANSWER_LIMIT_MS: u64 = 30_000;
/// The wait after a refusal that may be retried and names no delay.
const RETRY_MS: u64 = 1_000;

/// A message to send under its key.
#[derive(Debug, Clone)]
pub struct Order {
    /// The key; it is also the `id` of the frame.
    pub client_id: ClientId,
    /// The message; its own `client_id` is the key.
    pub message: SendMessage,
}

impl Order {
    /// Puts a message under a key.
    pub fn new(client_id: ClientId, mut message: SendMessage) -> Self {
        message.client_id = Some(client_id.clone());
        Self { client_id, message }
    }

    fn frame(&self) -> SendFrame {
        let message = self.message.clone();
        SendFrame {
            tag: Tag,
            id: Some(self.client_id.as_str().to_owned()),
            chat_id: message.chat_id,
            message: message.message,
            kind: message.kind,
            attachments: message.attachments,
            client_id: message.client_id,
            reply_to: message.reply_to,
        }
    }
}

/// The end of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is in the log.
    Acked {
        /// The key.
        client_id: ClientId,
        /// The chat.
        chat_id: ChatId,
        /// The message.
        message_id: MessageId,
        /// Its position.
        seq: Seq,
    },
    /// It is not in the log and never will be.
    Refused {
        /// The key.
        client_id: ClientId,
        /// The chat.
        chat_id: ChatId,
        /// What the server said.
        error: ErrorFrame,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The first order may go as soon as there is a connection.
    Ready,
    /// The first order was said at this time.
    InFlight(u64),
    /// The server wants the first order to wait until this time.
    Paused(u64),
}

#[derive(Debug)]
struct Queue {
    orders: VecDeque<Order>,
    turn: Turn,
}

/// Orders by chat, in the order in which they were given.
#[derive(Debug, Default)]
pub struct Outbox {
    queues: BTreeMap<ChatId, Queue>,
    /// Which chat waits for the answer to a key; only orders in flight stand here.
    in_flight: HashMap<String, ChatId>,
}

impl Outbox {
    /// Takes an order in; it goes when those before it in its chat are settled.
    pub fn enqueue(&mut self, order: Order) {
        let queue = self
            .queues
            .entry(order.message.chat_id)
            .or_insert_with(|| Queue { orders: VecDeque::new(), turn: Turn::Ready });
        queue.orders.push_back(order);
    }

    /// Returns how many orders are not settled.
    pub fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.orders.len()).sum()
    }

    /// Tells whether every order is settled.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Returns what is to be said now on a live connection: at most one order of each chat.
    pub fn due(&mut self, now_ms: u64) -> Vec<SendFrame> {
        let mut frames = Vec::new();
        for (chat_id, queue) in &mut self.queues {
            let Some(order) = queue.orders.front() else { continue };
            let is_due = match queue.turn {
                Turn::Ready => true,
                Turn::InFlight(since_ms) => now_ms >= since_ms.saturating_add(ANSWER_LIMIT_MS),
                Turn::Paused(until_ms) => now_ms >= until_ms,
            };
            if is_due {
                self.in_flight.insert(order.client_id.as_str().to_owned(), *chat_id);
                queue.turn = Turn::InFlight(now_ms);
                frames.push(order.frame());
            }
        }
        frames
    }

    /// Returns when `due` has something to say, if the connection is live.
    pub fn deadline_ms(&self) -> Option<u64> {
        let times = self.queues.values().map(|queue| match queue.turn {
            Turn::Ready => 0,
            Turn::InFlight(since_ms) => since_ms.saturating_add(ANSWER_LIMIT_MS),
            Turn::Paused(until_ms) => until_ms,
        });
        times.min()
    }

    /// The server acknowledged; a repeated acknowledgement settles nothing.
    pub fn on_ack(&mut self, ack: &Ack) -> Option<Settled> {
        let order = self.take(ack.id.as_deref()?)?;
        Some(Settled::Acked {
            client_id: order.client_id,
            chat_id: ack.chat_id,
            message_id: ack.message_id,
            seq: ack.seq,
        })
    }

    /// The server refused a frame; if it was an order, it waits or is settled.
    pub fn on_error(&mut self, now_ms: u64, error: &ErrorFrame) -> Option<Settled> {
        let id = error.id.as_deref()?;
        if error.code.may_retry() {
            let chat_id = self.in_flight.remove(id)?;
            let queue = self.queues.get_mut(&chat_id)?;
            let wait_ms = error.retry_after_ms.unwrap_or(RETRY_MS);
            queue.turn = Turn::Paused(now_ms.saturating_add(wait_ms));
            return None;
        }
        let order = self.take(id)?;
        let (client_id, chat_id) = (order.client_id, order.message.chat_id);
        Some(Settled::Refused { client_id, chat_id, error: error.clone() })
    }

    /// The connection is gone: what was in flight goes first on the next one.
    pub fn on_lost(&mut self) {
        self.in_flight.clear();
        for queue in self.queues.values_mut() {
            if matches!(queue.turn, Turn::InFlight(_)) {
                queue.turn = Turn::Ready;
            }
        }
    }

    fn take(&mut self, id: &str) -> Option<Order> {
        let chat_id = self.in_flight.remove(id)?;
        let queue = self.queues.get_mut(&chat_id)?;
        // What is in flight stands first in its queue.
        let order = queue.orders.pop_front()?;
        queue.turn = Turn::Ready;
        if queue.orders.is_empty() {
            self.queues.remove(&chat_id);
        }
        Some(order)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use parlor_proto::{ErrorCode, Time, receipts::Status};

    use super::*;

    fn order(key: &str, chat: u64) -> Order {
        let message = SendMessage {
            chat_id: ChatId::from_raw(chat),
            message: key.to_owned(),
            kind: Default::default(),
            attachments: Vec::new(),
            client_id: None,
            reply_to: None,
        };
        Order::new(ClientId::new(key).unwrap(), message)
    }

    fn ack(key: &str, chat: u64) -> Ack {
        Ack {
            id: Some(key.to_owned()),
            message_id: MessageId::from_raw(1),
            chat_id: ChatId::from_raw(chat),
            seq: Seq::new(1),
            created_at: Time::from_millis(0),
            status: Status::Sent,
        }
    }

    fn refusal(key: &str, code: ErrorCode, retry_after_ms: Option<u64>) -> ErrorFrame {
        let id = Some(key.to_owned());
        ErrorFrame { id, code, detail: String::new(), field: None, retry_after_ms }
    }

    fn said(outbox: &mut Outbox, now_ms: u64) -> Vec<String> {
        outbox.due(now_ms).into_iter().map(|frame| frame.message).collect()
    }

    #[test]
    fn each_chat_has_one_order_in_flight() {
        let mut outbox = Outbox::default();
        for (key, chat) in [("a1", 1), ("a2", 1), ("b1", 2)] {
            outbox.enqueue(order(key, chat));
        }
        assert_eq!(said(&mut outbox, 0), ["a1", "b1"]);
        assert!(said(&mut outbox, 1).is_empty());
        assert!(matches!(outbox.on_ack(&ack("a1", 1)), Some(Settled::Acked { .. })));
        assert_eq!(outbox.on_ack(&ack("a1", 1)), None, "a second ack settles nothing");
        assert_eq!(said(&mut outbox, 2), ["a2"]);
        outbox.on_ack(&ack("b1", 2)).unwrap();
        outbox.on_ack(&ack("a2", 1)).unwrap();
        assert!(outbox.is_empty() && outbox.deadline_ms().is_none());
    }

    #[test]
    fn what_is_not_answered_is_said_again_with_the_same_key() {
        let mut outbox = Outbox::default();
        outbox.enqueue(order("a", 1));
        outbox.enqueue(order("b", 1));
        assert_eq!(said(&mut outbox, 0), ["a"]);
        outbox.on_lost();
        assert_eq!(said(&mut outbox, 5), ["a"], "after a loss");
        assert_eq!(outbox.deadline_ms(), Some(5 + ANSWER_LIMIT_MS));
        assert_eq!(said(&mut outbox, 5 + ANSWER_LIMIT_MS), ["a"], "after a long silence");
        outbox.on_ack(&ack("a", 1)).unwrap();
        assert_eq!(said(&mut outbox, 50_000), ["b"]);
    }

    #[test]
    fn a_refusal_waits_or_is_final_by_its_code() {
        let mut outbox = Outbox::default();
        outbox.enqueue(order("a", 1));
        outbox.enqueue(order("b", 1));
        assert_eq!(said(&mut outbox, 0), ["a"]);
        let limited = refusal("a", ErrorCode::RateLimited, Some(250));
        assert_eq!(outbox.on_error(10, &limited), None);
        assert!(said(&mut outbox, 259).is_empty(), "b does not overtake a");
        assert_eq!(said(&mut outbox, 260), ["a"]);
        let settled = outbox.on_error(270, &refusal("a", ErrorCode::NotFound, None));
        assert!(
            matches!(settled, Some(Settled::Refused { ref client_id, .. }) if client_id.as_str() == "a")
        );
        assert_eq!(said(&mut outbox, 271), ["b"]);
        assert_eq!(outbox.on_error(272, &refusal("other", ErrorCode::NotFound, None)), None);
        assert_eq!(outbox.len(), 1);
    }
}
