//! Accounts and the own streams of users.

use async_trait::async_trait;
use parlor_core::ports::{
    EngineError, EngineResult,
    accounts::{Account, AccountUpdate, Accounts, PutAccount, UpdateAccount},
};
use parlor_proto::{
    Seq, Time, UserId,
    frame::{AccountEvent, AccountEventBody},
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{
    Sqlite,
    rows::{int, uint},
};

const COLUMNS: &str = "user_id, username, username_key, email, email_key, display_name, \
                       password_hash, admin, privacy, created_at, last_seen, deleted_at";

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    let time = |i| Ok::<_, rusqlite::Error>(Time::from_millis(uint(row.get(i)?)));
    let optional_time = |i| {
        let at: Option<i64> = row.get(i)?;
        Ok::<_, rusqlite::Error>(at.map(|at| Time::from_millis(uint(at))))
    };
    let privacy: String = row.get(8)?;
    Ok(Account {
        user_id: UserId::from_raw(uint(row.get(0)?)),
        username: row.get(1)?,
        username_key: row.get(2)?,
        email: row.get(3)?,
        email_key: row.get(4)?,
        display_name: row.get(5)?,
        password_hash: row.get(6)?,
        admin: row.get(7)?,
        // A rule that cannot be read hides: nobody sees anything.
        privacy: serde_json::from_str(&privacy).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(8, rusqlite::types::Type::Text, error.into())
        })?,
        created_at: time(9)?,
        last_seen: optional_time(10)?,
        deleted_at: optional_time(11)?,
    })
}

fn exists(db: &Connection, sql: &str, key: &str) -> rusqlite::Result<bool> {
    db.prepare_cached(sql)?.exists(params![key])
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Appends a step to a user's stream.
pub(super) fn append_own(
    db: &Connection,
    user_id: UserId,
    body: AccountEventBody,
    at: Time,
) -> rusqlite::Result<AccountEvent> {
    let head = own_head(db, user_id)?;
    let event = AccountEvent { seq: head.next(), at, body };
    let insert = "INSERT INTO user_events (user_id, seq, at, body) VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(insert)?.execute(params![
        int(user_id.raw()),
        int(event.seq.get()),
        int(at.millis()),
        json(&event.body)?,
    ])?;
    Ok(event)
}

fn own_head(db: &Connection, user_id: UserId) -> rusqlite::Result<Seq> {
    let select = "SELECT max(seq) FROM user_events WHERE user_id = ?1";
    let seq: Option<i64> =
        db.prepare_cached(select)?.query_row(params![int(user_id.raw())], |row| row.get(0))?;
    Ok(Seq::new(seq.map_or(0, uint)))
}

#[async_trait]
impl Accounts for Sqlite {
    async fn put(&self, account: Account) -> EngineResult<PutAccount> {
        self.write(move |db| {
            if exists(db, "SELECT 1 FROM users WHERE username_key = ?1", &account.username_key)? {
                return Ok(PutAccount::UsernameTaken);
            }
            if let Some(key) = &account.email_key
                && exists(db, "SELECT 1 FROM users WHERE email_key = ?1", key)?
            {
                return Ok(PutAccount::EmailTaken);
            }
            let first = !db.prepare_cached("SELECT 1 FROM users")?.exists([])?;
            let insert = format!(
                "INSERT INTO users ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
            );
            db.prepare_cached(&insert)?.execute(params![
                int(account.user_id.raw()),
                account.username,
                account.username_key,
                account.email,
                account.email_key,
                account.display_name,
                account.password_hash,
                account.admin || first,
                json(&account.privacy)?,
                int(account.created_at.millis()),
                account.last_seen.map(|at| int(at.millis())),
                account.deleted_at.map(|at| int(at.millis())),
            ])?;
            Ok(PutAccount::Stored { first })
        })
        .await
    }

    async fn load(&self, user_id: UserId) -> EngineResult<Option<Account>> {
        let select = format!("SELECT {COLUMNS} FROM users WHERE user_id = ?1");
        self.read(move |db| {
            db.prepare_cached(&select)?.query_row(params![int(user_id.raw())], account).optional()
        })
        .await
    }

    async fn load_many(&self, user_ids: &[UserId]) -> EngineResult<Vec<Account>> {
        let select = format!("SELECT {COLUMNS} FROM users WHERE user_id = ?1");
        let user_ids = user_ids.to_vec();
        self.read(move |db| {
            let mut statement = db.prepare_cached(&select)?;
            let mut accounts = Vec::with_capacity(user_ids.len());
            for user_id in user_ids {
                let found = statement.query_row(params![int(user_id.raw())], account).optional()?;
                accounts.extend(found);
            }
            Ok(accounts)
        })
        .await
    }

    async fn find_by_username(&self, username_key: &str) -> EngineResult<Option<Account>> {
        let select =
            format!("SELECT {COLUMNS} FROM users WHERE username_key = ?1 AND deleted_at IS NULL");
        let key = username_key.to_owned();
        self.read(move |db| db.prepare_cached(&select)?.query_row([key], account).optional()).await
    }

