//! Latencies as histograms, and the figures of a report.

use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Shards keep clients from waiting for each other while they record.
const SHARDS: usize = 8;
/// One minute; what takes longer is counted as that.
const MOST_US: u64 = 60_000_000;

/// Latencies of many clients, in microseconds.
#[derive(Debug)]
pub struct Latencies(Vec<Mutex<Histogram<u64>>>);

impl Default for Latencies {
    fn default() -> Self {
        let empty = || Histogram::new_with_bounds(1, MOST_US, 3).expect("the bounds are valid");
        Self((0..SHARDS).map(|_| Mutex::new(empty())).collect())
    }
}

impl Latencies {
    /// Records one latency; `client` only spreads the work.
    pub fn record(&self, client: usize, micros: u64) {
        if let Some(shard) = self.0.get(client % SHARDS) {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.saturating_record(micros.max(1));
        }
    }

    /// Sums up what was recorded.
    pub fn summary(&self) -> Summary {
        let mut whole = Histogram::<u64>::new_with_bounds(1, MOST_US, 3).expect("valid bounds");
        for shard in &self.0 {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            whole.add(&*shard).expect("all shards have the same bounds");
        }
        Summary {
            count: whole.len(),
            p50_us: whole.value_at_quantile(0.5),
            p99_us: whole.value_at_quantile(0.99),
            p999_us: whole.value_at_quantile(0.999),
            max_us: whole.max(),
        }
    }
}

/// Percentiles of one kind of latency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Half of them are not above this.
    pub p50_us: u64,
    /// 99 % are not above this.
    pub p99_us: u64,
    /// 99.9 % are not above this.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Summary {
    /// Turns the percentiles into figures named after `what`.
    pub fn figures(&self, what: &str) -> Vec<Figure> {
        let of = |name: &str, micros: u64| Figure::new(format!("{what} {name}"), ms(micros), "ms");
        vec![
            of("p50", self.p50_us),
            of("p99", self.p99_us),
            of("p99.9", self.p999_us),
            of("max", self.max_us),
        ]
    }
}

/// One figure of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
}

impl Figure {
    /// Names a figure.
    pub fn new(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { name: name.into(), value, unit: unit.to_owned() }
    }
}

/// Turns microseconds into milliseconds.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// Divides counts; 0 by 0 is 0.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn ratio(of: u64, to: u64) -> f64 {
    if to == 0 { 0.0 } else { of as f64 / to as f64 }
}

/// Returns how many in a second.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn per_second(count: u64, micros: u64) -> f64 {
    if micros == 0 { 0.0 } else { count as f64 * 1_000_000.0 / micros as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_from_all_shards() {
        let latencies = Latencies::default();
        for micros in 1..=1_000 {
            latencies.record(usize::try_from(micros).unwrap_or(0), micros * 100);
        }
        let summary = latencies.summary();
        assert_eq!(summary.count, 1_000);
        let near = |value: u64, wanted: u64| value.abs_diff(wanted) * 500 <= wanted;
        assert!(near(summary.p50_us, 50_000) && near(summary.p99_us, 99_000), "{summary:?}");
        assert!(near(summary.max_us, 100_000));
        assert_eq!(summary.figures("x").len(), 4);
        assert!((per_second(500, 250_000) - 2_000.0).abs() < 1e-9);
    }
}
