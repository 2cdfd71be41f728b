//! The metrics of one server, in the text format of Prometheus. One registry per server, so that
//! several servers in one process do not share counters.

use parlor_core::stats::get;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::App;

/// Labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The path as the router knows it, never with ids.
    pub route: String,
    /// The status.
    pub status: u16,
}

/// What the doors count themselves; the rest is read from the core when asked.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from the head of a request to its answer.
    pub seconds: Option<Histogram>,
    /// Requests whose handler panicked.
    pub panics: Counter,
    /// Connections refused because their address had too many without a request.
    pub handshakes_refused: Counter,
    /// Breaches of the content policy that browsers reported.
    pub policy_reports: Counter,
}

impl Metrics {
    /// Makes the counters.
    pub fn new() -> Self {
        let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        Self { seconds: Some(Histogram::new(buckets)), ..Self::default() }
    }

    /// Writes everything.
    pub fn text(&self, app: &App) -> String {
        let mut registry = Registry::with_prefix("parlor");
        registry.register("http_requests", "Requests answered", self.requests.clone());
        if let Some(seconds) = &self.seconds {
            registry.register("http_request_seconds", "Time to answer", seconds.clone());
        }
        for (name, help, counter) in [
            ("request_panics", "Requests whose handler panicked", &self.panics),
            ("handshakes_refused", "Connections refused by address", &self.handshakes_refused),
            ("policy_reports", "Reported breaches of the content policy", &self.policy_reports),
        ] {
            registry.register(name, help, counter.clone());
        }
        let task_panics: Counter = Counter::default();
        task_panics.inc_by(app.tasks.panics());
        registry.register("task_panics", "Background tasks that panicked", task_panics);
        let (people, devices) = app.core.presence().online();
        for (name, help, value) in [
            ("connections", "Open sockets and polls", app.hub.len()),
            ("people_online", "People with a connection", people),
            ("devices_online", "Connections of people", devices),
            ("people_watched", "People whose presence is watched", app.core.presence().watched()),
        ] {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        }
        let (core, hub) = (app.core.stats(), &app.hub.stats);
        for (name, help, counter) in [
            ("messages_stored", "Messages stored", &core.messages_stored),
            ("events_stored", "Events stored", &core.events_stored),
            ("repeats", "Sends and other calls that repeated a key", &core.repeats),
            ("append_batches", "Batches written to the log", &core.batches),
            ("append_units", "Units in these batches", &core.units),
            ("append_failures", "Batches whose write failed", &core.batches_failed),
            ("append_overflows", "Appends refused by a full queue", &core.appends_overflowed),
            ("append_rechecks", "Appends decided anew", &core.appends_rechecked),
            ("receipts_reported", "Receipts reported", &core.receipts_reported),
            ("receipts_written", "Receipts written after merging", &core.receipts_written),
            ("receipt_failures", "Receipt batches whose write failed", &core.receipts_failed),
            ("receipt_overflows", "Receipts refused", &core.receipts_overflowed),
            ("rate_limited", "Calls refused by a rate limit", &core.rate_limited),
            ("resumes", "Connections greeted", &core.resumed),
            ("resets", "Connections told to start again", &core.resets),
            ("connections_opened", "Connections registered", &hub.opened),
            ("frames_queued", "Frames queued for connections", &hub.queued),
            ("events_folded", "Events folded into a gap for a slow reader", &hub.folded),
            ("ephemeral_lost", "Ephemeral frames that a slow reader lost", &hub.lost),
            ("queue_overflows", "Connections closed by a full queue", &hub.overflowed),
        ] {
            let total: Counter = Counter::default();
            total.inc_by(get(counter));
            registry.register(name, help, total);
        }
        let store = app.core.store_health();
        for (name, help, value) in [
            ("unreadable_rows", "Rows handed out as unknown events", store.unreadable_rows),
            ("store_failed_writes", "Writes that the disk or the file failed", store.failed_writes),
            ("store_failed_checks", "Checks that found the file damaged", store.failed_checks),
        ] {
            let total: Counter = Counter::default();
            total.inc_by(value);
            registry.register(name, help, total);
        }
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            tracing::error!("the metrics could not be written");
        }
        text
    }
}
