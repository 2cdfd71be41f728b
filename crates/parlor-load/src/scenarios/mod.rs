//! The scenarios, one a file: those that prove a promise, and those that measure.
//!
//! A proving scenario starts the server itself, records everything, ends with the final reads and is
//! judged by `check.rs`. A measuring scenario gets a running server and returns figures.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use parlor_proto::ChatId;

use crate::{
    check::{self, Judgement},
    clock,
    final_reads::{self, Bookmark},
    people::{Admin, Person},
    process::{Launch, ServerProcess},
    record::{ChatArgs, FaultArgs, Needs, Op, Phase, Recorder, RunArgs, Who},
    report,
};

pub mod disk;
pub mod fanout;
pub mod halfopen;
pub mod history;
pub mod idempotency;
pub mod idle;
pub mod kill9;
pub mod membership;
pub mod order;
pub mod overload;
pub mod powercut;
pub mod probe;
pub mod resume;
pub mod sends;
pub mod slowreader;
pub mod storm;

/// What every proving scenario needs.
#[derive(Debug, Clone)]
pub struct Base {
    /// The server's binary.
    pub binary: PathBuf,
    /// Decides all dice; times are real.
    pub seed: u64,
    /// Where the recording and the server's log go; a folder of its own is made in it.
    pub out: PathBuf,
}

/// What a proving scenario found.
#[derive(Debug)]
pub struct Outcome {
    /// The judgement of the recording.
    pub judgement: Judgement,
    /// The recording.
    pub recording: PathBuf,
    /// What the scenario measured beside.
    pub notes: Vec<String>,
}

/// How long everything may take to come to rest after the last fault.
pub const QUIET_LIMIT: Duration = Duration::from_secs(30);

/// A server of its own with people and chats, and a recording that has begun.
pub(crate) struct Stage {
    pub server: ServerProcess,
    pub admin: Admin,
    pub people: Vec<Person>,
    pub chats: Vec<ChatId>,
    pub recorder: Arc<Recorder>,
    bookmarks: Vec<Bookmark>,
    /// Removed when the stage goes; the recording stays.
    _data: Option<tempfile::TempDir>,
}

/// Where a stage's server keeps its data, and how it is started.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The folder; one of its own without it.
    pub data: Option<PathBuf>,
    pub launch: Launch,
}

impl Stage {
    /// Starts a server and makes `n_chats` groups of `n_people` people each, all in all.
    pub async fn build(
        base: &Base,
        run: RunArgs,
        n_people: usize,
        n_chats: usize,
    ) -> anyhow::Result<Self> {
        Self::build_in(Place::default(), base, run, n_people, n_chats).await
    }

    /// Does the same in a place of choice.
    pub async fn build_in(
        place: Place,
        base: &Base,
        run: RunArgs,
        n_people: usize,
        n_chats: usize,
    ) -> anyhow::Result<Self> {
        let folder = base.out.join(format!("{}-{}-{}", run.scenario, run.seed, clock::wall_ms()));
        std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let (data, own) = match place.data {
            Some(data) => (data, None),
            None => {
                let own = tempfile::Builder::new().prefix("parlor-load-").tempdir()?;
                (own.path().to_owned(), Some(own))
            }
        };
        let log = folder.join("server.log");
        let server = ServerProcess::launch(&base.binary, &data, &log, place.launch).await?;
        let recorder = Arc::new(Recorder::create(&folder.join("recording.jsonl"), run)?);
        let admin = Admin::sign_up(&server.client()?).await?;
        let people = admin.people("p", n_people).await?;
        let owner = people.first().context("a run has people")?;
        let others: Vec<_> = people.iter().skip(1).map(|person| person.user_id).collect();
        let mut chats = Vec::new();
        for number in 1..=n_chats {
            let chat = owner.client.create_group(&format!("room {number}"), &others).await;
            let chat_id = chat.context("make a group")?.chat_id;
            let args = ChatArgs { chat_id, history_all: false };
            recorder.note(&Who::NOBODY, Op::Chat { args });
            chats.push(chat_id);
        }
        let mut bookmarks = Vec::new();
        for person in &people {
            bookmarks.push(final_reads::bookmark(person, &chats).await?);
        }
        Ok(Self { server, admin, people, chats, recorder, bookmarks, _data: own })
    }

    /// Returns a person by number.
    pub fn person(&self, number: usize) -> anyhow::Result<&Person> {
        self.people.get(number).with_context(|| format!("person {number}"))
    }

    /// Notes what is done to the server while it is done.
    pub fn fault(&self, fault: &str) -> u64 {
        let args = FaultArgs { fault: fault.to_owned(), target: "server".to_owned() };
        self.recorder.invoke(&Who::NOBODY, Op::Fault { args })
    }

    /// Notes that a fault was fired.
    pub fn fired(&self, op_id: u64, fault: &str) {
        let args = FaultArgs { fault: fault.to_owned(), target: "server".to_owned() };
        self.recorder.end(&Who::NOBODY, op_id, Phase::Ok, Op::Fault { args });
    }

    /// Lets every member read everything, ends the recording, stops the server and judges.
    pub async fn judge(mut self, notes: Vec<String>) -> anyhow::Result<Outcome> {
        for (person, bookmark) in self.people.iter().zip(&self.bookmarks) {
            final_reads::read_all(person, &self.recorder, &self.chats, Some(bookmark)).await?;
        }
        self.recorder.finish().context("write the recording")?;
        let recording = self.recorder.path().to_owned();
        self.server.stop().await?;
        let judgement = check::check_file(&recording)?;
        Ok(Outcome { judgement, recording, notes })
    }
}

/// Returns where the log of a run without a recording goes.
pub(crate) fn own_log(base: &Base, scenario: &str) -> anyhow::Result<PathBuf> {
    let folder = base.out.join(format!("{scenario}-{}-{}", base.seed, clock::wall_ms()));
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    Ok(folder.join("server.log"))
}

/// Returns a command that repeats a run.
pub(crate) fn replay(scenario: &str, base: &Base, options: &[(&str, String)]) -> String {
    let mut command =
        format!("parlor-load {scenario} --binary {} --seed {}", file_name(&base.binary), base.seed);
    for (name, value) in options {
        command.push_str(&format!(" --{name} {value}"));
    }
    command
}

// The whole path would tie a recording to one machine.
fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

pub(crate) fn run_args(
    scenario: &str,
    base: &Base,
    options: &[(&str, String)],
    needs: Needs,
) -> RunArgs {
    RunArgs {
        scenario: scenario.to_owned(),
        seed: base.seed,
        replay: replay(scenario, base, options),
        binary_sha256: report::sha256(&base.binary).unwrap_or_default(),
        needs,
    }
}
