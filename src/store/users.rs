//! Accounts and guests.

use std::collections::BTreeSet;

use antiphon_core::{gateway::Role, ids::UserId};
use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::{
    NewUser, Result, Store, StoreError, User, folded, moment,
    pools::{Dialect, Lock, on_db, transaction},
};

/// Accounts that one query looks for.
pub(super) const LOOKED_AT_ONCE: usize = 500;

/// A row of `users`.
#[derive(FromRow)]
pub(super) struct UserRow {
    id: Uuid,
    username: String,
    display_name: String,
    role: String,
    is_active: bool,
    is_guest: bool,
    created_us: i64,
}

impl TryFrom<UserRow> for User {
    type Error = StoreError;

    fn try_from(row: UserRow) -> Result<Self> {
        Ok(Self {
            id: UserId(row.id),
            role: match row.role.as_str() {
                "user" => Role::User,
                "admin" => Role::Admin,
                other => return Err(StoreError::corrupt(format!("{other:?} is no role"))),
            },
            username: row.username,
            display_name: row.display_name,
            is_active: row.is_active,
            is_guest: row.is_guest,
            created_at: moment(row.created_us)?,
        })
    }
}

pub(super) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Admin => "admin",
    }
}

/// Inserts the account `$new` in the transaction `$tx` and gives it back.
macro_rules! insert_user {
    ($tx:ident, $new:expr) => {{
        let new: &$crate::store::NewUser = $new;
        if new.first_is_admin {
            $crate::store::pools::Dialect::lock(&mut $tx, $crate::store::pools::Lock::Accounts).await?;
        }
        let row: $crate::store::users::UserRow = sqlx::query_as(
            "INSERT INTO users (id, username, username_folded, display_name, role, is_active, is_guest, created_us)
             VALUES ($1, $2, $3, $4,
                     CASE WHEN $5 AND NOT EXISTS (SELECT 1 FROM users WHERE is_guest = FALSE) THEN 'admin' ELSE $6 END,
                     TRUE, $7, $8)
             RETURNING *",
        )
        .bind(new.id.map_or_else(uuid::Uuid::now_v7, |id| id.0))
        .bind(&new.username)
        .bind($crate::store::folded(&new.username))
        .bind(&new.display_name)
        .bind(new.first_is_admin)
        .bind($crate::store::users::role_name(new.role))
        .bind(new.is_guest)
        .bind($crate::store::micros(time::OffsetDateTime::now_utc()))
        .fetch_one(&mut *$tx)
        .await?;
        let user = $crate::store::User::try_from(row)?;
        if let Some(hash) = &new.password_hash {
            let insert = "INSERT INTO credentials (user_id, password_hash) VALUES ($1, $2)";
            sqlx::query(insert).bind(user.id.0).bind(hash).execute(&mut *$tx).await?;
        }
        user
    }};
}
pub(super) use insert_user;

impl Store {
    /// Makes an account or a guest.
    ///
    /// # Errors
    /// `Conflict` when the username is taken.
    pub async fn create_user(&self, new: NewUser) -> Result<User> {
        transaction!(self, |tx| {
            let user = insert_user!(tx, &new);
            tx.commit().await?;
            Ok(user)
        })
    }

    /// Makes a guest, unless there are `guests_max` already.
    ///
    /// # Errors
    /// `Conflict` when the username is taken, `LimitReached`.
    pub async fn create_guest(&self, new: NewUser, guests_max: u32) -> Result<User> {
        let new = NewUser { is_guest: true, ..new };
        transaction!(self, |tx| {
            Dialect::lock(&mut tx, Lock::Guests).await?;
            let count: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE is_guest = TRUE").fetch_one(&mut *tx).await?;
            if count.unsigned_abs() >= guests_max.into() {
                return Err(StoreError::LimitReached("guests"));
            }
            let user = insert_user!(tx, &new);
            tx.commit().await?;
            Ok(user)
        })
    }

