//! Who did what: a log that only grows, of what administrators and moderators do.

use antiphon_core::ids::UserId;
use serde_json::Value;
use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Result, Store, StoreError, micros, moment, pools::on_db};

/// How long an entry is kept: long enough for a yearly review.
pub const AUDIT_KEPT: Duration = Duration::days(400);

/// Something that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct NewAudit {
    /// Who did it.
    pub actor: UserId,
    /// Their username then.
    pub actor_name: String,
    /// What: a word of the area and one of the act, such as `user.update`.
    pub action: &'static str,
    /// To whom or what: an id.
    pub target: Option<String>,
    /// How, and with what.
    pub detail: Value,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// Its id.
    pub id: Uuid,
    /// When.
    pub at: OffsetDateTime,
    /// Who did it.
    pub actor: UserId,
    /// Their username then.
    pub actor_name: String,
    /// What.
    pub action: String,
    /// To whom or what.
    pub target: Option<String>,
    /// How, and with what.
    pub detail: Value,
}

/// A row of `audit_log`.
#[derive(FromRow)]
struct AuditRow {
    id: Uuid,
    at_us: i64,
    actor_id: Uuid,
    actor_name: String,
    action: String,
    target: Option<String>,
    detail: String,
}

impl TryFrom<AuditRow> for Audit {
    type Error = StoreError;

    fn try_from(row: AuditRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            at: moment(row.at_us)?,
            actor: UserId(row.actor_id),
            actor_name: row.actor_name,
            action: row.action,
            target: row.target,
            detail: serde_json::from_str(&row.detail)
                .map_err(|error| StoreError::corrupt(format!("an audit entry's detail is no JSON: {error}")))?,
        })
    }
}

impl Store {
    /// Writes down that something is done. To be called before it is: what cannot be written down is not done.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn record_audit(&self, new: NewAudit) -> Result<()> {
        on_db!(&self.writers, |db| {
            sqlx::query(
                "INSERT INTO audit_log (id, at_us, actor_id, actor_name, action, target, detail)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(Uuid::now_v7())
            .bind(micros(OffsetDateTime::now_utc()))
            .bind(new.actor.0)
            .bind(&new.actor_name)
            .bind(new.action)
            .bind(&new.target)
            .bind(new.detail.to_string())
            .execute(db)
            .await?;
        });
        Ok(())
    }

    /// A page of the log, newest first, of one action or all; and how many entries there are.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn audit(&self, action: Option<&str>, limit: u32, offset: u64) -> Result<(Vec<Audit>, u64)> {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let (rows, count): (Vec<AuditRow>, i64) = on_db!(&self.readers, |db| {
            let rows = sqlx::query_as(
                "SELECT * FROM audit_log WHERE $1 IS NULL OR action = $1
                 ORDER BY at_us DESC, id DESC LIMIT $2 OFFSET $3",
            )
            .bind(action)
            .bind(i64::from(limit))
            .bind(offset)
            .fetch_all(db)
            .await?;
            let count = sqlx::query_scalar("SELECT COUNT(*) FROM audit_log WHERE $1 IS NULL OR action = $1")
                .bind(action)
                .fetch_one(db)
                .await?;
            (rows, count)
        });
        let entries = rows.into_iter().map(Audit::try_from).collect::<Result<_>>()?;
        Ok((entries, count.unsigned_abs()))
    }
}
