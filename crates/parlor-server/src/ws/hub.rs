//! The connections of this node, by user and by number; a frame is encoded once and shared by all.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use parlor_core::{
    Caller,
    ports::{
        bus::{Bus, ConnectionId, Hint},
        clock::Clock,
    },
};
use parlor_proto::{
    CloseCode, DeviceId, UserId,
    frame::{ReconnectFrame, ServerFrame},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::queue::{Connection, Door, Look, Pushed, encode};

const SHARDS: usize = 64;
/// Grain of the times at which a connection is looked at.
const GRAIN_MS: u64 = 250;
/// Connections that are looked up under one lock.
const LOOK_UPS: usize = 512;

/// Places in time for those whom a drain did not find.
const LATE_PLACES: u64 = 16;

type Shard = Mutex<HashMap<UserId, Vec<Arc<Connection>>>>;

/// Counters of the hub; each only rises.
#[derive(Debug, Default)]
pub struct HubStats {
    /// Connections registered.
    pub opened: AtomicU64,
    /// Frames queued.
    pub queued: AtomicU64,
    /// Chat events folded into a gap.
    pub folded: AtomicU64,
    /// Ephemeral frames that a slow reader lost.
    pub lost: AtomicU64,
    /// Connections closed because they could not take a lasting frame.
    pub overflowed: AtomicU64,
}

/// When which connection is looked at. Each is in it once: who is gone is found to be so at its time,
/// which costs less than to find it here.
#[derive(Default)]
struct Wheel {
    /// By the end of a grain of time.
    due: BTreeMap<u64, Vec<ConnectionId>>,
    /// With every tick until they are calm: they moved, or are behind.
    soon: Vec<ConnectionId>,
}

impl Wheel {
    fn put(&mut self, id: ConnectionId, at: Duration) {
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        self.due.entry(at_ms.div_ceil(GRAIN_MS)).or_default().push(id);
    }

    /// Takes out who is to be looked at now: those of a time, and those of every tick.
    fn take(&mut self, now: Duration) -> (Vec<ConnectionId>, Vec<ConnectionId>) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX) / GRAIN_MS;
        let later = self.due.split_off(&now.saturating_add(1));
        let due = std::mem::replace(&mut self.due, later);
        (due.into_values().flatten().collect(), std::mem::take(&mut self.soon))
    }
}

/// The connections of this node.
pub struct Hub {
    clock: Arc<dyn Clock>,
    /// Users by shard; a lock guards one shard and is never held over an await.
    users: Vec<Shard>,
    /// In the order in which they came: whatever goes over all of them does so in one order.
    numbers: Mutex<BTreeMap<ConnectionId, Arc<Connection>>>,
    next: AtomicU64,
    wheel: Mutex<Wheel>,
    /// Over how long clients come back after a drain; written before it begins.
    spread_ms: AtomicU64,
    draining: CancellationToken,
    /// What happened here.
    pub stats: HubStats,
}

