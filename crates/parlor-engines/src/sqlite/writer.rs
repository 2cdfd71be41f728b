//! The writer: one thread with the only connection that writes.
//!
//! It takes what queued up during the last commit, runs each write in a savepoint of its own, and
//! commits them as one durable transaction; only then it answers. A commit that fails has an unknown
//! outcome: the handle is dropped, never tried again, and nothing is written before a commit of a
//! fresh handle went through (promises 2.1, 2.2).

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use parlor_core::{
    clock::Ids,
    ports::{EngineError, EngineResult, clock::Clock},
};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    connection::{open_writer, probe},
    errors::{engine_error, is_sick},
    folder::Folder,
    heads::Heads,
    log::Log,
    stats::Counters,
};

/// Writes that may wait; more are refused, so that they fail early.
const QUEUE: usize = 1_024;
/// Writes that share a commit at most.
const SHARE: usize = 64;
/// How long an erased text may stay in the write-ahead log.
const TRUNCATE_AFTER: Duration = Duration::from_secs(5);

/// What a write works with. Nothing of it is stored before the commit.
pub(super) struct Write<'a> {
    pub(super) conn: &'a Connection,
    pub(super) ids: &'a Ids,
    pub(super) heads: &'a mut Heads,
    pub(super) counters: &'a Counters,
    /// Set when a text was erased, so that the write-ahead log forgets it soon too.
    pub(super) erased: &'a mut bool,
}

impl<'a> Write<'a> {
    /// The same connection for reading, the writes of this transaction included.
    pub(super) fn log(&self) -> Log<'a> {
        Log { conn: self.conn, unreadable_rows: &self.counters.unreadable_rows }
    }
}

/// How a write went, before the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ran {
    Well,
    /// It alone failed.
    Badly,
    /// The file or the disk is in trouble.
    Sick,
}

trait Work: Send {
    fn run(&mut self, write: &mut Write<'_>) -> Ran;
    fn answer(self: Box<Self>, commit: EngineResult<()>);
}

struct Pending<T, F> {
    work: Option<F>,
    outcome: Option<rusqlite::Result<T>>,
    answer: oneshot::Sender<EngineResult<T>>,
}

impl<T, F> Work for Pending<T, F>
where
    T: Send,
    F: FnOnce(&mut Write<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, write: &mut Write<'_>) -> Ran {
        let Some(work) = self.work.take() else { return Ran::Badly };
        let outcome = work(write);
        let ran = match &outcome {
            Ok(_) => Ran::Well,
            Err(error) if is_sick(error) => Ran::Sick,
            Err(_) => Ran::Badly,
        };
        self.outcome = Some(outcome);
        ran
    }

    fn answer(self: Box<Self>, commit: EngineResult<()>) {
        let answer = match (self.outcome, commit) {
            (Some(Err(error)), _) => Err(engine_error(error)),
            (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(EngineError::broken("a write to the database panicked")),
        };
        // Whoever asked may be gone; what is stored stays stored.
        drop(self.answer.send(answer));
    }
}

enum Command {
    Work(Box<dyn Work>),
    Close(oneshot::Sender<EngineResult<()>>),
}

/// A handle of the writer.
pub(super) struct Writer {
    /// None once the thread is asked to end.
    queue: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
    pub(super) health: Arc<Health>,
}

/// What other threads tell the writer.
#[derive(Default)]
pub(super) struct Health {
    /// Why nothing may be written any more: the check after an unclean stop failed.
    pub(super) damage: OnceLock<String>,
    /// Makes the next commit fail; for tests.
    pub(super) fail_next_commit: AtomicBool,
}

impl Writer {
    pub(super) fn start(
        folder: Folder,
        conn: Connection,
        ids: Ids,
        clock: Arc<dyn Clock>,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let (queue, commands) = sync_channel(QUEUE);
        let health = Arc::<Health>::default();
        let thread = Thread {
            folder,
            conn: Some(conn),
            ids,
            clock,
            heads: Heads::default(),
            counters: counters.clone(),
            health: health.clone(),
            truncate_at: None,
        };
        let builder = Builder::new().name("sqlite-write".to_owned());
        let thread = builder.spawn(move || thread.run(&commands))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), counters: counters.clone(), health })
    }

    /// Runs a write and answers when it is durable.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Write<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> EngineResult<T> {
        let (answer, answered) = oneshot::channel();
        let pending = Pending { work: Some(work), outcome: None, answer };
        self.command(Command::Work(Box::new(pending)))?;
        answered.await.unwrap_or_else(|_| {
            Err(EngineError::unknown_outcome("the writer of the database ended"))
        })
    }

    /// Moves everything into the database file and closes it in good order.
    pub(super) async fn close(&self) -> EngineResult<()> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Close(answer))?;
        answered
            .await
            .unwrap_or_else(|_| Err(EngineError::unavailable("the writer of the database ended")))
    }

    fn command(&self, command: Command) -> EngineResult<()> {
        let Some(queue) = &self.queue else {
            return Err(EngineError::unavailable("the database is closed"));
        };
        self.counters.writer_queue.fetch_add(1, Relaxed);
        queue.try_send(command).map_err(|refused| {
            self.counters.writer_queue.fetch_sub(1, Relaxed);
            EngineError::unavailable(match refused {
                TrySendError::Full(_) => "too many writes wait for the database",
                TrySendError::Disconnected(_) => "the database is closed",
            })
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of the database panicked");
        }
    }
}

