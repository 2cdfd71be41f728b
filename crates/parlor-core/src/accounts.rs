//! Accounts: sign-up, profile, privacy, deletion; and the cache of people.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;
use parlor_proto::{
    ErrorCode, Invalid, UserId,
    accounts::{
        AccountDeletion, ManagedUser, Privacy, SignUp, SignedIn, User, UserPatch,
        check_display_name, check_email, check_password_length, check_username, email_normal_form,
        username_skeleton,
    },
    frame::AccountEventBody,
};

use crate::{
    Caller, Core, Peer, delivery,
    devices::KnownSession,
    error::{Error, Result},
    ports::{
        accounts::{Account, AccountUpdate, PutAccount, UpdateAccount},
        bus::Hint,
        devices::TokenHash,
        rates::Rate,
    },
};

/// Exceptions of one privacy rule.
const MAX_EXCEPTIONS: usize = 1_000;

/// People and sessions used lately. Every change drops what it touches.
pub struct PeopleCache {
    accounts: Cache<UserId, Arc<Account>>,
    pub(crate) sessions: Cache<TokenHash, KnownSession>,
    /// Rises after sessions left the store and before they leave the cache.
    pub(crate) revocations: AtomicU64,
}

impl Default for PeopleCache {
    fn default() -> Self {
        let sessions = Cache::builder().max_capacity(100_000);
        // Also bounds how long a session known here outlives a lost revocation of another node.
        let sessions =
            sessions.time_to_live(Duration::from_secs(300)).support_invalidation_closures();
        Self {
            accounts: Cache::new(100_000),
            sessions: sessions.build(),
            revocations: AtomicU64::new(0),
        }
    }
}

/// The actions on accounts.
pub struct Accounts<'a>(pub(crate) &'a Core);

