//! The rules of Parlor: who may do what, and what follows from it; and the ports it needs.
//!
//! No HTTP, no SQL, no driver, no socket; no clock, randomness, network or disk but through the
//! ports (invariant I10). Start reading at `messages.rs`: `send` is the line that everything else
//! serves.

pub mod access;
pub mod accounts;
pub mod appender;
pub mod chats;
pub mod clock;
pub mod conformance;
pub mod delivery;
pub mod devices;
pub mod error;
pub mod members;
pub mod memory;
pub mod messages;
pub mod planted;
pub mod ports;
pub mod presence;
pub mod privacy;
pub mod receipts;
pub mod sealed;
pub mod session;
pub mod stats;

use std::{net::IpAddr, sync::Arc, time::Duration};

use parlor_proto::{DeviceId, Limits, UserId};

pub use crate::error::{Error, Result};
use crate::{
    clock::Ids,
    ports::{EngineResult, rates::Rate},
};

/// Everything from outside.
#[derive(Clone)]
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn ports::clock::Clock>,
    /// Randomness.
    pub random: Arc<dyn ports::clock::Random>,
    /// Tasks.
    pub spawn: Arc<dyn ports::clock::Spawn>,
    /// The maker of ids; the engines share it.
    pub ids: Ids,
    /// The data set.
    pub store: Arc<dyn ports::store::Store>,
    /// Accounts.
    pub accounts: Arc<dyn ports::accounts::Accounts>,
    /// Devices.
    pub devices: Arc<dyn ports::devices::Devices>,
    /// Chats and members.
    pub chats: Arc<dyn ports::chats::Chats>,
    /// The logs.
    pub messages: Arc<dyn ports::messages::Messages>,
    /// Cursors.
    pub receipts: Arc<dyn ports::receipts::Receipts>,
    /// Connected devices.
    pub bus: Arc<dyn ports::bus::Bus>,
    /// Rate limits.
    pub rates: Arc<dyn ports::rates::Rates>,
    /// Password hashing.
    pub passwords: Arc<dyn ports::passwords::Passwords>,
}

/// What an operator sets.
#[derive(Clone)]
pub struct Settings {
    /// What is accepted.
    pub limits: Limits,
    /// Anybody may sign up.
    pub registration_open: bool,
    /// The first account from beyond loopback must show this code.
    pub setup_code: Option<String>,
    /// The master key: seals tokens and keys digests.
    pub secret: [u8; 32],
    /// A session ends after this time without use.
    pub session_idle: Duration,
    /// A session ends after this time in any case.
    pub session_absolute: Duration,
    /// Silence after which a connection is asked for a sign of life.
    pub heartbeat: Duration,
    /// The name of this node.
    pub node: String,
}

/// Who calls: made by `devices().authenticate` and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// Administers the server.
    pub admin: bool,
}

/// Where a call without a session comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The client's address, after trusted proxies.
    pub address: IpAddr,
}

/// Whether a repeatable call did something now or had done it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// Done now.
    New,
    /// Done before, with the same key or for the same pair.
    Repeated,
}

/// The server without its doors: ports, caches, and one handle per noun; no other state.
pub struct Core {
    ports: Ports,
    settings: Settings,
    /// The epoch of the store: as read at start, or taken since.
    epoch: parking_lot::RwLock<String>,
    /// This run of the server.
    boot: Boot,
    /// Seals cursors and tickets; keys the digests of requests.
    sealer: sealed::Sealer,
    /// Chat states with their epochs; the append checks the epoch, so a stale one does no harm.
    chats: chats::ChatCache,
    /// Sessions and accounts that were used lately; dropped at every change.
    people: accounts::PeopleCache,
    /// The queue before the log.
    appender: appender::Appender,
    /// Receipts that wait to be written.
    receipts: receipts::Pending,
    /// Who is connected, and who watches whom.
    presence: presence::Board,
    /// Tickets that were used and have not expired yet.
    tickets: devices::UsedTickets,
    /// Counters for the metrics.
    stats: Arc<stats::Stats>,
}

