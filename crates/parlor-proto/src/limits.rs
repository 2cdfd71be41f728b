//! Every number of the contract. All are configurable; these are the defaults.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a server accepts; sent to clients in `welcome.limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of UTF-8 in the text of one message.
    pub message_bytes: u32,
    /// Bytes of one frame from a client.
    pub frame_bytes: u32,
    /// Messages in one batch call and frames in one array.
    pub batch: u32,
    /// Attachments of one message.
    pub attachments: u32,
    /// Items of one page.
    pub page: u32,
    /// Characters of a chat title.
    pub title_chars: u32,
    /// Characters of a chat topic.
    pub topic_chars: u32,
    /// Characters of a username.
    pub username_chars: u32,
    /// Members of one group.
    pub group_members: u32,
    /// Sends per second and user, on average.
    pub sends_per_second: u32,
    /// Sends that may come at once.
    pub sends_burst: u32,
    /// Sockets of one user; the oldest is closed above it.
    pub connections_per_user: u32,
    /// People whose presence one socket may watch.
    pub watch: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 16 * 1024,
            frame_bytes: 64 * 1024,
            batch: 100,
            attachments: 10,
            page: 200,
            title_chars: 100,
            topic_chars: 500,
            username_chars: 50,
            group_members: 1_000,
            sends_per_second: 20,
            sends_burst: 100,
            connections_per_user: 10,
            watch: 500,
        }
    }
}

/// Messages of a page when no `limit` is given.
pub const DEFAULT_PAGE: u32 = 50;
/// Bytes of a JSON body unless a route says otherwise.
pub const BODY_BYTES: usize = 1024 * 1024;
/// Bytes of the body of the batch route.
pub const BATCH_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Depth of nesting that a JSON text may have.
pub const JSON_DEPTH: usize = 16;
/// Kinds of reaction on one message.
pub const REACTION_KINDS: usize = 50;
/// User ids listed for one reaction.
pub const REACTION_USERS: usize = 20;
/// Characters of a frame's `id`.
pub const FRAME_ID_CHARS: usize = 64;
/// Characters of an email address (RFC 5321 gives 254 octets; the field allows 255).
pub const EMAIL_CHARS: usize = 255;
/// Characters of a display name.
pub const DISPLAY_NAME_CHARS: usize = 100;
/// Characters of a device name.
pub const DEVICE_NAME_CHARS: usize = 100;
/// Fewest and most characters of a password.
pub const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=256;
/// Bytes of a reaction: a few emoji joined by zero-width joiners fit.
pub const EMOJI_BYTES: usize = 64;
