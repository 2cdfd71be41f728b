//! Rate limits of one node, kept in memory: GCRA by the library `governor`, over the own clock.

use std::{
    num::NonZeroU32,
    ops::Add,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    RateLimiter, clock as governor_clock, middleware::NoOpMiddleware, nanos::Nanos,
    state::keyed::DashMapStateStore,
};

use crate::ports::{
    clock::Clock,
    rates::{Rate, Rates},
};

/// Old keys are looked for once in so many calls.
const SHRINK_EVERY: u64 = 10_000;

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many come back in a period.
    pub per_period: u32,
    /// The period.
    pub period: Duration,
    /// How many may be taken at once.
    pub burst: u32,
}

impl Quota {
    /// So many a second, and so many at once.
    pub const fn per_second(per_period: u32, burst: u32) -> Self {
        Self { per_period, period: Duration::from_secs(1), burst }
    }

    /// So many a minute, and so many at once.
    pub const fn per_minute(per_period: u32, burst: u32) -> Self {
        Self { per_period, period: Duration::from_secs(60), burst }
    }

    /// So many an hour, and so many at once.
    pub const fn per_hour(per_period: u32, burst: u32) -> Self {
        Self { per_period, period: Duration::from_secs(3_600), burst }
    }
}

/// The quota of each [`Rate`]; `None` or a zero is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateQuotas {
    /// See [`Rate::Sends`].
    pub sends: Option<Quota>,
    /// See [`Rate::SignUps`].
    pub sign_ups: Option<Quota>,
    /// See [`Rate::SignInsOfAccount`].
    pub sign_ins_of_account: Option<Quota>,
    /// See [`Rate::SignInsFromAddress`].
    pub sign_ins_from_address: Option<Quota>,
    /// See [`Rate::LookUps`].
    pub look_ups: Option<Quota>,
    /// See [`Rate::Signals`].
    pub signals: Option<Quota>,
}

impl Default for RateQuotas {
    fn default() -> Self {
        Self {
            sends: Some(Quota::per_second(20, 100)),
            sign_ups: Some(Quota::per_hour(10, 10)),
            sign_ins_of_account: Some(Quota::per_minute(10, 10)),
            sign_ins_from_address: Some(Quota::per_minute(60, 100)),
            look_ups: Some(Quota::per_minute(60, 60)),
            signals: Some(Quota::per_second(10, 50)),
        }
    }
}

impl RateQuotas {
    /// Limits nothing; for load tests.
    pub const fn off() -> Self {
        Self {
            sends: None,
            sign_ups: None,
            sign_ins_of_account: None,
            sign_ins_from_address: None,
            look_ups: None,
            signals: None,
        }
    }
}

/// Counts in the memory of this node.
pub struct MemoryRates {
    sends: Option<Limiter>,
    sign_ups: Option<Limiter>,
    sign_ins_of_account: Option<Limiter>,
    sign_ins_from_address: Option<Limiter>,
    look_ups: Option<Limiter>,
    signals: Option<Limiter>,
}

impl MemoryRates {
    /// Makes the counters.
    pub fn new(clock: &Arc<dyn Clock>, quotas: &RateQuotas) -> Self {
        let limiter = |quota: Option<Quota>| Limiter::new(quota?, clock);
        Self {
            sends: limiter(quotas.sends),
            sign_ups: limiter(quotas.sign_ups),
            sign_ins_of_account: limiter(quotas.sign_ins_of_account),
            sign_ins_from_address: limiter(quotas.sign_ins_from_address),
            look_ups: limiter(quotas.look_ups),
            signals: limiter(quotas.signals),
        }
    }
}

impl Rates for MemoryRates {
    fn take(&self, rate: Rate, key: &str, cost: u32) -> Result<(), Duration> {
        let limiter = match rate {
            Rate::Sends => &self.sends,
            Rate::SignUps => &self.sign_ups,
            Rate::SignInsOfAccount => &self.sign_ins_of_account,
            Rate::SignInsFromAddress => &self.sign_ins_from_address,
            Rate::LookUps => &self.look_ups,
            Rate::Signals => &self.signals,
        };
        limiter.as_ref().map_or(Ok(()), |limiter| limiter.take(key, cost))
    }
}

type Keyed = RateLimiter<
    String,
    DashMapStateStore<String>,
    GovernorClock,
    NoOpMiddleware<<GovernorClock as governor_clock::Clock>::Instant>,
>;

