//! The ids that a client makes: the UUIDv7 of each send.

use parlor_proto::ClientId;

use crate::random::Random;

/// Makes `client_id`s: UUIDv7, rising within one maker, so that the server's key index is an append.
#[derive(Debug)]
pub struct ClientIds {
    random: Random,
    last_ms: u64,
    counter: u16,
}

impl ClientIds {
    /// Starts a maker.
    pub const fn new(random: Random) -> Self {
        Self { random, last_ms: 0, counter: 0 }
    }

    /// Makes the next id; a clock that steps back does not make ids step back.
    pub fn next(&mut self, wall_ms: u64) -> ClientId {
        if wall_ms > self.last_ms {
            self.last_ms = wall_ms;
            // The upper half of the 12-bit counter stays free for this millisecond.
            self.counter = u16::try_from(self.random.below(0x800)).unwrap_or(0);
        } else if self.counter < 0xfff {
            self.counter += 1;
        } else {
            self.last_ms += 1;
            self.counter = 0;
        }
        let [high, low] = self.counter.to_be_bytes();
        let [a, b, c, d, e, f, g, h] = self.random.bits().to_be_bytes();
        let uuid = uuid::Builder::from_unix_timestamp_millis(
            self.last_ms,
            &[high, low, a, b, c, d, e, f, g, h],
        )
        .into_uuid();
        ClientId::new(uuid.hyphenated().to_string()).expect("a UUID has 36 characters")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_canonical_version_seven_and_rise_even_when_the_clock_steps_back() {
        let mut ids = ClientIds::new(Random::from_seed(1));
        let mut last = String::new();
        for step in 0..20_000_u64 {
            let id = ids.next(if step == 10_000 { 5 } else { 1_764_000_000_000 + step / 5_000 });
            assert_eq!(id.key_bytes().len(), 16, "{id} is a canonical UUIDv7");
            assert!(id.as_str() > last.as_str(), "{id} after {last}");
            last = id.as_str().to_owned();
        }
    }
}
