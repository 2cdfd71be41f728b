//! Accounts and each user's own stream of events.

use async_trait::async_trait;
use parlor_proto::{
    Seq, Time, UserId,
    accounts::Privacy,
    frame::{AccountEvent, AccountEventBody},
};

use super::EngineResult;

/// An account as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Never used again.
    pub user_id: UserId,
    /// As typed.
    pub username: String,
    /// Unique: look-alike skeleton of the username.
    pub username_key: String,
    /// As typed; none for managed accounts.
    pub email: Option<String>,
    /// Unique where present: normal form of the address.
    pub email_key: Option<String>,
    /// For display.
    pub display_name: String,
    /// None for managed accounts, which cannot sign in by password.
    pub password_hash: Option<String>,
    /// Administers the server.
    pub admin: bool,
    /// Who may see what.
    pub privacy: Privacy,
    /// Set once.
    pub created_at: Time,
    /// Moves forward only; flushed coarsely.
    pub last_seen: Option<Time>,
    /// The account was deleted.
    pub deleted_at: Option<Time>,
}

/// What became of a new account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutAccount {
    /// Stored; `first` if no account existed before, which also made it an administrator.
    Stored {
        /// The first account of the server.
        first: bool,
    },
    /// The username or one that looks like it is taken.
    UsernameTaken,
    /// The address is taken.
    EmailTaken,
}

/// Fields to change; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountUpdate {
    /// New display name.
    pub display_name: Option<String>,
    /// New address and its normal form.
    pub email: Option<(String, String)>,
    /// New privacy.
    pub privacy: Option<Privacy>,
    /// New password hash.
    pub password_hash: Option<String>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateAccount {
    /// Changed.
    Updated,
    /// No such account, or deleted.
    Missing,
    /// The new address is taken.
    EmailTaken,
}

/// Accounts; every write is durable when it answers.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Stores a new account in one transaction with its uniqueness checks.
    ///
    /// `admin` of the account is replaced by "is the first one" when no account exists yet.
    /// A username outranks an address when both are taken.
    async fn put(&self, account: Account) -> EngineResult<PutAccount>;

    /// Loads one account, deleted ones included.
    async fn load(&self, user_id: UserId) -> EngineResult<Option<Account>>;

    /// Loads many accounts in any order; unknown ids are left out.
    async fn load_many(&self, user_ids: &[UserId]) -> EngineResult<Vec<Account>>;

    /// Finds by look-alike skeleton; deleted accounts are not found.
    async fn find_by_username(&self, username_key: &str) -> EngineResult<Option<Account>>;

    /// Finds by normal form of the address; deleted accounts are not found.
    async fn find_by_email(&self, email_key: &str) -> EngineResult<Option<Account>>;

    /// Returns the number of accounts ever made.
    async fn count(&self) -> EngineResult<u64>;

    /// Changes an account and appends `settings` to its stream, in one transaction.
    async fn update(
        &self,
        user_id: UserId,
        update: AccountUpdate,
        at: Time,
    ) -> EngineResult<UpdateAccount>;

    /// Shuts an account: name, address, password, display name and the right to administer are erased,
    /// its devices removed.
    /// The username key stays taken. Returns false if it was gone already.
    async fn remove(&self, user_id: UserId, at: Time) -> EngineResult<bool>;

    /// Moves `last_seen` forward; earlier times and unknown users are ignored.
    async fn touch(&self, seen: &[(UserId, Time)]) -> EngineResult<()>;

    /// Appends to a user's stream; positions are gapless per user.
    async fn append_own(
        &self,
        user_id: UserId,
        body: AccountEventBody,
        at: Time,
    ) -> EngineResult<AccountEvent>;

    /// Pages a user's stream in ascending order.
    async fn own_events(
        &self,
        user_id: UserId,
        after: Seq,
        limit: u32,
    ) -> EngineResult<Vec<AccountEvent>>;

    /// Returns the last position of a user's stream; 0 for none.
    async fn own_head(&self, user_id: UserId) -> EngineResult<Seq>;
}
