//! The SQLite engine: all storage ports on one file in the data folder.
//!
//! One writer thread with group commit by the core's appender, a few readers, WAL with
//! `synchronous=FULL`. Nothing here blocks the runtime: calls travel to the threads as jobs and the
//! answers come back over channels.

mod accounts;
mod append;
mod chats;
mod check;
mod devices;
mod log;
mod messages;
mod receipts;
mod rows;
mod store;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
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
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::oneshot;

use self::check::{Check, Health};

const READERS: usize = 3;
/// The first release without the WAL-reset bug (promises section 1).
const OLDEST_SQLITE: i32 = 3_051_003;
/// Pages of the log that are moved into the file at once: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4_000;
/// Pause between two tries to write again after a failure.
const HEAL_EVERY: Duration = Duration::from_millis(250);
/// Why a write is refused while it would not be durable.
const SICK: &str = "the database does not take writes now";
/// Why a write is refused for good.
const DAMAGED: &str = "the database is damaged: restore a backup";

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
    /// The job did not run.
    Refused(&'static str),
}

impl Failure {
    /// Tells whether the handle is to be trusted no more: after a failed commit, and where the disk
    /// or the file is to blame.
    fn is_sickness(&self) -> bool {
        match self {
            Self::Commit(_) => true,
            Self::Refused(_) => false,
            Self::Before(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::SystemIoFailure
                        | ErrorCode::DiskFull
                        | ErrorCode::DatabaseCorrupt
                        | ErrorCode::NotADatabase
                        | ErrorCode::CannotOpen
                        | ErrorCode::ReadOnly
                )
            ),
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Before(error)
    }
}

/// Gets the connection, or hears why there is none.
type Job = Box<dyn FnOnce(Result<&mut Connection, &'static str>) -> Next + Send>;

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
    folder: PathBuf,
    health: Arc<Health>,
    /// The check after an unclean stop.
    check: Mutex<Option<Check>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    /// The lock on the folder; held until the engine is closed.
    lock: Mutex<Option<File>>,
}

impl Sqlite {
    /// Opens the data folder, makes it if it is missing, and brings its schema up to date.
    ///
    /// If it was not closed in order, the file is checked in the background; when that finds damage,
    /// writes are refused from then on.
    pub fn open(
        folder: &Path,
        ids: Ids,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        let at = |source| OpenError::Folder { folder: folder.to_owned(), source };
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(OpenError::OldLibrary(rusqlite::version().to_owned()));
        }
        make_folder(folder).map_err(at)?;
        let lock = lock(folder)?;
        let path = folder.join("parlor.db");
        let is_new = !path.exists();
        let mut connection = connect_or_make(&path)?;
        check_version(&connection)?;
        let was_closed = check::take_mark(folder).map_err(at)?;
        migrations::migrations::runner().run(&mut connection)?;
        store::make_epoch(&connection, &*random)?;
        let newest: Option<i64> =
            connection.query_row("SELECT max(message_id) FROM messages", [], |row| row.get(0))?;
        if let Some(newest) = newest {
            ids.observe(MessageId::from_raw(rows::uint(newest)));
        }
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at)?;
        let health = Arc::<Health>::default();
        let check = match is_new || was_closed {
            true => None,
            false => Some(Check::start(&path, health.clone())?),
        };
        let (writer, jobs) = mpsc::sync_channel(1_024);
        let desk = Writer {
            path: path.clone(),
            clock,
            health: health.clone(),
            open: Some(connection),
            tried_at: None,
        };
        let mut threads = vec![start("sqlite-writer", move || desk.run(&jobs))?];
        let (readers, jobs) = mpsc::sync_channel(1_024);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..READERS {
            let connection = connect(&path)?;
            let jobs = jobs.clone();
            let name = format!("sqlite-reader-{number}");
            let run = move || read_jobs(connection, || jobs.lock().recv());
            threads.push(start(&name, run)?);
        }
        Ok(Self {
            ids,
            writer,
            readers,
            unreadable: Arc::default(),
            folder: folder.to_owned(),
            health,
            check: Mutex::new(check),
            threads: Mutex::new(threads),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Ends in order: everything is moved from the log into the file, and the folder says so.
    pub async fn close(&self) {
        if let Some(check) = self.check.lock().take() {
            check.end();
        }
        let (done, closed) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let moved = connection.map(|connection| {
                let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
                connection.query_row(checkpoint, [], |row| row.get::<_, bool>(0))
            });
            if done.send(matches!(moved, Ok(Ok(false)))).is_err() {
                tracing::debug!("nobody waited for the close");
            }
            Next::End
        });
        let mut in_order = self.writer.send(job).is_ok() && closed.await.unwrap_or(false);
        if !in_order {
            tracing::warn!("the write-ahead log was not moved into the file");
        }
        for _ in 0..READERS {
            if self.readers.send(Box::new(|_| Next::End)).is_err() {
                break;
            }
        }
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a database thread had panicked");
                in_order = false;
            }
        }
        if in_order
            && !self.health.is_in_doubt()
            && let Err(error) = check::leave_mark(&self.folder)
        {
            tracing::warn!(%error, "the next start checks the database, since this end left no mark");
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
            let connection = connection.map_err(Failure::Refused);
            let result = connection.and_then(|connection| transact(connection, job));
            let is_sick = result.as_ref().is_err_and(Failure::is_sickness);
            drop(answer.send(result));
            if is_sick { Next::Reopen } else { Next::GoOn }
        });
        send(&self.writer, job)?;
        match outcome.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Before(error))) => Err(EngineError::unavailable(error)),
            Ok(Err(Failure::Commit(error))) => Err(EngineError::unknown_outcome(error)),
            Ok(Err(Failure::Refused(why))) => Err(EngineError::unavailable(why)),
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
            // A reader keeps its connection; without an answer the caller hears of a failure.
            if let Ok(connection) = connection {
                let result = connection.transaction().and_then(|snapshot| job(&snapshot));
                drop(answer.send(result));
            }
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
    run: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)
}