struct Limiter {
    keyed: Keyed,
    clock: GovernorClock,
    /// One comes back after this.
    one_in: Duration,
    calls: AtomicU64,
}

impl Limiter {
    fn new(quota: Quota, clock: &Arc<dyn Clock>) -> Option<Self> {
        let burst = NonZeroU32::new(quota.burst)?;
        let one_in = quota.period.checked_div(quota.per_period)?;
        let quota = governor::Quota::with_period(one_in)?.allow_burst(burst);
        let clock = GovernorClock(clock.clone());
        let keyed = RateLimiter::new(quota, DashMapStateStore::default(), clock.clone());
        Some(Self { keyed, clock, one_in, calls: AtomicU64::new(0) })
    }

    fn take(&self, key: &str, cost: u32) -> Result<(), Duration> {
        if self.calls.fetch_add(1, Ordering::Relaxed) % SHRINK_EVERY == SHRINK_EVERY - 1 {
            // A key whose quota is full again says nothing that a new one would not say.
            self.keyed.retain_recent();
            self.keyed.shrink_to_fit();
        }
        let Some(cost) = NonZeroU32::new(cost) else { return Ok(()) };
        match self.keyed.check_key_n(&key.to_owned(), cost) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                Err(not_until.wait_time_from(governor_clock::Clock::now(&self.clock)))
            }
            // More than the burst: it never fits; the wait is what it would cost.
            Err(_) => Err(self.one_in.saturating_mul(cost.get())),
        }
    }
}

/// The own clock, as the library wants it.
#[derive(Clone)]
struct GovernorClock(Arc<dyn Clock>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Monotonic(u64);

impl governor_clock::Clock for GovernorClock {
    type Instant = Monotonic;

    fn now(&self) -> Monotonic {
        Monotonic(u64::try_from(self.0.monotonic().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Add<Nanos> for Monotonic {
    type Output = Self;

    fn add(self, other: Nanos) -> Self {
        Self(self.0.saturating_add(other.as_u64()))
    }
}

impl governor_clock::Reference for Monotonic {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.saturating_sub(duration.as_u64()))
    }
}

#[cfg(test)]
mod tests {
    use parlor_proto::Time;

    use super::*;
    use crate::clock::ManualClock;

    fn rates() -> (MemoryRates, ManualClock) {
        let manual = ManualClock::at(Time::from_millis(0));
        let clock: Arc<dyn Clock> = Arc::new(manual.clone());
        let quotas = RateQuotas { sends: Some(Quota::per_second(2, 4)), ..RateQuotas::off() };
        (MemoryRates::new(&clock, &quotas), manual)
    }

    #[test]
    fn a_burst_is_allowed_and_then_waits_for_the_period() {
        let (rates, clock) = rates();
        for _ in 0..4 {
            assert_eq!(rates.take(Rate::Sends, "ann", 1), Ok(()));
        }
        assert_eq!(rates.take(Rate::Sends, "ann", 1), Err(Duration::from_millis(500)));
        assert_eq!(rates.take(Rate::Sends, "bob", 1), Ok(()), "another key is not touched");
        clock.advance(Duration::from_millis(500));
        assert_eq!(rates.take(Rate::Sends, "ann", 1), Ok(()));
    }

    #[test]
    fn whoever_is_refused_has_spent_nothing() {
        let (rates, _clock) = rates();
        assert_eq!(rates.take(Rate::Sends, "ann", 3), Ok(()));
        assert_eq!(rates.take(Rate::Sends, "ann", 2), Err(Duration::from_millis(500)));
        assert_eq!(rates.take(Rate::Sends, "ann", 1), Ok(()));
        assert_eq!(rates.take(Rate::Sends, "bob", 5), Err(Duration::from_millis(2_500)));
    }

    #[test]
    fn what_has_no_quota_is_free() {
        let (rates, _clock) = rates();
        for _ in 0..1_000 {
            assert_eq!(rates.take(Rate::SignUps, "::1", 1), Ok(()));
        }
    }

    #[test]
    fn keys_at_rest_are_forgotten() {
        let (rates, clock) = rates();
        for key in 0..SHRINK_EVERY - 1 {
            assert_eq!(rates.take(Rate::Sends, &key.to_string(), 1), Ok(()));
        }
        clock.advance(Duration::from_secs(60));
        assert_eq!(rates.take(Rate::Sends, "last", 1), Ok(()));
        assert_eq!(rates.sends.map(|limiter| limiter.keyed.len()), Some(1));
    }
}
