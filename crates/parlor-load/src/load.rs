//! What the measuring scenarios share: a fresh server, the measured window, and frames read lightly.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::Deserialize;

use crate::{
    clock,
    latency::{Figure, per_second, ratio},
    people::Admin,
    process::ServerProcess,
    procfs::{self, Usage},
};

/// A fresh server to measure.
#[derive(Debug)]
pub struct Field {
    /// The server.
    pub server: ServerProcess,
    /// Makes people.
    pub admin: Admin,
}

/// How long a load runs.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub measured: Duration,
}

/// The measured part of a run, on one clock.
#[derive(Debug)]
pub struct Window {
    start: Instant,
    from_us: u64,
    to_us: u64,
    stopped: AtomicBool,
}

impl Window {
    /// Begins now, with the warm-up.
    pub fn begin(times: Times) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let from_us = micros(times.warm_up);
        let to_us = from_us.saturating_add(micros(times.measured));
        Self { start: clock::now(), from_us, to_us, stopped: AtomicBool::new(false) }
    }

    /// Returns the microseconds since the begin.
    pub fn now_us(&self) -> u64 {
        clock::micros_since(self.start)
    }

    /// Returns the point in time so many microseconds after the begin.
    pub fn at(&self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }

    /// Tells whether something that happened at this time is measured.
    pub const fn holds(&self, us: u64) -> bool {
        self.from_us <= us && us < self.to_us
    }

    /// Tells whether no more load is to be made.
    pub fn is_over(&self, us: u64) -> bool {
        us >= self.to_us || self.stopped.load(Ordering::Relaxed)
    }

    /// Returns when the measured part ends.
    pub const fn end_us(&self) -> u64 {
        self.to_us
    }

    /// Returns the length of the measured part.
    pub const fn measured_us(&self) -> u64 {
        self.to_us - self.from_us
    }

    /// Ends the load at once: a client has failed.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Waits for the measured part and returns what the processes used during it.
    pub async fn watch(&self, server: &ServerProcess) -> anyhow::Result<Used> {
        let (pid, own) = (server.pid()?, std::process::id());
        clock::sleep_until(self.at(self.from_us)).await;
        let before = (procfs::usage(pid)?, procfs::usage(own)?);
        while !self.is_over(self.now_us()) {
            clock::sleep(Duration::from_millis(5)).await;
        }
        let after = (procfs::usage(pid)?, procfs::usage(own)?);
        Ok(Used {
            server: difference(after.0, before.0),
            generator: difference(after.1, before.1),
            resident_bytes: procfs::resident_bytes(pid)?,
        })
    }
}

fn difference(after: Usage, before: Usage) -> Usage {
    Usage {
        cpu_us: after.cpu_us.saturating_sub(before.cpu_us),
        written_bytes: after.written_bytes.saturating_sub(before.written_bytes),
    }
}

/// What the processes used during the measured part.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// The server, its database included (it is in the same process).
    pub server: Usage,
    /// This process.
    pub generator: Usage,
    /// Resident memory of the server at the end.
    pub resident_bytes: u64,
}

impl Used {
    /// Returns the figures of the server for each of so many operations.
    pub fn figures(&self, operation: &str, n_operations: u64, window: &Window) -> Vec<Figure> {
        let cores = |usage: Usage| ratio(usage.cpu_us, window.measured_us());
        vec![
            Figure::new(
                format!("server CPU per {operation}"),
                ratio(self.server.cpu_us, n_operations),
                "µs",
            ),
            Figure::new("server CPU", cores(self.server), "cores"),
            Figure::new("generator CPU", cores(self.generator), "cores"),
            Figure::new(
                format!("written per {operation}"),
                ratio(self.server.written_bytes, n_operations),
                "bytes",
            ),
            Figure::new("server memory", ratio(self.resident_bytes, 1 << 20), "MiB"),
        ]
    }
}

/// Returns a rate over the measured part.
pub fn rate(name: &str, count: u64, window: &Window) -> Figure {
    Figure::new(name, per_second(count, window.measured_us()), "/s")
}

/// A counter of many clients.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts several.
    pub fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The few fields of a server's frame that a load looks at, without copying any.
#[derive(Debug, Deserialize)]
pub struct LightFrame<'a> {
    /// The kind.
    pub t: &'a str,
    /// The `id` of the frame that is answered.
    #[serde(default, borrow)]
    pub id: Option<&'a str>,
    /// The position of an event.
    #[serde(default)]
    pub seq: Option<u64>,
    /// The message of a `message` event.
    #[serde(default, borrow)]
    pub message: Option<LightMessage<'a>>,
    /// The code of an `error`.
    #[serde(default, borrow)]
    pub code: Option<&'a str>,
}

/// The text of a message; texts of a load need no escapes.
#[derive(Debug, Deserialize)]
pub struct LightMessage<'a> {
    /// The text.
    pub message: &'a str,
}

/// Reads a text from the server: one frame or an array of them.
pub fn read_light(text: &str) -> anyhow::Result<Vec<LightFrame<'_>>> {
    if text.starts_with('[') {
        Ok(serde_json::from_str(text)?)
    } else {
        Ok(vec![serde_json::from_str(text)?])
    }
}

/// Makes a text of so many bytes that begins with a number.
pub fn numbered_text(number: u64, n_bytes: usize) -> String {
    let mut text = format!("{number} ");
    while text.len() < n_bytes {
        text.push_str("lorem ipsum dolor sit amet ");
    }
    text.truncate(n_bytes.max(number.checked_ilog10().map_or(1, |digits| digits as usize + 1) + 1));
    text
}

/// Returns the number that a text begins with.
pub fn number_of(text: &str) -> anyhow::Result<usize> {
    let digits = text.split(' ').next().unwrap_or_default();
    digits.parse().with_context(|| "a text that this run did not send".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn texts_carry_their_number_and_have_their_length() {
        for number in [0, 7, 10, 123_456_789] {
            for n_bytes in [1, 100, 1_000] {
                let text = numbered_text(number, n_bytes);
                assert_eq!(number_of(&text).unwrap() as u64, number);
                assert!(text.len() == n_bytes || n_bytes == 1, "{text:?}");
            }
        }
        assert!(number_of("hello").is_err());
    }

    #[test]
    fn frames_are_read_lightly() {
        let text = r#"[{"t":"ack","id":"5","seq":3,"message_id":"9"},
            {"t":"event","kind":"message","seq":4,"message":{"message":"7 x","seq":4}}]"#;
        let frames = read_light(text).unwrap();
        assert_eq!((frames[0].t, frames[0].id), ("ack", Some("5")));
        assert_eq!(frames[1].message.as_ref().unwrap().message, "7 x");
    }

    #[test]
    fn a_window_measures_its_own_part_only() {
        let times =
            Times { warm_up: Duration::from_millis(10), measured: Duration::from_millis(20) };
        let window = Window::begin(times);
        assert!(!window.holds(9_999) && window.holds(10_000) && !window.holds(30_000));
        assert!(!window.is_over(29_999) && window.is_over(30_000));
        window.stop();
        assert!(window.is_over(0));
    }
}
