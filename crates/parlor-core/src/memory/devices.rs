//! The twin of `ports::devices`.

use std::cmp::Reverse;

use async_trait::async_trait;
use parlor_proto::{DeviceId, Time, UserId};

use super::Memory;
use crate::ports::{
    EngineError, EngineResult,
    devices::{Device, Devices, TokenHash},
};

#[async_trait]
impl Devices for Memory {
    async fn put(&self, device: Device) -> EngineResult<()> {
        self.write(|state| {
            let is_known = state
                .devices
                .values()
                .any(|d| d.device_id == device.device_id || d.token_hash == device.token_hash);
            if is_known {
                return Err(EngineError::broken("a device with this id or token exists"));
            }
            state.devices.insert(device.device_id, device);
            Ok(())
        })
        .await?
    }

    async fn find(&self, token_hash: &TokenHash) -> EngineResult<Option<Device>> {
        let state = self.state.lock();
        Ok(state.devices.values().find(|device| device.token_hash == *token_hash).cloned())
    }

    async fn list(&self, user_id: UserId) -> EngineResult<Vec<Device>> {
        let state = self.state.lock();
        let mut devices: Vec<_> =
            state.devices.values().filter(|d| d.user_id == user_id).cloned().collect();
        devices.sort_by_key(|device| Reverse((device.created_at, device.device_id)));
        Ok(devices)
    }

    async fn remove(&self, user_id: UserId, device_id: DeviceId) -> EngineResult<bool> {
        self.write(|state| {
            let is_theirs = state.devices.get(&device_id).is_some_and(|d| d.user_id == user_id);
            if is_theirs {
                state.devices.remove(&device_id);
            }
            is_theirs
        })
        .await
    }

    async fn remove_others(
        &self,
        user_id: UserId,
        keep: Option<DeviceId>,
    ) -> EngineResult<Vec<DeviceId>> {
        self.write(|state| {
            let removed: Vec<_> = state
                .devices
                .values()
                .filter(|d| d.user_id == user_id && Some(d.device_id) != keep)
                .map(|d| d.device_id)
                .collect();
            state.devices.retain(|device_id, _| !removed.contains(device_id));
            removed
        })
        .await
    }

    async fn rename(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        name: String,
    ) -> EngineResult<bool> {
        self.write(|state| {
            let device = state.devices.get_mut(&device_id).filter(|d| d.user_id == user_id);
            device.map(|device| device.name = name).is_some()
        })
        .await
    }

    async fn touch(&self, device_id: DeviceId, at: Time) -> EngineResult<()> {
        self.write(|state| {
            if let Some(device) = state.devices.get_mut(&device_id) {
                device.last_used_at = device.last_used_at.max(at);
            }
        })
        .await
    }
}
