//! A bus that carries nothing and remembers everything; for tests.

use parking_lot::Mutex;

use crate::ports::bus::{Bus, Hint};

/// Collects hints.
#[derive(Default)]
pub struct RecordingBus {
    hints: Mutex<Vec<Hint>>,
}

impl RecordingBus {
    /// Returns the hints since the last call, in order, and forgets them.
    pub fn take(&self) -> Vec<Hint> {
        std::mem::take(&mut *self.hints.lock())
    }

    /// Returns the number of hints that wait to be taken.
    pub fn n_waiting(&self) -> usize {
        self.hints.lock().len()
    }
}

impl Bus for RecordingBus {
    fn publish(&self, hint: Hint) {
        self.hints.lock().push(hint);
    }
}
