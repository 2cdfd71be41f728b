//! Whether the file is to be trusted: the mark of a clean stop, and the check that follows an unclean
//! one, beside the serving node, since it reads the whole file (promises P19, 2.2 rule 5).

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use rusqlite::{Connection, ErrorCode, InterruptHandle};

use super::{OpenError, connect};

/// Lies in the folder while no server uses it and the last one closed it in order.
const MARK: &str = "clean";

/// What was noticed about the file; shared by the threads.
#[derive(Default)]
pub(super) struct Health {
    /// The check found damage: nothing more is written.
    damaged: AtomicBool,
    /// A check is needed and has not passed yet, so that the next start checks too.
    in_doubt: AtomicBool,
    /// Checks that found damage.
    pub(super) failed_checks: AtomicU64,
    /// Writes after which the handle was given up.
    pub(super) failed_writes: AtomicU64,
}

impl Health {
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire)
    }
}

/// Takes the mark away; tells whether it was there. Durable before anything is written.
pub(super) fn take_mark(folder: &Path) -> io::Result<bool> {
    match fs::remove_file(folder.join(MARK)) {
        Ok(()) => File::open(folder)?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says that the file was closed in order.
pub(super) fn leave_mark(folder: &Path) -> io::Result<()> {
    File::create(folder.join(MARK))?.sync_all()?;
    File::open(folder)?.sync_all()
}

/// A check that runs.
pub(super) struct Check {
    interrupt: InterruptHandle,
    thread: thread::JoinHandle<()>,
}

impl Check {
    /// Starts the check on a connection and a thread of its own.
    pub(super) fn start(path: &Path, health: Arc<Health>) -> Result<Self, OpenError> {
        let connection = connect(path)?;
        let interrupt = connection.get_interrupt_handle();
        health.in_doubt.store(true, Ordering::Release);
        let path = path.to_owned();
        let run = move || check(&connection, &path, &health);
        let thread = thread::Builder::new().name("sqlite-check".to_owned()).spawn(run);
        Ok(Self { interrupt, thread: thread.map_err(OpenError::Thread)? })
    }

    /// Stops the check if it still runs, and waits for its thread.
    pub(super) fn end(self) {
        self.interrupt.interrupt();
        if self.thread.join().is_err() {
            tracing::error!("the check of the database had panicked");
        }
    }
}

fn check(connection: &Connection, path: &Path, health: &Health) {
    tracing::info!(?path, "the last stop was not in order: the database is checked meanwhile");
    let verdict = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let damage = match verdict {
        Ok(verdict) if verdict == "ok" => {
            health.in_doubt.store(false, Ordering::Release);
            tracing::info!(?path, "the database is in order");
            return;
        }
        // Closed before the end: the next start begins anew.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => return,
        Ok(damage) => damage,
        Err(error) => error.to_string(),
    };
    health.damaged.store(true, Ordering::Release);
    health.failed_checks.fetch_add(1, Ordering::Relaxed);
    tracing::error!(damage, ?path, "the database is damaged: writes are refused; restore a backup");
}