/// Runs jobs that read, until the queue ends.
fn read_jobs(mut connection: Connection, next_job: impl Fn() -> Result<Job, mpsc::RecvError>) {
    while let Ok(job) = next_job() {
        if job(Ok(&mut connection)) == Next::End {
            return;
        }
    }
}

/// The thread that writes.
///
/// After a failed commit the handle is never used again: the kernel may have dropped the pages that
/// it could not write. No other write is taken before a new handle has committed a probe (promises
/// 2.1 and 2.2); until then writes are refused, and are known not to be stored.
struct Writer {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    /// None from a failure until a probe was committed.
    open: Option<Connection>,
    /// When that was last tried.
    tried_at: Option<Duration>,
}

impl Writer {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job(self.connection()) {
                Next::GoOn => {}
                Next::Reopen => {
                    self.open = None;
                    self.health.failed_writes.fetch_add(1, Ordering::Relaxed);
                    tracing::error!("a write failed: writes are refused until one succeeds");
                }
                Next::End => return,
            }
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, &'static str> {
        if self.health.is_damaged() {
            return Err(DAMAGED);
        }
        if self.open.is_none() {
            let now = self.clock.monotonic();
            if self.tried_at.is_some_and(|tried_at| now < tried_at + HEAL_EVERY) {
                return Err(SICK);
            }
            self.tried_at = Some(now);
            self.open = self.heal();
        }
        self.open.as_mut().ok_or(SICK)
    }

    fn heal(&self) -> Option<Connection> {
        let probed = connect(&self.path).map_err(|error| error.to_string()).and_then(|mut open| {
            match transact(&mut open, store::probe) {
                Ok(()) => Ok(open),
                Err(Failure::Before(error) | Failure::Commit(error)) => Err(error.to_string()),
                Err(Failure::Refused(why)) => Err(why.to_owned()),
            }
        });
        match probed {
            Ok(connection) => {
                tracing::info!("the database takes writes again");
                Some(connection)
            }
            Err(error) => {
                tracing::error!(error, "the database does not take writes");
                None
            }
        }
    }
}

/// Opens the file if it is there: after a failure a file that is gone must not be replaced by an
/// empty one.
fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::default() & !OpenFlags::SQLITE_OPEN_CREATE;
    configure(Connection::open_with_flags(path, flags)?)
}

fn connect_or_make(path: &Path) -> Result<Connection, OpenError> {
    configure(Connection::open(path)?)
}

fn configure(connection: Connection) -> Result<Connection, OpenError> {
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
