//! What belongs to the data set as a whole.

use async_trait::async_trait;

use super::EngineResult;

/// The data set.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns the epoch: a random text made with the data set, changed when a backup is restored.
    async fn epoch(&self) -> EngineResult<String>;

    /// Proves that the store answers and can write durably, for `readyz`.
    async fn probe(&self) -> EngineResult<()>;
}
