//! The twin of `ports::accounts`.

use async_trait::async_trait;
use parlor_proto::{
    Seq, Time, UserId,
    frame::{AccountEvent, AccountEventBody},
};

use super::{Memory, State};
use crate::ports::{
    EngineError, EngineResult,
    accounts::{Account, AccountUpdate, Accounts, PutAccount, UpdateAccount},
};

impl State {
    fn present(&mut self, user_id: UserId) -> Option<&mut Account> {
        self.accounts.get_mut(&user_id).filter(|account| account.deleted_at.is_none())
    }

    fn email_is_taken(&self, key: Option<&str>, by_others_than: UserId) -> bool {
        key.is_some()
            && self
                .accounts
                .values()
                .any(|a| a.email_key.as_deref() == key && a.user_id != by_others_than)
    }
}

#[async_trait]
impl Accounts for Memory {
    async fn put(&self, mut account: Account) -> EngineResult<PutAccount> {
        self.write(|state| {
            if state.accounts.contains_key(&account.user_id) {
                return Err(EngineError::broken("an account with this id exists"));
            }
            // A removed account keeps its username key, so it is found here too.
            if state.accounts.values().any(|a| a.username_key == account.username_key) {
                return Ok(PutAccount::UsernameTaken);
            }
            if state.email_is_taken(account.email_key.as_deref(), account.user_id) {
                return Ok(PutAccount::EmailTaken);
            }
            let first = state.accounts.is_empty();
            account.admin |= first;
            state.accounts.insert(account.user_id, account);
            Ok(PutAccount::Stored { first })
        })
        .await?
    }

    async fn load(&self, user_id: UserId) -> EngineResult<Option<Account>> {
        Ok(self.state.lock().accounts.get(&user_id).cloned())
    }

    async fn load_many(&self, user_ids: &[UserId]) -> EngineResult<Vec<Account>> {
        let state = self.state.lock();
        Ok(state.accounts.values().filter(|a| user_ids.contains(&a.user_id)).cloned().collect())
    }

    async fn find_by_username(&self, username_key: &str) -> EngineResult<Option<Account>> {
        let state = self.state.lock();
        Ok(state
            .accounts
            .values()
            .find(|a| a.username_key == username_key && a.deleted_at.is_none())
            .cloned())
    }

    async fn find_by_email(&self, email_key: &str) -> EngineResult<Option<Account>> {
        let state = self.state.lock();
        Ok(state.accounts.values().find(|a| a.email_key.as_deref() == Some(email_key)).cloned())
    }

    async fn count(&self) -> EngineResult<u64> {
        Ok(self.state.lock().accounts.len() as u64)
    }

    async fn update(
        &self,
        user_id: UserId,
        update: AccountUpdate,
        at: Time,
    ) -> EngineResult<UpdateAccount> {
        self.write(|state| {
            let email_key = update.email.as_ref().map(|(_, key)| key.as_str());
            let is_taken = state.email_is_taken(email_key, user_id);
            let Some(account) = state.present(user_id) else {
                return UpdateAccount::Missing;
            };
            if is_taken {
                return UpdateAccount::EmailTaken;
            }
            if let Some(name) = update.display_name {
                account.display_name = name;
            }
            if let Some((email, key)) = update.email {
                account.email = Some(email);
                account.email_key = Some(key);
            }
            if let Some(privacy) = update.privacy {
                account.privacy = privacy;
            }
            if let Some(hash) = update.password_hash {
                account.password_hash = Some(hash);
            }
            state.append_own(user_id, AccountEventBody::Settings, at);
            UpdateAccount::Updated
        })
        .await
    }

    async fn remove(&self, user_id: UserId, at: Time) -> EngineResult<bool> {
        self.write(|state| {
            let Some(account) = state.present(user_id) else {
                return false;
            };
            account.username.clear();
            account.display_name.clear();
            account.email = None;
            account.email_key = None;
            account.password_hash = None;
            account.admin = false;
            account.deleted_at = Some(at);
            state.devices.retain(|_, device| device.user_id != user_id);
            true
        })
        .await
    }

    async fn touch(&self, seen: &[(UserId, Time)]) -> EngineResult<()> {
        self.write(|state| {
            for (user_id, at) in seen {
                if let Some(account) = state.accounts.get_mut(user_id) {
                    account.last_seen = account.last_seen.max(Some(*at));
                }
            }
        })
        .await
    }

    async fn append_own(
        &self,
        user_id: UserId,
        body: AccountEventBody,
        at: Time,
    ) -> EngineResult<AccountEvent> {
        self.write(|state| state.append_own(user_id, body, at)).await
    }

    async fn own_events(
        &self,
        user_id: UserId,
        after: Seq,
        limit: u32,
    ) -> EngineResult<Vec<AccountEvent>> {
        let state = self.state.lock();
        let stream = state.own.get(&user_id).into_iter().flatten();
        Ok(stream.filter(|event| event.seq > after).take(limit as usize).cloned().collect())
    }

    async fn own_head(&self, user_id: UserId) -> EngineResult<Seq> {
        Ok(self.state.lock().own.get(&user_id).map_or(Seq::ZERO, |s| Seq::new(s.len() as u64)))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use parlor_proto::accounts::Privacy;

    use super::*;
    use crate::{
        clock::{Ids, ManualClock},
        ports::clock::{Clock, Random},
    };

    struct Zeros;
    impl Random for Zeros {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    #[tokio::test]
    async fn created_at_is_set_once_in_utc_and_last_seen_moves_forward_only() {
        let clock = ManualClock::at(Time::from_millis(1_767_225_599_999));
        let ids = Ids::new(Arc::new(clock.clone()), Arc::new(Zeros));
        let memory = Memory::new(ids, Arc::new(clock.clone()), "epoch".to_owned());
        let user_id = UserId::from_raw(1);
        let account = Account {
            user_id,
            username: "ann".to_owned(),
            username_key: "ann".to_owned(),
            email: None,
            email_key: None,
            display_name: "Ann".to_owned(),
            password_hash: None,
            admin: false,
            privacy: Privacy::default(),
            created_at: clock.now(),
            last_seen: None,
            deleted_at: None,
        };
        memory.put(account).await.unwrap();
        clock.advance(Duration::from_secs(86_400));
        let update =
            AccountUpdate { display_name: Some("A".to_owned()), ..AccountUpdate::default() };
        memory.update(user_id, update, clock.now()).await.unwrap();
        memory.touch(&[(user_id, Time::from_millis(9))]).await.unwrap();
        memory.touch(&[(user_id, Time::from_millis(5))]).await.unwrap();
        let account = memory.load(user_id).await.unwrap().unwrap();
        assert_eq!(account.created_at.to_string(), "2025-12-31T23:59:59.999Z");
        assert_eq!(account.last_seen, Some(Time::from_millis(9)));
    }
}
