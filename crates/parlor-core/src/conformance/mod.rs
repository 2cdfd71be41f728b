//! The proof of the storage contracts: random work on an engine and on the in-memory oracle,
//! compared read by read. Every engine runs it in one line.
//!
//! Both get the same clock and the same seeded randomness, so even ids must be equal. What the
//! oracle itself must keep (gapless logs, rising ids) is asserted beside the comparison.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "this is test code that engines of other crates run"
)]

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use parlor_proto::{
    ChatId, ClientId, DeviceId, MessageId, Seq, Time, UserId,
    accounts::Privacy,
    chats::{ChatSettings, ChatType, HistoryRule},
    event::SettingsChanges,
    frame::AccountEventBody,
    members::{LeaveReason, MemberRole, Role},
    messages::MessageType,
    receipts::ReceiptKind,
};

use crate::{
    clock::{Ids, ManualClock},
    memory::Memory,
    ports::{
        accounts::{Account, AccountUpdate, Accounts},
        chats::Chats,
        clock::{Clock, Random},
        devices::{Device, Devices},
        messages::{Anchor, Append, AppendKey, Appended, Expects, Messages, NewChat, NewEvent},
        receipts::{Move, Receipts},
    },
};

/// What an engine is made with.
pub struct Parts {
    /// The maker of ids.
    pub ids: Ids,
    /// A clock that moves by hand.
    pub clock: Arc<dyn Clock>,
    /// Seeded randomness.
    pub random: Arc<dyn Random>,
}

/// Compares an engine with the oracle over random work; panics where they differ.
pub async fn agrees_with_the_oracle<E>(seed: u64, make: impl FnOnce(Parts) -> E)
where
    E: Messages + Chats + Receipts + Accounts + Devices,
{
    let clock = ManualClock::at(Time::from_millis(1_700_000_000_000));
    let parts = || {
        let random: Arc<dyn Random> = Arc::new(Seeded(Mutex::new(Dice(seed))));
        let clock: Arc<dyn Clock> = Arc::new(clock.clone());
        Parts { ids: Ids::new(clock.clone(), random.clone()), clock, random }
    };
    let engine = make(parts());
    let Parts { ids, clock: oracle_clock, .. } = parts();
    let memory = Memory::new(ids, oracle_clock, "oracle".to_owned());
    let chats = (1..=3).map(|n| ChatId::from_raw((n << 22) | (n << 12))).collect();
    let pair = Pair { clock, memory, engine, chats };
    let (mut dice, mut seen) = (Dice(seed), Vec::new());
    for round in 0..80 {
        pair.step(&mut dice, &mut seen).await;
        pair.people_step(&mut dice).await;
        if round % 20 == 19 {
            pair.compare(&seen).await;
            pair.compare_people().await;
        }
    }
    assert!(seen.len() > 40, "only {} events were stored: no evidence", seen.len());
    for chat_id in &pair.chats {
        let events = pair.engine.events(*chat_id, Seq::ZERO, 10_000).await.unwrap();
        for (place, event) in events.iter().enumerate() {
            assert_eq!(event.seq.get(), place as u64 + 1, "I1");
        }
        assert!(events.is_sorted_by(|one, other| one.event_id < other.event_id), "I4");
    }
}

/// A small generator; the same on every machine.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // splitmix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

struct Seeded(Mutex<Dice>);

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock();
        bytes.iter_mut().for_each(|byte| *byte = u8::try_from(dice.roll(256)).unwrap());
    }
}

fn token(number: u64) -> [u8; 32] {
    [u8::try_from(number).unwrap(); 32]
}

fn users() -> [UserId; 4] {
    [1, 2, 3, 4].map(UserId::from_raw)
}

/// The oracle and the engine under test.
struct Pair<E> {
    clock: ManualClock,
    memory: Memory,
    engine: E,
    chats: Vec<ChatId>,
}

impl<E: Messages + Chats + Receipts + Accounts + Devices> Pair<E> {
    async fn step(&self, dice: &mut Dice, seen: &mut Vec<MessageId>) {
        if dice.roll(3) == 0 {
            self.clock.advance(Duration::from_millis(dice.roll(5)));
        }
        if dice.roll(4) == 0 {
            return self.move_cursors(dice).await;
        }
        let mut batch = Vec::new();
        for _ in 0..=dice.roll(4) {
            batch.push(self.unit(dice, seen).await);
        }
        let one = self.memory.write_batch(batch.clone()).await.unwrap();
        let other = self.engine.write_batch(batch).await.unwrap();
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        for outcome in one {
            if let Appended::Stored(stored) = outcome {
                seen.extend(stored.events.iter().map(|event| event.event_id));
            }
        }
    }

