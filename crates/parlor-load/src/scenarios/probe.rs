//! `probe`: what the disk does in this minute, in the same folder. Every other figure is read
//! beside it.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    clock,
    latency::{Latencies, Summary},
};

const BLOCK: usize = 4 * 1024;
const SYNCS: usize = 200;
/// Blocks of the preallocated file that is overwritten.
const BLOCKS: usize = 256;

/// Latencies of durable writes of 4 KiB.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Probe {
    /// Append and fdatasync.
    pub append: Summary,
    /// Overwrite of a preallocated block and fdatasync.
    pub overwrite: Summary,
}

/// Measures in a folder; blocks for up to a few seconds.
pub async fn run(folder: &Path) -> anyhow::Result<Probe> {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || measure(&folder)).await?
}

fn measure(folder: &Path) -> anyhow::Result<Probe> {
    let path = folder.join("probe");
    let probe = Probe { append: append(&path)?, overwrite: overwrite(&path)? };
    fs::remove_file(&path)?;
    Ok(probe)
}

fn append(path: &Path) -> anyhow::Result<Summary> {
    let mut file = File::create(path)?;
    let (block, latencies) = ([7; BLOCK], Latencies::default());
    for _ in 0..SYNCS {
        let start = clock::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record(0, clock::micros_since(start));
    }
    Ok(latencies.summary())
}

fn overwrite(path: &Path) -> anyhow::Result<Summary> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(&vec![0; BLOCK * BLOCKS])?;
    file.sync_all()?;
    let (block, latencies) = ([7; BLOCK], Latencies::default());
    for number in 0..SYNCS {
        let at = (number % BLOCKS) * BLOCK;
        file.seek(SeekFrom::Start(at as u64))?;
        let start = clock::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record(0, clock::micros_since(start));
    }
    Ok(latencies.summary())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    #[tokio::test]
    async fn the_probe_measures_every_sync_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let probe = super::run(folder.path()).await.unwrap();
        assert_eq!((probe.append.count, probe.overwrite.count), (200, 200));
        assert!(probe.append.p50_us <= probe.append.p99_us);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
