//! Configuration → engines → core → app, in reading order.

use std::{fs, io::Write as _, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use parlor_core::{
    Core, Ports, Settings,
    clock::{Ids, SystemClock},
    memory::{Memory, MemoryRates, Quota, RateQuotas},
    ports::{
        bus::{Bus, Hint},
        clock::{Clock, Random},
        passwords::Passwords,
    },
};
use parlor_proto::Limits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    App,
    config::{Config, RegistrationRule},
    http::{accept, router::router},
    metrics::Metrics,
    passwords::PasswordPool,
    tasks::{OsRandom, Tasks},
    ws::{hub::Hub, socket},
};

/// Open HTTP connections of one address.
const CONNECTIONS_PER_ADDRESS: usize = 1_000;
/// Over how long clients come back after a drain.
const DRAIN_SPREAD: Duration = Duration::from_secs(5);

/// Where the data lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// SQLite in the data folder.
    Sqlite,
    /// Memory: gone with the process; for tests.
    Memory,
}

/// What a test replaces.
#[derive(Default)]
pub struct Overrides {
    /// Another clock.
    pub clock: Option<Arc<dyn Clock>>,
    /// Other randomness.
    pub random: Option<Arc<dyn Random>>,
    /// Another password hasher.
    pub passwords: Option<Arc<dyn Passwords>>,
}

/// A running server.
pub struct Running {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// Everything that the doors share.
    pub app: Arc<App>,
    /// The code for the first account, where it needs one.
    pub setup_code: Option<String>,
    stop: CancellationToken,
    engine: Option<Arc<parlor_engines::sqlite::Sqlite>>,
}

impl Running {
    /// Ends in order: no new connections, clients sent away, everything written, files closed.
    pub async fn stop(self) {
        self.app.hub.drain(DRAIN_SPREAD);
        self.stop.cancel();
        let clock = &self.app.clock;
        for _ in 0..50 {
            if self.app.hub.is_empty() {
                break;
            }
            clock.sleep(Duration::from_millis(100)).await;
        }
        self.app.core.flush().await;
        if let Some(engine) = self.engine {
            engine.close().await;
        }
    }
}

/// Hands hints to the hub once there is one: the core needs the bus before the app exists.
struct LateBus(Arc<Hub>);

impl Bus for LateBus {
    fn publish(&self, hint: Hint) {
        self.0.publish(hint);
    }
}

/// Starts a server.
pub async fn start(
    config: Config,
    storage: Storage,
    overrides: Overrides,
) -> anyhow::Result<Running> {
    let clock = overrides.clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
    let random = overrides.random.unwrap_or_else(|| Arc::new(OsRandom));
    let spawn = Arc::new(Tasks::default());
    let ids = Ids::new(clock.clone(), random.clone());
    let passwords = match overrides.passwords {
        Some(passwords) => passwords,
        None => Arc::new(PasswordPool::start()?),
    };
    let hub = Arc::new(Hub::new(clock.clone()));
    let quotas = quotas(&config);
    let common = |engine: Engines| Ports {
        clock: clock.clone(),
        random: random.clone(),
        spawn: spawn.clone(),
        ids: ids.clone(),
        store: engine.store,
        accounts: engine.accounts,
        devices: engine.devices,
        chats: engine.chats,
        messages: engine.messages,
        receipts: engine.receipts,
        bus: Arc::new(LateBus(hub.clone())),
        rates: Arc::new(MemoryRates::new(&clock, &quotas)),
        passwords,
    };
    let (ports, secret, engine) = match storage {
        Storage::Memory => {
            let memory = Memory::new(ids.clone(), clock.clone(), "memory".to_owned());
            (common(Engines::of(Arc::new(memory))), random_key(&*random), None)
        }
        Storage::Sqlite => {
            let folder = &config.data;
            let sqlite = parlor_engines::sqlite::Sqlite::open(
                folder,
                ids.clone(),
                clock.clone(),
                random.clone(),
            )?;
            let sqlite = Arc::new(sqlite);
            let secret = secret_key(folder, &*random)?;
            (common(Engines::of(sqlite.clone())), secret, Some(sqlite))
        }
    };
    let is_fresh = ports.accounts.count().await? == 0;
    let needs_code = is_fresh && !config.listen.ip().is_loopback();
    let setup_code = needs_code.then(|| code(&*random));
    let day = Duration::from_secs(86_400);
    let settings = Settings {
        limits: config.limits.clone(),
        registration_open: config.registration == RegistrationRule::Open,
        setup_code: setup_code.clone(),
        secret,
        session_idle: day * u32::try_from(config.session_idle_days).unwrap_or(u32::MAX),
        session_absolute: day * u32::try_from(config.session_days).unwrap_or(u32::MAX),
        heartbeat: Duration::from_millis(config.heartbeat_ms),
        node: "node-0".to_owned(),
    };
    let core = Core::start(ports, settings).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}: is another server there?", config.listen))?;
    let address = listener.local_addr()?;
    let most = config.rate_limits.is_on().then_some(CONNECTIONS_PER_ADDRESS);
    let app = Arc::new(App {
        core,
        hub: hub.clone(),
        clock,
        spawn: spawn.clone(),
        metrics: Metrics::new(),
        config,
    });
    socket::start_ticker(&app, &hub);
    let stop = CancellationToken::new();
    let doors = accept::run(listener, router(app.clone()), spawn.clone(), stop.clone(), most);
    parlor_core::ports::clock::Spawn::spawn(&*spawn, "accept", Box::pin(doors));
    Ok(Running { address, app, setup_code, stop, engine })
}