/// One run of a server.
struct Boot {
    /// Tells it from others.
    id: u64,
    /// No id is made below it in this run, but in chats that are far ahead.
    ms: u64,
}

impl Core {
    /// Starts the core: reads the epoch, starts the appender, the receipt writer and the ticker.
    pub async fn start(ports: Ports, settings: Settings) -> EngineResult<Arc<Self>> {
        let epoch = ports.store.epoch().await?;
        let mut id = [0; 8];
        ports.random.fill(&mut id);
        let boot = Boot { id: u64::from_be_bytes(id), ms: ports.ids.passed_ms() };
        let stats = Arc::new(stats::Stats::default());
        let chats = chats::ChatCache::new(ports.chats.clone());
        let appender = appender::Appender::start(&ports, chats.clone(), stats.clone());
        let core = Arc::new(Self {
            sealer: sealed::Sealer::new(&settings.secret),
            people: accounts::PeopleCache::default(),
            receipts: receipts::Pending::default(),
            presence: presence::Board::default(),
            tickets: devices::UsedTickets::default(),
            appender,
            chats,
            boot,
            epoch: parking_lot::RwLock::new(epoch),
            stats,
            settings,
            ports,
        });
        receipts::start_writer(&core);
        presence::start_ticker(&core);
        Ok(core)
    }

    /// Accounts and profiles.
    pub fn accounts(&self) -> accounts::Accounts<'_> {
        accounts::Accounts(self)
    }

    /// Sessions and tickets.
    pub fn devices(&self) -> devices::Devices<'_> {
        devices::Devices(self)
    }

    /// Chats.
    pub fn chats(&self) -> chats::Chats<'_> {
        chats::Chats(self)
    }

    /// Members.
    pub fn members(&self) -> members::Members<'_> {
        members::Members(self)
    }

    /// Messages.
    pub fn messages(&self) -> messages::Messages<'_> {
        messages::Messages(self)
    }

    /// Receipts.
    pub fn receipts(&self) -> receipts::Receipts<'_> {
        receipts::Receipts(self)
    }

    /// Presence, typing, focus.
    pub fn presence(&self) -> presence::Presence<'_> {
        presence::Presence(self)
    }

    /// Greeting and resuming a connection.
    pub fn session(&self) -> session::Session<'_> {
        session::Session(self)
    }

    /// Counters for the metrics.
    pub fn stats(&self) -> &stats::Stats {
        &self.stats
    }

    /// What the operator set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The epoch of the store.
    pub fn epoch(&self) -> String {
        self.epoch.read().clone()
    }

    /// Takes a new epoch, since a genuine position of a client lies ahead of the store: it was put
    /// back to an earlier moment without a word. Everybody is told `reset` at their next greeting.
    async fn renew_epoch(&self, proved_in: &str) -> Result<()> {
        let mut bytes = [0; 16];
        self.ports.random.fill(&mut bytes);
        let epoch: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.epoch() != proved_in {
            // Somebody else's position proved it first.
            return Ok(());
        }
        self.ports.store.set_epoch(&epoch).await?;
        *self.epoch.write() = epoch;
        tracing::error!("the data went back to an earlier moment: clients are told to start again");
        Ok(())
    }

    /// Proves that the store answers.
    pub async fn probe(&self) -> Result<()> {
        Ok(self.ports.store.probe().await?)
    }

    /// Returns what the store noticed about its data.
    pub fn store_health(&self) -> ports::store::StoreHealth {
        self.ports.store.health()
    }

    /// Writes what is only in memory: receipts and last-seen times. Called before an orderly end.
    pub async fn flush(&self) {
        self.receipts().flush().await;
        self.presence().flush().await;
    }

    fn now(&self) -> parlor_proto::Time {
        self.ports.clock.now()
    }

    fn rate(&self, rate: Rate, key: &str, cost: u32) -> Result<()> {
        self.ports.rates.take(rate, key, cost).map_err(|retry_after| {
            stats::add(&self.stats.rate_limited, 1);
            Error::TooMany { retry_after }
        })
    }
}