    async fn find_by_email(&self, email_key: &str) -> EngineResult<Option<Account>> {
        let select =
            format!("SELECT {COLUMNS} FROM users WHERE email_key = ?1 AND deleted_at IS NULL");
        let key = email_key.to_owned();
        self.read(move |db| db.prepare_cached(&select)?.query_row([key], account).optional()).await
    }

    async fn count(&self) -> EngineResult<u64> {
        let select = "SELECT count(*) FROM users";
        self.read(move |db| db.query_row(select, [], |row| row.get::<_, i64>(0)).map(uint)).await
    }

    async fn update(
        &self,
        user_id: UserId,
        update: AccountUpdate,
        at: Time,
    ) -> EngineResult<UpdateAccount> {
        self.write(move |db| {
            let id = int(user_id.raw());
            let alive = "SELECT 1 FROM users WHERE user_id = ?1 AND deleted_at IS NULL";
            if !db.prepare_cached(alive)?.exists(params![id])? {
                return Ok(UpdateAccount::Missing);
            }
            if let Some((email, key)) = update.email {
                let taken = "SELECT 1 FROM users WHERE email_key = ?1 AND user_id <> ?2";
                if db.prepare_cached(taken)?.exists(params![key, id])? {
                    return Ok(UpdateAccount::EmailTaken);
                }
                let set = "UPDATE users SET email = ?2, email_key = ?3 WHERE user_id = ?1";
                db.prepare_cached(set)?.execute(params![id, email, key])?;
            }
            if let Some(name) = update.display_name {
                let set = "UPDATE users SET display_name = ?2 WHERE user_id = ?1";
                db.prepare_cached(set)?.execute(params![id, name])?;
            }
            if let Some(privacy) = update.privacy {
                let set = "UPDATE users SET privacy = ?2 WHERE user_id = ?1";
                db.prepare_cached(set)?.execute(params![id, json(&privacy)?])?;
            }
            if let Some(hash) = update.password_hash {
                let set = "UPDATE users SET password_hash = ?2 WHERE user_id = ?1";
                db.prepare_cached(set)?.execute(params![id, hash])?;
            }
            append_own(db, user_id, AccountEventBody::Settings, at)?;
            Ok(UpdateAccount::Updated)
        })
        .await
    }

    async fn remove(&self, user_id: UserId, at: Time) -> EngineResult<bool> {
        self.write(move |db| {
            let id = int(user_id.raw());
            let erase = "UPDATE users SET username = '', email = NULL, email_key = NULL, \
                         display_name = '', password_hash = NULL, admin = 0, deleted_at = ?2 \
                         WHERE user_id = ?1 AND deleted_at IS NULL";
            let erased = db.prepare_cached(erase)?.execute(params![id, int(at.millis())])?;
            if erased > 0 {
                db.prepare_cached("DELETE FROM devices WHERE user_id = ?1")?
                    .execute(params![id])?;
            }
            Ok(erased > 0)
        })
        .await
    }

    async fn touch(&self, seen: &[(UserId, Time)]) -> EngineResult<()> {
        let seen = seen.to_vec();
        self.write(move |db| {
            let set = "UPDATE users SET last_seen = max(coalesce(last_seen, 0), ?2) \
                       WHERE user_id = ?1";
            let mut statement = db.prepare_cached(set)?;
            for (user_id, at) in seen {
                statement.execute(params![int(user_id.raw()), int(at.millis())])?;
            }
            Ok(())
        })
        .await
    }

    async fn append_own(
        &self,
        user_id: UserId,
        body: AccountEventBody,
        at: Time,
    ) -> EngineResult<AccountEvent> {
        self.write(move |db| append_own(db, user_id, body, at)).await
    }

    async fn own_events(
        &self,
        user_id: UserId,
        after: Seq,
        limit: u32,
    ) -> EngineResult<Vec<AccountEvent>> {
        let rows = self
            .read(move |db| {
                let select = "SELECT seq, at, body FROM user_events \
                              WHERE user_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
                let mut statement = db.prepare_cached(select)?;
                let rows = statement
                    .query_map(params![int(user_id.raw()), int(after.get()), limit], |row| {
                        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get(2)?))
                    })?;
                rows.collect::<rusqlite::Result<Vec<(i64, i64, String)>>>()
            })
            .await?;
        let event = |(seq, at, body): (i64, i64, String)| {
            let body = serde_json::from_str(&body).map_err(EngineError::broken)?;
            Ok(AccountEvent { seq: Seq::new(uint(seq)), at: Time::from_millis(uint(at)), body })
        };
        rows.into_iter().map(event).collect()
    }

    async fn own_head(&self, user_id: UserId) -> EngineResult<Seq> {
        self.read(move |db| own_head(db, user_id)).await
    }
}
