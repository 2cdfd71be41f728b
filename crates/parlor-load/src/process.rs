//! The server under test as a child process: started, killed and started again on the same data.
//!
//! Only processes that were started here are ever signalled, by their handle.

use std::{
    fs::OpenOptions,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use parlor_client::Client;
use tokio::process::{Child, Command};

use crate::clock;

/// How long a start may take: recovery of the data included.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long an orderly end may take.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How a server is started, beside its folder and its port.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// More of its environment.
    pub env: Vec<(String, String)>,
    /// None of its files grows above so many KiB, until the limit is lifted: a full disk.
    pub file_kib: Option<u64>,
}

/// A server that this process started.
#[derive(Debug)]
pub struct ServerProcess {
    launch: Launch,
    binary: PathBuf,
    data: PathBuf,
    log: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl ServerProcess {
    /// Starts a server on a free loopback port and waits until it is ready.
    ///
    /// Its folder is made if it is not there; its output is appended to `log`.
    pub async fn start(binary: &Path, data: &Path, log: &Path) -> anyhow::Result<Self> {
        Self::launch(binary, data, log, Launch::default()).await
    }

    /// Starts a server in a special way.
    pub async fn launch(
        binary: &Path,
        data: &Path,
        log: &Path,
        launch: Launch,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data)?;
        let mut server = Self {
            launch,
            binary: binary.canonicalize().with_context(|| format!("{}", binary.display()))?,
            data: data.to_owned(),
            log: log.to_owned(),
            port: free_port()?,
            child: None,
        };
        server.restart().await?;
        Ok(server)
    }

    /// Starts the server again, on the same data and port, and waits until it is ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            bail!("the server runs already");
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = match self.launch.file_kib {
            None => Command::new(&self.binary),
            Some(kib) => {
                let mut shell = Command::new("bash");
                let limited = format!("trap '' XFSZ; ulimit -S -f {kib}; exec \"$0\" \"$@\"");
                shell.args(["-c", &limited]).arg(&self.binary);
                shell
            }
        };
        command
            .args(["serve", "--listen", &format!("127.0.0.1:{}", self.port), "--data"])
            .arg(&self.data)
            .env("PARLOR_RATE_LIMITS", "off")
            .envs(self.launch.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{}", self.binary.display()))?;
        self.child = Some(child);
        self.wait_ready().await
    }

    /// Returns the address of the server.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns a signed-out client of the server.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.url())?)
    }

    /// Returns the process id.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.as_ref().and_then(Child::id).context("the server does not run")
    }

    /// Returns the file of the server's output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the folder of the data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Kills the server with SIGKILL and reaps it.
    pub async fn kill9(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.start_kill()?;
        let status = child.wait().await?;
        if std::os::unix::process::ExitStatusExt::signal(&status) != Some(9) {
            bail!("the server had ended by itself: {status}; see {}", self.log.display());
        }
        Ok(())
    }

    /// The next start has no limit of file sizes.
    pub const fn lift_file_limit(&mut self) {
        self.launch.file_kib = None;
    }

    /// Ends the server with SIGTERM, or with SIGKILL if it does not go.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id() {
            // Signals other than SIGKILL need a system call that safe code does not have.
            Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        }
        if clock::within(STOP_LIMIT, child.wait()).await.is_none() {
            child.kill().await?;
            bail!("the server did not end within {STOP_LIMIT:?} of SIGTERM");
        }
        Ok(())
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let client = self.client()?;
        let begin = clock::now();
        loop {
            if client.is_ready().await {
                return Ok(());
            }
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                self.child = None;
                bail!("the server ended at its start: {status}; see {}", self.log.display());
            }
            if begin.elapsed() > READY_LIMIT {
                bail!("the server is not ready after {READY_LIMIT:?}; see {}", self.log.display());
            }
            clock::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Returns a port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
