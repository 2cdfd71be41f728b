//! The SQLite engine: all storage ports on one file in the data folder.
//!
//! One writer thread with group commit by the core's appender, a few readers, WAL with
//! `synchronous=FULL`. Nothing here blocks the runtime: calls travel to the threads as jobs and the
//! answers come back over channels.

mod accounts;
mod append;
mod chats;
mod devices;
mod log;
mod messages;
mod receipts;
mod rows;
mod store;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use parking_lot::Mutex;
use parlor_core::{
    clock::Ids,
    ports::{
        EngineError, EngineResult,
        clock::{Clock, Random},
    },
};
use parlor_proto::MessageId;
use rusqlite::Connection;
use tokio::sync::oneshot;

const READERS: usize = 3;
/// The first release without the WAL-reset bug (promises section 1).
const OLDEST_SQLITE: i32 = 3_051_003;
/// Pages of the log that are moved into the file at once: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4_000;

mod migrations {
    refinery::embed_migrations!("src/sqlite/migrations");
}

/// Why a data folder could not be opened; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it cannot be used.
    #[error("cannot use the data folder {folder}: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "the data folder {0} is in use by another running server: stop that one first, or give this one another folder with --data"
    )]
    InUse(PathBuf),
    /// It was written by a newer version.
    #[error(
        "the data folder was written by a newer version of Parlor (schema {found}, this one knows {known}): start the newer version, or restore a backup made by this one"
    )]
    Newer {
        /// The version in the file.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The SQLite library is too old.
    #[error("SQLite {0} can lose data: 3.51.3 or later is needed")]
    OldLibrary(String),
    /// The file is damaged.
    #[error("the database is damaged ({0}): restore a backup")]
    Damaged(String),
    /// A setting did not take.
    #[error("SQLite refuses the setting {0}")]
    Setting(&'static str),
    /// SQLite failed.
    #[error("the database could not be opened: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A migration failed.
    #[error("the schema could not be brought up to date: {0}")]
    Migration(#[from] refinery::Error),
    /// A thread could not be started.
    #[error("a database thread could not be started: {0}")]
    Thread(std::io::Error),
}

/// What a job of the writer may fail with.
enum Failure {
    /// Nothing was changed.
    Before(rusqlite::Error),
    /// The commit failed: nobody knows.
    Commit(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Before(error)
    }
}

type Job = Box<dyn FnOnce(&mut Connection) -> Next + Send>;

/// What a thread does after a job.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    /// The connection is not to be trusted any more.
    Reopen,
    End,
}

/// An open data folder.
pub struct Sqlite {
    ids: Ids,
    writer: mpsc::SyncSender<Job>,
    readers: mpsc::SyncSender<Job>,
    unreadable: Arc<AtomicU64>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    /// The lock on the folder; held until the engine is closed.
    lock: Mutex<Option<File>>,
}

impl Sqlite {
    /// Opens the data folder, makes it if it is missing, and brings its schema up to date.
    pub fn open(
        folder: &Path,
        ids: Ids,
        _clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        let at = |source| OpenError::Folder { folder: folder.to_owned(), source };
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(OpenError::OldLibrary(rusqlite::version().to_owned()));
        }
        make_folder(folder).map_err(at)?;
        let lock = lock(folder)?;
        let path = folder.join("parlor.db");
        let mut connection = connect(&path)?;
        check_version(&connection)?;
        migrations::migrations::runner().run(&mut connection)?;
        let verdict: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(OpenError::Damaged(verdict));
        }
        store::make_epoch(&connection, &*random)?;
        let newest: Option<i64> =
            connection.query_row("SELECT max(message_id) FROM messages", [], |row| row.get(0))?;
        if let Some(newest) = newest {
            ids.observe(MessageId::from_raw(rows::uint(newest)));
        }
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at)?;
        let (writer, jobs) = mpsc::sync_channel(1_024);
        let mut threads = vec![start("sqlite-writer", path.clone(), connection, jobs)?];
        let (readers, jobs) = mpsc::sync_channel(1_024);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..READERS {
            let connection = connect(&path)?;
            let jobs = jobs.clone();
            let path = path.clone();
            let name = format!("sqlite-reader-{number}");
            let run = move || work(&path, connection, || jobs.lock().recv());
            threads.push(thread::Builder::new().name(name).spawn(run).map_err(OpenError::Thread)?);
        }
        Ok(Self {
            ids,
            writer,
            readers,
            unreadable: Arc::default(),
            threads: Mutex::new(threads),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Returns how many rows could not be read and were handed out as unknown events.
    pub fn unreadable_rows(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Ends in order: everything is moved from the log into the file.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let moved = connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
            if let Err(error) = moved {
                tracing::warn!(%error, "the write-ahead log was not moved into the file");
            }
            if done.send(()).is_err() {
                tracing::debug!("nobody waited for the close");
            }
            Next::End
        });
        if self.writer.send(job).is_err() || closed.await.is_err() {
            tracing::warn!("the writer had ended before the close");
        }
        for _ in 0..READERS {
            if self.readers.send(Box::new(|_| Next::End)).is_err() {
                break;
            }
        }
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a database thread had panicked");
            }
        }
        drop(self.lock.lock().take());
    }

    /// Runs a job in one durable transaction.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> EngineResult<T> {
        let (answer, outcome) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = transact(connection, job);
            let next =
                if matches!(result, Err(Failure::Commit(_))) { Next::Reopen } else { Next::GoOn };
            drop(answer.send(result));
            next
        });
        send(&self.writer, job)?;
        match outcome.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Before(error))) => Err(EngineError::unavailable(error)),
            Ok(Err(Failure::Commit(error))) => Err(EngineError::unknown_outcome(error)),
            Err(_) => Err(EngineError::unknown_outcome("the database writer died")),
        }
    }

    /// Runs a job on one snapshot.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> EngineResult<T> {
        let (answer, outcome) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.transaction().and_then(|snapshot| job(&snapshot));
            drop(answer.send(result));
            Next::GoOn
        });
        send(&self.readers, job)?;
        let result = outcome.await.map_err(|_| EngineError::unavailable("a reader died"))?;
        result.map_err(EngineError::unavailable)
    }
}

