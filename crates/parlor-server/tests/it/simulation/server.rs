//! The server of a simulation: the real doors, hub, sessions and core, over the twin with a disk.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use parlor_client::Random as Dice;
use parlor_core::{
    Caller, Peer,
    memory::Memory,
    ports::clock::{BoxFuture, Clock, Random},
};
use parlor_proto::{
    ChatId, Time, UserId,
    accounts::SignUp,
    chats::{ChatType, CreateChat},
};
use parlor_server::{
    App,
    config::{Config, Switch},
    wiring::{self, Overrides, Storage},
};

use super::{PEOPLE, Shared, net::Listener};
use crate::world::PlainPasswords;

/// The people and chats of a run, made before the first fault.
pub struct Cast {
    pub people: Vec<Somebody>,
    /// A group of all; a one-to-one of the first two; a group whose last member comes and goes.
    pub chats: [ChatId; 3],
}

/// A person; every device of theirs has its own token.
pub struct Somebody {
    pub user_id: UserId,
    pub tokens: Vec<String>,
}

/// Lives until it is crashed.
pub async fn run(shared: Arc<Shared>) -> turmoil::Result {
    let clock = Arc::new(SimulatedClock::start(&shared));
    let boot = shared.boots.fetch_add(1, Ordering::Relaxed);
    let random = SimulatedRandom(Mutex::new(Dice::from_seed(shared.seed ^ (boot << 40))));
    let config = Config { rate_limits: Switch::Off, heartbeat_ms: 1_000, ..Config::default() };
    let (disk, epoch) = (shared.disk.clone(), shared.epoch.lock().clone());
    let storage = Storage::Memory(Box::new(move |ids, _| Memory::open(ids, epoch, disk)));
    let overrides = Overrides {
        clock: Some(clock),
        random: Some(Arc::new(random)),
        passwords: Some(Arc::new(PlainPasswords)),
    };
    let built = wiring::build(config, storage, overrides).await?;
    if shared.cast.get().is_none() {
        let cast = make_cast(&built.app, built.setup_code.clone()).await?;
        assert!(shared.cast.set(cast).is_ok(), "made once");
    }
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", 80)).await?;
    let _running = built.serve(SocketAddr::from(([0, 0, 0, 0], 80)), Listener(listener), None);
    std::future::pending().await
}

async fn make_cast(app: &App, setup_code: Option<String>) -> anyhow::Result<Cast> {
    let core = &app.core;
    let peer = Peer { address: [127, 0, 0, 1].into() };
    let mut people = Vec::new();
    let mut callers: Vec<Caller> = Vec::new();
    for number in 0..PEOPLE {
        let sign_up = SignUp {
            username: format!("person{number}"),
            email: format!("person{number}@example.org"),
            password: "correct horse battery".to_owned(),
            display_name: None,
            invite: setup_code.clone().filter(|_| number == 0),
            device_name: None,
        };
        let signed = core.accounts().sign_up(sign_up, &peer).await?;
        let first = signed.session.token.expect("not the web");
        callers.push(core.devices().authenticate(&first).await?);
        let sign_in = parlor_proto::devices::SignIn {
            login: format!("person{number}"),
            password: "correct horse battery".to_owned(),
            device_name: None,
        };
        let second = core.devices().sign_in(sign_in, &peer).await?.session.token;
        let tokens = vec![first, second.expect("not the web")];
        people.push(Somebody { user_id: signed.user.user_id, tokens });
    }
    let mut chats = Vec::new();
    for (kind, members) in
        [(ChatType::Group, PEOPLE), (ChatType::OneOnOne, 2), (ChatType::Group, PEOPLE)]
    {
        let others = people.iter().take(members).skip(1).map(|one| one.user_id).collect();
        let create = CreateChat {
            kind,
            participants: others,
            title: (kind == ChatType::Group).then(|| "Group".to_owned()),
            client_id: None,
        };
        chats.push(core.chats().create(&callers[0], create).await?.0.chat_id);
    }
    let chats = chats.try_into().map_err(|_| anyhow::anyhow!("three chats"))?;
    Ok(Cast { people, chats })
}

/// Monotonic time is that of the host; the wall clock jumps when the nemesis says so.
struct SimulatedClock {
    start: tokio::time::Instant,
    shared: Arc<Shared>,
}

impl SimulatedClock {
    #[expect(clippy::disallowed_methods, reason = "simulated time")]
    fn start(shared: &Arc<Shared>) -> Self {
        Self { start: tokio::time::Instant::now(), shared: shared.clone() }
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Time {
        let skew_ms = self.shared.skew_ms.load(Ordering::Relaxed);
        Time::from_millis((1_700_000_000_000 + now_ms()).saturating_add_signed(skew_ms))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "simulated time")]
    fn sleep(&self, duration: Duration) -> BoxFuture {
        Box::pin(tokio::time::sleep(duration))
    }
}

struct SimulatedRandom(Mutex<Dice>);

impl Random for SimulatedRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock();
        for byte in bytes {
            *byte = u8::try_from(dice.below(256)).expect("below 256");
        }
    }
}

/// Milliseconds since the simulation began.
pub fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).expect("a short run")
}
