//! The life of the socket as explicit states, without I/O: when to dial, ping, hang up and wait.
//!
//! Time comes in as a number, jitter from a seed. What is said once the socket is open is in
//! `session.rs`; the socket itself is in `socket.rs`.

use parlor_proto::{CloseCode, error::Reconnect};

use crate::random::Random;

/// The widest first wait.
const BASE_MS: u64 = 1_000;
/// The widest wait of all.
const CAP_MS: u64 = 60_000;
/// A connection that lived this long starts the next series of waits from the base.
const HEALTHY_MS: u64 = 60_000;
/// How long dialling, and how long the answer to `hello`, may take.
const OPEN_LIMIT_MS: u64 = 10_000;
/// The silence that calls for a ping until `welcome` has named it.
const DEFAULT_HEARTBEAT_MS: u64 = 15_000;

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No socket; the next attempt is at `retry_at_ms`, or none before `start`.
    Offline {
        /// When the next attempt is made, on the clock of the caller.
        retry_at_ms: Option<u64>,
    },
    /// Dialling.
    Connecting,
    /// The socket is open and `hello` was said.
    Resuming,
    /// Welcomed.
    Live,
    /// Over; only `start` leaves this state.
    Closed(ClosedReason),
}

/// Why a connection does not come back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosedReason {
    /// The caller closed it.
    Stopped,
    /// The server closed it with a code that says so.
    Code(CloseCode),
    /// The store of the client failed.
    Store,
}

/// What the driver has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open a socket.
    Dial,
    /// Say `hello`.
    Hello,
    /// Say `ping`.
    Ping,
    /// Drop the socket, or the attempt to open one.
    HangUp,
}

/// How a socket ended, or why there was none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// The close code.
    pub code: Option<u16>,
    /// The delay that the server named when it refused the upgrade.
    pub retry_after_ms: Option<u64>,
}

/// One connection after the other.
#[derive(Debug)]
pub struct Connection {
    state: State,
    random: Random,
    /// Losses since the last healthy connection.
    losses: u32,
    /// When the present state began.
    since_ms: u64,
    heard_at_ms: u64,
    pinged_at_ms: Option<u64>,
    heartbeat_ms: u64,
    /// The delay of a `reconnect` frame, valid for the next loss.
    after_ms: Option<u64>,
}

impl Connection {
    /// Makes a connection that is offline; the seed decides its jitter.
    pub const fn new(random: Random) -> Self {
        Self {
            state: State::Offline { retry_at_ms: None },
            random,
            losses: 0,
            since_ms: 0,
            heard_at_ms: 0,
            pinged_at_ms: None,
            heartbeat_ms: DEFAULT_HEARTBEAT_MS,
            after_ms: None,
        }
    }

    /// Returns where the connection stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Dials at once, whatever was waited for; does nothing while a socket is open or on its way.
    pub fn start(&mut self, now_ms: u64) -> Option<Action> {
        match self.state {
            State::Offline { .. } | State::Closed(_) => Some(self.dial(now_ms)),
            State::Connecting | State::Resuming | State::Live => None,
        }
    }

    /// The socket is open.
    pub fn on_opened(&mut self, now_ms: u64) -> Option<Action> {
        if self.state != State::Connecting {
            return None;
        }
        self.enter(State::Resuming, now_ms);
        self.on_heard(now_ms);
        Some(Action::Hello)
    }

    /// The server said `welcome`.
    pub fn on_welcome(&mut self, now_ms: u64, heartbeat_ms: u64) {
        if self.state == State::Resuming {
            self.enter(State::Live, now_ms);
            self.heartbeat_ms = heartbeat_ms.max(1);
        }
    }

    /// Something came, whatever it was.
    pub const fn on_heard(&mut self, now_ms: u64) {
        self.heard_at_ms = now_ms;
        self.pinged_at_ms = None;
    }

    /// The server said `reconnect`: it will close, and this is how long to stay away.
    pub const fn on_reconnect(&mut self, after_ms: u64) {
        self.after_ms = Some(after_ms);
    }

