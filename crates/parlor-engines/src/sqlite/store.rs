//! The data set as a whole: its epoch, and a probe that writes.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use parlor_core::ports::{
    EngineResult,
    clock::Random,
    store::{Store, StoreHealth},
};
use rusqlite::{Connection, params};

use super::Sqlite;

/// Makes the epoch with the data set.
pub(super) fn make_epoch(connection: &Connection, random: &dyn Random) -> rusqlite::Result<()> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    let epoch: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let insert = "INSERT INTO data_set (key, value) VALUES ('epoch', ?1) ON CONFLICT DO NOTHING";
    connection.execute(insert, params![epoch])?;
    Ok(())
}

/// Writes something that means nothing.
pub(super) fn probe(db: &Connection) -> rusqlite::Result<()> {
    let write = "INSERT INTO data_set (key, value) VALUES ('probe', 1) \
                 ON CONFLICT (key) DO UPDATE SET value = value + 1";
    db.execute(write, []).map(|_| ())
}

#[async_trait]
impl Store for Sqlite {
    async fn epoch(&self) -> EngineResult<String> {
        let select = "SELECT value FROM data_set WHERE key = 'epoch'";
        self.read(move |db| db.query_row(select, [], |row| row.get(0))).await
    }

    async fn set_epoch(&self, epoch: &str) -> EngineResult<()> {
        let epoch = epoch.to_owned();
        let update = "UPDATE data_set SET value = ?1 WHERE key = 'epoch'";
        self.write(move |db| db.execute(update, params![epoch]).map(|_| ())).await
    }

    async fn probe(&self) -> EngineResult<()> {
        self.write(probe).await
    }

    fn health(&self) -> StoreHealth {
        StoreHealth {
            unreadable_rows: self.unreadable.load(Ordering::Relaxed),
            failed_writes: self.health.failed_writes.load(Ordering::Relaxed),
            failed_checks: self.health.failed_checks.load(Ordering::Relaxed),
        }
    }
}
