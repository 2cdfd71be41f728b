//! What a device keeps: its orders, its positions and its cursor, changed in atomic steps.
//!
//! A step holds everything that one batch of frames changed, so that a cursor is never newer than
//! what came before it. Two stores are here: memory, and a small journal file. An application that
//! keeps the messages themselves implements [`Store`] over its own database and takes the events of
//! a step in the same transaction.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use parlor_proto::{ChatId, ClientId, Event, Seq, messages::SendMessage};
use serde::{Deserialize, Serialize};

/// How far one chat has been stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Everything up to here is stored.
    pub have: Seq,
    /// The chat is known to reach to here; above `have` is an open gap.
    pub head: Seq,
}

/// One atomic change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Step {
    /// Forget all positions first: the log of the server is another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// New events, each chat in rising `seq`, none of them kept before.
    #[serde(skip)]
    pub events: Vec<Event>,
    /// Positions after the step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub positions: BTreeMap<ChatId, Position>,
    /// The cursor that covers everything up to this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Orders to keep; each has its key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ordered: Vec<SendMessage>,
    /// Keys of orders that are settled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<ClientId>,
}

impl Step {
    /// Tells whether the step changes nothing.
    pub fn is_empty(&self) -> bool {
        !self.reset
            && self.events.is_empty()
            && self.positions.is_empty()
            && self.cursor.is_none()
            && self.ordered.is_empty()
            && self.settled.is_empty()
    }
}

/// What a device kept.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The resume position.
    pub cursor: Option<String>,
    /// How far each chat has been stored.
    pub positions: BTreeMap<ChatId, Position>,
    /// Orders without an answer, the oldest first.
    pub orders: Vec<SendMessage>,
}

impl Kept {
    fn apply(&mut self, step: &Step) {
        if step.reset {
            self.positions.clear();
            self.cursor = None;
        }
        self.positions.extend(&step.positions);
        if step.cursor.is_some() {
            self.cursor.clone_from(&step.cursor);
        }
        self.orders.extend(step.ordered.iter().cloned());
        if !step.settled.is_empty() {
            let is_settled = |key: &ClientId| step.settled.contains(key);
            self.orders.retain(|order| !order.client_id.as_ref().is_some_and(is_settled));
        }
    }

    fn as_step(&self) -> Step {
        Step {
            positions: self.positions.clone(),
            cursor: self.cursor.clone(),
            ordered: self.orders.clone(),
            ..Step::default()
        }
    }
}

/// Where a device keeps what must outlive the process.
///
/// `commit` is atomic: after a crash either the whole step is there or nothing of it, and a step is
/// never there without those before it. Orders must be durable when it returns. Both calls may
/// block for a disk write.
pub trait Store: Send + 'static {
    /// Returns what was kept.
    fn load(&mut self) -> io::Result<Kept>;
    /// Keeps a step.
    fn commit(&mut self, step: &Step) -> io::Result<()>;
}

/// A store in memory; clones share it, so that a test can restart a device.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    kept: Kept,
    /// The logs, where they are wanted.
    logs: Option<BTreeMap<ChatId, Vec<Event>>>,
}

impl MemoryStore {
    /// Makes a store that keeps positions and orders, and lets events pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a store that keeps the events too.
    pub fn with_logs() -> Self {
        Self(Arc::new(Mutex::new(Memory { kept: Kept::default(), logs: Some(BTreeMap::new()) })))
    }

    /// Returns the events kept of a chat.
    pub fn log(&self, chat_id: ChatId) -> Vec<Event> {
        let memory = self.lock();
        memory.logs.as_ref().and_then(|logs| logs.get(&chat_id)).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Each step is applied without a point at which it could panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> io::Result<Kept> {
        Ok(self.lock().kept.clone())
    }

    fn commit(&mut self, step: &Step) -> io::Result<()> {
        let mut memory = self.lock();
        memory.kept.apply(step);
        if let Some(logs) = &mut memory.logs {
            if step.reset {
                logs.clear();
            }
            for event in &step.events {
                logs.entry(event.chat_id).or_default().push(event.clone());
            }
        }
        Ok(())
    }
}

/// A journal of a long run is rewritten when it has grown by so much.
const COMPACT_AFTER_BYTES: u64 = 1024 * 1024;

/// A store in one file: a line of JSON for each step, rewritten as one line when it grows.
///
/// It keeps positions and orders and lets events pass: the application takes those from the
/// changes of the replica. Only steps that hold an order wait for the disk; a position that is lost
/// costs a repeat, and a settled order that is not known as such is sent again under its key.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    kept: Kept,
    file: Option<File>,
    grown_bytes: u64,
}

