//! The data folder: made private, locked against a second process, marked while it is in use.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::errors::OpenError;

const DATABASE: &str = "parlor.db";
const LOCK: &str = "parlor.lock";
/// Lies in the folder while a server uses it; one that lies there at the start tells of a crash.
const RUNNING: &str = "running";

/// A data folder that this process alone uses, until the value is dropped.
pub(super) struct Folder {
    path: PathBuf,
    /// The last server did not close the database.
    pub(super) unclean: bool,
    /// Locked; the lock ends with the handle, also when the process dies.
    _lock: File,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Folder { folder: path.to_owned(), source };
        make_private(path).map_err(failed)?;
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { folder: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let unclean = path.join(RUNNING).try_exists().map_err(failed)?;
        File::create(path.join(RUNNING)).map_err(failed)?;
        let folder = Self { path: path.to_owned(), unclean, _lock: lock };
        folder.sync().map_err(failed)?;
        Ok(folder)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Makes the names in the folder durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Notes that the database was closed in good order.
    pub(super) fn mark_clean(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(RUNNING))?;
        self.sync()
    }
}

/// Makes the folder for the owner alone; one that exists keeps its rights.
fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}
