//! Password hashing: slow on purpose, so on a small pool of its own.

use async_trait::async_trait;

use super::EngineResult;

/// Hashes and checks passwords (argon2id in production).
#[async_trait]
pub trait Passwords: Send + Sync + 'static {
    /// Returns the hash in PHC string form. A full pool is `EngineError::unavailable`.
    async fn hash(&self, password: String) -> EngineResult<String>;

    /// Tells whether the password made the hash. Without a hash it does the same work and says no,
    /// so that an unknown name takes as long as a known one.
    async fn verify(&self, password: String, hash: Option<String>) -> EngineResult<bool>;
}
