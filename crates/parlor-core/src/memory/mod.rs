//! The in-memory twins of the ports: an engine for tests, and the oracle of the conformance suites.
//!
//! Plain on purpose: one state behind one lock, no cleverness that could hide a mistake. Nothing
//! survives the process, unless a disk is given (`disk.rs`: for simulations). What each call must do
//! stands in `ports/`; one file here per noun.

mod accounts;
mod bus;
mod chats;
mod devices;
pub mod disk;
mod messages;
mod rates;
mod receipts;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use parlor_proto::{
    ChatId, ClientId, DeviceId, MessageId, Seq, Time, UserId,
    frame::{AccountEvent, AccountEventBody},
};

pub use self::{
    bus::RecordingBus,
    disk::{Disk, Image},
    rates::{MemoryRates, Quota, RateQuotas},
};
use crate::{
    clock::Ids,
    planted::is_planted,
    ports::{EngineResult, accounts::Account, clock::Clock, devices::Device, store::Store},
};

/// A whole data set in memory.
pub struct Memory {
    ids: Ids,
    epoch: Mutex<String>,
    /// What was committed. Held for a whole call, never over an await: each call is one transaction.
    state: Mutex<State>,
    /// Where commits become durable, and the turn of the one who writes; none lives in memory only.
    disk: Option<(Arc<dyn Disk>, tokio::sync::Mutex<()>)>,
}

#[derive(Default, Clone)]
struct State {
    accounts: BTreeMap<UserId, Account>,
    devices: BTreeMap<DeviceId, Device>,
    chats: BTreeMap<ChatId, chats::Chat>,
    /// Where each event stands.
    places: BTreeMap<MessageId, (ChatId, Seq)>,
    keys: HashMap<(UserId, ClientId), messages::KeyPlace>,
    own: BTreeMap<UserId, Vec<AccountEvent>>,
}

impl Memory {
    /// Makes an empty data set. The clock is taken as every engine takes it; all times that are not
    /// given by the caller come from the ids.
    pub fn new(ids: Ids, _clock: Arc<dyn Clock>, epoch: String) -> Self {
        Self { ids, epoch: Mutex::new(epoch), state: Mutex::default(), disk: None }
    }

    /// Opens the data set that a disk holds; every write answers when the disk has synced it.
    pub fn open(ids: Ids, epoch: String, disk: Arc<dyn Disk>) -> Self {
        let Image(state) = disk.read();
        // Ids rise over a restart too, whatever happened to the wall clock meanwhile.
        if let Some((last, _)) = state.places.last_key_value() {
            ids.observe(*last);
        }
        let disk = Some((disk, tokio::sync::Mutex::default()));
        Self { ids, epoch: Mutex::new(epoch), state: Mutex::new(state), disk }
    }

    /// Makes one transaction: durable where there is a disk, seen by readers when it is.
    async fn write<T>(&self, change: impl FnOnce(&mut State) -> T + Send) -> EngineResult<T> {
        let Some((disk, turn)) = &self.disk else { return Ok(change(&mut self.state.lock())) };
        let _turn = turn.lock().await;
        let mut next = self.state.lock().clone();
        let answer = change(&mut next);
        if is_planted("no_sync") {
            *self.state.lock() = next;
            return Ok(answer);
        }
        if is_planted("ack_early") {
            let synced = std::mem::replace(&mut *self.state.lock(), next);
            // The sync comes with the next commit.
            disk.write(Image(synced)).await?;
            return Ok(answer);
        }
        match disk.write(Image(next.clone())).await {
            Err(_) if is_planted("retry_same_handle") => {
                *self.state.lock() = next;
                Ok(answer)
            }
            Ok(()) => {
                *self.state.lock() = next;
                Ok(answer)
            }
            Err(error) => {
                // What the disk kept of it decides: the same as opening the files again.
                *self.state.lock() = disk.read().0;
                Err(error)
            }
        }
    }
}

impl State {
    fn append_own(&mut self, user_id: UserId, body: AccountEventBody, at: Time) -> AccountEvent {
        let stream = self.own.entry(user_id).or_default();
        let event = AccountEvent { seq: Seq::new(stream.len() as u64 + 1), at, body };
        stream.push(event.clone());
        event
    }
}

#[async_trait]
impl Store for Memory {
    async fn epoch(&self) -> EngineResult<String> {
        Ok(if is_planted("epoch_kept") { "kept".to_owned() } else { self.epoch.lock().clone() })
    }

    async fn set_epoch(&self, epoch: &str) -> EngineResult<()> {
        epoch.clone_into(&mut self.epoch.lock());
        Ok(())
    }

    async fn probe(&self) -> EngineResult<()> {
        Ok(())
    }
}
