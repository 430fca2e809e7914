//! Accounts in pages, filtered and sorted.

use antiphon_core::{gateway::Role, ids::UserId};
use sqlx::AssertSqlSafe;

use super::{
    Result, Store, StoreError, User, folded,
    pools::{Dialect, Lock, on_db, transaction},
    users::{UserRow, role_name},
};

/// By what accounts are sorted. Those that are alike in it are in the order of their ids, which is that of their age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserOrder {
    /// When they were made.
    #[default]
    CreatedAt,
    /// Without regard to case.
    Username,
    /// Their display name.
    DisplayName,
    /// Administrators and others.
    Role,
}

impl UserOrder {
    const fn column(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_us",
            Self::Username => "username_folded",
            Self::DisplayName => "display_name",
            Self::Role => "role",
        }
    }
}

/// Which accounts, and in which order. What is `None` excludes nobody.
#[derive(Clone, Debug, Default)]
pub struct UserQuery {
    /// A part of the username, without regard to case.
    pub username: Option<String>,
    /// What they may do.
    pub role: Option<Role>,
    /// Not switched off.
    pub is_active: Option<bool>,
    /// Came in with a name only.
    pub is_guest: Option<bool>,
    /// By what they are sorted.
    pub order: UserOrder,
    /// The other way round.
    pub is_descending: bool,
}

/// What became of an account that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserDeletion {
    /// It is gone.
    Deleted,
    /// There is none.
    Unknown,
    /// It owns so many channels, which would have no owner.
    OwnsChannels(u64),
    /// It is the last administrator.
    LastAdmin,
}

const WANTED: &str = "($1 IS NULL OR username_folded LIKE $1 ESCAPE '!') AND ($2 IS NULL OR role = $2)
    AND ($3 IS NULL OR is_active = $3) AND ($4 IS NULL OR is_guest = $4)";

impl Store {
    /// A page of the accounts that `query` asks for, and how many there are in all.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn users_page(&self, query: &UserQuery, limit: u32, offset: u64) -> Result<(Vec<User>, u64)> {
        let direction = if query.is_descending { "DESC" } else { "ASC" };
        let column = query.order.column();
        let page = format!(
            "SELECT * FROM users WHERE {WANTED} ORDER BY {column} {direction}, id {direction} LIMIT $5 OFFSET $6"
        );
        let pattern = query.username.as_deref().map(pattern);
        let role = query.role.map(role_name);
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let (rows, count): (Vec<UserRow>, i64) = on_db!(&self.readers, |db| {
            // Only names of our own are put into the text.
            let rows = sqlx::query_as(AssertSqlSafe(page))
                .bind(pattern.clone())
                .bind(role)
                .bind(query.is_active)
                .bind(query.is_guest)
                .bind(i64::from(limit))
                .bind(offset)
                .fetch_all(db)
                .await?;
            let count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM users WHERE {WANTED}")))
                .bind(pattern)
                .bind(role)
                .bind(query.is_active)
                .bind(query.is_guest)
                .fetch_one(db)
                .await?;
            (rows, count)
        });
        let users = rows.into_iter().map(User::try_from).collect::<Result<_>>()?;
        Ok((users, count.unsigned_abs()))
    }

    /// How many people are known, guests included.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn people_count(&self) -> Result<u64> {
        let count: i64 =
            on_db!(&self.readers, |db| sqlx::query_scalar("SELECT COUNT(*) FROM users").fetch_one(db).await?);
        Ok(count.unsigned_abs())
    }

    /// Deletes an account with all that belongs to it: its password, log-ins, memberships, bans and totals.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn delete_user(&self, id: UserId) -> Result<UserDeletion> {
        let deleted = transaction!(self, |tx| {
            // Two administrators that delete each other at once must not both succeed.
            Dialect::lock(&mut tx, Lock::Accounts).await?;
            let (owned, other_admins): (i64, i64) = sqlx::query_as(
                "SELECT (SELECT COUNT(*) FROM channels WHERE owner_id = $1),
                        (SELECT COUNT(*) FROM users WHERE role = 'admin' AND id <> $1)",
            )
            .bind(id.0)
            .fetch_one(&mut *tx)
            .await?;
            if owned > 0 {
                return Ok(UserDeletion::OwnsChannels(owned.unsigned_abs()));
            }
            let role: Option<String> = sqlx::query_scalar("DELETE FROM users WHERE id = $1 RETURNING role")
                .bind(id.0)
                .fetch_optional(&mut *tx)
                .await?;
            match role.as_deref() {
                None => return Ok(UserDeletion::Unknown),
                Some("admin") if other_admins == 0 => return Ok(UserDeletion::LastAdmin),
                Some(_) => {}
            }
            tx.commit().await?;
            Ok(UserDeletion::Deleted)
        });
        match deleted {
            // A channel was made meanwhile.
            Err(StoreError::Missing) => Ok(UserDeletion::OwnsChannels(1)),
            deleted => deleted,
        }
    }
}

/// What contains a name, as `LIKE` wants it.
fn pattern(part: &str) -> String {
    pattern_of(&folded(part))
}

/// What contains a text, as `LIKE … ESCAPE '!'` wants it.
pub(super) fn pattern_of(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_text_means_itself() {
        assert_eq!(pattern("50%_!A"), "%50!%!_!!a%");
    }
}
