//! Sealed tokens: values that a client carries and cannot make or change (cursor, ticket), and
//! keyed digests.
//!
//! Form: version, purpose, payload, HMAC-SHA-256; one fixed algorithm, one key per purpose;
//! whatever is wrong with a token is refused alike.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A resume position.
    Cursor = 1,
    /// A one-time socket ticket.
    Ticket = 2,
    /// A position in a list.
    Page = 3,
    /// The digest of a request, for its idempotency key.
    Request = 4,
}

/// Seals and opens with keys derived from one master key.
pub struct Sealer {
    keys: [[u8; 32]; 4],
}

impl Sealer {
    /// Derives the keys.
    pub fn new(secret: &[u8; 32]) -> Self {
        let key = |purpose: u8| {
            let mut hash = Sha256::new();
            hash.update(b"parlor key v1");
            hash.update(secret);
            hash.update([purpose]);
            hash.finalize().into()
        };
        Self { keys: [key(1), key(2), key(3), key(4)] }
    }

    /// Returns the token of a payload.
    pub fn seal(&self, purpose: Purpose, payload: &[u8]) -> String {
        let mut bytes = vec![VERSION, purpose as u8];
        bytes.extend_from_slice(payload);
        let mac = self.mac(purpose, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the payload of a token that this server sealed for this purpose.
    pub fn open(&self, purpose: Purpose, token: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signed, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        self.mac(purpose, signed).verify_slice(mac).ok()?;
        match signed {
            [VERSION, kind, payload @ ..] if *kind == purpose as u8 => Some(payload.to_vec()),
            _ => None,
        }
    }

    /// Returns a keyed digest of a request, short because it only has to tell bodies apart.
    pub fn digest(&self, bytes: &[u8]) -> [u8; 8] {
        let mac = self.mac(Purpose::Request, bytes).finalize().into_bytes();
        let mut digest = [0; 8];
        digest.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        digest
    }

    fn mac(&self, purpose: Purpose, bytes: &[u8]) -> Hmac<Sha256> {
        let key = match purpose {
            Purpose::Cursor => &self.keys[0],
            Purpose::Ticket => &self.keys[1],
            Purpose::Page => &self.keys[2],
            Purpose::Request => &self.keys[3],
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        mac.update(bytes);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_for_this_purpose_opens() {
        let sealer = Sealer::new(&[7; 32]);
        let token = sealer.seal(Purpose::Cursor, b"position");
        assert_eq!(sealer.open(Purpose::Cursor, &token).as_deref(), Some(&b"position"[..]));
        assert_eq!(sealer.open(Purpose::Ticket, &token), None);
        assert_eq!(Sealer::new(&[8; 32]).open(Purpose::Cursor, &token), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let sealer = Sealer::new(&[7; 32]);
        let token = sealer.seal(Purpose::Cursor, b"position");
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(sealer.open(Purpose::Cursor, &URL_SAFE_NO_PAD.encode(&bad)), None);
        }
        for cut in 0..token.len() {
            assert_eq!(sealer.open(Purpose::Cursor, &token[..cut]), None);
        }
        for junk in ["", "x", "not base64!", &format!("{token}x"), &format!("{token}=")] {
            assert_eq!(sealer.open(Purpose::Cursor, junk), None);
        }
    }
}
