//! The doors of Parlor: HTTP, WebSocket, configuration, background jobs, and the binary.
//!
//! No rule of chat lives here: a door parses, asks the core and answers.

pub mod config;
pub mod error;
pub mod http;
pub mod metrics;
pub mod passwords;
pub mod tasks;
pub mod wiring;
pub mod ws;

use std::sync::Arc;

use parlor_core::{
    Core,
    ports::clock::{Clock, Spawn},
};

/// Everything that the doors share.
pub struct App {
    /// The rules.
    pub core: Arc<Core>,
    /// The connections of this node.
    pub hub: Arc<ws::hub::Hub>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawn: Arc<dyn Spawn>,
    /// What the operator set.
    pub config: config::Config,
    /// Counters.
    pub metrics: metrics::Metrics,
    /// The tasks again, with their count of panics.
    pub tasks: tasks::Tasks,
    /// Until when the last probe of the store holds; one at a time, since each writes durably.
    pub probed: tokio::sync::Mutex<Option<std::time::Duration>>,
}

impl App {
    /// Returns how many sockets one user may have; none where rate limits are off.
    pub fn most_connections(&self) -> Option<usize> {
        let limits = &self.core.settings().limits;
        self.config.rate_limits.is_on().then_some(limits.connections_per_user as usize)
    }
}
