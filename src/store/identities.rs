//! Accounts whose tokens are made elsewhere.

use antiphon_core::ids::UserId;

use super::{
    NewUser, Result, Store, User,
    pools::{on_db, transaction},
    users::{UserRow, insert_user},
};

impl Store {
    /// The account that `issuer` calls `subject`.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn external_user(&self, issuer: &str, subject: &str) -> Result<Option<User>> {
        let row: Option<UserRow> = on_db!(&self.readers, |db| {
            sqlx::query_as(
                "SELECT users.* FROM users JOIN external_identities ON external_identities.user_id = users.id
                 WHERE external_identities.issuer = $1 AND external_identities.subject = $2",
            )
            .bind(issuer)
            .bind(subject)
            .fetch_optional(db)
            .await?
        });
        row.map(User::try_from).transpose()
    }

    /// Makes the account that `issuer` calls `subject`.
    ///
    /// # Errors
    /// `Conflict` when the username is taken, or the identity was added meanwhile.
    pub async fn create_external_user(&self, issuer: &str, subject: &str, new: NewUser) -> Result<User> {
        transaction!(self, |tx| {
            let user = insert_user!(tx, &new);
            sqlx::query("INSERT INTO external_identities (issuer, subject, user_id) VALUES ($1, $2, $3)")
                .bind(issuer)
                .bind(subject)
                .bind(user.id.0)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(user)
        })
    }

    /// The external identities of an account: issuer and subject.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn external_identities(&self, user: UserId) -> Result<Vec<(String, String)>> {
        on_db!(&self.readers, |db| {
            let query = "SELECT issuer, subject FROM external_identities WHERE user_id = $1 ORDER BY issuer, subject";
            Ok(sqlx::query_as(query).bind(user.0).fetch_all(db).await?)
        })
    }
}
