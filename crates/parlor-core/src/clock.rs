//! The hybrid logical clock that makes ids, and the real and manual clocks behind its port.
//!
//! An id is 41 bits of milliseconds, 10 of chat slot, 12 of counter (invariant I4). The clock steps
//! the milliseconds, never back: an id made later is never smaller in the same slot, whatever the
//! wall clock does. On one node the counter has all 12 bits; a cluster gives some to the node.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use parlor_proto::{
    ChatId, DeviceId, MessageId, Time, UserId,
    ids::{CHAT_SLOTS, ID_COUNTER_BITS, ID_LOW_BITS},
};
use tokio::sync::watch;

use crate::{
    planted::is_planted,
    ports::clock::{BoxFuture, Clock, Random},
};

const COUNTERS: u64 = 1 << ID_COUNTER_BITS;
/// How far another node's ids may run ahead of the own clock and still be followed (promises P18).
const FOLLOW_MS: u64 = 60_000;

/// Makes ids that are unique on this node and rise in every slot.
#[derive(Clone)]
pub struct Ids {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    last: Arc<Mutex<Last>>,
}

/// The last step taken: one counter for all slots, since 4,096 ids a millisecond are enough.
#[derive(Default)]
struct Last {
    ms: u64,
    counter: u64,
}

impl Ids {
    /// Makes an id clock over the wall clock.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { clock, random, last: Arc::default() }
    }

    /// Makes a message id in the slot of its chat, above `floor` (the last id of the chat).
    pub fn message_id(&self, chat_id: ChatId, floor: Option<MessageId>) -> MessageId {
        MessageId::from_raw(self.next(chat_id.slot(), floor.map_or(0, MessageId::raw)))
    }

    /// Makes a chat id; its slot, and so that of its messages, is random.
    pub fn chat_id(&self) -> ChatId {
        ChatId::from_raw(self.next(self.random_slot(), 0))
    }

    /// Makes a user id.
    pub fn user_id(&self) -> UserId {
        UserId::from_raw(self.next(self.random_slot(), 0))
    }

    /// Makes a device id.
    pub fn device_id(&self) -> DeviceId {
        DeviceId::from_raw(self.next(self.random_slot(), 0))
    }

    /// Moves past an id made elsewhere or before a restart, unless it lies absurdly far ahead.
    pub fn observe(&self, id: MessageId) {
        let limit = self.clock.now().millis() + FOLLOW_MS;
        let mut last = self.last.lock();
        if id.millis() >= last.ms && id.millis() <= limit {
            last.ms = id.millis();
            last.counter = last.counter.max(id.raw() & (COUNTERS - 1));
        }
    }

    /// Returns a time below which no id will be made any more, but in chats that are far ahead.
    pub fn passed_ms(&self) -> u64 {
        let now = self.clock.now().millis();
        let mut last = self.last.lock();
        if now > last.ms {
            *last = Last { ms: now, counter: 0 };
        }
        last.ms
    }

    fn next(&self, slot: u64, floor: u64) -> u64 {
        let now = self.clock.now().millis();
        let mut last = self.last.lock();
        if now > last.ms || (now < last.ms && is_planted("wall_clock_ids")) {
            *last = Last { ms: now, counter: 0 };
        } else {
            last.counter += 1;
            if last.counter == COUNTERS {
                *last = Last { ms: last.ms + 1, counter: 0 };
            }
        }
        let id = compose(last.ms, slot, last.counter);
        if id > floor || is_planted("wall_clock_ids") {
            return id;
        }
        // The chat is ahead of this clock (another node's clock, or one set back): follow the chat.
        let floor = MessageId::from_raw(floor);
        if floor.millis() <= now + FOLLOW_MS {
            *last = Last { ms: floor.millis() + 1, counter: 0 };
        }
        compose(floor.millis() + 1, slot, 0)
    }

    fn random_slot(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_be_bytes(bytes) % CHAT_SLOTS
    }
}

/// Returns the smallest id of a millisecond, over all slots.
pub fn first_id_of(ms: u64) -> MessageId {
    MessageId::from_raw(ms << ID_LOW_BITS)
}

fn compose(ms: u64, slot: u64, counter: u64) -> u64 {
    // 41 bits of milliseconds last until 2039; the sign bit stays 0 beyond masks either way.
    ((ms << ID_LOW_BITS) | (slot << ID_COUNTER_BITS) | counter) & (i64::MAX as u64)
}

/// The clock of the machine.
pub struct SystemClock {
    start: std::time::Instant,
}

impl Default for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock pipe")]
    fn default() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock pipe")]
    fn now(&self) -> Time {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Time::from_millis(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock pipe")]
    fn sleep(&self, duration: Duration) -> BoxFuture {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that moves only by hand; for tests.
#[derive(Clone)]
pub struct ManualClock {
    now: Arc<watch::Sender<Duration>>,
    start: Time,
}

impl ManualClock {
    /// Makes a clock that stands at a wall time.
    pub fn at(start: Time) -> Self {
        Self { now: Arc::new(watch::channel(Duration::ZERO).0), start }
    }

    /// Moves the clock and wakes every sleeper whose time has come.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now += by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        let passed = u64::try_from(self.now.borrow().as_millis()).unwrap_or(u64::MAX);
        Time::from_millis(self.start.millis().saturating_add(passed))
    }

    fn monotonic(&self) -> Duration {
        *self.now.borrow()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture {
        let mut now = self.now.subscribe();
        let end = *now.borrow() + duration;
        Box::pin(async move {
            // The sender lives as long as any clone of the clock; without one nobody can wake us.
            if now.wait_for(|now| *now >= end).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zero;
    impl Random for Zero {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    fn ids_at(ms: u64) -> (Ids, ManualClock) {
        let clock = ManualClock::at(Time::from_millis(ms));
        (Ids::new(Arc::new(clock.clone()), Arc::new(Zero)), clock)
    }

    #[test]
    fn ids_of_a_chat_rise_and_carry_its_slot_while_the_clock_stands() {
        let (ids, _clock) = ids_at(1_000);
        let chat_id = ids.chat_id();
        let mut last = ids.message_id(chat_id, None);
        for _ in 0..10_000 {
            let next = ids.message_id(chat_id, Some(last));
            assert!(next > last && next.slot() == chat_id.slot());
            last = next;
        }
        assert!(last.millis() < 1_005, "ids run ahead of the clock by the counter only");
    }

    #[test]
    fn ids_rise_over_a_floor_from_the_future() {
        let (ids, _clock) = ids_at(1_000);
        let chat_id = ids.chat_id();
        let floor = MessageId::from_raw((5_000 << ID_LOW_BITS) | 4_095);
        assert!(ids.message_id(chat_id, Some(floor)) > floor);
    }

    #[test]
    fn no_two_ids_are_equal_over_slots() {
        let (ids, clock) = ids_at(1_000);
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..20_000 {
            assert!(seen.insert(ids.next(round % 3, 0)));
            if round % 1_000 == 0 {
                clock.advance(Duration::from_millis(1));
            }
        }
    }

    #[tokio::test]
    async fn a_sleeper_on_the_manual_clock_wakes_when_it_is_moved() {
        let (_, clock) = ids_at(0);
        let sleep = clock.sleep(Duration::from_secs(60));
        clock.advance(Duration::from_secs(59));
        let task = async {
            sleep.await;
            clock.monotonic()
        };
        let mover = async { clock.advance(Duration::from_secs(1)) };
        let (at, ()) = tokio::join!(task, mover);
        assert_eq!(at, Duration::from_secs(60));
    }
}
