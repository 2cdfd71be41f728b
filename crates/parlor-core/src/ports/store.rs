//! What belongs to the data set as a whole.

use async_trait::async_trait;

use super::EngineResult;

/// What an engine noticed about its data since it was opened; each number only rises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Rows that could not be read and were handed out as unknown events.
    pub unreadable_rows: u64,
    /// Writes that failed for the sake of the disk or the file; all are refused until one succeeds.
    pub failed_writes: u64,
    /// Checks of the whole file that found damage; writes are refused from then on.
    pub failed_checks: u64,
}

/// The data set.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns the epoch: a random text made with the data set, changed when it went back.
    async fn epoch(&self) -> EngineResult<String>;

    /// Takes another epoch: the data set went back in time, and whoever followed it must know.
    async fn set_epoch(&self, epoch: &str) -> EngineResult<()>;

    /// Proves that the store answers and can write durably, for `readyz`.
    async fn probe(&self) -> EngineResult<()>;

    /// Returns what was noticed; an engine that cannot be damaged notices nothing.
    fn health(&self) -> StoreHealth {
        StoreHealth::default()
    }
}
