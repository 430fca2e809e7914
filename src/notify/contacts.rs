//! How somebody can be told: their preferences, the addresses that they confirm, the browsers that they subscribe, and what
//! they have read.

use std::time::Duration as StdDuration;

use antiphon_core::{
    gateway::{ErrorCode, UserView},
    ids::{DeliveryId, NotificationId, PushId, UserId},
};
use aws_lc_rs::digest::{SHA256, digest};
use time::OffsetDateTime;

use super::{email::checked_address, failure::Failure, outbox::Outbox, preferences::Preferences, sms::checked_number};
use crate::{
    error::AppError,
    random,
    store::{Address, CodeGiven, CodeWish, Delivery, Notification, PushSubscription, Way},
    telemetry::metrics::{CodeBound, metrics},
};

/// Digits of a code.
const CODE_DIGITS: u32 = 8;

/// How long sending a code may take; whoever asked for it waits.
const CODE_PATIENCE: StdDuration = StdDuration::from_secs(15);

/// When to ask again where sending a code failed.
const RETRY_AFTER_S: u64 = 30;

/// Ways outside of a page of notifications that are shown.
const DELIVERIES_SHOWN: u32 = 2_000;

/// Given up deliveries that are shown at once.
const GIVEN_UP_SHOWN: u32 = 200;

/// A notification with what became of its ways outside.
#[derive(Clone, Debug)]
pub struct Listed {
    /// It.
    pub notification: Notification,
    /// Its ways.
    pub deliveries: Vec<Delivery>,
}

fn invalid(message: impl Into<String>) -> AppError {
    AppError::new(ErrorCode::InvalidInput, message)
}

impl Outbox {
    /// Somebody's notifications, the newest first, and how many of all they have not read.
    ///
    /// # Errors
    /// `INVALID_INPUT` for a page of no size or too large a one; when the database fails.
    pub async fn list(
        &self,
        user: UserId,
        before: Option<NotificationId>,
        only_unread: bool,
        limit: u32,
    ) -> Result<(Vec<Listed>, u32), AppError> {
        let found = self.inner.chat.notifications(user, before, only_unread, limit).await?;
        let mut deliveries = match found.last() {
            Some(oldest) => self.inner.store.deliveries_of(user, oldest.id, DELIVERIES_SHOWN).await?,
            None => Vec::new(),
        };
        let listed = |notification: Notification| {
            let own = deliveries.extract_if(.., |delivery| delivery.notification == notification.id).collect();
            Listed { notification, deliveries: own }
        };
        let listed = found.into_iter().map(listed).collect();
        Ok((listed, self.inner.store.unread_notifications(user).await?))
    }

    /// Notes that somebody has read a notification, or all up to one; how many are left unread.
    ///
    /// # Errors
    /// `NOT_FOUND` for a single one that is not theirs; when the database fails.
    pub async fn read(&self, user: UserId, id: NotificationId, and_before: bool) -> Result<u32, AppError> {
        let store = &self.inner.store;
        let is_new = if and_before {
            store.read_notifications(user, id).await? > 0
        } else {
            let read = store.read_notification(user, id).await?;
            read.ok_or_else(|| AppError::new(ErrorCode::NotFound, "there is no notification with this id"))?
        };
        if is_new {
            self.inner.chat.tell_notifications_read(user).await;
        }
        Ok(store.unread_notifications(user).await?)
    }