impl Accounts<'_> {
    /// Makes an account and signs its first device in. The first account is the administrator's.
    pub async fn sign_up(&self, request: SignUp, peer: &Peer) -> Result<SignedIn> {
        let core = self.0;
        core.rate(Rate::SignUps, &rate_address(peer.address), 1)?;
        check_username(&request.username, &core.settings.limits)?;
        check_email(&request.email)?;
        check_password_length("password", &request.password)?;
        let display_name = request.display_name.unwrap_or_else(|| request.username.clone());
        check_display_name(&display_name)?;
        check_strength("password", &request.password, &[&request.username, &request.email])?;
        self.check_open(request.invite.as_deref(), peer).await?;
        let password_hash = core.ports.passwords.hash(request.password).await?;
        let account = Account {
            user_id: core.ports.ids.user_id(),
            username_key: username_skeleton(&request.username),
            username: request.username,
            email_key: Some(email_normal_form(&request.email)),
            email: Some(request.email),
            display_name,
            password_hash: Some(password_hash),
            admin: false,
            privacy: Privacy::default(),
            created_at: core.now(),
            last_seen: None,
            deleted_at: None,
        };
        let user_id = account.user_id;
        put(core, account).await?;
        core.open_session(user_id, request.device_name).await
    }

    /// Returns the caller's own account.
    pub async fn me(&self, caller: &Caller) -> Result<User> {
        Ok(own_user(&*self.0.account(caller.user_id).await?))
    }

    /// Changes the caller's own account.
    pub async fn update(&self, caller: &Caller, patch: UserPatch) -> Result<User> {
        let core = self.0;
        let account = core.account(caller.user_id).await?;
        let mut update = AccountUpdate::default();
        if let Some(name) = patch.display_name {
            check_display_name(&name)?;
            update.display_name = Some(name);
        }
        if let Some(email) = patch.email {
            check_email(&email)?;
            let key = email_normal_form(&email);
            update.email = Some((email, key));
        }
        if let Some(patch) = patch.privacy {
            let old = &account.privacy;
            let privacy = Privacy {
                online: patch.online.unwrap_or_else(|| old.online.clone()),
                last_seen: patch.last_seen.unwrap_or_else(|| old.last_seen.clone()),
                receipts: patch.receipts.unwrap_or_else(|| old.receipts.clone()),
            };
            let rules = [&privacy.online, &privacy.last_seen, &privacy.receipts];
            if rules.iter().any(|rule| rule.except.len() > MAX_EXCEPTIONS) {
                let detail = format!("a rule has at most {MAX_EXCEPTIONS} exceptions");
                return Err(Invalid::new("privacy", detail).into());
            }
            update.privacy = Some(privacy);
        }
        let changes_privacy = update.privacy.is_some();
        let changes_password = patch.password.is_some();
        if let Some(change) = patch.password {
            self.prove(caller, &account, change.current, "password.current").await?;
            check_password_length("password.new", &change.new)?;
            check_strength("password.new", &change.new, &[&account.username])?;
            update.password_hash = Some(core.ports.passwords.hash(change.new).await?);
        }
        if update == AccountUpdate::default() {
            return Ok(own_user(&account));
        }
        match core.ports.accounts.update(caller.user_id, update, core.now()).await? {
            UpdateAccount::Updated => {}
            UpdateAccount::Missing => return Err(Error::Unauthenticated),
            UpdateAccount::EmailTaken => return Err(email_taken()),
        }
        core.people.accounts.invalidate(&caller.user_id);
        let mut gone = Vec::new();
        if changes_password {
            let port = &core.ports.devices;
            gone = port.remove_others(caller.user_id, Some(caller.device_id)).await?;
            core.forget_sessions(caller.user_id, gone.clone());
        }
        if changes_privacy {
            core.presence().privacy_changed(caller.user_id, &account.privacy).await;
        }
        // The stream already holds the step; the newest is told to the devices that are connected,
        // and whoever lacks one before it reads that (`Session::own_between`).
        let head = core.ports.accounts.own_head(caller.user_id).await?;
        let steps = core.ports.accounts.own_events(caller.user_id, head.prev(), 1).await?;
        for step in steps {
            delivery::deliver_own(&*core.ports.bus, caller.user_id, step);
        }
        for device_id in gone {
            let body = AccountEventBody::Device { device_id, added: false };
            core.append_own(caller.user_id, body).await?;
        }
        self.me(caller).await
    }

    /// Shuts the caller's account at once: name, address and password are erased, sessions end.
    pub async fn remove(&self, caller: &Caller, request: AccountDeletion) -> Result<()> {
        let core = self.0;
        let account = core.account(caller.user_id).await?;
        self.prove(caller, &account, request.password, "password").await?;
        let devices = core.ports.devices.list(caller.user_id).await?;
        core.ports.accounts.remove(caller.user_id, core.now()).await?;
        core.people.accounts.invalidate(&caller.user_id);
        let gone = devices.into_iter().map(|device| device.device_id).collect();
        core.forget_sessions(caller.user_id, gone);
        Ok(())
    }

    /// Returns somebody's profile; people without a common chat cost a look-up.
    pub async fn profile(&self, caller: &Caller, user_id: UserId) -> Result<User> {
        let core = self.0;
        if user_id == caller.user_id {
            return self.me(caller).await;
        }
        if !core.relation(caller.user_id, user_id).await?.shares_chat {
            core.rate(Rate::LookUps, &caller.user_id.to_string(), 1)?;
        }
        Ok(public_user(&*core.account(user_id).await?))
    }

    /// Finds a person by exact name: one or none.
    pub async fn find(&self, caller: &Caller, username: &str) -> Result<Vec<User>> {
        let core = self.0;
        check_username(username, &core.settings.limits)?;
        core.rate(Rate::LookUps, &caller.user_id.to_string(), 1)?;
        let found = core.ports.accounts.find_by_username(&username_skeleton(username)).await?;
        Ok(found.iter().map(public_user).collect())
    }

    /// Makes an account without a password, for an application that embeds Parlor.
    pub async fn create_managed(&self, caller: &Caller, request: ManagedUser) -> Result<User> {
        let core = self.0;
        check_admin(caller)?;
        check_username(&request.username, &core.settings.limits)?;
        let display_name = request.display_name.unwrap_or_else(|| request.username.clone());
        check_display_name(&display_name)?;
        let account = Account {
            user_id: core.ports.ids.user_id(),
            username_key: username_skeleton(&request.username),
            username: request.username,
            email: None,
            email_key: None,
            display_name,
            password_hash: None,
            admin: false,
            privacy: Privacy::default(),
            created_at: core.now(),
            last_seen: None,
            deleted_at: None,
        };
        put(core, account.clone()).await?;
        Ok(public_user(&account))
    }

    /// Opens a session for an account without a password.
    pub async fn open_managed_session(&self, caller: &Caller, user_id: UserId) -> Result<SignedIn> {
        check_admin(caller)?;
        let account = self.0.account(user_id).await?;
        if account.password_hash.is_some() || account.deleted_at.is_some() {
            return Err(Error::forbidden("only accounts without a password are opened this way"));
        }
        self.0.open_session(user_id, None).await
    }

    /// Tells whether no account exists yet, so that the next sign-up is the administrator's.
    pub async fn is_fresh(&self) -> Result<bool> {
        Ok(self.0.ports.accounts.count().await? == 0)
    }

    async fn check_open(&self, invite: Option<&str>, peer: &Peer) -> Result<()> {
        let core = self.0;
        if !self.is_fresh().await? {
            return if core.settings.registration_open {
                Ok(())
            } else {
                Err(Error::Forbidden {
                    code: ErrorCode::RegistrationClosed,
                    detail: "new accounts are not open here: ask the administrator",
                })
            };
        }
        let Some(code) = &core.settings.setup_code else { return Ok(()) };
        if peer.address.is_loopback() || invite.is_some_and(|invite| same(invite, code)) {
            return Ok(());
        }
        Err(Error::Forbidden {
            code: ErrorCode::SetupCodeRequired,
            detail: "the first account needs the code that the server printed at start",
        })
    }

    async fn prove(
        &self,
        caller: &Caller,
        account: &Account,
        password: String,
        field: &str,
    ) -> Result<()> {
        let core = self.0;
        core.rate(Rate::SignInsOfAccount, &caller.user_id.to_string(), 1)?;
        let hash = account.password_hash.clone();
        if core.ports.passwords.verify(password, hash).await? {
            return Ok(());
        }
        Err(Invalid::new(field, "this is not the password in force").into())
    }
}

