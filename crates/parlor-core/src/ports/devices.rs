//! Devices: sessions by the hash of their token.

use async_trait::async_trait;
use parlor_proto::{DeviceId, Time, UserId};

use super::EngineResult;

/// SHA-256 of a session token.
pub type TokenHash = [u8; 32];

/// A signed-in device as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The device.
    pub device_id: DeviceId,
    /// Whose.
    pub user_id: UserId,
    /// Name given at sign-in, or at the last greeting that had one.
    pub name: String,
    /// Unique.
    pub token_hash: TokenHash,
    /// When it signed in.
    pub created_at: Time,
    /// Moves forward only.
    pub last_used_at: Time,
    /// Absolute end of the session.
    pub expires_at: Time,
}

/// Devices; every write is durable when it answers.
#[async_trait]
pub trait Devices: Send + Sync + 'static {
    /// Stores a device.
    async fn put(&self, device: Device) -> EngineResult<()>;

    /// Finds by token.
    async fn find(&self, token_hash: &TokenHash) -> EngineResult<Option<Device>>;

    /// Lists a user's devices, newest first.
    async fn list(&self, user_id: UserId) -> EngineResult<Vec<Device>>;

    /// Removes one device of a user; false if there was none.
    async fn remove(&self, user_id: UserId, device_id: DeviceId) -> EngineResult<bool>;

    /// Removes all devices of a user but one (or none); returns the removed ones.
    async fn remove_others(
        &self,
        user_id: UserId,
        keep: Option<DeviceId>,
    ) -> EngineResult<Vec<DeviceId>>;

    /// Gives a device of a user another name; false if there is none.
    async fn rename(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        name: String,
    ) -> EngineResult<bool>;

    /// Moves `last_used_at` forward.
    async fn touch(&self, device_id: DeviceId, at: Time) -> EngineResult<()>;
}