    /// The account with this id.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn user(&self, id: UserId) -> Result<Option<User>> {
        let row: Option<UserRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM users WHERE id = $1").bind(id.0).fetch_optional(db).await?
        });
        row.map(User::try_from).transpose()
    }

    /// The account with this name, without regard to case.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn user_by_name(&self, username: &str) -> Result<Option<User>> {
        let row: Option<UserRow> = on_db!(&self.readers, |db| {
            sqlx::query_as("SELECT * FROM users WHERE username_folded = $1")
                .bind(folded(username))
                .fetch_optional(db)
                .await?
        });
        row.map(User::try_from).transpose()
    }

    /// The account with this name and its password's hash, if it has a password.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn credentials(&self, username: &str) -> Result<Option<(User, String)>> {
        #[derive(FromRow)]
        struct Row {
            #[sqlx(flatten)]
            user: UserRow,
            password_hash: String,
        }
        let row: Option<Row> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT users.*, credentials.password_hash FROM users JOIN credentials ON credentials.user_id = users.id
                 WHERE users.username_folded = $1",
            )
            .bind(folded(username))
            .fetch_optional(db)
            .await?
        });
        row.map(|row| Ok((row.user.try_into()?, row.password_hash))).transpose()
    }

    /// Gives an account a role; false when there is no such account.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn set_role(&self, id: UserId, role: Role) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let done = sqlx::query("UPDATE users SET role = $2 WHERE id = $1").bind(id.0).bind(role_name(role));
            Ok(done.execute(db).await?.rows_affected() > 0)
        })
    }

    /// Makes an administrator an ordinary account again, unless nobody would be left who can administer: an administrator
    /// who is not switched off. False when nobody would be.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn revoke_admin(&self, id: UserId) -> Result<bool> {
        transaction!(self, |tx| {
            // Two at once must not both find the other.
            Dialect::lock(&mut tx, Lock::Accounts).await?;
            let others: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE role = 'admin' AND is_active AND id <> $1")
                    .bind(id.0)
                    .fetch_one(&mut *tx)
                    .await?;
            if others > 0 {
                sqlx::query("UPDATE users SET role = 'user' WHERE id = $1").bind(id.0).execute(&mut *tx).await?;
                tx.commit().await?;
            }
            Ok(others > 0)
        })
    }

    /// Switches an account on or off; false when there is no such account. Off, it cannot come in, by password or
    /// token.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn set_active(&self, id: UserId, is_active: bool) -> Result<bool> {
        on_db!(&self.writers, |db| {
            let done = sqlx::query("UPDATE users SET is_active = $2 WHERE id = $1").bind(id.0).bind(is_active);
            Ok(done.execute(db).await?.rows_affected() > 0)
        })
    }

    /// Whether an account is an administrator's, and not switched off.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn is_admin(&self, id: UserId) -> Result<bool> {
        Ok(self.user(id).await?.is_some_and(|user| user.is_active && user.role == Role::Admin))
    }

    /// Those of some accounts that are switched off or are no more.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn unusable(&self, users: &BTreeSet<UserId>) -> Result<BTreeSet<UserId>> {
        let mut unusable = users.clone();
        let users: Vec<UserId> = users.iter().copied().collect();
        for some in users.chunks(LOOKED_AT_ONCE) {
            let usable: Vec<Uuid> = on_db!(&self.readers, |db| {
                let mut select = QueryBuilder::new("SELECT id FROM users WHERE is_active = TRUE AND id IN (");
                let mut list = select.separated(", ");
                for user in some {
                    list.push_bind(user.0);
                }
                select.push(")");
                select.build_query_scalar().fetch_all(db).await?
            });
            for id in usable {
                unusable.remove(&UserId(id));
            }
        }
        Ok(unusable)
    }

    /// Changes the name an account shows; `None` when there is no such account.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn set_display_name(&self, id: UserId, display_name: &str) -> Result<Option<User>> {
        let row: Option<UserRow> = on_db!(&self.writers, |db| {
            sqlx::query_as("UPDATE users SET display_name = $2 WHERE id = $1 RETURNING *")
                .bind(id.0)
                .bind(display_name)
                .fetch_optional(db)
                .await?
        });
        row.map(User::try_from).transpose()
    }

    /// How many accounts there are, guests not counted.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn users_count(&self) -> Result<u64> {
        let count: i64 = on_db!(&self.readers, |db| {
            sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE is_guest = FALSE").fetch_one(db).await?
        });
        Ok(count.unsigned_abs())
    }
}
