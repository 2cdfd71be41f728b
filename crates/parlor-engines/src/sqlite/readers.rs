//! The readers: a few threads with a connection each, and one bounded queue before them.
//!
//! Each read sees one snapshot; a snapshot taken after a commit answered holds that commit.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use parking_lot::Mutex;
use parlor_core::ports::{EngineError, EngineResult};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    connection::open_reader,
    errors::{engine_error, is_sick},
    log::Log,
    stats::Counters,
};

const THREADS: usize = 3;
/// Reads that may wait; more are refused, so that they fail early.
const QUEUE: usize = 4_096;

type Job = Box<dyn FnOnce(&mut Reader) + Send>;

pub(super) struct Readers {
    /// None once the threads are asked to end.
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    counters: Arc<Counters>,
}

impl Readers {
    pub(super) fn start(database: &PathBuf, counters: &Arc<Counters>) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut threads = Vec::new();
        for n in 0..THREADS {
            let reader = Reader { database: database.clone(), conn: None, counters: counters.clone() };
            let jobs = jobs.clone();
            let builder = Builder::new().name(format!("sqlite-read-{n}"));
            threads.push(builder.spawn(move || reader.run(&jobs))?);
        }
        Ok(Self { queue: Some(queue), threads, counters: counters.clone() })
    }

    /// Runs a read on one of the threads; the read sees one snapshot.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Log<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> EngineResult<T> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |reader| {
            // Whoever asked may be gone: nobody misses the answer.
            drop(answer.send(reader.snapshot(work)));
        });
        let Some(queue) = &self.queue else {
            return Err(EngineError::unavailable("the database is closed"));
        };
        self.counters.reader_queue.fetch_add(1, Relaxed);
        match queue.try_send(job) {
            Ok(()) => answered
                .await
                .unwrap_or_else(|_| Err(EngineError::broken("a read of the database panicked"))),
            Err(refused) => {
                self.counters.reader_queue.fetch_sub(1, Relaxed);
                Err(EngineError::unavailable(match refused {
                    TrySendError::Full(_) => "too many reads wait for the database",
                    TrySendError::Disconnected(_) => "the readers of the database ended",
                }))
            }
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reader of the database panicked");
            }
        }
    }
}

struct Reader {
    database: PathBuf,
    /// Opened at the first read, and again after the disk was in trouble.
    conn: Option<Connection>,
    counters: Arc<Counters>,
}

impl Reader {
    fn run(mut self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            // The lock is held while waiting: one thread waits for a job, the others for the lock.
            let Ok(job) = jobs.lock().recv() else { return };
            self.counters.reader_queue.fetch_sub(1, Relaxed);
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&mut self)));
            if caught.is_err() {
                // A statement may be half way: begin anew with a fresh connection.
                self.conn = None;
                tracing::error!("a read of the database panicked");
            }
        }
    }

    fn snapshot<T>(
        &mut self,
        work: impl FnOnce(&Log<'_>) -> rusqlite::Result<T>,
    ) -> EngineResult<T> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => open_reader(&self.database).map_err(engine_error)?,
        };
        let log = Log { conn: &conn, unreadable_rows: &self.counters.unreadable_rows };
        let answer = begin(&conn).and_then(|()| work(&log));
        let ended = end(&conn);
        if !answer.as_ref().is_err_and(is_sick) && ended.is_ok() {
            self.conn = Some(conn);
        }
        answer.map_err(engine_error)
    }
}

fn begin(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached("BEGIN")?.execute([]).map(drop)
}

fn end(conn: &Connection) -> rusqlite::Result<()> {
    if conn.is_autocommit() {
        return Ok(());
    }
    conn.prepare_cached("COMMIT")?.execute([]).map(drop)
}
