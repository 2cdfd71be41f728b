//! Failures of SQLite, by what the caller can do about them.

use std::{io, path::PathBuf};

use parlor_core::ports::EngineError;
use rusqlite::ErrorCode;

/// Why a data folder cannot be opened. The text is for whoever runs the server.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made, read or synced.
    #[error("cannot use the data folder {folder}")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "another process uses the data folder {folder}: stop it first, or give this one a folder of \
         its own"
    )]
    InUse {
        /// Which.
        folder: PathBuf,
    },
    /// A newer version of the server has written it.
    #[error(
        "the database has schema version {found}, and this server knows versions up to {known} \
         only: start the newer server that wrote it, or restore a backup made before the upgrade"
    )]
    Newer {
        /// The version of the database.
        found: i64,
        /// The newest version that this server knows.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring the schema up to date")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The SQLite in use has a defect that can damage databases.
    #[error("SQLite {found} can damage a database with several connections: 3.51.3 or later is needed")]
    OldSqlite {
        /// Its version.
        found: &'static str,
    },
    /// A setting that the promises rest on is not in force.
    #[error("SQLite did not take {setting}: it says {found:?}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is in force instead.
        found: String,
    },
    /// SQLite failed.
    #[error("cannot open the database")]
    Sqlite(#[from] rusqlite::Error),
}

/// Tells whether the handle must not be used any more: the file or the disk is in trouble.
pub(super) fn is_sick(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
        )
    )
}

/// A failure before anything was stored.
pub(super) fn engine_error(error: rusqlite::Error) -> EngineError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OperationInterrupted
            | ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory,
        ) => EngineError::unavailable(error),
        _ => EngineError::broken(error),
    }
}
