//! What is counted here and not stored yet: each node adds its part to the database every few seconds, so that totals
//! are the same on all nodes and outlive each of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use antiphon_core::{
    engine::{ChannelTraffic, MemberTraffic},
    ids::{ChannelId, StreamId, UserId},
};
use parking_lot::Mutex;
use time::OffsetDateTime;

use super::Rooms;
use crate::{
    store::{ChannelTotals, Increments, UserTotals},
    telemetry::metrics::{Outcome, metrics},
};

/// Channels, and people, whose counts may wait for the database; of further ones nothing is counted meanwhile.
const ENTRIES_MAX: usize = 65_536;

/// The most rows of each kind that one transaction changes, so that others get their turn.
const BATCH: usize = 1_000;

/// How old the time in voice of those may be of whom nothing else is to be stored.
const TIME_EVERY: Duration = Duration::from_secs(60);

/// How long a stream's speaker is remembered after they left: what the media workers tell of it may be on its way.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Counts that wait to be stored.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    channels: HashMap<ChannelId, ChannelTotals>,
    users: HashMap<UserId, UserTotals>,
    streams: HashMap<(ChannelId, StreamId), Speaker>,
}

/// Whose a stream is.
#[derive(Clone, Copy, Debug)]
struct Speaker {
    user: UserId,
    /// Up to when their time in voice is counted.
    counted_to: Instant,
    gone: bool,
}

impl Entries {
    /// Counts for a channel, if there is room for it.
    fn channel(&mut self, channel: ChannelId, more: ChannelTotals) {
        if self.channels.len() < ENTRIES_MAX || self.channels.contains_key(&channel) {
            *self.channels.entry(channel).or_default() += more;
        } else {
            metrics().rooms.statistics_dropped.increment(1);
        }
    }

    /// Likewise for somebody.
    fn user(&mut self, user: UserId, more: UserTotals) {
        if self.users.len() < ENTRIES_MAX || self.users.contains_key(&user) {
            *self.users.entry(user).or_default() += more;
        } else {
            metrics().rooms.statistics_dropped.increment(1);
        }
    }

    /// Counts the time in voice of those of whom more is to be stored or whose time was counted long ago, and forgets
    /// who left long ago.
    fn count_time(&mut self, now: Instant) {
        let mut spent = Vec::new();
        let users = &self.users;
        self.streams.retain(|_, speaker| {
            let age = now.duration_since(speaker.counted_to);
            if speaker.gone {
                return age < REMEMBERED;
            }
            if age >= TIME_EVERY || users.contains_key(&speaker.user) {
                spent.push((speaker.user, speaker.count_to(now)));
            }
            true
        });
        spent.into_iter().for_each(|(user, time)| self.user(user, time));
    }
}

impl Speaker {
    /// What they were in voice for since that was last counted, to the millisecond.
    fn count_to(&mut self, now: Instant) -> UserTotals {
        let voice_ms = u64::try_from(now.duration_since(self.counted_to).as_millis()).unwrap_or(u64::MAX);
        self.counted_to += Duration::from_millis(voice_ms);
        UserTotals { voice_ms, ..UserTotals::default() }
    }
}

impl Ledger {
    /// Somebody joined a channel.
    pub(super) fn joined(&self, channel: ChannelId, user: UserId) {
        let mut entries = self.0.lock();
        entries.channel(channel, ChannelTotals { joins: 1, ..ChannelTotals::default() });
        entries.user(user, UserTotals { joins: 1, ..UserTotals::default() });
    }

    /// A stream is somebody's from now on: they joined, or came from another node.
    pub(super) fn came(&self, channel: ChannelId, stream: StreamId, user: UserId, now: Instant) {
        self.0.lock().streams.insert((channel, stream), Speaker { user, counted_to: now, gone: false });
    }

    /// They left, or went to another node.
    pub(super) fn went(&self, channel: ChannelId, stream: StreamId, now: Instant) {
        let mut entries = self.0.lock();
        let Some(speaker) = entries.streams.get_mut(&(channel, stream)) else { return };
        let (user, time) = (speaker.user, speaker.count_to(now));
        speaker.gone = true;
        entries.user(user, time);
    }

    /// A channel carried something.
    pub(super) fn carried(&self, channel: ChannelId, traffic: &ChannelTraffic) {
        let more = ChannelTotals {
            joins: 0,
            frames_in: traffic.frames_in,
            frames_out: traffic.frames_out,
            bytes_in: traffic.bytes_in,
            bytes_out: traffic.bytes_out,
            frames_lost: traffic.frames_lost,
        };
        self.0.lock().channel(channel, more);
    }

    /// A member sent something.
    pub(super) fn sent(&self, channel: ChannelId, stream: StreamId, traffic: &MemberTraffic) {
        let mut entries = self.0.lock();
        let Some(speaker) = entries.streams.get(&(channel, stream)).copied() else { return };
        let MemberTraffic { frames, bytes } = *traffic;
        entries.user(speaker.user, UserTotals { frames, bytes, ..UserTotals::default() });
    }

    /// All that waits; nothing waits then.
    fn take(&self, now: Instant) -> Increments {
        let mut entries = self.0.lock();
        entries.count_time(now);
        Increments {
            channels: std::mem::take(&mut entries.channels).into_iter().collect(),
            users: std::mem::take(&mut entries.users).into_iter().collect(),
        }
    }