/// One engine behind all storage ports.
struct Engines {
    store: Arc<dyn parlor_core::ports::store::Store>,
    accounts: Arc<dyn parlor_core::ports::accounts::Accounts>,
    devices: Arc<dyn parlor_core::ports::devices::Devices>,
    chats: Arc<dyn parlor_core::ports::chats::Chats>,
    messages: Arc<dyn parlor_core::ports::messages::Messages>,
    receipts: Arc<dyn parlor_core::ports::receipts::Receipts>,
}

impl Engines {
    fn of<E>(engine: Arc<E>) -> Self
    where
        E: parlor_core::ports::store::Store
            + parlor_core::ports::accounts::Accounts
            + parlor_core::ports::devices::Devices
            + parlor_core::ports::chats::Chats
            + parlor_core::ports::messages::Messages
            + parlor_core::ports::receipts::Receipts,
    {
        Self {
            store: engine.clone(),
            accounts: engine.clone(),
            devices: engine.clone(),
            chats: engine.clone(),
            messages: engine.clone(),
            receipts: engine,
        }
    }
}

fn quotas(config: &Config) -> RateQuotas {
    if !config.rate_limits.is_on() {
        return RateQuotas::off();
    }
    let Limits { sends_per_second, sends_burst, .. } = config.limits;
    RateQuotas {
        sends: Some(Quota::per_second(sends_per_second, sends_burst)),
        ..RateQuotas::default()
    }
}

fn random_key(random: &dyn Random) -> [u8; 32] {
    let mut key = [0; 32];
    random.fill(&mut key);
    key
}

/// Twelve characters without look-alikes, in groups.
fn code(random: &dyn Random) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut bytes = [0; 12];
    random.fill(&mut bytes);
    let letter = |byte: &u8| LETTERS.get(usize::from(byte % 32)).map_or('A', |l| char::from(*l));
    let letters: Vec<char> = bytes.iter().map(letter).collect();
    let groups = letters.chunks(4).map(|group| group.iter().collect::<String>());
    groups.collect::<Vec<_>>().join("-")
}

/// Reads the master key of the data folder, or makes it.
fn secret_key(folder: &Path, random: &dyn Random) -> anyhow::Result<[u8; 32]> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = folder.join("secret.key");
    match fs::read(&path) {
        Ok(bytes) => {
            let size = bytes.len();
            bytes.try_into().map_err(|_| {
                anyhow::anyhow!("{} holds {size} bytes instead of 32: restore it", path.display())
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = random_key(random);
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("cannot make {}", path.display()))?;
            file.write_all(&key)?;
            file.sync_all()?;
            fs::File::open(folder)?.sync_all()?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
