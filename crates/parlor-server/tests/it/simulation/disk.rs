//! A disk that forgets what it did not sync, fails and is slow, by dice.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use parlor_client::Random;
use parlor_core::{
    memory::{Disk, Image},
    ports::{EngineError, EngineResult},
};

/// Outlives the server that writes on it.
pub struct SimulatedDisk(Mutex<State>);

struct State {
    synced: Image,
    /// Handed over, and not synced yet.
    written: Option<Image>,
    dice: Random,
    failing_writes: u64,
    most_delay_ms: u64,
}

impl SimulatedDisk {
    pub fn new(dice: Random) -> Self {
        let (synced, written) = (Image::default(), None);
        Self(Mutex::new(State { synced, written, dice, failing_writes: 0, most_delay_ms: 3 }))
    }

    /// The machine lost power, or the process was killed: a write under way is there or not.
    pub fn crash(&self) {
        let mut state = self.0.lock();
        if let Some(written) = state.written.take()
            && state.dice.chance(0.5)
        {
            state.synced = written;
        }
    }

    /// The next writes fail; whether what they wrote is there is open.
    pub fn fail(&self, n_writes: u64) {
        self.0.lock().failing_writes = n_writes;
    }

    pub fn slow(&self, most_delay_ms: u64) {
        self.0.lock().most_delay_ms = most_delay_ms;
    }

    pub fn heal(&self) {
        self.fail(0);
        self.slow(3);
    }

    /// What a restore would take.
    pub fn backup(&self) -> Image {
        self.0.lock().synced.clone()
    }

    pub fn restore(&self, image: Image) {
        let mut state = self.0.lock();
        (state.synced, state.written) = (image, None);
    }
}

#[async_trait]
impl Disk for SimulatedDisk {
    fn read(&self) -> Image {
        self.0.lock().synced.clone()
    }

    #[expect(clippy::disallowed_methods, reason = "simulated time")]
    async fn write(&self, image: Image) -> EngineResult<()> {
        let delay_ms = {
            let mut state = self.0.lock();
            state.written = Some(image);
            let most = state.most_delay_ms;
            state.dice.below(most + 1)
        };
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        let mut state = self.0.lock();
        let written = state.written.take();
        if state.failing_writes > 0 {
            state.failing_writes -= 1;
            if state.dice.chance(0.5) {
                state.synced = written.unwrap_or_default();
            }
            return Err(EngineError::unknown_outcome("the simulated disk failed to sync"));
        }
        state.synced = written.expect("one writer at a time");
        Ok(())
    }
}
