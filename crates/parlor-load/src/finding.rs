//! What a torture scenario found: judged recordings, figures with their bounds, and the verdict.

use std::{fmt, path::PathBuf};

use crate::{
    check::{Judgement, Verdict as Judged},
    latency::Figure,
    scenarios::Outcome,
};

/// What a scenario shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything held, and a fault would have shown.
    Holds,
    /// A promise was broken.
    Broken,
    /// Too little happened: a fault would not have shown.
    NoEvidence,
    /// The machine gives no right for it.
    Skipped,
}

impl Verdict {
    /// Returns the exit code of the command; 3 is for a run that failed by itself.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Holds => 0,
            Self::Broken => 1,
            Self::NoEvidence => 2,
            Self::Skipped => 4,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Holds => "holds",
            Self::Broken => "BROKEN",
            Self::NoEvidence => "NO EVIDENCE",
            Self::Skipped => "skipped",
        })
    }
}

/// What one scenario found.
#[derive(Debug, Default)]
pub struct Finding {
    /// Judged recordings, and where they are.
    pub judged: Vec<(Judgement, PathBuf)>,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What was broken beside the rules of the checker.
    pub broken: Vec<String>,
    /// What is missing for evidence.
    pub missing: Vec<String>,
    /// Why it, or a part of it, was not run.
    pub skipped: Vec<String>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

impl Finding {
    /// A scenario that cannot be run here.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self { skipped: vec![why.into()], ..Self::default() }
    }

    /// Returns what it shows.
    pub fn verdict(&self) -> Verdict {
        let is = |wanted| self.judged.iter().any(|(judgement, _)| judgement.verdict == wanted);
        if !self.broken.is_empty() || is(Judged::Broken) {
            Verdict::Broken
        } else if !self.missing.is_empty() || is(Judged::NoEvidence) {
            Verdict::NoEvidence
        } else if !self.skipped.is_empty() && self.judged.is_empty() && self.figures.is_empty() {
            Verdict::Skipped
        } else {
            Verdict::Holds
        }
    }

    /// Takes the judgement of a recording in.
    pub fn judge(&mut self, outcome: Outcome) {
        self.notes.extend(outcome.notes);
        self.judged.push((outcome.judgement, outcome.recording));
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &str) {
        self.figures.push(Figure::new(name, value, unit));
    }

    /// Adds a figure that breaks a promise when it is above its bound.
    pub fn at_most(&mut self, name: &str, value: f64, bound: f64, unit: &str) {
        if value.is_nan() || value > bound {
            self.broken.push(format!("{name}: {value:.3} {unit}, at most {bound:.3} {unit}"));
        }
        self.figure(name, value, unit);
    }

    /// Adds a figure of speed; its bound is judged in release builds, since figures of a debug build
    /// say nothing.
    pub fn fast_at_most(&mut self, name: &str, value: f64, bound: f64, unit: &str) {
        if cfg!(debug_assertions) && value > bound {
            self.notes.push(format!("{name} is above {bound:.1} {unit}: not judged, debug build"));
            self.figure(name, value, unit);
        } else {
            self.at_most(name, value, bound, unit);
        }
    }

    /// Adds a figure that breaks a promise when it is below its bound.
    pub fn at_least(&mut self, name: &str, value: f64, bound: f64, unit: &str) {
        if value.is_nan() || value < bound {
            self.broken.push(format!("{name}: {value:.3} {unit}, at least {bound:.3} {unit}"));
        }
        self.figure(name, value, unit);
    }

    /// Adds a count below which there is no evidence.
    pub fn evidence(&mut self, name: &str, count: u64, least: u64) {
        if count < least {
            self.missing.push(format!("{name}: {count}, at least {least}"));
        }
        #[expect(clippy::cast_precision_loss, reason = "a count for people")]
        self.figure(name, count as f64, "");
    }

    /// Returns the figures in one line.
    pub fn line(&self) -> String {
        let mut parts = Vec::new();
        for (judgement, _) in &self.judged {
            let counts = &judgement.counts;
            let broken: u64 = judgement.broken.values().map(|broken| broken.count).sum();
            parts.push(format!("{} acked, {} faults, {broken} broken", counts.ok, counts.faults));
        }
        parts.extend(self.figures.iter().map(figure_text));
        parts.extend(self.skipped.iter().map(|why| format!("skipped: {why}")));
        parts.join("; ")
    }
}

fn figure_text(figure: &Figure) -> String {
    let value = format!("{:.2}", figure.value);
    let value = value.trim_end_matches('0').trim_end_matches('.');
    format!("{} {value} {}", figure.name, figure.unit).trim_end().to_owned()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (judgement, path) in &self.judged {
            write!(f, "{judgement}")?;
            writeln!(f, "recording: {}", path.display())?;
        }
        for figure in &self.figures {
            writeln!(f, "figure: {}", figure_text(figure))?;
        }
        for (what, lines) in [
            ("note", &self.notes),
            ("BROKEN", &self.broken),
            ("missing", &self.missing),
            ("skipped", &self.skipped),
        ] {
            lines.iter().try_for_each(|line| writeln!(f, "{what}: {line}"))?;
        }
        writeln!(f, "verdict of the scenario: {}", self.verdict())
    }
}

impl From<Outcome> for Finding {
    fn from(outcome: Outcome) -> Self {
        let mut finding = Self::default();
        finding.judge(outcome);
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_breaks_a_missing_count_is_no_evidence_and_a_skip_never_holds() {
        let mut finding = Finding::default();
        assert_eq!(finding.verdict(), Verdict::Holds);
        finding.at_most("refusal", 1.9, 2.0, "s");
        finding.at_least("goodput", 0.95, 0.9, "");
        finding.evidence("acks", 10, 10);
        assert_eq!(finding.verdict(), Verdict::Holds);
        finding.evidence("cuts", 0, 1);
        assert_eq!(finding.verdict(), Verdict::NoEvidence);
        finding.at_most("healed", f64::NAN, 5.0, "s");
        assert_eq!(finding.verdict(), Verdict::Broken, "a figure that is none breaks");
        assert_eq!(Finding::skipped("no loop devices").verdict(), Verdict::Skipped);
        let codes = [Verdict::Holds, Verdict::Broken, Verdict::NoEvidence, Verdict::Skipped];
        assert_eq!(codes.map(Verdict::exit_code), [0, 1, 2, 4]);
    }
}
