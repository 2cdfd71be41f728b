//! Devices: sign-in, sessions, tickets. `authenticate` is the only maker of a [`Caller`].

use std::sync::atomic::Ordering;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use parlor_proto::{
    DeviceId, Invalid, Time, UserId,
    accounts::{SignedIn, check_line, email_normal_form, username_skeleton},
    devices::{Device, Session, SignIn, Ticket, TicketRequest},
    frame::AccountEventBody,
    limits::DEVICE_NAME_CHARS,
};
use sha2::{Digest, Sha256};

use crate::{
    Caller, Core, Peer,
    accounts::{own_user, rate_address},
    error::{Error, Result},
    ports::{
        devices::{Device as StoredDevice, TokenHash},
        rates::Rate,
    },
    sealed::Purpose,
};

/// Makes leaked tokens findable by scanners.
const TOKEN_PREFIX: &str = "ps_";
/// Life of a ticket.
const TICKET_SECONDS: u64 = 30;
/// `last_used_at` is written at most this often.
const TOUCH_MS: u64 = 3_600_000;

/// A session at hand.
#[derive(Debug, Clone, Copy)]
pub struct KnownSession {
    pub(crate) caller: Caller,
    pub(crate) expires_at: Time,
    pub(crate) last_used_at: Time,
}

/// Tickets used within their life: each is good once.
#[derive(Default)]
pub struct UsedTickets(Mutex<std::collections::HashMap<[u8; 16], u64>>);

/// The actions on devices.
pub struct Devices<'a>(pub(crate) &'a Core);

impl Devices<'_> {
    /// Signs a device in. A wrong name and a wrong password get the same answer and the same work.
    pub async fn sign_in(&self, request: SignIn, peer: &Peer) -> Result<SignedIn> {
        let core = self.0;
        let login = request.login.trim();
        let (is_email, key) = match login.contains('@') {
            true => (true, email_normal_form(login)),
            false => (false, username_skeleton(login)),
        };
        core.rate(Rate::SignInsFromAddress, &rate_address(peer.address), 1)?;
        core.rate(Rate::SignInsOfAccount, &key, 1)?;
        let found = if is_email {
            core.ports.accounts.find_by_email(&key).await?
        } else {
            core.ports.accounts.find_by_username(&key).await?
        };
        let hash = found.as_ref().and_then(|account| account.password_hash.clone());
        let proven = core.ports.passwords.verify(request.password, hash).await?;
        match found {
            Some(account) if proven => {
                core.open_session(account.user_id, request.device_name).await
            }
            _ => Err(Error::BadCredentials),
        }
    }

    /// Finds out who calls, from a session token.
    pub async fn authenticate(&self, token: &str) -> Result<Caller> {
        let core = self.0;
        if !token.starts_with(TOKEN_PREFIX) {
            return Err(Error::Unauthenticated);
        }
        let token_hash: TokenHash = Sha256::digest(token.as_bytes()).into();
        let revocations = core.people.revocations.load(Ordering::Acquire);
        let now = core.now();
        let known = match core.people.sessions.get(&token_hash) {
            Some(known) => known,
            None => {
                let device = core.ports.devices.find(&token_hash).await?;
                let device = device.ok_or(Error::Unauthenticated)?;
                let account = core.account(device.user_id).await?;
                if account.deleted_at.is_some() {
                    return Err(Error::Unauthenticated);
                }
                KnownSession {
                    caller: Caller {
                        user_id: device.user_id,
                        device_id: device.device_id,
                        admin: account.admin,
                    },
                    expires_at: device.expires_at,
                    last_used_at: device.last_used_at,
                }
            }
        };
        let idle_ms = u64::try_from(core.settings.session_idle.as_millis()).unwrap_or(u64::MAX);
        let idle_end = known.last_used_at.millis().saturating_add(idle_ms);
        if now >= known.expires_at || now.millis() >= idle_end {
            return Err(Error::Unauthenticated);
        }
        let is_due = now.millis() >= known.last_used_at.millis().saturating_add(TOUCH_MS);
        let known = if is_due { KnownSession { last_used_at: now, ..known } } else { known };
        if is_due {
            core.ports.devices.touch(known.caller.device_id, now).await?;
        }
        core.people.sessions.insert(token_hash, known);
        // A session that ended meanwhile may have been dropped from the cache before it came back.
        if core.people.revocations.load(Ordering::Acquire) != revocations {
            core.people.sessions.invalidate(&token_hash);
            core.ports.devices.find(&token_hash).await?.ok_or(Error::Unauthenticated)?;
        }
        Ok(known.caller)
    }

    /// Lists the caller's devices, newest first.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Device>> {
        let devices = self.0.ports.devices.list(caller.user_id).await?;
        let view = |device: StoredDevice| Device {
            device_id: device.device_id,
            name: device.name,
            created_at: device.created_at,
            last_used_at: device.last_used_at,
            expires_at: device.expires_at,
            current: device.device_id == caller.device_id,
        };
        Ok(devices.into_iter().map(view).collect())
    }

    /// Signs one of the caller's devices out; its open connections close within a second.
    pub async fn revoke(&self, caller: &Caller, device_id: DeviceId) -> Result<()> {
        let core = self.0;
        if !core.ports.devices.remove(caller.user_id, device_id).await? {
            return Err(Error::NotFound);
        }
        core.forget_sessions(caller.user_id, vec![device_id]);
        let body = AccountEventBody::Device { device_id, added: false };
        core.append_own(caller.user_id, body).await
    }

    /// Gives the caller's device the name that its greeting had; one that could not be the name of a
    /// device changes nothing.
    pub async fn rename(&self, caller: &Caller, name: &str) -> Result<()> {
        if check_line("device_name", name, DEVICE_NAME_CHARS).is_err() {
            return Ok(());
        }
        // Read first: the same name at every greeting shall not cost a write.
        let devices = self.0.ports.devices.list(caller.user_id).await?;
        let is_own = |device: &&StoredDevice| device.device_id == caller.device_id;
        if devices.iter().find(is_own).is_some_and(|device| device.name != name) {
            let port = &self.0.ports.devices;
            port.rename(caller.user_id, caller.device_id, name.to_owned()).await?;
        }
        Ok(())
    }

    /// Makes a ticket for one `hello`, so that a browser's token never leaves its cookie.
    pub fn ticket(&self, caller: &Caller, request: &TicketRequest) -> Ticket {
        let core = self.0;
        let mut payload = Vec::with_capacity(42);
        let mut nonce = [0; 16];
        core.ports.random.fill(&mut nonce);
        let end = core.now().millis() + TICKET_SECONDS * 1_000;
        payload.extend_from_slice(&nonce);
        payload.extend_from_slice(&end.to_be_bytes());
        payload.extend_from_slice(&caller.user_id.raw().to_be_bytes());
        payload.extend_from_slice(&caller.device_id.raw().to_be_bytes());
        payload.push(u8::from(caller.admin));
        payload.push(u8::from(request.cursor.is_some()));
        Ticket { ticket: core.sealer.seal(Purpose::Ticket, &payload), expires_in: TICKET_SECONDS }
    }

    /// Finds out who calls, from a ticket; each is good once.
    pub async fn redeem(&self, ticket: &str) -> Result<Caller> {
        let core = self.0;
        let payload = core.sealer.open(Purpose::Ticket, ticket).ok_or(Error::Unauthenticated)?;
        let (nonce, end, user_id, device_id, admin) =
            read_ticket(&payload).ok_or(Error::Unauthenticated)?;
        let now = core.now().millis();
        if now >= end || !core.tickets.use_once(nonce, end, now) {
            return Err(Error::Unauthenticated);
        }
        let caller = Caller { user_id, device_id, admin };
        // The session may have been revoked since the ticket was made.
        if self.is_signed_in(&caller).await? { Ok(caller) } else { Err(Error::Unauthenticated) }
    }

    /// Tells whether the caller's session was not revoked, by the store and no cache.
    pub async fn is_signed_in(&self, caller: &Caller) -> Result<bool> {
        let devices = self.0.ports.devices.list(caller.user_id).await?;
        Ok(devices.iter().any(|device| device.device_id == caller.device_id))
    }
}