    /// What somebody wants to be told and how.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn preferences_of(&self, user: UserId) -> Result<Preferences, AppError> {
        self.preferences(user).await
    }

    /// Sets it, all at once.
    ///
    /// # Errors
    /// `INVALID_INPUT`; when the database fails.
    pub async fn set_preferences(&self, user: UserId, preferences: &Preferences) -> Result<(), AppError> {
        preferences.check().map_err(invalid)?;
        let document = serde_json::to_string(preferences).map_err(|error| invalid(error.to_string()))?;
        Ok(self.inner.store.set_notification_preferences(user, &document).await?)
    }

    /// Somebody's addresses.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn addresses(&self, user: UserId) -> Result<Vec<Address>, AppError> {
        Ok(self.inner.store.addresses(user).await?)
    }

    /// Sends a code to an address, which with it becomes the one that somebody is told by. The one before holds until then.
    ///
    /// # Errors
    /// `INVALID_INPUT`; `PERMISSION_DENIED` for guests, since anybody can be one and mail strangers; `RATE_LIMITED`;
    /// `TEMPORARILY_UNAVAILABLE` when the code cannot be sent now.
    pub async fn set_address(&self, caller: &UserView, way: Way, address: &str) -> Result<(), AppError> {
        if caller.is_guest {
            return Err(AppError::new(ErrorCode::PermissionDenied, "addresses are for accounts with a password"));
        }
        let address = match way {
            Way::Email => checked_address(address),
            Way::Sms => checked_number(address),
            Way::Push => Err("browsers subscribe themselves".to_owned()),
        };
        let address = address.map_err(invalid)?;
        self.require(way)?;
        let code = code();
        let hash = code_hash(caller.id, way, &code);
        let now = OffsetDateTime::now_utc();
        // Each costs money, whoever asks.
        let most_in_hour = (way == Way::Sms).then_some(self.inner.config.sms_codes_per_hour);
        match self.inner.store.begin_confirming(caller.id, way, &address, &hash, most_in_hour, now).await? {
            CodeWish::Granted => {}
            CodeWish::TooMany { bound, seconds } => return Err(too_many(bound, seconds)),
        }
        let Err(failure) = self.send_code(way, &address, &code).await else { return Ok(()) };
        if failure.is_certain() {
            metrics().notifications.codes_not_sent.increment(1);
            self.inner.store.code_not_sent(caller.id, way, now).await?;
        }
        Err(not_sent(&failure))
    }

    fn require(&self, way: Way) -> Result<(), AppError> {
        if self.has(way) {
            return Ok(());
        }
        let message = format!("this server sends nothing by {}: its settings name none to do so", way.as_str());
        Err(invalid(message))
    }

    async fn send_code(&self, way: Way, address: &str, code: &str) -> Result<(), Failure> {
        let id = uuid::Uuid::now_v7().to_string();
        let text = format!("Your code is {code}. It confirms this address and holds for 15 minutes.");
        let sending = async {
            match (way, &self.inner.email, &self.inner.sms) {
                (Way::Email, Some(email), _) => {
                    let text =
                        format!("{text}\n\nIf you did not ask for it, somebody mistook your address for theirs.\n");
                    email.send(&id, address, "Confirm your address", text).await
                }
                (Way::Sms, _, Some(sms)) => sms.send(&id, address, &text).await,
                _ => Err(Failure::Gone),
            }
        };
        let late = |_| Err(Failure::Unanswered(format!("it took over {} s", CODE_PATIENCE.as_secs())));
        tokio::time::timeout(CODE_PATIENCE, sending).await.unwrap_or_else(late)
    }

    /// Confirms the address that a code was sent to.
    ///
    /// # Errors
    /// `INVALID_INPUT` for another code, or none that could be meant.
    pub async fn confirm_address(&self, user: UserId, way: Way, code: &str) -> Result<(), AppError> {
        let hash = code_hash(user, way, code.trim());
        match self.inner.store.confirm_address(user, way, &hash, OffsetDateTime::now_utc()).await? {
            CodeGiven::Right => Ok(()),
            CodeGiven::Wrong { tries_left } => {
                Err(invalid(format!("this is not the code; {tries_left} tries are left")))
            }
            CodeGiven::None => {
                Err(invalid("no address waits for a code, or it has had its time or its tries: ask for a new one"))
            }
        }
    }

    /// Forgets an address.
    ///
    /// # Errors
    /// `NOT_FOUND`; when the database fails.
    pub async fn forget_address(&self, user: UserId, way: Way) -> Result<(), AppError> {
        match self.inner.store.forget_address(user, way).await? {
            true => Ok(()),
            false => Err(AppError::new(ErrorCode::NotFound, "there is no such address")),
        }
    }

    /// The key that browsers subscribe with; `None` where they cannot.
    #[must_use]
    pub fn push_key(&self) -> Option<&str> {
        self.inner.push.as_ref().map(super::push::Push::public_key)
    }

    /// Somebody's browsers.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn push_subscriptions(&self, user: UserId) -> Result<Vec<PushSubscription>, AppError> {
        Ok(self.inner.store.push_subscriptions(user).await?)
    }

    /// Notes a browser of somebody, by what it says of itself.
    ///
    /// # Errors
    /// `INVALID_INPUT`, `LIMIT_REACHED`; when the database fails.
    pub async fn subscribe(
        &self,
        caller: &UserView,
        endpoint: &str,
        p256dh: &str,
        auth: &str,
    ) -> Result<PushSubscription, AppError> {
        if caller.is_guest {
            return Err(AppError::new(ErrorCode::PermissionDenied, "push is for accounts with a password"));
        }
        self.require(Way::Push)?;
        let push = self.inner.push.as_ref().ok_or_else(|| invalid("this server sends nothing by push"))?;
        let (p256dh, auth) = push.check(endpoint, p256dh, auth).map_err(invalid)?;
        Ok(self.inner.store.subscribe_push(caller.id, endpoint, &p256dh, &auth).await?)
    }

    /// Forgets a browser of somebody.
    ///
    /// # Errors
    /// `NOT_FOUND`; when the database fails.
    pub async fn unsubscribe(&self, user: UserId, id: PushId) -> Result<(), AppError> {
        match self.inner.store.unsubscribe_push(user, id).await? {
            true => Ok(()),
            false => Err(AppError::new(ErrorCode::NotFound, "there is no subscription with this id")),
        }
    }

    /// What was given up, the latest first. Whoever may see that the caller checks.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn given_up(&self) -> Result<Vec<Delivery>, AppError> {
        Ok(self.inner.store.deliveries_given_up(GIVEN_UP_SHOWN).await?)
    }

    /// Tries again what was given up.
    ///
    /// # Errors
    /// `NOT_FOUND`; when the database fails.
    pub async fn retry(&self, id: DeliveryId) -> Result<(), AppError> {
        match self.inner.store.retry_delivery(id).await? {
            true => {
                self.look_now();
                Ok(())
            }
            false => Err(AppError::new(ErrorCode::NotFound, "nothing with this id was given up")),
        }
    }
}

