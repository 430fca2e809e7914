//! What single people are told of, on its way: to their sessions, and outside.
//!
//! ```text
//!  cause ──one transaction──► notifications ──route──► open sessions
//!                                               └────► deliveries ──attempt──► mail, short message, push
//! ```
//!
//! Both steps are taken by one node at a time, under a lease in the database: what a node leaves undone another does when the
//! lease is over. So everything comes at least once, and repetitions have the same id.

use std::{sync::Arc, time::Duration as StdDuration};

use antiphon_core::ids::NotificationId;
use time::{Duration, OffsetDateTime};
use tokio::{task::JoinSet, time::sleep};

use super::{
    attempt::label,
    bounds::{OutboxLimits, Waiting},
    email::{Email, EmailError},
    preferences::{Preferences, Ways},
    push::{Push, Vapid, VapidError},
    sms::{SmsProvider, WebhookSms},
};
use crate::{
    chat::Chat,
    error::AppError,
    settings::{ConnectionUrl, Secret},
    store::{DuePlace, Lately, NewDelivery, Notification, Routed, Store, StoreError, User, Way},
    telemetry::metrics::{NotificationDrop, metrics},
    ticks::ticks,
};

/// How often a node looks for what nobody here has written: a node that died may have left it.
const ROUTE_EVERY: StdDuration = StdDuration::from_secs(15);

/// How often it looks for what has become due, while something waits, and while nothing is known to.
const LOOK_EVERY: StdDuration = StdDuration::from_secs(1);
const LOOK_SELDOM: StdDuration = StdDuration::from_secs(15);

/// How often what waits is counted.
const COUNT_EVERY: StdDuration = StdDuration::from_secs(10);

/// For how long a node takes something on: longer than an attempt takes.
const LEASE: Duration = Duration::seconds(30);

/// Attempts of this node at once by one way: one that is slow keeps no other waiting.
const AT_ONCE: usize = 16;

/// The name of the key for push services in the database.
const PUSH_KEY: &str = "push";

/// What can be set of notifications.
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// Where the page is, for links; without it there are none.
    pub public_url: Option<String>,
    /// The mail server, and the sender's address.
    pub smtp: Option<(ConnectionUrl, String)>,
    /// Where short messages are posted, and what signs them.
    pub sms: Option<(String, Secret)>,
    /// Whether browsers can subscribe.
    pub push: bool,
    /// The key that push services know the server by; the database keeps one where there is none.
    pub push_key: Option<Secret>,
    /// Whom push services may tell of trouble: a `mailto:` or `https:` URL.
    pub push_contact: Option<String>,
    /// Whether a push service may have a private address.
    pub push_allow_private: bool,
    /// How long something may be read before it goes outside.
    pub wait: Duration,
    /// Attempts of one delivery.
    pub attempts_max: u32,
    /// Bounds of what waits.
    pub limits: OutboxLimits,
    /// Codes by short message in an hour, whosever they are.
    pub sms_codes_per_hour: u32,
}

