//! Configuration → engines → core → app, in reading order.

use std::{fs, io::Write as _, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
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
    http::{
        accept::{self, Listen},
        router::{metrics_router, router},
    },
    metrics::Metrics,
    passwords::PasswordPool,
    tasks::{OsRandom, Tasks},
    ws::{hub::Hub, socket},
};

/// Over how long clients come back after a drain.
const DRAIN_SPREAD: Duration = Duration::from_secs(5);

/// Where the data lives.
pub enum Storage {
    /// SQLite in the data folder.
    Sqlite,
    /// Memory: gone with the process, unless it was given a disk; for tests.
    Memory(MakeMemory),
}

/// Makes the data set in memory.
pub type MakeMemory = Box<dyn FnOnce(Ids, Arc<dyn Clock>) -> Memory + Send>;

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
    /// Ends in order: no new connections, clients sent away, calls answered, everything written,
    /// files closed.
    pub async fn stop(self) {
        self.app.hub.drain(DRAIN_SPREAD);
        self.stop.cancel();
        let open = &self.app.tasks.open;
        open.close();
        let grace = Duration::from_millis(self.app.config.shutdown_grace_ms);
        tokio::select! {
            biased;
            () = open.wait() => {}
            () = self.app.clock.sleep(grace) => {
                tracing::warn!(left = open.len(), "the grace is over; what is left is cut");
            }
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

/// A server without its doors.
pub struct Built {
    /// Everything that the doors will share.
    pub app: Arc<App>,
    /// The code for the first account, where it needs one.
    pub setup_code: Option<String>,
    engine: Option<Arc<parlor_engines::sqlite::Sqlite>>,
}

/// Starts a server on the addresses of its configuration.
pub async fn start(
    config: Config,
    storage: Storage,
    overrides: Overrides,
) -> anyhow::Result<Running> {
    let built = build(config, storage, overrides).await?;
    let config = &built.app.config;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}: is another server there?", config.listen))?;
    let metrics_listener = match config.metrics_listen {
        Some(at) => Some(
            TcpListener::bind(at)
                .await
                .with_context(|| format!("cannot listen on {at} for the metrics"))?,
        ),
        None => None,
    };
    let address = listener.local_addr()?;
    Ok(built.serve(address, listener, metrics_listener))
}

/// Opens the engines and starts the core.
pub async fn build(
    config: Config,
    storage: Storage,
    overrides: Overrides,
) -> anyhow::Result<Built> {
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
        Storage::Memory(make) => {
            let memory = make(ids.clone(), clock.clone());
            // The same at each start, so that sessions and cursors live as long as the data.
            (common(Engines::of(Arc::new(memory))), [7; 32], None)
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
            let secret = secret_key(&secret_file(&config), &*random)?;
            (common(Engines::of(sqlite.clone())), secret, Some(sqlite))
        }
    };
    let is_fresh = ports.accounts.count().await? == 0;
    // Kept at loopback too, for the case that a proxy stands there: who comes through it is not local.
    let setup_code = is_fresh.then(|| code(&*random));
    let day = Duration::from_secs(86_400);
    let settings = Settings {
        limits: config.limits.clone(),
        registration_open: config.registration == RegistrationRule::Open,
        setup_code: setup_code.clone(),
        secret,
        session_idle: day * u32::try_from(config.session_idle_days).unwrap_or(u32::MAX),
        session_absolute: day * u32::try_from(config.session_days).unwrap_or(u32::MAX),
        heartbeat: Duration::from_millis(config.heartbeat_ms),
        node: config.node.clone(),
    };
    let core = Core::start(ports, settings).await?;
    let app = Arc::new(App {
        core,
        hub: hub.clone(),
        clock,
        spawn: spawn.clone(),
        metrics: Metrics::new(),
        tasks: (*spawn).clone(),
        probed: tokio::sync::Mutex::default(),
        config,
    });
    Ok(Built { app, setup_code, engine })
}