/// What whoever asked for a code is told that was not sent, or not as far as is known.
fn not_sent(failure: &Failure) -> AppError {
    match failure {
        Failure::Lasting(_) | Failure::Gone => invalid("nothing can be sent to this address"),
        Failure::Passing { .. } | Failure::Unanswered(_) | Failure::Refused(_) => AppError::retry(
            ErrorCode::TemporarilyUnavailable,
            "the code could not be sent; try again shortly",
            RETRY_AFTER_S,
        ),
    }
}

fn too_many(bound: CodeBound, seconds: u64) -> AppError {
    metrics().notifications.codes_refused.of(bound).increment(1);
    let what = match bound {
        CodeBound::Account => "too many codes were asked for",
        CodeBound::Address => "too many codes were sent to this address",
        CodeBound::Server => "this server has sent as many codes as it may in an hour",
    };
    AppError::retry(ErrorCode::RateLimited, format!("{what}: try again in {seconds} s"), seconds)
}

/// A new code.
fn code() -> String {
    let number = u64::from_be_bytes(random::bytes()) % 10_u64.pow(CODE_DIGITS);
    format!("{number:08}")
}

/// What is kept of a code: who has the database cannot use it elsewhere.
fn code_hash(user: UserId, way: Way, code: &str) -> Vec<u8> {
    let bound = [&b"antiphon code\0"[..], user.0.as_bytes(), way.as_str().as_bytes(), b"\0", code.as_bytes()].concat();
    digest(&SHA256, &bound).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_digits_and_are_bound_to_who_and_what() {
        for _ in 0..100 {
            let code = code();
            assert!(code.len() == 8 && code.bytes().all(|byte| byte.is_ascii_digit()), "{code}");
        }
        let (one, other) = (UserId(uuid::Uuid::from_u128(1)), UserId(uuid::Uuid::from_u128(2)));
        let hash = code_hash(one, Way::Email, "12345678");
        assert_eq!(hash, code_hash(one, Way::Email, "12345678"));
        assert_ne!(hash, code_hash(other, Way::Email, "12345678"));
        assert_ne!(hash, code_hash(one, Way::Sms, "12345678"));
        assert_ne!(hash, code_hash(one, Way::Email, "12345679"));
    }
}
