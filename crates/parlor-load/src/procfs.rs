//! What the system says of a process and of the machine: CPU, memory, bytes written, kernel.

use std::{fs, path::Path};

use anyhow::Context;

/// Ticks of the CPU counters in a second; fixed at 100 on Linux for user space.
const TICKS_PER_SECOND: u64 = 100;

/// What a process used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// CPU time of all its threads, user and system, in microseconds (grain: 10 ms).
    pub cpu_us: u64,
    /// Bytes that it caused to be written to storage.
    pub written_bytes: u64,
}

/// Returns what a process used so far.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; the fields begin after its end.
    let fields = stat.rsplit_once(')').context("no name in stat")?.1;
    let field = |n: usize| -> anyhow::Result<u64> {
        Ok(fields.split_whitespace().nth(n).context("too few fields in stat")?.parse()?)
    };
    // utime and stime are the fields 14 and 15, counted from the pid; here from the state.
    let ticks = field(11)? + field(12)?;
    let written_bytes = fs::read_to_string(format!("/proc/{pid}/io"))
        .ok()
        .and_then(|text| value_of(&text, "write_bytes:"))
        .unwrap_or_default();
    Ok(Usage { cpu_us: ticks * 1_000_000 / TICKS_PER_SECOND, written_bytes })
}

/// Returns the resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = value_of(&status, "VmRSS:").context("no VmRSS in status")?;
    Ok(kib * 1024)
}

/// Returns the kernel's unreclaimable and reclaimable slab in bytes, of the whole machine.
pub fn slab_bytes() -> anyhow::Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    Ok(value_of(&info, "Slab:").context("no Slab in meminfo")? * 1024)
}

/// Returns name and version of the kernel.
pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| format!("Linux {}", text.trim()))
}

/// Returns the model and the number of the CPUs.
pub fn cpus() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = info
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name))
        .collect();
    let model = models.first().map_or("unknown", |name| name.trim());
    format!("{} × {model}", models.len())
}

/// Returns the memory of the machine in bytes.
pub fn memory_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    value_of(&info, "MemTotal:").unwrap_or_default() * 1024
}

/// Returns the load averages.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Returns the kind of the file system that holds a folder.
pub fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let of_folder = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        folder.starts_with(point).then_some((point.len(), kind))
    });
    of_folder.max().map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

fn value_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_this_process() {
        let pid = std::process::id();
        let before = usage(pid).unwrap();
        let start = crate::clock::now();
        let mut x = 1_u64;
        while start.elapsed().as_millis() < 60 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(usage(pid).unwrap().cpu_us > before.cpu_us, "CPU time moves");
        assert!(resident_bytes(pid).unwrap() > 1_000_000);
        assert!(slab_bytes().unwrap() > 0 && memory_bytes() > 0);
        assert!(kernel().contains('.') && cpus().contains('×'));
        assert_ne!(file_system(Path::new("/tmp")), "unknown");
        assert!(usage(u32::MAX).is_err());
    }
}
