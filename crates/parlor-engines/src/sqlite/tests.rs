//! What the engine does when the disk fails or the file is damaged; on real files.

use std::{fs, os::unix::fs::FileExt as _};

use parlor_core::{
    clock::ManualClock,
    ports::{
        accounts::{Account, Accounts},
        clock::Random,
        store::Store as _,
    },
};
use parlor_proto::{Time, UserId, accounts::Privacy};
use tempfile::TempDir;

use super::*;

struct Fixed;

impl Random for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

struct Disk {
    folder: TempDir,
    clock: ManualClock,
}

impl Disk {
    fn new() -> Self {
        let clock = ManualClock::at(Time::from_millis(1_800_000_000_000));
        Self { folder: tempfile::tempdir().unwrap(), clock }
    }

    fn open(&self) -> Sqlite {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let ids = Ids::new(clock.clone(), Arc::new(Fixed));
        Sqlite::open(self.folder.path(), ids, clock, Arc::new(Fixed)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

async fn signs_up(engine: &Sqlite, number: u64) -> EngineResult<()> {
    let account = Account {
        user_id: UserId::from_raw(number),
        username: format!("ann{number}"),
        username_key: format!("ann{number}"),
        email: None,
        email_key: None,
        display_name: "Ann".to_owned(),
        password_hash: None,
        admin: false,
        privacy: Privacy::default(),
        created_at: Time::from_millis(1),
        last_seen: None,
        deleted_at: None,
    };
    engine.put(account).await.map(|_| ())
}

/// A commit that SQLite refuses: a promise between rows that is broken at its end.
async fn fails_to_commit(engine: &Sqlite) -> EngineError {
    let broken = "CREATE TABLE IF NOT EXISTS one (id INTEGER PRIMARY KEY); \
                  CREATE TABLE IF NOT EXISTS two (id INTEGER REFERENCES one \
                  DEFERRABLE INITIALLY DEFERRED); INSERT INTO two VALUES (5)";
    engine.write(move |db| db.execute_batch(broken)).await.unwrap_err()
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_written_until_a_probe_was() {
    let disk = Disk::new();
    let engine = disk.open();
    signs_up(&engine, 1).await.unwrap();
    let failed = fails_to_commit(&engine).await;
    assert!(failed.outcome_unknown && failed.retryable);
    // The disk is away: the probe cannot be written, and no new file takes its place.
    fs::rename(disk.path("parlor.db"), disk.path("away.db")).unwrap();
    for number in 2..4 {
        let refused = signs_up(&engine, number).await.unwrap_err();
        assert!(refused.retryable && !refused.outcome_unknown, "{refused:?}");
        disk.clock.advance(HEAL_EVERY);
    }
    assert!(!disk.path("parlor.db").exists());
    assert!(engine.load(UserId::from_raw(1)).await.unwrap().is_some(), "reading goes on");
    fs::rename(disk.path("away.db"), disk.path("parlor.db")).unwrap();
    signs_up(&engine, 4).await.unwrap();
    let known: Vec<bool> = {
        let mut known = Vec::new();
        for number in 1..5 {
            known.push(engine.load(UserId::from_raw(number)).await.unwrap().is_some());
        }
        known
    };
    assert_eq!(known, [true, false, false, true]);
    let health = engine.health();
    assert_eq!((health.failed_writes, health.failed_checks), (1, 0));
    engine.close().await;
    let probes = Connection::open(disk.path("parlor.db")).unwrap();
    let select = "SELECT value FROM data_set WHERE key = 'probe'";
    assert_eq!(probes.query_row(select, [], |row| row.get::<_, i64>(0)), Ok(1));
}

#[tokio::test]
async fn tries_to_heal_have_a_pause() {
    let disk = Disk::new();
    let engine = disk.open();
    fails_to_commit(&engine).await;
    fs::rename(disk.path("parlor.db"), disk.path("away.db")).unwrap();
    signs_up(&engine, 1).await.unwrap_err();
    fs::rename(disk.path("away.db"), disk.path("parlor.db")).unwrap();
    signs_up(&engine, 1).await.unwrap_err();
    disk.clock.advance(HEAL_EVERY);
    signs_up(&engine, 1).await.unwrap();
    engine.close().await;
}

/// Spoils the table of the accounts, which opening does not read.
fn spoils_accounts(disk: &Disk) {
    let database = Connection::open(disk.path("parlor.db")).unwrap();
    let number = |text: &str| database.query_row(text, [], |row| row.get::<_, i64>(0)).unwrap();
    let page = number("SELECT rootpage FROM sqlite_master WHERE name = 'users'");
    let size = number("PRAGMA page_size");
    drop(database);
    let file = File::options().write(true).open(disk.path("parlor.db")).unwrap();
    file.write_all_at(&[0xff; 64], u64::try_from((page - 1) * size).unwrap()).unwrap();
}

#[tokio::test]
async fn after_an_unclean_stop_damage_is_found_beside_the_serving_node_and_writes_are_refused() {
    let disk = Disk::new();
    let engine = disk.open();
    signs_up(&engine, 1).await.unwrap();
    engine.close().await;
    drop(engine);
    spoils_accounts(&disk);
    // As a kill leaves it.
    fs::remove_file(disk.path("clean")).unwrap();
    let engine = disk.open();
    while engine.health().failed_checks == 0 {
        tokio::task::yield_now().await;
    }
    let refused = engine.probe().await.unwrap_err();
    assert!(refused.retryable && !refused.outcome_unknown, "{refused:?}");
    assert!(engine.epoch().await.is_ok(), "reading goes on");
    engine.close().await;
    assert!(!disk.path("clean").exists(), "the next start checks again");
}

#[tokio::test]
async fn only_an_unclean_stop_is_followed_by_a_check() {
    let disk = Disk::new();
    let engine = disk.open();
    assert!(engine.check.lock().is_none(), "a new file has nothing to check");
    engine.close().await;
    drop(engine);
    assert!(disk.path("clean").exists());
    let engine = disk.open();
    assert!(engine.check.lock().is_none() && !disk.path("clean").exists());
    drop(engine);
    let engine = disk.open();
    assert!(engine.check.lock().is_some());
    while engine.health.is_in_doubt() {
        tokio::task::yield_now().await;
    }
    assert_eq!(engine.health().failed_checks, 0);
    signs_up(&engine, 1).await.unwrap();
    engine.close().await;
    assert!(disk.path("clean").exists());
}