/// Returns a profile as others see it.
pub(crate) fn public_user(account: &Account) -> User {
    User {
        user_id: account.user_id,
        username: account.username.clone(),
        display_name: account.display_name.clone(),
        created_at: account.created_at,
        deleted: account.deleted_at.is_some(),
        email: None,
        privacy: None,
        admin: None,
    }
}

/// Returns a profile as its owner sees it.
pub(crate) fn own_user(account: &Account) -> User {
    User {
        email: account.email.clone(),
        privacy: Some(account.privacy.clone()),
        admin: Some(account.admin),
        ..public_user(account)
    }
}

/// The key of an address for rate limits: an IPv6 host owns a /64.
pub(crate) fn rate_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        },
    }
}

fn check_strength(field: &str, password: &str, hints: &[&str]) -> Result<()> {
    // The estimator's work grows with length; more characters than this are strong anyhow.
    let head: String = password.chars().take(100).collect();
    if zxcvbn::zxcvbn(&head, hints).score() < zxcvbn::Score::Two {
        let detail = "this password is too easy to guess: make it longer or less common";
        return Err(Invalid::with_code(ErrorCode::WeakPassword, field, detail).into());
    }
    Ok(())
}

fn check_admin(caller: &Caller) -> Result<()> {
    if caller.admin { Ok(()) } else { Err(Error::forbidden("only an administrator may do this")) }
}

async fn put(core: &Core, account: Account) -> Result<()> {
    match core.ports.accounts.put(account).await? {
        PutAccount::Stored { .. } => Ok(()),
        PutAccount::UsernameTaken => Err(Error::Conflict {
            code: ErrorCode::UsernameTaken,
            detail: "this username, or one that looks like it, is taken",
        }),
        PutAccount::EmailTaken => Err(email_taken()),
    }
}

const fn email_taken() -> Error {
    Error::Conflict { code: ErrorCode::EmailTaken, detail: "this email address is taken" }
}

fn same(one: &str, other: &str) -> bool {
    subtle::ConstantTimeEq::ct_eq(one.as_bytes(), other.as_bytes()).into()
}

impl Core {
    /// Returns an account, from the cache where it is there.
    pub(crate) async fn account(&self, user_id: UserId) -> Result<Arc<Account>> {
        if let Some(account) = self.people.accounts.get(&user_id) {
            return Ok(account);
        }
        let account = self.ports.accounts.load(user_id).await?.ok_or(Error::NotFound)?;
        let account = Arc::new(account);
        self.people.accounts.insert(user_id, account.clone());
        Ok(account)
    }

    /// Returns those of these people who exist, deleted ones included; asks the store at most once.
    pub(crate) async fn existing(&self, user_ids: &BTreeSet<UserId>) -> Result<BTreeSet<UserId>> {
        let is_known = |user_id: &UserId| self.people.accounts.contains_key(user_id);
        let mut found: BTreeSet<_> = user_ids.iter().copied().filter(is_known).collect();
        let asked: Vec<_> = user_ids.difference(&found).copied().collect();
        if !asked.is_empty() {
            for account in self.ports.accounts.load_many(&asked).await? {
                found.insert(account.user_id);
                self.people.accounts.insert(account.user_id, Arc::new(account));
            }
        }
        Ok(found)
    }

    /// Ends what is still open of removed sessions.
    pub(crate) fn forget_sessions(&self, user_id: UserId, devices: Vec<parlor_proto::DeviceId>) {
        self.people.revocations.fetch_add(1, Ordering::AcqRel);
        let gone = devices.clone();
        let invalidated = self.people.sessions.invalidate_entries_if(move |_, known| {
            known.caller.user_id == user_id && gone.contains(&known.caller.device_id)
        });
        if let Err(error) = invalidated {
            tracing::error!(%error, "sessions stay known until they expire from the cache");
            self.people.sessions.invalidate_all();
        }
        self.ports.bus.publish(Hint::Revoked { devices });
    }

    /// Appends to the caller's own stream and tells their devices.
    pub(crate) async fn append_own(&self, user_id: UserId, body: AccountEventBody) -> Result<()> {
        let step = self.ports.accounts.append_own(user_id, body, self.now()).await?;
        delivery::deliver_own(&*self.ports.bus, user_id, step);
        Ok(())
    }
}