    /// The socket ended, or could not be opened.
    pub fn on_lost(&mut self, now_ms: u64, lost: Lost) {
        if !matches!(self.state, State::Connecting | State::Resuming | State::Live) {
            return;
        }
        let named = self.after_ms.take();
        if let Some(code) = lost.code.and_then(CloseCode::from_code)
            && code.reconnect() == Reconnect::No
        {
            self.enter(State::Closed(ClosedReason::Code(code)), now_ms);
            return;
        }
        if self.state == State::Live && now_ms.saturating_sub(self.since_ms) >= HEALTHY_MS {
            self.losses = 0;
        }
        let wait_ms = match (named, lost.retry_after_ms) {
            // The server has spread its clients already.
            (Some(after_ms), _) => after_ms,
            // Whole seconds would bring everybody back at once.
            (None, Some(after_ms)) => after_ms.saturating_add(self.jitter_ms()),
            (None, None) => self.jitter_ms(),
        };
        self.losses = self.losses.saturating_add(1);
        let retry_at_ms = Some(now_ms.saturating_add(wait_ms));
        self.enter(State::Offline { retry_at_ms }, now_ms);
    }

    /// Ends the connection for good.
    pub fn close(&mut self, now_ms: u64, reason: ClosedReason) -> Option<Action> {
        let was_open = matches!(self.state, State::Connecting | State::Resuming | State::Live);
        self.enter(State::Closed(reason), now_ms);
        was_open.then_some(Action::HangUp)
    }

    /// Does what is due; after `HangUp` the connection is offline and waits.
    pub fn on_tick(&mut self, now_ms: u64) -> Option<Action> {
        if self.deadline_ms().is_none_or(|deadline_ms| now_ms < deadline_ms) {
            return None;
        }
        match self.state {
            State::Offline { .. } => Some(self.dial(now_ms)),
            State::Live if self.pinged_at_ms.is_none() => {
                self.pinged_at_ms = Some(now_ms);
                Some(Action::Ping)
            }
            State::Connecting | State::Resuming | State::Live => {
                self.on_lost(now_ms, Lost::default());
                Some(Action::HangUp)
            }
            State::Closed(_) => None,
        }
    }

    /// Returns when `on_tick` has something to do.
    pub const fn deadline_ms(&self) -> Option<u64> {
        match self.state {
            State::Offline { retry_at_ms } => retry_at_ms,
            State::Connecting | State::Resuming => {
                Some(self.since_ms.saturating_add(OPEN_LIMIT_MS))
            }
            State::Live => {
                let last_ms = match self.pinged_at_ms {
                    Some(pinged_at_ms) => pinged_at_ms,
                    None => self.heard_at_ms,
                };
                Some(last_ms.saturating_add(self.heartbeat_ms))
            }
            State::Closed(_) => None,
        }
    }

    fn dial(&mut self, now_ms: u64) -> Action {
        self.enter(State::Connecting, now_ms);
        Action::Dial
    }

    const fn enter(&mut self, state: State, now_ms: u64) {
        self.state = state;
        self.since_ms = now_ms;
    }