impl UsedTickets {
    fn use_once(&self, nonce: [u8; 16], end: u64, now: u64) -> bool {
        let mut used = self.0.lock();
        if used.len() >= 1_024 {
            used.retain(|_, end| *end > now);
        }
        used.insert(nonce, end).is_none()
    }
}

fn read_ticket(payload: &[u8]) -> Option<([u8; 16], u64, UserId, DeviceId, bool)> {
    let (nonce, rest) = payload.split_first_chunk::<16>()?;
    let (end, rest) = rest.split_first_chunk::<8>()?;
    let (user_id, rest) = rest.split_first_chunk::<8>()?;
    let (device_id, rest) = rest.split_first_chunk::<8>()?;
    let [admin, _] = rest else { return None };
    Some((
        *nonce,
        u64::from_be_bytes(*end),
        UserId::from_raw(u64::from_be_bytes(*user_id)),
        DeviceId::from_raw(u64::from_be_bytes(*device_id)),
        *admin == 1,
    ))
}

impl Core {
    /// Opens a session for a proven user: a new token, a new device.
    pub(crate) async fn open_session(
        &self,
        user_id: UserId,
        device_name: Option<String>,
    ) -> Result<SignedIn> {
        let name = device_name.unwrap_or_else(|| "Unnamed device".to_owned());
        check_line("device_name", &name, DEVICE_NAME_CHARS).map_err(|invalid: Invalid| invalid)?;
        let account = self.account(user_id).await?;
        let mut secret = [0; 32];
        self.ports.random.fill(&mut secret);
        let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        let now = self.now();
        let absolute =
            u64::try_from(self.settings.session_absolute.as_millis()).unwrap_or(u64::MAX);
        let expires_at = Time::from_millis(now.millis().saturating_add(absolute));
        let device = StoredDevice {
            device_id: self.ports.ids.device_id(),
            user_id,
            name,
            token_hash: Sha256::digest(token.as_bytes()).into(),
            created_at: now,
            last_used_at: now,
            expires_at,
        };
        let device_id = device.device_id;
        self.ports.devices.put(device).await?;
        self.append_own(user_id, AccountEventBody::Device { device_id, added: true }).await?;
        Ok(SignedIn {
            user: own_user(&account),
            session: Session { token: Some(token), device_id, expires_at },
        })
    }
}
