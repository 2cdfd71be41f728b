//! Disks that fail on purpose: a loop device whose power is cut, a small tmpfs, and system calls
//! that are tampered with by strace.
//!
//! All of it needs rights; what the machine does not give is told as a reason, and what was set up is
//! taken down again when the value goes, also after a failure.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::clock;

/// `FS_IOC_SHUTDOWN` with NOLOGFLUSH: what was not written through is lost, later writes fail.
const CUT: &str = "import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))";
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// Runs a command to its end and returns what it said.
fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| program.to_owned())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}: {}", args.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A command that must not stop the rest of a clean-up.
fn clean(program: &str, args: &[&str]) {
    if let Err(error) = run(program, args) {
        tracing::debug!(%error, "a clean-up");
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no text")
}

/// ext4 on a loop device over a sparse file.
#[derive(Debug)]
pub struct LoopDisk {
    folder: tempfile::TempDir,
    device: String,
    is_mounted: bool,
}

impl LoopDisk {
    /// Makes a disk of so many MiB and mounts it; the error says what the machine refuses.
    pub fn create(mib: u64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("parlor-load-disk-").tempdir()?;
        let image = folder.path().join("image");
        fs::File::create(&image)?.set_len(mib << 20)?;
        fs::create_dir(folder.path().join("mount"))?;
        run("mkfs.ext4", &["-q", "-F", text(&image)?])?;
        let device = run("losetup", &["-f", "--show", text(&image)?])?;
        let mut disk = Self { folder, device, is_mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// Mounts it; the journal replays.
    pub fn mount(&mut self) -> anyhow::Result<()> {
        run("mount", &[&self.device, text(&self.path())?])?;
        self.is_mounted = true;
        Ok(())
    }

    /// Unmounts it.
    pub fn unmount(&mut self) -> anyhow::Result<()> {
        run("umount", &[text(&self.path())?])?;
        self.is_mounted = false;
        Ok(())
    }

    /// Cuts the power: what was not written through is lost at once, and later writes fail.
    pub fn cut(&self) -> anyhow::Result<()> {
        run("python3", &["-c", CUT, text(&self.path())?]).map(drop)
    }

    /// Checks the file system of the unmounted disk; the answer is empty when it is sound.
    pub fn check(&self) -> anyhow::Result<()> {
        run("e2fsck", &["-fn", &self.device]).map(drop)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.is_mounted
            && let Some(path) = self.path().to_str()
        {
            clean("umount", &["-l", path]);
        }
        clean("losetup", &["-d", &self.device]);
    }
}

/// A tmpfs of a chosen size.
#[derive(Debug)]
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of so many MiB; the error says what the machine refuses.
    pub fn create(mib: u64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("parlor-load-small-").tempdir()?;
        run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={mib}m"), "none", text(folder.path())?],
        )?;
        Ok(Self(folder))
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Gives it so many MiB.
    pub fn resize(&self, mib: u64) -> anyhow::Result<()> {
        run("mount", &["-o", &format!("remount,size={mib}m"), text(self.0.path())?]).map(drop)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(path) = self.0.path().to_str() {
            clean("umount", &["-l", path]);
        }
    }
}

/// Lifts the soft limit of a process's file sizes.
pub fn lift_file_limit(pid: u32) -> anyhow::Result<()> {
    run("prlimit", &["--pid", &pid.to_string(), "--fsize=unlimited:unlimited"]).map(drop)
}

/// Tampers with the syncs of a running process, until it goes.
#[derive(Debug)]
pub struct Strace(Option<std::process::Child>);

impl Strace {
    /// Every sync fails.
    pub const EIO: &str = "error=EIO";
    /// Every sync takes 200 ms more.
    pub const SLOW: &str = "delay_enter=200000";
    /// No sync is made, and each says that it was: the planted fault.
    pub const NO_SYNC: &str = "retval=0";

    /// Tells why it cannot be used here.
    pub fn reason_against() -> Option<String> {
        run("strace", &["-e", "trace=none", "true"]).err().map(|error| format!("{error:#}"))
    }

    /// Attaches to a process and all its threads.
    pub async fn attach(pid: u32, what: &str) -> anyhow::Result<Self> {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"])
            .arg(format!("inject=fsync,fdatasync:{what}"))
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("strace")?;
        let mut strace = Self(Some(child));
        let begin = clock::now();
        while !is_traced(pid) {
            let ended = strace.0.as_mut().map(std::process::Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended {
                strace.0 = None;
                bail!("strace could not attach: {status}");
            }
            if begin.elapsed() > ATTACH_LIMIT {
                bail!("strace did not attach within {ATTACH_LIMIT:?}");
            }
            clock::sleep(Duration::from_millis(5)).await;
        }
        Ok(strace)
    }

    fn detach(&mut self) {
        if let Some(mut child) = self.0.take() {
            // On SIGTERM it lets the process go; with SIGKILL the kernel does.
            clean("kill", &["-TERM", &child.id().to_string()]);
            if let Err(error) = child.wait() {
                tracing::debug!(%error, "strace");
            }
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Tells whether every thread of a process is traced.
fn is_traced(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("status"))
            .is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
    })
}