struct Thread {
    folder: Folder,
    /// None after a failed commit, until a fresh handle proved itself.
    conn: Option<Connection>,
    ids: Ids,
    clock: Arc<dyn Clock>,
    heads: Heads,
    counters: Arc<Counters>,
    health: Arc<Health>,
    /// When the write-ahead log must have been emptied: a text in it was erased.
    truncate_at: Option<Duration>,
}

impl Thread {
    fn run(mut self, commands: &Receiver<Command>) {
        while let Some(first) = self.next(commands) {
            let mut works = Vec::new();
            let mut next = Some(first);
            let mut close = None;
            while let Some(command) = next.take() {
                self.counters.writer_queue.fetch_sub(1, Relaxed);
                match command {
                    Command::Work(work) => works.push(work),
                    Command::Close(answer) => close = Some(answer),
                }
                if close.is_none() && works.len() < SHARE {
                    next = commands.try_recv().ok();
                }
            }
            if !works.is_empty() {
                self.write(works);
            }
            if let Some(answer) = close {
                drop(answer.send(self.close()));
                return;
            }
        }
    }

    /// Waits for a command; empties the write-ahead log when that is due.
    fn next(&mut self, commands: &Receiver<Command>) -> Option<Command> {
        loop {
            let Some(due) = self.truncate_at else { return commands.recv().ok() };
            let left = due.saturating_sub(self.clock.monotonic());
            let received = if left.is_zero() {
                Err(RecvTimeoutError::Timeout)
            } else {
                commands.recv_timeout(left)
            };
            match received {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Timeout) => self.truncate(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn write(&mut self, mut works: Vec<Box<dyn Work>>) {
        let answer = self.try_write(&mut works);
        for work in works {
            work.answer(answer.clone());
        }
    }

    fn try_write(&mut self, works: &mut [Box<dyn Work>]) -> EngineResult<()> {
        if let Some(damage) = self.health.damage.get() {
            return Err(EngineError::unavailable(damage.clone()));
        }
        let conn = self.healthy_connection()?;
        let mut erased = false;
        if let Err(error) = self.run_all(&conn, works, &mut erased) {
            // Dropping the handle rolls back whatever SQLite has not rolled back by itself.
            self.heads.clear();
            return Err(error);
        }
        let started = self.clock.monotonic();
        let injected = self.health.fail_next_commit.swap(false, Relaxed);
        let committed = if injected {
            Err(rusqlite::Error::QueryReturnedNoRows)
        } else {
            execute(&conn, "COMMIT")
        };
        if let Err(error) = committed {
            self.heads.clear();
            self.counters.failed_commits.fetch_add(1, Relaxed);
            tracing::error!(%error, "a commit failed: its outcome is unknown");
            return Err(EngineError::unknown_outcome(error));
        }
        let ended = self.clock.monotonic();
        self.counters.committed(ended.saturating_sub(started));
        self.conn = Some(conn);
        if erased && self.truncate_at.is_none() {
            self.truncate_at = Some(ended + TRUNCATE_AFTER);
        }
        Ok(())
    }

    /// Takes the connection, or opens one that has to prove itself by a commit.
    fn healthy_connection(&mut self) -> EngineResult<Connection> {
        if let Some(conn) = self.conn.take() {
            return Ok(conn);
        }
        let conn = open_writer(&self.folder.database()).map_err(EngineError::unavailable)?;
        probe(&conn).map_err(EngineError::unavailable)?;
        tracing::info!("the database takes writes again");
        Ok(conn)
    }

    fn run_all(
        &mut self,
        conn: &Connection,
        works: &mut [Box<dyn Work>],
        erased: &mut bool,
    ) -> EngineResult<()> {
        execute(conn, "BEGIN IMMEDIATE").map_err(engine_error)?;
        for work in works {
            execute(conn, "SAVEPOINT work").map_err(engine_error)?;
            let mut write = Write {
                conn,
                ids: &self.ids,
                heads: &mut self.heads,
                counters: &self.counters,
                erased,
            };
            let ran = catch_unwind(AssertUnwindSafe(|| work.run(&mut write))).unwrap_or(Ran::Badly);
            if ran == Ran::Sick || conn.is_autocommit() {
                return Err(EngineError::unavailable("the disk of the database is in trouble"));
            }
            if ran == Ran::Badly {
                self.heads.clear();
                execute(conn, "ROLLBACK TO work").map_err(engine_error)?;
            }
            execute(conn, "RELEASE work").map_err(engine_error)?;
        }
        Ok(())
    }

    /// Moves the write-ahead log into the database and empties it, so that nothing erased is left.
    fn truncate(&mut self) {
        let emptied = self.conn.as_ref().is_some_and(|conn| match truncate(conn) {
            Ok(emptied) => emptied,
            Err(error) => {
                tracing::warn!(%error, "the write-ahead log could not be emptied; tried again soon");
                false
            }
        });
        if emptied {
            self.counters.truncations.fetch_add(1, Relaxed);
        }
        self.truncate_at = (!emptied).then(|| self.clock.monotonic() + TRUNCATE_AFTER);
    }

    fn close(&mut self) -> EngineResult<()> {
        let conn = self.healthy_connection()?;
        if !truncate(&conn).map_err(engine_error)? {
            return Err(EngineError::unavailable("a reader keeps the write-ahead log in use"));
        }
        conn.close().map_err(|(_, error)| engine_error(error))?;
        if self.health.damage.get().is_none() {
            self.folder.mark_clean().map_err(EngineError::unavailable)?;
        }
        Ok(())
    }
}

/// Returns false if a reader was in the way.
fn truncate(conn: &Connection) -> rusqlite::Result<bool> {
    let is_busy: bool =
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))?;
    Ok(!is_busy)
}

fn execute(conn: &Connection, statement: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(statement)?.execute([]).map(drop)
}
