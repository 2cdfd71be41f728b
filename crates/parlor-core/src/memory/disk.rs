//! The disk under the twin, for simulations: what it synced survives a crash, what it only got may
//! not. An image is the whole data set, so a write is whole or not there at all; torn pages are the
//! business of a real engine and of its own fault tests.

use async_trait::async_trait;

use super::State;
use crate::ports::EngineResult;

/// A whole data set at one moment; empty by default.
#[derive(Clone, Default)]
pub struct Image(pub(super) State);

/// Keeps one image over crashes.
#[async_trait]
pub trait Disk: Send + Sync + 'static {
    /// Returns what a process finds that opens the files now.
    fn read(&self) -> Image;

    /// Writes and syncs an image; after an error nobody knows which image is there.
    async fn write(&self, image: Image) -> EngineResult<()>;
}