impl FileStore {
    /// Names the file; it is made when it is not there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kept: Kept::default(), file: None, grown_bytes: 0 }
    }

    /// Writes the whole state into a new file and puts it in the place of the old one.
    fn compact(&mut self) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&beside)?;
        write_line(&mut file, &self.kept.as_step())?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        sync_folder(&self.path)?;
        self.file = Some(file);
        self.grown_bytes = 0;
        Ok(())
    }
}

impl Store for FileStore {
    fn load(&mut self) -> io::Result<Kept> {
        self.kept = match std::fs::read_to_string(&self.path) {
            Ok(text) => fold(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error),
        };
        self.compact()?;
        Ok(self.kept.clone())
    }

    fn commit(&mut self, step: &Step) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("the store was not loaded, or failed before"));
        };
        let written = write_line(file, step).and_then(|n_bytes| {
            if !step.ordered.is_empty() {
                file.sync_data()?;
            }
            Ok(n_bytes)
        });
        match written {
            Ok(n_bytes) => {
                self.kept.apply(step);
                self.grown_bytes += n_bytes;
            }
            Err(error) => {
                // After a failed write the end of the file is unknown; only `load` can tell.
                self.file = None;
                return Err(error);
            }
        }
        if self.grown_bytes > COMPACT_AFTER_BYTES { self.compact() } else { Ok(()) }
    }
}

/// Applies the lines of a journal; a last line that was cut off by a crash never happened.
fn fold(text: &str) -> io::Result<Kept> {
    let mut kept = Kept::default();
    for line in text.split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else { break };
        let step: Step = serde_json::from_str(line)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        kept.apply(&step);
    }
    Ok(kept)
}

fn write_line(file: &mut File, step: &Step) -> io::Result<u64> {
    let mut line = serde_json::to_vec(step).map_err(io::Error::other)?;
    line.push(b'\n');
    file.write_all(&line)?;
    Ok(line.len() as u64)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn order(key: &str) -> SendMessage {
        SendMessage {
            chat_id: ChatId::from_raw(7),
            message: key.to_owned(),
            kind: Default::default(),
            attachments: Vec::new(),
            client_id: Some(ClientId::new(key).unwrap()),
            reply_to: None,
        }
    }

    fn keys(kept: &Kept) -> Vec<&str> {
        kept.orders.iter().map(|order| order.message.as_str()).collect()
    }

    fn scenario(store: &mut impl Store) {
        let position = Position { have: Seq::new(3), head: Seq::new(9) };
        store.commit(&Step { ordered: vec![order("a"), order("b")], ..Step::default() }).unwrap();
        store
            .commit(&Step {
                positions: [(ChatId::from_raw(7), position)].into(),
                cursor: Some("c1".to_owned()),
                settled: vec![ClientId::new("a").unwrap()],
                ..Step::default()
            })
            .unwrap();
        store.commit(&Step { ordered: vec![order("c")], ..Step::default() }).unwrap();
    }

    #[test]
    fn a_file_remembers_over_a_restart_and_forgets_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device");
        let mut store = FileStore::new(&path);
        assert!(store.commit(&Step::default()).is_err(), "not loaded");
        store.load().unwrap();
        scenario(&mut store);
        drop(store);
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"cursor\":\"c2\"").unwrap();
        let mut store = FileStore::new(&path);
        let kept = store.load().unwrap();
        assert_eq!(keys(&kept), ["b", "c"]);
        assert_eq!(kept.cursor.as_deref(), Some("c1"));
        assert_eq!(kept.positions.values().next().unwrap().head, Seq::new(9));
        store.commit(&Step { reset: true, ..Step::default() }).unwrap();
        let kept = FileStore::new(&path).load().unwrap();
        assert_eq!((keys(&kept), kept.cursor.as_deref()), (vec!["b", "c"], None));
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device");
        std::fs::write(&path, "{\"cursor\":\"c1\"}\nnonsense\n{\"cursor\":\"c2\"}\n").unwrap();
        let error = FileStore::new(&path).load().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_long_run_does_not_grow_the_file_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device");
        let mut store = FileStore::new(&path);
        store.load().unwrap();
        scenario(&mut store);
        let cursor = "x".repeat(1_000);
        for _ in 0..3_000 {
            store.commit(&Step { cursor: Some(cursor.clone()), ..Step::default() }).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= COMPACT_AFTER_BYTES + 4_000);
        let kept = FileStore::new(&path).load().unwrap();
        assert_eq!((keys(&kept), kept.cursor.as_ref()), (vec!["b", "c"], Some(&cursor)));
    }

    #[test]
    fn memory_is_shared_by_its_clones_and_keeps_logs_where_wanted() {
        let mut store = MemoryStore::with_logs();
        scenario(&mut store);
        assert_eq!(keys(&store.clone().load().unwrap()), ["b", "c"]);
        assert!(store.log(ChatId::from_raw(7)).is_empty());
    }
}
