//! Devices: sessions, tokens and the one-time tickets of sockets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ids::DeviceId, time::Time};

/// Body of `POST /api/v1/sessions`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// Username or email address.
    pub login: String,
    /// The password.
    pub password: String,
    /// Shown in the list of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
}

/// A session of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// The secret, said once; absent where the answer set a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The device.
    pub device_id: DeviceId,
    /// When it ends at the latest.
    pub expires_at: Time,
}

/// One signed-in device of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// The device.
    pub device_id: DeviceId,
    /// Name given at sign-in.
    pub name: String,
    /// When it signed in.
    pub created_at: Time,
    /// When it was last used, to the hour.
    pub last_used_at: Time,
    /// When its session ends at the latest.
    pub expires_at: Time,
    /// The device that asks.
    pub current: bool,
}

/// Answer of `GET /api/v1/sessions`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DeviceList {
    /// The devices, newest first.
    pub items: Vec<Device>,
    /// Cursor of the next page; always null.
    pub next: Option<String>,
}

/// Body of `POST /api/v1/ws/tickets`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TicketRequest {
    /// The resume position of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A ticket for one `hello`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Ticket {
    /// Good for one use.
    pub ticket: String,
    /// Seconds until it ends.
    pub expires_in: u64,
}

/// Answer of `GET /api/v1/gateway`: where to connect.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Gateway {
    /// The address of the socket.
    pub url: String,
    /// The node that answers.
    pub node: String,
    /// Names of what is newer than version 1.
    pub features: Vec<String>,
}
