//! Rate limits: how often somebody may do something.

use std::time::Duration;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rate {
    /// Messages and other appends of a user.
    Sends,
    /// Sign-ups from an address.
    SignUps,
    /// Sign-in tries for one account name.
    SignInsOfAccount,
    /// Sign-in tries from an address.
    SignInsFromAddress,
    /// Look-ups of people by name or id, by a user.
    LookUps,
    /// Typing, focus and watch frames of a user.
    Signals,
}

/// Counts and refuses; the same formula (GCRA) in every engine.
pub trait Rates: Send + Sync + 'static {
    /// Takes `cost` for `key`, or says how long to wait. Whoever is refused has spent nothing.
    fn take(&self, rate: Rate, key: &str, cost: u32) -> Result<(), Duration>;
}