impl Hub {
    /// Makes an empty hub.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            users: (0..SHARDS).map(|_| Mutex::default()).collect(),
            numbers: Mutex::default(),
            next: AtomicU64::new(1),
            wheel: Mutex::default(),
            spread_ms: AtomicU64::new(0),
            draining: CancellationToken::new(),
            stats: HubStats::default(),
        }
    }

    /// Adds a socket; above `most` of one user the oldest is closed. Ask [`Self::is_draining`]
    /// afterwards: a drain that began before does not see it.
    pub fn register(&self, caller: &Caller, most: Option<usize>) -> Arc<Connection> {
        let connection = self.number(caller, Door::Socket);
        if let Some(shard) = self.shard(caller.user_id) {
            let mut users = shard.lock();
            let own = users.entry(caller.user_id).or_default();
            own.push(connection.clone());
            let sockets = own.iter().filter(|one| one.door == Door::Socket);
            let excess = most.map_or(0, |most| sockets.clone().count().saturating_sub(most));
            for oldest in sockets.take(excess) {
                oldest.close(CloseCode::TooManyConnections);
            }
        }
        self.stats.opened.fetch_add(1, Ordering::Relaxed);
        connection
    }

    /// Adds a long poll, unless `most` of one user wait already: the new one is refused, since an
    /// old one that were ended early would only come back.
    pub fn register_poll(&self, caller: &Caller, most: Option<usize>) -> Option<Arc<Connection>> {
        let mut users = self.shard(caller.user_id)?.lock();
        let own = users.entry(caller.user_id).or_default();
        let n_polls = own.iter().filter(|one| one.door == Door::Poll).count();
        if most.is_some_and(|most| n_polls >= most.max(1)) {
            return None;
        }
        let connection = self.number(caller, Door::Poll);
        own.push(connection.clone());
        self.stats.opened.fetch_add(1, Ordering::Relaxed);
        Some(connection)
    }

    fn number(&self, caller: &Caller, door: Door) -> Arc<Connection> {
        let id = ConnectionId(self.next.fetch_add(1, Ordering::Relaxed));
        let now = self.clock.monotonic();
        let connection = Connection::new(id, door, caller.user_id, caller.device_id, now);
        let connection = Arc::new(connection);
        self.numbers.lock().insert(id, connection.clone());
        // The first look finds out when the next is due.
        self.wheel.lock().put(id, now);
        connection
    }

    /// Removes a connection.
    pub fn unregister(&self, connection: &Connection) {
        self.numbers.lock().remove(&connection.id);
        if let Some(shard) = self.shard(connection.user_id) {
            let mut users = shard.lock();
            if let Some(own) = users.get_mut(&connection.user_id) {
                own.retain(|other| other.id != connection.id);
                if own.is_empty() {
                    users.remove(&connection.user_id);
                }
            }
        }
    }

    /// Returns the number of connections.
    pub fn len(&self) -> usize {
        self.numbers.lock().len()
    }

    /// Tells whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks after the connections that are due; called once a second.
    pub fn tick(&self, heartbeat: Duration) {
        let now = self.clock.monotonic();
        let (due, soon) = self.wheel.lock().take(now);
        for ids in due.chunks(LOOK_UPS) {
            for connection in self.find(ids) {
                // It is among those of every tick already, if it has to be.
                let Look { at, soon: _ } = connection.tick(now, heartbeat);
                // Never again in this tick.
                let at = at.max(now + Duration::from_millis(GRAIN_MS));
                self.wheel.lock().put(connection.id, at);
            }
        }
        for ids in soon.chunks(LOOK_UPS) {
            for connection in self.find(ids) {
                if connection.tick(now, heartbeat).soon {
                    self.wheel.lock().soon.push(connection.id);
                }
            }
        }
    }

    /// Looks at a connection with every tick until it is calm.
    pub fn watch(&self, connection: &Connection) {
        self.wheel.lock().soon.push(connection.id);
    }

    /// Returns those of the connections that are still there.
    fn find(&self, ids: &[ConnectionId]) -> Vec<Arc<Connection>> {
        let numbers = self.numbers.lock();
        ids.iter().filter_map(|id| numbers.get(id).cloned()).collect()
    }

    /// Tells everybody to come back later, each at another time, and closes.
    pub fn drain(&self, spread: Duration) {
        let spread_ms = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        self.spread_ms.store(spread_ms, Ordering::Relaxed);
        // Before the list is made: who is not on it finds this.
        self.draining.cancel();
        let all: Vec<_> = self.numbers.lock().values().cloned().collect();
        let count = all.len().max(1) as u64;
        for (place, connection) in all.iter().enumerate() {
            let after_ms = spread_ms.saturating_mul(place as u64) / count;
            connection.answer(&reconnect(after_ms));
            connection.close(CloseCode::Draining);
        }
    }

    /// Tells whether new connections are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until a drain begins.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// Returns when somebody whom the drain did not find may come back; they are spread too.
    pub fn back_after(&self) -> Duration {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % LATE_PLACES;
        let spread_ms = self.spread_ms.load(Ordering::Relaxed);
        Duration::from_millis(spread_ms.saturating_mul(place) / LATE_PLACES)
    }

    fn shard(&self, user_id: UserId) -> Option<&Shard> {
        // The low bits count; the slot above them is random.
        let place = (user_id.raw() ^ user_id.slot()) as usize % SHARDS;
        self.users.get(place)
    }

    fn each(&self, user_id: UserId, mut act: impl FnMut(&Arc<Connection>)) {
        if let Some(shard) = self.shard(user_id)
            && let Some(own) = shard.lock().get(&user_id)
        {
            own.iter().for_each(&mut act);
        }
    }

    fn count(&self, counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    fn revoke(&self, devices: &[DeviceId]) {
        for connection in self.numbers.lock().values() {
            if devices.contains(&connection.device_id) {
                connection.close(CloseCode::SessionRevoked);
            }
        }
    }
}

