//! One attempt to send a notification outside.

use std::time::{Duration as StdDuration, Instant};

use antiphon_core::gateway::NotificationKind;
use time::{Duration, OffsetDateTime};

use super::{
    failure::{Failure, wait_at_least},
    outbox::Outbox,
    wording::Words,
};
use crate::{
    error::AppError,
    random,
    store::{Delivery, Notification, PushSubscription, Tried, User, Way},
    telemetry::metrics::{DeliveryOutcome, NotificationWay, SubscriptionEnd, metrics},
};

/// How long an attempt may take; shorter than the lease.
const PATIENCE: StdDuration = StdDuration::from_secs(20);

/// Whether something is sent now.
enum Check {
    Send(User, Box<Notification>),
    Not(Tried),
}

impl Outbox {
    /// Sends what was taken on until `until`, unless there is no reason to any more, and notes what became of it.
    pub(super) async fn deliver_one(&self, delivery: Delivery, until: OffsetDateTime) {
        let begun = Instant::now();
        let tried = match self.attempt(&delivery).await {
            Ok(tried) => tried,
            // The database is away: it is due again when the lease is over.
            Err(error) => return tracing::debug!(delivery = %delivery.id, %error, "it is sent later"),
        };
        note(&delivery, &tried, begun);
        if let Err(error) = self.inner.store.delivery_tried(delivery.id, until, &tried).await {
            tracing::debug!(delivery = %delivery.id, %error, "what was sent may be sent again");
        }
    }

    async fn attempt(&self, delivery: &Delivery) -> Result<Tried, AppError> {
        let (user, notification) = match self.check(delivery).await? {
            Check::Send(user, notification) => (user, notification),
            Check::Not(tried) => return Ok(tried),
        };
        let sending = self.send(delivery, &user, &notification);
        let sent = match tokio::time::timeout(PATIENCE, sending).await {
            Ok(sent) => sent?,
            Err(_) => Err(Failure::Unanswered(format!("it took over {} s", PATIENCE.as_secs()))),
        };
        Ok(match sent {
            Ok(()) => Tried::Sent,
            Err(Failure::Gone) => Tried::Skipped("there is no such receiver any more"),
            Err(Failure::Lasting(error) | Failure::Refused(error)) => Tried::GivenUp(error),
            Err(Failure::Passing { error, retry_after }) => self.again(delivery, error, retry_after),
            Err(Failure::Unanswered(error)) => self.again(delivery, error, None),
        })
    }

    /// Another attempt, unless that was the last.
    fn again(&self, delivery: &Delivery, error: String, retry_after: Option<Duration>) -> Tried {
        let failures = delivery.attempts + 1;
        if failures >= self.inner.config.attempts_max {
            return Tried::GivenUp(error);
        }
        let draw = f64::from(random::number()) / f64::from(u32::MAX);
        Tried::Failed(error, OffsetDateTime::now_utc() + wait_at_least(failures, draw, retry_after))
    }

    /// Whether there is still a reason to send it, and whether now.
    async fn check(&self, delivery: &Delivery) -> Result<Check, AppError> {
        let skip = |why| Ok(Check::Not(Tried::Skipped(why)));
        let store = &self.inner.store;
        let (notification, user) = (store.notification(delivery.notification).await?, store.user(delivery.user).await?);
        let (Some(notification), Some(user)) = (notification, user) else { return skip("it does not exist any more") };
        if notification.read_at.is_some() {
            return skip("it was read");
        }
        if !self.may_be_told(&user, &notification).await? {
            return skip("it is not for them any more");
        }
        if notification.kind == NotificationKind::DirectMessage && self.inner.chat.is_connected(user.id).await {
            return skip("they are connected");
        }
        let preferences = self.preferences(user.id).await?;
        if !preferences.ways(notification.kind).has(delivery.way) {
            return skip("they do not want it this way");
        }
        match preferences.quiet_until(OffsetDateTime::now_utc()) {
            Some(end) => Ok(Check::Not(Tried::Postponed(end))),
            None => Ok(Check::Send(user, Box::new(notification))),
        }
    }

