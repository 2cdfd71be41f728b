//! The data set as a whole: its epoch, and a probe that writes.

use async_trait::async_trait;
use parlor_core::ports::{EngineResult, clock::Random, store::Store};
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

#[async_trait]
impl Store for Sqlite {
    async fn epoch(&self) -> EngineResult<String> {
        let select = "SELECT value FROM data_set WHERE key = 'epoch'";
        self.read(move |db| db.query_row(select, [], |row| row.get(0))).await
    }

    async fn probe(&self) -> EngineResult<()> {
        let write = "INSERT INTO data_set (key, value) VALUES ('probe', 1) \
                     ON CONFLICT (key) DO UPDATE SET value = value + 1";
        self.write(move |db| db.execute(write, []).map(|_| ())).await
    }
}
