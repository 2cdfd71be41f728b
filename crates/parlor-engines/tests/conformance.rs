//! The SQLite engine against the storage contracts of the core.
//!
//! A failure prints its seed; `PARLOR_SEED=n cargo test -p parlor-engines --test conformance` runs
//! that one alone.

#![allow(clippy::unwrap_used, reason = "tests")]

use parlor_core::conformance::agrees_with_the_oracle;
use parlor_engines::sqlite::Sqlite;

#[tokio::test]
async fn sqlite_keeps_the_storage_contracts() {
    let seeds = match std::env::var("PARLOR_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=12).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        println!("seed {seed}: PARLOR_SEED={seed} cargo test -p parlor-engines --test conformance");
        let folder = tempfile::tempdir().unwrap();
        agrees_with_the_oracle(seed, |parts| {
            Sqlite::open(folder.path(), parts.ids, parts.clock, parts.random).unwrap()
        })
        .await;
    }
}