fn transact<T>(
    connection: &mut Connection,
    job: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, Failure> {
    let behavior = rusqlite::TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(behavior)?;
    let value = job(&transaction)?;
    transaction.commit().map_err(Failure::Commit)?;
    Ok(value)
}

fn send(queue: &mpsc::SyncSender<Job>, job: Job) -> EngineResult<()> {
    queue.try_send(job).map_err(|error| match error {
        mpsc::TrySendError::Full(_) => EngineError::unavailable("the database queue is full"),
        mpsc::TrySendError::Disconnected(_) => EngineError::unavailable("the database is closed"),
    })
}

fn start(
    name: &str,
    path: PathBuf,
    connection: Connection,
    jobs: mpsc::Receiver<Job>,
) -> Result<thread::JoinHandle<()>, OpenError> {
    let run = move || work(&path, connection, || jobs.recv());
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)
}

/// Runs jobs until the queue ends. After a failed commit the handle is never used again: the kernel
/// may have dropped the pages that it could not write (promises 2.2).
fn work(path: &Path, connection: Connection, next_job: impl Fn() -> Result<Job, mpsc::RecvError>) {
    let mut open = Some(connection);
    while let Ok(job) = next_job() {
        if open.is_none() {
            match connect(path) {
                Ok(connection) => open = Some(connection),
                // The job is dropped unanswered, which its caller hears as a failure.
                Err(error) => {
                    tracing::error!(%error, "the database cannot be opened again");
                    continue;
                }
            }
        }
        let Some(connection) = &mut open else { continue };
        match job(connection) {
            Next::GoOn => {}
            Next::Reopen => open = None,
            Next::End => return,
        }
    }
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open(path)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::Setting("journal_mode = WAL"));
    }
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA mmap_size = 0; \
         PRAGMA busy_timeout = 5000; PRAGMA cache_size = -32768; \
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA journal_size_limit = 67108864;"
    ))?;
    let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    if synchronous != 2 {
        return Err(OpenError::Setting("synchronous = FULL"));
    }
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

fn check_version(connection: &Connection) -> Result<(), OpenError> {
    let exists: bool = connection.query_row(
        "SELECT count(*) > 0 FROM sqlite_master WHERE name = 'refinery_schema_history'",
        [],
        |row| row.get(0),
    )?;
    if !exists {
        return Ok(());
    }
    let found: Option<i64> =
        connection
            .query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))?;
    let runner = migrations::migrations::runner();
    let known = runner.get_migrations().iter().map(|step| step.version()).max();
    match (found, known.unwrap_or(0)) {
        (Some(found), known) if found > known => Err(OpenError::Newer { found, known }),
        _ => Ok(()),
    }
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let at = |source| OpenError::Folder { folder: folder.to_owned(), source };
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(at)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(source)) => Err(at(source)),
    }
}