/// Notifications cannot be sent as it is set.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Mail.
    #[error(transparent)]
    Email(#[from] EmailError),
    /// Push.
    #[error(transparent)]
    Push(#[from] VapidError),
    /// No client.
    #[error("cannot make an HTTPS client: {0}")]
    Client(#[from] reqwest::Error),
    /// The key for push services cannot be had.
    #[error("cannot read the key for push services: {0}")]
    Store(#[from] StoreError),
}

/// Tells people of things. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) chat: Chat,
    pub(super) config: OutboxConfig,
    pub(super) email: Option<Email>,
    pub(super) sms: Option<Box<dyn SmsProvider>>,
    pub(super) push: Option<Push>,
    waiting: Waiting,
    /// Something may be due, by each way.
    due: [tokio::sync::Notify; Way::ALL.len()],
}

impl Outbox {
    /// Notifications of the people in `chat`, kept in `store`; short messages go by `http`.
    ///
    /// # Errors
    /// When a setting cannot be right, or the key for push services cannot be had.
    pub async fn start(
        store: Store,
        chat: Chat,
        http: reqwest::Client,
        config: OutboxConfig,
    ) -> Result<Self, OutboxError> {
        let email = config.smtp.as_ref().map(|(url, from)| Email::new(url, from)).transpose()?;
        let sms = config
            .sms
            .clone()
            .map(|(url, secret)| -> Box<dyn SmsProvider> { Box::new(WebhookSms::new(http, url, secret)) });
        let push = if config.push { Some(make_push(&store, &config).await?) } else { None };
        let (waiting, due) = (Waiting::default(), Default::default());
        Ok(Self { inner: Arc::new(Inner { store, chat, config, email, sms, push, waiting, due }) })
    }

    /// Whether a way is set up here.
    #[must_use]
    pub fn has(&self, way: Way) -> bool {
        match way {
            Way::Email => self.inner.email.is_some(),
            Way::Sms => self.inner.sms.is_some(),
            Way::Push => self.inner.push.is_some(),
        }
    }

    /// Tells people's sessions of what was written, and by which ways it goes outside, for ever.
    pub async fn route(self) {
        let mut looks = ticks(ROUTE_EVERY);
        self.count().await;
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.inner.store.notification_written() => {}
            }
            // What is left in the database is there at the next look.
            while self.route_some().await.is_ok_and(|some| some) {}
        }
    }

    /// Whether there was something.
    async fn route_some(&self) -> Result<bool, StoreError> {
        let now = OffsetDateTime::now_utc();
        let until = now + LEASE;
        let ids = self.inner.store.claim_notifications(now, until).await?;
        for id in &ids {
            if let Err(error) = self.route_one(*id, until).await {
                tracing::debug!(notification = %id, %error, "a notification is routed later");
            }
        }
        if !ids.is_empty() {
            self.look_now();
        }
        Ok(!ids.is_empty())
    }

    /// Something has become due, whichever way it goes.
    pub(super) fn look_now(&self) {
        self.inner.due.iter().for_each(tokio::sync::Notify::notify_one);
    }

    async fn route_one(&self, id: NotificationId, until: OffsetDateTime) -> Result<(), AppError> {
        let store = &self.inner.store;
        let Some(notification) = store.notification(id).await? else { return Ok(()) };
        let user = store.user(notification.user).await?;
        let user = match user {
            Some(user) if self.may_be_told(&user, &notification).await? => user,
            // Nothing of it is for them any more, not even that it was.
            _ => {
                store.read_notification(notification.user, id).await?;
                store.route_notification(&notification, until, &[]).await?;
                return Ok(());
            }
        };
        let preferences = self.preferences(user.id).await?;
        let wanted = preferences.ways(notification.kind);
        if wanted.gateway && notification.read_at.is_none() {
            self.inner.chat.tell_notification(&notification).await;
        }
        let now = OffsetDateTime::now_utc();
        let at = notification.created_at.min(now) + self.inner.config.wait;
        let at = preferences.quiet_until(at).unwrap_or(at);
        let (ways, dropped) = self.ways(&user, &notification, wanted, at).await?;
        if let Some(routed) = store.route_notification(&notification, until, &ways).await? {
            self.note_routed(&ways, routed, &dropped);
        }
        Ok(())
    }

    /// The ways outside that a notification takes, and what is dropped since a bound was met.
    async fn ways(
        &self,
        user: &User,
        notification: &Notification,
        wanted: Ways,
        at: OffsetDateTime,
    ) -> Result<(Vec<NewDelivery>, Vec<(NotificationDrop, u64)>), AppError> {
        let known = self.inner.store.lately(notification).await?;
        let (mut ways, mut dropped) = (Vec::new(), Vec::new());
        for way in Way::ALL.into_iter().filter(|way| wanted.has(*way) && self.has(*way)) {
            let targets = self.targets(user, way, at).await?;
            let count = u64::try_from(targets.len()).unwrap_or(u64::MAX);
            let lately = known.iter().find(|(known, _)| *known == way).map_or(Lately::default(), |(_, lately)| *lately);
            match self.inner.config.limits.met(lately, self.inner.waiting.of(way), count) {
                Some(bound) => dropped.push((bound, count)),
                None => ways.extend(targets),
            }
        }
        Ok((ways, dropped))
    }

    fn note_routed(&self, ways: &[NewDelivery], routed: Routed, dropped: &[(NotificationDrop, u64)]) {
        ways.iter().for_each(|delivery| self.inner.waiting.add(delivery.way));
        for (why, count) in dropped.iter().copied().chain([(NotificationDrop::Kept, routed.forgotten)]) {
            metrics().notifications.dropped.of(why).increment(count);
        }
    }

    /// Where a way leads for somebody.
    async fn targets(&self, user: &User, way: Way, at: OffsetDateTime) -> Result<Vec<NewDelivery>, AppError> {
        let delivery = |push| NewDelivery { way, push, next_at: at };
        if way == Way::Push {
            let subscriptions = self.inner.store.push_subscriptions(user.id).await?;
            return Ok(subscriptions.into_iter().map(|found| delivery(Some(found.id))).collect());
        }
        let addresses = self.inner.store.addresses(user.id).await?;
        let has = addresses.iter().any(|address| address.way == way && address.confirmed.is_some());
        Ok(if has { vec![delivery(None)] } else { Vec::new() })
    }

    /// Whether somebody may still be told of something: they are let in, the message is there, and they may read it.
    pub(super) async fn may_be_told(&self, user: &User, notification: &Notification) -> Result<bool, AppError> {
        let is_moot = !user.is_active || notification.is_deleted;
        if is_moot || self.inner.store.has_blocked(user.id, notification.from).await? {
            return Ok(false);
        }
        match notification.channel {
            Some(channel) => self.inner.chat.sees(&user.view(), channel, notification.kind).await,
            None => Ok(true),
        }
    }

    /// What somebody wants to be told and how.
    pub(super) async fn preferences(&self, user: antiphon_core::ids::UserId) -> Result<Preferences, AppError> {
        let document = self.inner.store.notification_preferences(user).await?;
        Ok(Preferences::of_document(document.as_deref()))
    }

    /// Sends what is due, for ever, by the ways that are set up here: the others are other nodes'.
    pub async fn deliver(self) {
        let ways = Way::ALL.into_iter().filter(|way| self.has(*way));
        // Dropped with this task.
        let _ways: JoinSet<()> = ways.map(|way| self.clone().deliver_by(way)).collect();
        let mut counts = ticks(COUNT_EVERY);
        loop {
            counts.tick().await;
            self.count().await;
        }
    }

    async fn deliver_by(self, way: Way) {
        // Dropped with this task: what is under way then is done by another node when its lease is over.
        let mut under_way = JoinSet::new();
        let mut place = DuePlace::default();
        loop {
            let is_waited = self.inner.waiting.of(way) > 0 || !under_way.is_empty();
            tokio::select! {
                () = sleep(if is_waited { LOOK_EVERY } else { LOOK_SELDOM }) => {}
                () = self.inner.due[way as usize].notified() => {}
                Some(_) = under_way.join_next() => {}
            }
            while under_way.try_join_next().is_some() {}
            let now = OffsetDateTime::now_utc();
            let until = now + LEASE;
            match self.inner.store.claim_deliveries(way, now, until, AT_ONCE - under_way.len(), &mut place).await {
                Ok(due) => {
                    metrics().notifications.under_way.of(label(way)).set((under_way.len() + due.len()) as f64);
                    for delivery in due {
                        let outbox = self.clone();
                        under_way.spawn(async move { outbox.deliver_one(delivery, until).await });
                    }
                }
                Err(error) => tracing::debug!(way = way.as_str(), %error, "what is due was not looked at"),
            }
        }
    }

    /// Counts what waits, for the bounds and for whoever watches.
    async fn count(&self) {
        let now = OffsetDateTime::now_utc();
        let Ok(facts) = self.inner.store.outbox_facts(now).await else { return };
        self.inner.waiting.set(&facts.waiting);
        let waiting = facts.not_routed + facts.waiting.iter().map(|(_, count)| count).sum::<u64>();
        let overdue = facts.oldest_due_at.map_or(Duration::ZERO, |since| (now - since).max(Duration::ZERO));
        metrics().notifications.waiting.set(waiting as f64);
        metrics().notifications.overdue.set(overdue.as_seconds_f64());
    }
}

/// With the key that is set, or the one that all nodes share.
async fn make_push(store: &Store, config: &OutboxConfig) -> Result<Push, OutboxError> {
    let key = match &config.push_key {
        Some(key) => key.clone(),
        None => Secret::new(store.server_key(PUSH_KEY, Vapid::generate().expose()).await?),
    };
    let vapid = Vapid::new(&key, config.push_contact.as_deref())?;
    Ok(Push::new(vapid, config.push_allow_private)?)
}
