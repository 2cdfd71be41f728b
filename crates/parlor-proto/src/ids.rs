//! Every id type and `Seq`: one registry of newtypes, so that two kinds of id cannot be mixed up.
//!
//! Ids are 64-bit, time-ordered and positive; in JSON they are decimal strings, because JavaScript
//! loses integers above 2^53. Who makes them: `parlor-core/src/clock.rs`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Number of chat slots that a message id carries.
pub const CHAT_SLOTS: u64 = 1024;
/// Bits below the milliseconds: 10 of chat slot, 12 of node and counter.
pub const ID_LOW_BITS: u32 = 22;
/// Bits of node and counter.
pub const ID_COUNTER_BITS: u32 = 12;

/// Why a string is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is a decimal string between 1 and 9223372036854775807")
    }
}

impl std::error::Error for ParseIdError {}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw value; values above `i64::MAX` are never made by a server.
            pub const fn from_raw(raw: u64) -> Self {
                Self(raw)
            }

            /// Returns the raw 64-bit value, as engines store it.
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// Returns the milliseconds since the Unix epoch that the id carries.
            pub const fn millis(self) -> u64 {
                self.0 >> ID_LOW_BITS
            }

            /// Returns the chat slot that the id carries (0 to 1023).
            pub const fn slot(self) -> u64 {
                (self.0 >> ID_COUNTER_BITS) & (CHAT_SLOTS - 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_id(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(IdVisitor).map(Self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": "^[1-9][0-9]{0,18}$",
                    "description": "64-bit id as a decimal string",
                })
            }
        }
    )*};
}

ids! {
    /// A person or a bot.
    UserId;
    /// One signed-in device of a user.
    DeviceId;
    /// A chat of any type; its slot is the slot of all its messages.
    ChatId;
    /// An event in the log of a chat; for `message` events the id of the message.
    MessageId;
    /// An uploaded file.
    MediaId;
}

fn parse_id(text: &str) -> Result<u64, ParseIdError> {
    let digits = text.as_bytes();
    let shaped = (1..=19).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit)
        && digits.first() != Some(&b'0');
    if !shaped {
        return Err(ParseIdError);
    }
    match text.parse::<u64>() {
        Ok(raw) if i64::try_from(raw).is_ok() => Ok(raw),
        _ => Err(ParseIdError),
    }
}

struct IdVisitor;

impl de::Visitor<'_> for IdVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id as a decimal string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse_id(text).map_err(E::custom)
    }
}

/// A position in the log of a chat: 1, 2, 3, … without a hole (invariant I1); 0 is "before all".
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Seq(#[schemars(range(min = 0, max = 9007199254740991_u64))] u64);

impl Seq {
    /// The position before the first event.
    pub const ZERO: Self = Self(0);

    /// Wraps a position.
    pub const fn new(position: u64) -> Self {
        Self(position)
    }

    /// Returns the position as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns the position before this one; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The key that a client gives to a send, so that repeating it stores nothing new (invariant I3).
///
/// A UUIDv7 in canonical spelling keeps the key index append-only; any other string of 1 to 64
/// characters is a key too, comes back as it was sent, and takes the slower way.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct ClientId(#[schemars(length(min = 1, max = 64))] String);

impl ClientId {
    /// Checks and wraps a key.
    pub fn new(text: impl Into<String>) -> Result<Self, &'static str> {
        let text = text.into();
        if (1..=64).contains(&text.chars().count()) {
            Ok(Self(text))
        } else {
            Err("a client_id has 1 to 64 characters")
        }
    }

    /// Returns the key as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the bytes that engines index: 16 for a canonical UUID, else a zero byte and the text.
    ///
    /// The two forms cannot meet: a text form of 16 bytes starts with 0, a UUIDv7 of this age does not.
    pub fn key_bytes(&self) -> Vec<u8> {
        match uuid::Uuid::try_parse(&self.0) {
            Ok(uuid) if uuid.get_version_num() == 7 && uuid.hyphenated().to_string() == self.0 => {
                let bytes = uuid.as_bytes();
                if bytes.first() == Some(&0) && bytes.get(1) == Some(&0) {
                    self.text_key()
                } else {
                    bytes.to_vec()
                }
            }
            _ => self.text_key(),
        }
    }

    /// Returns the key that `key_bytes` encoded, or nothing if the bytes are not such a key.
    pub fn from_key_bytes(bytes: &[u8]) -> Option<Self> {
        if let Some((0, text)) = bytes.split_first().map(|(first, rest)| (*first, rest))
            && let Some((0, text)) = text.split_first().map(|(second, rest)| (*second, rest))
        {
            return String::from_utf8(text.to_vec()).ok().map(Self);
        }
        let uuid = uuid::Uuid::from_slice(bytes).ok()?;
        Some(Self(uuid.hyphenated().to_string()))
    }

    // Two zero bytes: the milliseconds of a UUIDv7 begin with them only until 1974.
    fn text_key(&self) -> Vec<u8> {
        let mut key = vec![0, 0];
        key.extend_from_slice(self.0.as_bytes());
        key
    }
}

impl<'de> Deserialize<'de> for ClientId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_largest_id_round_trips_as_a_string() {
        let id: ChatId = serde_json::from_str("\"9223372036854775807\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"9223372036854775807\"");
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for bad in ["", "0", "01", "-1", "+1", " 1", "1.0", "9223372036854775808", "１", "1e3"] {
            assert!(bad.parse::<UserId>().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<UserId>("17").is_err(), "a JSON number is not an id");
    }

    #[test]
    fn client_ids_come_back_as_they_were_sent() {
        for text in [
            "0190f5a0-7b6c-7abc-8def-0123456789ab",
            "0190F5A0-7B6C-7ABC-8DEF-0123456789AB",
            "x",
            "sixteen bytes ok",
            "ключ",
        ] {
            let id = ClientId::new(text).unwrap();
            assert_eq!(ClientId::from_key_bytes(&id.key_bytes()).unwrap().as_str(), text);
        }
        assert_eq!(
            ClientId::new("0190f5a0-7b6c-7abc-8def-0123456789ab").unwrap().key_bytes().len(),
            16
        );
        assert!(ClientId::new("").is_err());
        assert!(ClientId::new("x".repeat(65)).is_err());
    }
}