    async fn unit(&self, dice: &mut Dice, seen: &[MessageId]) -> Append {
        let pick = |dice: &mut Dice| users()[usize::try_from(dice.roll(4)).unwrap()];
        let chat_id = self.chats[usize::try_from(dice.roll(3)).unwrap()];
        let sender_id = pick(dice);
        let known = Chats::load(&self.memory, chat_id).await.unwrap();
        let key = (dice.roll(2) == 0).then(|| AppendKey {
            client_id: ClientId::new(format!("k{}", dice.roll(30))).unwrap(),
            body_mac: [u8::try_from(dice.roll(2)).unwrap(); 8],
        });
        let Some(chat) = known.filter(|_| dice.roll(30) > 0) else {
            let is_direct = dice.roll(3) == 0;
            let all = users();
            let members = all[..if is_direct { 2 } else { 3 }].iter().map(|user_id| {
                let role = if *user_id == users()[0] { Role::Owner } else { Role::Member };
                MemberRole { user_id: *user_id, role }
            });
            let new = NewChat {
                kind: if is_direct { ChatType::OneOnOne } else { ChatType::Group },
                title: (!is_direct).then(|| "Title".to_owned()),
                settings: ChatSettings::default(),
                direct_key: is_direct.then(|| "1-2".to_owned()),
                members: members.collect(),
            };
            let expects = Expects::NewChat(new);
            return Append { chat_id, sender_id, key, expects, events: vec![NewEvent::Created] };
        };
        // Now and then somebody believes in an old epoch.
        let epoch =
            chat.membership_epoch - u64::from(dice.roll(12) == 0).min(chat.membership_epoch);
        let target = |dice: &mut Dice| match seen.len() {
            0 => MessageId::from_raw(99),
            count => seen[usize::try_from(dice.roll(count as u64)).unwrap()],
        };
        let event = |dice: &mut Dice| match dice.roll(16) {
            0 => NewEvent::Edit { target_id: target(dice), text: format!("e{}", dice.roll(99)) },
            1 => NewEvent::Delete { target_id: target(dice) },
            2..=4 => NewEvent::Reaction {
                target_id: target(dice),
                emoji: ["👍", "🎉", "🙈"][usize::try_from(dice.roll(3)).unwrap()].to_owned(),
                added: dice.roll(3) > 0,
            },
            5 => NewEvent::Join {
                user_id: pick(dice),
                role: Role::Member,
                history: if dice.roll(2) == 0 { HistoryRule::All } else { HistoryRule::Joined },
            },
            6 => NewEvent::Leave { user_id: pick(dice), reason: LeaveReason::Left },
            7 => NewEvent::Role { user_id: pick(dice), role: Role::Admin },
            8 => NewEvent::Settings {
                changes: SettingsChanges {
                    title: Some(format!("t{}", dice.roll(9))),
                    topic: Some(if dice.roll(2) == 0 { String::new() } else { "Topic".to_owned() }),
                    ..SettingsChanges::default()
                },
            },
            _ => NewEvent::Message {
                kind: MessageType::Text,
                text: format!("m{}", dice.roll(999)),
                attachments: Vec::new(),
                reply_to: None,
            },
        };
        let events = (0..=dice.roll(2)).map(|_| event(dice)).collect();
        Append { chat_id, sender_id, key, expects: Expects::Epoch(epoch), events }
    }

    async fn move_cursors(&self, dice: &mut Dice) {
        let mut moves = Vec::new();
        for _ in 0..=dice.roll(5) {
            // As the contract asks: never above the head.
            let chat_id = self.chats[usize::try_from(dice.roll(3)).unwrap()];
            let head = self.memory.head(chat_id).await.unwrap().map_or(0, |head| head.seq.get());
            moves.push(Move {
                chat_id,
                user_id: users()[usize::try_from(dice.roll(4)).unwrap()],
                kind: if dice.roll(2) == 0 { ReceiptKind::Read } else { ReceiptKind::Delivered },
                to_seq: Seq::new(dice.roll(head + 1)),
                at: self.clock.now(),
            });
        }
        let one = self.memory.write_moves(moves.clone()).await.unwrap();
        assert_eq!(one, self.engine.write_moves(moves).await.unwrap());
    }

    /// Compares every read.
    async fn compare(&self, seen: &[MessageId]) {
        macro_rules! same {
            ($call:ident ( $($argument:expr),* )) => {
                assert_eq!(
                    self.memory.$call($($argument),*).await.unwrap(),
                    self.engine.$call($($argument),*).await.unwrap(),
                    stringify!($call)
                );
            };
        }
        for chat_id in self.chats.iter().copied() {
            let one = Chats::load(&self.memory, chat_id).await.unwrap();
            assert_eq!(one, Chats::load(&self.engine, chat_id).await.unwrap());
            same!(head(chat_id));
            same!(events(chat_id, Seq::ZERO, 10_000));
            same!(events(chat_id, Seq::new(3), 4));
            same!(cursors_of_chat(chat_id));
            for seq in [0, 1, 2, 5, 9, 1_000].map(Seq::new) {
                same!(reached(chat_id, seq));
                same!(event_id(chat_id, seq));
                same!(last_message(chat_id, seq));
                for anchor in
                    [Anchor::Newest, Anchor::Before(seq), Anchor::After(seq), Anchor::Around(seq)]
                {
                    same!(history(chat_id, Seq::new(2), anchor, 5));
                }
                for user_id in users() {
                    same!(count_unread(chat_id, user_id, seq));
                }
            }
            for id in seen {
                same!(seq_before(chat_id, *id));
            }
            for user_id in users() {
                same!(cursors(chat_id, user_id));
                same!(entry(chat_id, user_id));
            }
        }
        for id in seen {
            let one = Messages::load(&self.memory, *id).await.unwrap();
            assert_eq!(one, Messages::load(&self.engine, *id).await.unwrap());
            same!(locate(*id));
        }
        for user_id in users() {
            let one = Chats::list(&self.memory, user_id, None, 10).await.unwrap();
            assert_eq!(one, Chats::list(&self.engine, user_id, None, 10).await.unwrap());
            same!(changed_since(
                user_id,
                seen.last().copied().unwrap_or(MessageId::from_raw(1)),
                10
            ));
            same!(share_chat(users()[0], user_id));
            for key in 0..30 {
                let client_id = ClientId::new(format!("k{key}")).unwrap();
                same!(find_key(user_id, &client_id));
            }
        }
        same!(find_direct("1-2"));
    }