    async fn send(
        &self,
        delivery: &Delivery,
        user: &User,
        notification: &Notification,
    ) -> Result<Result<(), Failure>, AppError> {
        let words = Words::of(notification, self.inner.config.public_url.as_deref());
        let id = delivery.id.to_string();
        if delivery.way == Way::Push {
            return self.send_push(delivery, user, notification, &words).await;
        }
        let addresses = self.inner.store.addresses(user.id).await?;
        let address = addresses.into_iter().find(|address| address.way == delivery.way);
        let Some(to) = address.and_then(|address| address.confirmed) else { return Ok(Err(Failure::Gone)) };
        Ok(match (delivery.way, &self.inner.email, &self.inner.sms) {
            (Way::Email, Some(email), _) => email.send(&id, &to, &words.title, words.mail()).await,
            (Way::Sms, _, Some(sms)) => sms.send(&id, &to, &words.sms()).await,
            // Not taken on, unless the settings were others then.
            _ => Err(Failure::passing("this way is not set up on this node")),
        })
    }

    async fn send_push(
        &self,
        delivery: &Delivery,
        user: &User,
        notification: &Notification,
        words: &Words,
    ) -> Result<Result<(), Failure>, AppError> {
        let Some(push) = &self.inner.push else {
            return Ok(Err(Failure::passing("this way is not set up on this node")));
        };
        let subscriptions = self.inner.store.push_subscriptions(user.id).await?;
        let Some(subscription) = subscriptions.into_iter().find(|found| found.id == delivery.push) else {
            return Ok(Err(Failure::Gone));
        };
        let sent = push.send(&subscription, notification, words).await;
        self.note_pushed(&subscription, &sent).await?;
        Ok(sent)
    }

    /// Forgets a browser that has unsubscribed, which its push service knows first, or that subscribed with another key of ours.
    async fn note_pushed(&self, subscription: &PushSubscription, sent: &Result<(), Failure>) -> Result<(), AppError> {
        let store = &self.inner.store;
        let ended = &metrics().notifications.subscriptions_ended;
        match sent {
            Ok(()) if subscription.refusals > 0 => store.push_taken(subscription.id).await?,
            Err(Failure::Gone) if store.unsubscribe_push(subscription.user, subscription.id).await? => {
                ended.of(SubscriptionEnd::Gone).increment(1);
            }
            Err(Failure::Refused(_)) if store.push_refused(subscription.id).await? => {
                ended.of(SubscriptionEnd::Refused).increment(1);
            }
            _ => {}
        }
        Ok(())
    }
}

/// A way in metrics.
pub(super) const fn label(way: Way) -> NotificationWay {
    match way {
        Way::Email => NotificationWay::Email,
        Way::Sms => NotificationWay::Sms,
        Way::Push => NotificationWay::Push,
    }
}

/// Counts an attempt, and says so when it was the last.
fn note(delivery: &Delivery, tried: &Tried, begun: Instant) {
    let way = label(delivery.way);
    let outcome = match tried {
        Tried::Sent => DeliveryOutcome::Sent,
        Tried::Skipped(_) => DeliveryOutcome::Skipped,
        Tried::Postponed(_) => DeliveryOutcome::Postponed,
        Tried::Failed(..) => DeliveryOutcome::Failed,
        Tried::GivenUp(_) => {
            // Why is in the database: it may name an address.
            tracing::warn!(
                delivery = %delivery.id, user = %delivery.user, way = delivery.way.as_str(),
                attempts = delivery.attempts + 1, "a notification was given up",
            );
            DeliveryOutcome::GivenUp
        }
    };
    metrics().notifications.deliveries.of((way, outcome)).increment(1);
    if matches!(outcome, DeliveryOutcome::Sent | DeliveryOutcome::Failed | DeliveryOutcome::GivenUp) {
        metrics().notifications.attempt_duration.of(way).record(begun.elapsed().as_secs_f64());
    }
}