/// Returns the frame that sends a client away for a while.
pub fn reconnect(after_ms: u64) -> ServerFrame {
    let reason = "the server restarts".to_owned();
    ServerFrame::Reconnect(ReconnectFrame { after_ms, reason })
}

impl Bus for Hub {
    fn publish(&self, hint: Hint) {
        match hint {
            Hint::Event { chat, event } => {
                let now = self.clock.monotonic();
                let (chat_id, seq) = (event.chat_id, event.seq);
                let mut text: Option<Utf8Bytes> = None;
                let (mut queued, mut folded) = (0, 0);
                for user_id in chat.members.keys() {
                    self.each(*user_id, |connection| {
                        let text = text.get_or_insert_with(|| {
                            encode(&ServerFrame::Event(parlor_proto::Event::clone(&event)))
                        });
                        match connection.push_event(text.clone(), chat_id, seq, now) {
                            Pushed::Queued => queued += 1,
                            Pushed::Folded { watch } => {
                                folded += 1;
                                if watch {
                                    self.watch(connection);
                                }
                            }
                        }
                    });
                }
                self.count(&self.stats.queued, queued);
                self.count(&self.stats.folded, folded);
            }
            Hint::Lasting { to, frame } => {
                let own = match &frame {
                    ServerFrame::Account(step) => Some(step.seq),
                    _ => None,
                };
                let text = encode(&frame);
                for user_id in to {
                    self.each(user_id, |connection| {
                        let fits = connection.push_lasting(text.clone(), own);
                        let counter =
                            if fits { &self.stats.queued } else { &self.stats.overflowed };
                        self.count(counter, 1);
                    });
                }
            }
            Hint::Ephemeral { to, frame } => {
                let text = encode(&frame);
                for user_id in to {
                    self.each(user_id, |connection| {
                        let fits = connection.push_ephemeral(text.clone());
                        let counter = if fits { &self.stats.queued } else { &self.stats.lost };
                        self.count(counter, 1);
                    });
                }
            }
            Hint::Watched { to, frame } => {
                let text = encode(&frame);
                for id in to {
                    let connection = self.numbers.lock().get(&id).cloned();
                    let fits = connection.is_some_and(|one| one.push_ephemeral(text.clone()));
                    let counter = if fits { &self.stats.queued } else { &self.stats.lost };
                    self.count(counter, 1);
                }
            }
            Hint::Revoked { devices } => self.revoke(&devices),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wheel_gives_who_is_due_and_nobody_twice() {
        let (mut wheel, at) = (Wheel::default(), Duration::from_millis);
        for (id, ms) in [(1, 15_000), (2, 15_100), (3, 16_000), (4, 14_750)] {
            wheel.put(ConnectionId(id), at(ms));
        }
        wheel.soon.push(ConnectionId(3));
        assert_eq!(wheel.take(at(14_000)), (vec![], vec![ConnectionId(3)]));
        assert_eq!(wheel.take(at(15_000)), (vec![ConnectionId(4), ConnectionId(1)], vec![]));
        assert_eq!(wheel.take(at(15_200)), (vec![], vec![]));
        assert_eq!(wheel.take(at(90_000)), (vec![ConnectionId(2), ConnectionId(3)], vec![]));
        assert!(wheel.due.is_empty());
    }
}