    /// Full jitter: anywhere between nothing and the doubled width.
    fn jitter_ms(&mut self) -> u64 {
        let width_ms = BASE_MS.saturating_mul(1 << self.losses.min(16)).min(CAP_MS);
        self.random.below(width_ms + 1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn live(seed: u64, now_ms: u64) -> Connection {
        let mut connection = Connection::new(Random::from_seed(seed));
        assert_eq!(connection.start(now_ms), Some(Action::Dial));
        assert_eq!(connection.on_opened(now_ms), Some(Action::Hello));
        connection.on_welcome(now_ms, 15_000);
        assert_eq!(connection.state(), State::Live);
        connection
    }

    fn retry_at_ms(connection: &Connection) -> u64 {
        let State::Offline { retry_at_ms: Some(at) } = connection.state() else {
            panic!("{:?}", connection.state())
        };
        at
    }

    #[test]
    fn waits_grow_with_full_jitter_up_to_the_cap_and_start_again_after_health() {
        let mut widest = [0_u64; 12];
        let mut narrowest = [u64::MAX; 12];
        for seed in 0..400 {
            let mut connection = live(seed, 0);
            let mut now_ms = 0;
            for step in 0..12 {
                connection.on_lost(now_ms, Lost::default());
                let wait_ms = retry_at_ms(&connection) - now_ms;
                assert!(wait_ms <= (BASE_MS << step).min(CAP_MS), "seed {seed} step {step}");
                widest[step] = widest[step].max(wait_ms);
                narrowest[step] = narrowest[step].min(wait_ms);
                now_ms = retry_at_ms(&connection);
                assert_eq!(connection.on_tick(now_ms), Some(Action::Dial));
            }
            connection.on_opened(now_ms);
            connection.on_welcome(now_ms, 15_000);
            connection.on_lost(now_ms + HEALTHY_MS, Lost::default());
            assert!(retry_at_ms(&connection) - now_ms - HEALTHY_MS <= BASE_MS);
        }
        for step in 0..12 {
            let width_ms = (BASE_MS << step).min(CAP_MS);
            assert!(widest[step] > width_ms * 9 / 10, "the whole width is used at step {step}");
            assert!(narrowest[step] < width_ms / 10, "the whole width is used at step {step}");
        }
    }

    #[test]
    fn close_codes_decide_whether_to_come_back() {
        for code in CloseCode::ALL {
            let mut connection = live(1, 0);
            connection.on_lost(5, Lost { code: Some(code.code()), retry_after_ms: None });
            let came_back = matches!(connection.state(), State::Offline { .. });
            assert_eq!(came_back, code.reconnect() != Reconnect::No, "{}", code.name());
            if !came_back {
                assert_eq!(connection.state(), State::Closed(ClosedReason::Code(*code)));
                assert_eq!(connection.deadline_ms(), None);
                assert_eq!(connection.start(9), Some(Action::Dial), "a new start is possible");
            }
        }
        let mut connection = live(1, 0);
        connection.on_lost(5, Lost { code: Some(1006), retry_after_ms: None });
        assert!(matches!(connection.state(), State::Offline { .. }));
    }

    #[test]
    fn the_delay_of_the_server_is_kept_once() {
        let mut connection = live(1, 0);
        connection.on_reconnect(7_777);
        connection.on_lost(100, Lost { code: Some(4008), retry_after_ms: None });
        assert_eq!(retry_at_ms(&connection), 7_877);
        assert_eq!(connection.on_tick(7_876), None);
        assert_eq!(connection.on_tick(7_877), Some(Action::Dial));
        connection.on_lost(7_900, Lost { code: None, retry_after_ms: Some(5_000) });
        let wait_ms = retry_at_ms(&connection) - 7_900;
        assert!((5_000..=7_000).contains(&wait_ms), "{wait_ms}");
    }

    #[test]
    fn silence_brings_a_ping_and_then_the_end() {
        let mut connection = live(1, 0);
        assert_eq!(connection.on_tick(14_999), None);
        assert_eq!(connection.on_tick(15_000), Some(Action::Ping));
        connection.on_heard(16_000);
        assert_eq!(connection.on_tick(30_000), None, "anything heard counts as life");
        assert_eq!(connection.on_tick(31_000), Some(Action::Ping));
        assert_eq!(connection.on_tick(45_999), None);
        assert_eq!(connection.on_tick(46_000), Some(Action::HangUp));
        assert!(matches!(connection.state(), State::Offline { .. }));
    }

    #[test]
    fn a_server_that_does_not_greet_is_left_after_ten_seconds() {
        let mut connection = Connection::new(Random::from_seed(1));
        assert_eq!(connection.start(0), Some(Action::Dial));
        assert_eq!(connection.start(1), None, "one attempt at a time");
        assert_eq!(connection.on_tick(10_000), Some(Action::HangUp));
        let now_ms = retry_at_ms(&connection);
        assert_eq!(connection.on_tick(now_ms), Some(Action::Dial));
        assert_eq!(connection.on_opened(now_ms), Some(Action::Hello));
        assert_eq!(connection.on_tick(now_ms + 10_000), Some(Action::HangUp));
        assert_eq!(connection.close(1, ClosedReason::Stopped), None);
        assert_eq!(connection.state(), State::Closed(ClosedReason::Stopped));
    }
}