impl Built {
    /// Opens the doors.
    pub fn serve<L: Listen>(
        self,
        address: SocketAddr,
        listener: L,
        metrics_listener: Option<L>,
    ) -> Running {
        let Self { app, setup_code, engine } = self;
        socket::start_ticker(&app, &app.hub);
        let stop = CancellationToken::new();
        let most_connections = accept::raise_open_files();
        let doors = |router: Router| accept::Doors {
            router,
            clock: app.clock.clone(),
            spawn: app.spawn.clone(),
            metrics: app.metrics.clone(),
            open: app.tasks.open.clone(),
            stop: stop.clone(),
            most_handshakes: app
                .config
                .rate_limits
                .is_on()
                .then_some(app.config.quotas.handshakes_per_address as usize),
            trusted_proxies: app.config.trusted_proxies.clone(),
            most_connections,
        };
        if let Some(listener) = metrics_listener {
            let own = accept::run(listener, doors(metrics_router(app.clone())));
            app.spawn.spawn("accept metrics", Box::pin(own));
        }
        let own = accept::run(listener, doors(router(app.clone())));
        app.spawn.spawn("accept", Box::pin(own));
        Running { address, app, setup_code, stop, engine }
    }
}

/// Checks what `start` would meet, without starting: what is wrong is an error, what is only worth
/// a thought comes back.
pub fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    let folder = &config.data;
    if folder.exists() {
        let probe = folder.join(".check");
        fs::write(&probe, b"probe")
            .with_context(|| format!("cannot write in {}", folder.display()))?;
        fs::remove_file(&probe)?;
        let key = secret_file(config);
        if key.exists() {
            read_key(&key)?;
        }
    } else {
        findings.push(format!("{} does not exist yet; serve makes it", folder.display()));
    }
    if !config.rate_limits.is_on() {
        findings.push("rate limits are off: for tests only".to_owned());
    }
    let is_local = config.listen.ip().is_loopback();
    match config.public_url.as_deref() {
        None if !is_local => {
            findings.push("people reach this server without encryption: set public_url".to_owned());
        }
        Some(url) if url.starts_with("http://") && !is_local => {
            findings.push("public_url is not https: sign-in travels in clear".to_owned());
        }
        Some(_) if config.trusted_proxies.is_empty() => findings.push(
            "public_url is set and trusted_proxies is not: all people share the address of the proxy"
                .to_owned(),
        ),
        _ => {}
    }
    Ok(findings)
}

fn secret_file(config: &Config) -> std::path::PathBuf {
    config.secret_file.clone().unwrap_or_else(|| config.data.join("secret.key"))
}

fn read_key(path: &Path) -> anyhow::Result<[u8; 32]> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let size = bytes.len();
    bytes.try_into().map_err(|_| {
        anyhow::anyhow!("{} holds {size} bytes instead of 32: restore it", path.display())
    })
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
    let quotas = &config.quotas;
    let quota = |per_period, minutes: u64, burst| {
        Some(Quota { per_period, period: Duration::from_secs(60 * minutes), burst })
    };
    RateQuotas {
        sends: Some(Quota::per_second(sends_per_second, sends_burst)),
        sign_ups: quota(quotas.sign_ups_per_hour, 60, quotas.sign_ups_per_hour),
        sign_ins_of_account: quota(quotas.sign_ins_per_account, 15, quotas.sign_ins_per_account),
        sign_ins_from_address: quota(quotas.sign_ins_per_address, 15, quotas.sign_ins_per_address),
        look_ups: quota(quotas.look_ups_per_hour, 60, quotas.look_ups),
        signals: Some(Quota::per_second(
            quotas.signals_per_second,
            quotas.signals_per_second.saturating_mul(5),
        )),
    }
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

/// Reads the master key, or makes it.
fn secret_key(path: &Path, random: &dyn Random) -> anyhow::Result<[u8; 32]> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if path.exists() {
        return read_key(path);
    }
    let mut key = [0; 32];
    random.fill(&mut key);
    // Under its own name only once it is whole: half a key would lock everybody out.
    let half = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&half)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&half, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("cannot make {}", path.display()))?;
    Ok(key)
}
