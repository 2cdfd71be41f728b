//! Devices by the hash of their token.

use async_trait::async_trait;
use parlor_core::ports::{
    EngineResult,
    devices::{Device, Devices, TokenHash},
};
use parlor_proto::{DeviceId, Time, UserId};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    Sqlite,
    rows::{int, uint},
};

const COLUMNS: &str = "device_id, user_id, name, token_hash, created_at, last_used_at, expires_at";

fn device(row: &Row<'_>) -> rusqlite::Result<Device> {
    let time = |i| Ok::<_, rusqlite::Error>(Time::from_millis(uint(row.get(i)?)));
    Ok(Device {
        device_id: DeviceId::from_raw(uint(row.get(0)?)),
        user_id: UserId::from_raw(uint(row.get(1)?)),
        name: row.get(2)?,
        token_hash: row.get(3)?,
        created_at: time(4)?,
        last_used_at: time(5)?,
        expires_at: time(6)?,
    })
}

#[async_trait]
impl Devices for Sqlite {
    async fn put(&self, device: Device) -> EngineResult<()> {
        self.write(move |db| {
            let insert =
                format!("INSERT INTO devices ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
            db.prepare_cached(&insert)?.execute(params![
                int(device.device_id.raw()),
                int(device.user_id.raw()),
                device.name,
                device.token_hash,
                int(device.created_at.millis()),
                int(device.last_used_at.millis()),
                int(device.expires_at.millis()),
            ])?;
            Ok(())
        })
        .await
    }

    async fn find(&self, token_hash: &TokenHash) -> EngineResult<Option<Device>> {
        let hash = *token_hash;
        let select = format!("SELECT {COLUMNS} FROM devices WHERE token_hash = ?1");
        self.read(move |db| db.prepare_cached(&select)?.query_row([hash], device).optional()).await
    }

    async fn list(&self, user_id: UserId) -> EngineResult<Vec<Device>> {
        let select = format!(
            "SELECT {COLUMNS} FROM devices WHERE user_id = ?1 ORDER BY created_at DESC, device_id DESC"
        );
        self.read(move |db| {
            let mut statement = db.prepare_cached(&select)?;
            statement.query_map([int(user_id.raw())], device)?.collect()
        })
        .await
    }

    async fn remove(&self, user_id: UserId, device_id: DeviceId) -> EngineResult<bool> {
        self.write(move |db| {
            let delete = "DELETE FROM devices WHERE device_id = ?1 AND user_id = ?2";
            let removed = db
                .prepare_cached(delete)?
                .execute(params![int(device_id.raw()), int(user_id.raw())])?;
            Ok(removed > 0)
        })
        .await
    }

    async fn remove_others(
        &self,
        user_id: UserId,
        keep: Option<DeviceId>,
    ) -> EngineResult<Vec<DeviceId>> {
        self.write(move |db| {
            let delete = "DELETE FROM devices WHERE user_id = ?1 AND device_id <> ?2 \
                          RETURNING device_id";
            let mut statement = db.prepare_cached(delete)?;
            let keep = keep.map_or(0, |keep| int(keep.raw()));
            let removed = statement.query_map(params![int(user_id.raw()), keep], |row| {
                Ok(DeviceId::from_raw(uint(row.get(0)?)))
            })?;
            removed.collect()
        })
        .await
    }

    async fn rename(
        &self,
        user_id: UserId,
        device_id: DeviceId,
        name: String,
    ) -> EngineResult<bool> {
        self.write(move |db| {
            let set = "UPDATE devices SET name = ?3 WHERE device_id = ?1 AND user_id = ?2";
            let keys = params![int(device_id.raw()), int(user_id.raw()), name];
            Ok(db.prepare_cached(set)?.execute(keys)? > 0)
        })
        .await
    }

    async fn touch(&self, device_id: DeviceId, at: Time) -> EngineResult<()> {
        self.write(move |db| {
            let set =
                "UPDATE devices SET last_used_at = max(last_used_at, ?2) WHERE device_id = ?1";
            db.prepare_cached(set)?.execute(params![int(device_id.raw()), int(at.millis())])?;
            Ok(())
        })
        .await
    }
}