    /// Random work on accounts, own streams and devices.
    async fn people_step(&self, dice: &mut Dice) {
        macro_rules! both {
            ($port:ident :: $call:ident ( $($argument:expr),* )) => {{
                assert_eq!(
                    $port::$call(&self.memory, $($argument),*).await.unwrap(),
                    $port::$call(&self.engine, $($argument),*).await.unwrap(),
                    stringify!($call)
                );
            }};
        }
        let user_id = UserId::from_raw(1 + dice.roll(6));
        let device_id = DeviceId::from_raw(1 + dice.roll(8));
        let at = self.clock.now();
        // Rolled here, since the calls below are written out twice.
        let (long_ago, later) =
            (Time::from_millis(dice.roll(1_000)), Time::from_millis(at.millis() + dice.roll(9)));
        match dice.roll(10) {
            0 | 1 => {
                let (name, email) = (dice.roll(5), dice.roll(5));
                let account = Account {
                    user_id,
                    username: format!("Name{name}"),
                    username_key: format!("name{name}"),
                    email: (email > 0).then(|| format!("E{email}@x.org")),
                    email_key: (email > 0).then(|| format!("e{email}@x.org")),
                    display_name: "Somebody".to_owned(),
                    password_hash: None,
                    admin: false,
                    privacy: Privacy::default(),
                    created_at: at,
                    last_seen: None,
                    deleted_at: None,
                };
                // An id is made once; the same again is not part of the contract.
                if Accounts::load(&self.memory, user_id).await.unwrap().is_none() {
                    both!(Accounts::put(account.clone()));
                }
            }
            2 => {
                let update = AccountUpdate {
                    display_name: Some(format!("D{}", dice.roll(9))),
                    email: (dice.roll(2) == 0).then(|| {
                        let email = 1 + dice.roll(4);
                        (format!("E{email}@x.org"), format!("e{email}@x.org"))
                    }),
                    ..AccountUpdate::default()
                };
                both!(Accounts::update(user_id, update.clone(), at));
            }
            3 if dice.roll(4) == 0 => both!(Accounts::remove(user_id, at)),
            3 | 4 => both!(Accounts::touch(&[(user_id, long_ago)])),
            5 => both!(Accounts::append_own(user_id, AccountEventBody::Settings, at)),
            6 => {
                let known = Devices::find(&self.memory, &token(device_id.raw())).await.unwrap();
                if known.is_none() {
                    let device = Device {
                        device_id,
                        user_id,
                        name: "Phone".to_owned(),
                        token_hash: token(device_id.raw()),
                        created_at: at,
                        last_used_at: at,
                        expires_at: at,
                    };
                    both!(Devices::put(device.clone()));
                }
            }
            7 => both!(Devices::remove(user_id, device_id)),
            8 => both!(Devices::rename(user_id, device_id, format!("Phone {}", later.millis()))),
            _ => both!(Devices::touch(device_id, later)),
        }
    }

    async fn compare_people(&self) {
        macro_rules! same {
            ($port:ident :: $call:ident ( $($argument:expr),* )) => {
                assert_eq!(
                    $port::$call(&self.memory, $($argument),*).await.unwrap(),
                    $port::$call(&self.engine, $($argument),*).await.unwrap(),
                    stringify!($call)
                );
            };
        }
        same!(Accounts::count());
        for n in 0..8 {
            let user_id = UserId::from_raw(n + 1);
            same!(Accounts::load(user_id));
            same!(Accounts::find_by_username(&format!("name{n}")));
            same!(Accounts::find_by_email(&format!("e{n}@x.org")));
            same!(Accounts::own_head(user_id));
            same!(Accounts::own_events(user_id, Seq::ZERO, 1_000));
            same!(Accounts::own_events(user_id, Seq::new(2), 3));
            same!(Devices::list(user_id));
            same!(Devices::find(&token(n + 1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oracle_agrees_with_itself() {
        agrees_with_the_oracle(1, |parts| Memory::new(parts.ids, parts.clock, "twin".to_owned()))
            .await;
    }
}