    /// It could not be stored: it waits for the next time.
    fn put_back(&self, increments: Increments) {
        let mut entries = self.0.lock();
        increments.channels.into_iter().for_each(|(channel, more)| entries.channel(channel, more));
        increments.users.into_iter().for_each(|(user, more)| entries.user(user, more));
    }

    /// What waits is not to be counted any more.
    pub(super) fn clear(&self) {
        let mut entries = self.0.lock();
        (entries.channels, entries.users) = (HashMap::new(), HashMap::new());
    }
}

impl Rooms {
    /// Adds to the database's totals what was counted here since the last time. To be called every few seconds and
    /// before the node stops. What cannot be stored waits.
    pub async fn store_statistics(&self) {
        let mut waiting = self.inner.ledger.take(Instant::now());
        while let Some(batch) = next_batch(&mut waiting) {
            let stored = self.inner.store.add_statistics(&batch, OffsetDateTime::now_utc()).await;
            metrics().rooms.statistics_stored.of(Outcome::from(stored.is_ok())).increment(1);
            if let Err(error) = stored {
                // The database is away, or a channel or an account was deleted just then.
                tracing::debug!(%error, "totals are not stored yet");
                self.inner.ledger.put_back(batch);
                self.inner.ledger.put_back(waiting);
                return;
            }
        }
    }
}

/// Takes as much as one transaction should have; `None` when nothing is left.
fn next_batch(waiting: &mut Increments) -> Option<Increments> {
    if waiting.channels.is_empty() && waiting.users.is_empty() {
        return None;
    }
    let channels_left = waiting.channels.len().saturating_sub(BATCH);
    let users_left = waiting.users.len().saturating_sub(BATCH);
    Some(Increments { channels: waiting.channels.split_off(channels_left), users: waiting.users.split_off(users_left) })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const CHANNEL: ChannelId = ChannelId(Uuid::from_u128(1));
    const USER: UserId = UserId(Uuid::from_u128(2));
    const STREAM: StreamId = StreamId(3);

    #[test]
    fn what_waits_is_taken_once_and_comes_again_when_it_was_not_stored() {
        let (ledger, begun) = (Ledger::default(), Instant::now());
        ledger.joined(CHANNEL, USER);
        ledger.came(CHANNEL, STREAM, USER, begun);
        ledger.sent(CHANNEL, STREAM, &MemberTraffic { frames: 50, bytes: 4_000 });
        ledger.carried(CHANNEL, &ChannelTraffic { frames_in: 50, frames_out: 100, ..ChannelTraffic::default() });
        let taken = ledger.take(begun + Duration::from_millis(2_500));
        let user = UserTotals { joins: 1, voice_ms: 2_500, frames: 50, bytes: 4_000 };
        assert_eq!(taken.users, [(USER, user)]);
        let channel = ChannelTotals { joins: 1, frames_in: 50, frames_out: 100, ..ChannelTotals::default() };
        assert_eq!(taken.channels, [(CHANNEL, channel)]);
        ledger.put_back(taken);
        let again = ledger.take(begun + Duration::from_millis(3_000));
        assert_eq!(
            (again.users, again.channels),
            (vec![(USER, UserTotals { voice_ms: 3_000, ..user })], vec![(CHANNEL, channel)])
        );
    }

    #[test]
    fn who_only_listens_is_counted_now_and_then() {
        let (ledger, begun) = (Ledger::default(), Instant::now());
        ledger.came(CHANNEL, STREAM, USER, begun);
        let users = |after_s| ledger.take(begun + Duration::from_secs(after_s)).users;
        assert_eq!((users(3).len(), users(59).len()), (0, 0));
        assert_eq!(users(62), [(USER, UserTotals { voice_ms: 62_000, ..UserTotals::default() })]);
        assert!(users(65).is_empty());
    }

    #[test]
    fn much_is_stored_in_batches() {
        let user = |index| (UserId(Uuid::from_u128(index)), UserTotals::default());
        let mut waiting = Increments { channels: Vec::new(), users: (0..2_500).map(user).collect() };
        let mut sizes = Vec::new();
        while let Some(batch) = next_batch(&mut waiting) {
            sizes.push(batch.users.len());
        }
        assert_eq!(sizes, [1_000, 1_000, 500]);
    }

    #[test]
    fn who_left_is_counted_to_then_and_still_known_for_a_while() {
        let (ledger, begun) = (Ledger::default(), Instant::now());
        let at = |s| begun + Duration::from_secs(s);
        ledger.came(CHANNEL, STREAM, USER, begun);
        ledger.went(CHANNEL, STREAM, at(4));
        ledger.sent(CHANNEL, STREAM, &MemberTraffic { frames: 1, bytes: 80 });
        let taken = ledger.take(at(6));
        assert_eq!(taken.users, [(USER, UserTotals { joins: 0, voice_ms: 4_000, frames: 1, bytes: 80 })]);
        assert!(ledger.take(at(20)).users.is_empty());
        ledger.sent(CHANNEL, STREAM, &MemberTraffic { frames: 1, bytes: 80 });
        assert!(ledger.take(at(21)).users.is_empty(), "nobody's any more");
    }
}
