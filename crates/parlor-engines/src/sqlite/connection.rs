//! Connections: the settings that the promises rest on, the checks at the start, and the schema.

use std::{path::Path, time::Duration};

use parlor_core::ports::clock::Random;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::errors::OpenError;

mod embedded {
    refinery::embed_migrations!("src/sqlite/migrations");
}

/// First version without the fault that damages a database when two connections check-point at once.
const OLDEST_SQLITE: i32 = 3_051_003;
/// Frames of the write-ahead log after which a commit moves them into the database.
const AUTOCHECKPOINT_PAGES: u32 = 10_000;
/// The write-ahead log is cut back to this after it was moved.
const JOURNAL_BYTES: u32 = 64 * 1024 * 1024;
/// Kibibytes of pages that the writer keeps.
const WRITER_CACHE_KIB: u32 = 64 * 1024;
/// Kibibytes of pages that each reader keeps.
const READER_CACHE_KIB: u32 = 8 * 1024;
/// Only a check-point of another connection can be in the way, and only shortly.
const BUSY: Duration = Duration::from_millis(500);
const STATEMENTS: usize = 128;

/// Opens the one connection that writes, and checks what the promises rest on.
pub(super) fn open_writer(database: &Path) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(OpenError::OldSqlite { found: rusqlite::version() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(database, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = OFF;
         PRAGMA trusted_schema = OFF;
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA wal_autocheckpoint = {AUTOCHECKPOINT_PAGES};
         PRAGMA journal_size_limit = {JOURNAL_BYTES};
         PRAGMA cache_size = -{WRITER_CACHE_KIB};"
    ))?;
    let journal: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if journal != "wal" {
        return Err(OpenError::Setting { setting: "journal_mode = WAL", found: journal });
    }
    for (setting, query, wanted) in [
        ("synchronous = FULL", "PRAGMA synchronous", 2_i64),
        ("secure_delete = ON", "PRAGMA secure_delete", 1),
        ("mmap_size = 0", "PRAGMA mmap_size", 0),
    ] {
        let found: Option<i64> = conn.query_row(query, [], |row| row.get(0)).optional()?;
        if found.unwrap_or(0) != wanted {
            return Err(OpenError::Setting { setting, found: format!("{found:?}") });
        }
    }
    Ok(conn)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(database: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(database, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch(&format!(
        "PRAGMA trusted_schema = OFF;
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{READER_CACHE_KIB};"
    ))?;
    Ok(conn)
}

/// Brings the schema up to date, or refuses one from the future.
pub(super) fn migrate(conn: &mut Connection, random: &dyn Random) -> Result<(), OpenError> {
    let runner = embedded::migrations::runner();
    let known = runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0);
    let found = schema_version(conn)?;
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    runner.run(conn).map_err(|error| OpenError::Migration(error.into()))?;
    let mut epoch = [0; 16];
    random.fill(&mut epoch);
    let epoch: String = epoch.iter().map(|byte| format!("{byte:02x}")).collect();
    let transaction = conn.transaction()?;
    let insert = "INSERT OR IGNORE INTO data_set (key, value) VALUES (?1, ?2)";
    transaction.execute(insert, ("epoch", epoch))?;
    transaction.execute(insert, ("probe", 0))?;
    transaction.commit()?;
    Ok(())
}

fn schema_version(conn: &Connection) -> rusqlite::Result<i64> {
    if !conn.table_exists(None, "refinery_schema_history")? {
        return Ok(0);
    }
    let query = "SELECT coalesce(max(version), 0) FROM refinery_schema_history";
    conn.query_row(query, [], |row| row.get(0))
}

/// Writes one counter: proves that a commit goes through to the disk.
pub(super) fn probe(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE data_set SET value = value + 1 WHERE key = 'probe'")?.execute([])?;
    Ok(())
}
