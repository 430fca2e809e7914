//! Those who hear a channel's mix without being in it: with an ordinary player, by a signed link. They take no place, are in
//! no roster, and no other node knows of them. While there is one, the node gets the channel's frames as if it had a member.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use antiphon_core::{
    engine::Command,
    gateway::{ErrorCode, UserView},
    ids::{ChannelId, StreamId, UserId},
};
use tokio::sync::{Notify, broadcast, watch};

use super::{
    Rooms,
    admit::not_found,
    directory::Directory,
    room::{Live, Room, Turn},
};
use crate::{
    error::AppError,
    mixer::{FeedPart, FeedSender, MixSeat, Mixer, feed},
    random,
    store::Channel,
};

/// Whether listeners still may hear a channel is looked at this often, beside when something changes that decides it.
const REVIEW: Duration = Duration::from_secs(10);
/// When to come back to a node that is about to stop, in seconds.
const RETRY_S: u64 = 2;

/// Why a listener hears no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Whoever their link is from may not hear the channel any more, or it is gone.
    Unwelcome,
    /// The node is about to stop.
    Draining,
}

/// What a channel's listeners outside share.
#[derive(Debug)]
pub(super) struct Overheard {
    /// By which the mixer knows them: nobody's stream.
    stream: StreamId,
    feed: FeedSender,
    outsiders: Vec<Outsider>,
    /// Rings when one has gone.
    gone: Arc<Notify>,
    _seat: MixSeat,
}

/// One of them.
#[derive(Debug)]
struct Outsider {
    /// Whose link it is.
    user: UserView,
    part: watch::Sender<Option<Parting>>,
}

/// What a listener outside hears, until they are sent away or this is dropped.
#[derive(Debug)]
pub struct Overhearing {
    /// The channel as it was set when they came.
    pub channel: Channel,
    /// The mix.
    feed: broadcast::Receiver<FeedPart>,
    /// Turns to a reason when they are to go. `None` once this is being dropped.
    parting: Option<watch::Receiver<Option<Parting>>>,
    gone: Arc<Notify>,
}

/// What a listener gets instead of the next part of the mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// They were too slow: so many parts are gone.
    Missed(u64),
    /// They are to go.
    Parted(Parting),
}

impl Overhearing {
    /// A listener of a feed alone, and what sends them away.
    #[cfg(test)]
    pub(crate) fn of_feed(feed: &FeedSender) -> (Self, watch::Sender<Option<Parting>>) {
        let channel = Channel {
            id: ChannelId(uuid::Uuid::nil()),
            name: "lobby".to_owned(),
            description: String::new(),
            owner: UserId(uuid::Uuid::nil()),
            max_users: 10,
            max_speakers: 0,
            is_private: false,
            created_at: time::OffsetDateTime::UNIX_EPOCH,
        };
        let (part, parting) = watch::channel(None);
        (Self { channel, feed: feed.subscribe(), parting: Some(parting), gone: Arc::default() }, part)
    }

    /// The next part of the mix, once there is one.
    ///
    /// # Errors
    /// When parts were missed, or the listener is to go.
    pub async fn next(&mut self) -> Result<FeedPart, Interruption> {
        let gone = Interruption::Parted(Parting::Unwelcome);
        let Self { feed, parting: Some(parting), .. } = self else { return Err(gone) };
        // Without a sender the room is no more.
        let parted = async { parting.wait_for(Option::is_some).await.ok().and_then(|parting| *parting) };
        tokio::select! {
            biased;
            parted = parted => Err(parted.map_or(gone, Interruption::Parted)),
            part = feed.recv() => part.map_err(|missed| match missed {
                broadcast::error::RecvError::Lagged(parts) => Interruption::Missed(parts),
                broadcast::error::RecvError::Closed => gone,
            }),
        }
    }
}

impl Drop for Overhearing {
    fn drop(&mut self) {
        // Before the room looks who is left.
        self.parting = None;
        self.gone.notify_one();
    }
}

impl Overheard {
    fn admit(&mut self, user: &UserView, channel: Channel) -> Overhearing {
        let (part, parting) = watch::channel(None);
        self.outsiders.push(Outsider { user: user.clone(), part });
        let feed = self.feed.subscribe();
        Overhearing { channel, feed, parting: Some(parting), gone: Arc::clone(&self.gone) }
    }

    /// Forgets those who have gone; how many are left.
    fn forget_gone(&mut self) -> usize {
        self.outsiders.retain(|outsider| !outsider.part.is_closed());
        self.outsiders.len()
    }

    fn send_away(&self, parting: Parting, is_meant: impl Fn(UserId) -> bool) {
        for outsider in self.outsiders.iter().filter(|outsider| is_meant(outsider.user.id)) {
            outsider.part.send_if_modified(|known| known.replace(parting).is_none());
        }
    }
}

impl Live {
    /// How many hear the mix here without being in the channel.
    pub(super) fn outsiders(&self) -> usize {
        self.links_of().count()
    }

    /// Whose links those who hear the mix here came by, each as often as somebody does.
    pub(super) fn links_of(&self) -> impl Iterator<Item = &UserView> {
        let outsiders = self.overheard.iter().flat_map(|overheard| &overheard.outsiders);
        outsiders.filter(|outsider| !outsider.part.is_closed()).map(|outsider| &outsider.user)
    }

    /// Sends somebody's listeners away.
    pub(super) fn send_outsiders_away(&self, user: UserId) {
        if let Some(overheard) = &self.overheard {
            overheard.send_away(Parting::Unwelcome, |of| of == user);
        }
    }
}

impl Rooms {
    /// Lets somebody hear a channel's mix without being in it.
    ///
    /// # Errors
    /// When `user` may not enter the channel, this server mixes nothing, the mixer has no time for one more channel, the node
    /// is about to stop, or what all nodes share cannot be reached and nobody here is in the channel.
    pub async fn overhear(&self, user: &UserView, channel: ChannelId) -> Result<Overhearing, AppError> {
        loop {
            let mixer = self.mixer_for_outsiders()?;
            let decided_at = self.inner.changes.load(Ordering::Acquire);
            let settings = self.readable(user, channel).await?;
            let (room, mut turn) = self.turn_of_new(channel).await;
            // A ban or a role may have changed while it was looked up.
            let heard = match decided_at == self.inner.changes.load(Ordering::Acquire) {
                true => Some(self.overhear_within(user, (&room, &mut turn), settings, mixer).await),
                false => None,
            };
            self.close_if_empty(&room, &mut turn).await;
            drop(turn);
            let Some(heard) = heard else { continue };
            let heard = heard?;
            // They may have been closed since.
            self.mixer_for_outsiders()?;
            // Another node may have banned them in between.
            if self.inner.membership.is_shared() && matches!(self.why_unwelcome(user, channel).await, Ok(Some(_))) {
                return Err(not_found());
            }
            return Ok(heard);
        }
    }

    /// The mixer, unless nobody may begin to listen now.
    fn mixer_for_outsiders(&self) -> Result<&Mixer, AppError> {
        if self.inner.closed_to_outsiders.load(Ordering::Acquire) {
            let message = "this node is about to stop: come back, to another one";
            return Err(AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_S));
        }
        let none = "listening to channels is not offered by this server (mixer.threads is 0)";
        self.mixer().ok_or_else(|| AppError::new(ErrorCode::InvalidInput, none))
    }

    async fn overhear_within(
        &self,
        user: &UserView,
        (room, turn): (&Arc<Room>, &mut Turn),
        settings: Channel,
        mixer: &Mixer,
    ) -> Result<Overhearing, AppError> {
        if *turn == Turn::New {
            // Before the place is read, so that nothing after it goes unheard.
            self.inner.membership.watch(room.id).await?;
            *turn = Turn::Text;
        }
        if room.applied().is_none() {
            self.begin_text(room).await?;
        }
        let is_first = room.live().overheard.is_none();
        let seat = if is_first { Some(mixer.take_seat(room.id, None).map_err(no_time)?) } else { None };
        self.open(room, turn, settings.clone()).await;
        if let Some(seat) = seat {
            self.begin_feed(room, mixer, seat).await;
        }
        let live = &mut *room.live_mut();
        let overheard = live.overheard.as_mut().expect("made above, and ended in the room's turn alone");
        Ok(overheard.admit(user, settings))
    }

    /// Has the mixer mix for those who are not in the channel.
    async fn begin_feed(&self, room: &Arc<Room>, mixer: &Mixer, seat: MixSeat) {
        let stream = loop {
            let stream = StreamId(random::number());
            if stream.0 != 0 && room.live().roster.get(stream).is_none() {
                break stream;
            }
        };
        let (feed, gone) = (feed(), Arc::new(Notify::new()));
        let overheard =
            Overheard { stream, feed: feed.clone(), outsiders: Vec::new(), gone: Arc::clone(&gone), _seat: seat };
        room.live_mut().overheard = Some(overheard);
        self.inner.media.send(room.home, Command::SetOverheard { channel: room.id, overheard: true }).await;
        mixer.add_feed(room.id, room.home, stream, feed).await;
        tokio::spawn(self.clone().keep_feed(Arc::clone(room), gone));
    }

    /// Looks after a channel's listeners outside, until there are none.
    async fn keep_feed(self, room: Arc<Room>, gone: Arc<Notify>) {
        let mut review = tokio::time::interval_at(tokio::time::Instant::now() + REVIEW, REVIEW);
        loop {
            tokio::select! {
                () = gone.notified() => {}
                _ = review.tick() => self.review_outsiders(room.id).await,
            }
            if self.end_feed_unless_heard(&room).await {
                return;
            }
        }
    }

    async fn end_feed_unless_heard(&self, room: &Arc<Room>) -> bool {
        let mut turn = room.turn.lock().await;
        let ended = room.live_mut().overheard.take_if(|overheard| overheard.forget_gone() == 0);
        let Some(ended) = ended else { return false };
        self.inner.media.send(room.home, Command::SetOverheard { channel: room.id, overheard: false }).await;
        self.end_mix(room, ended.stream).await;
        self.close_if_empty(room, &mut turn).await;
        true
    }

    /// Sends those away whose links are from people who may not hear the channel any more.
    pub(super) async fn review_outsiders(&self, channel: ChannelId) {
        let Some(room) = self.room(channel) else { return };
        let users: BTreeMap<UserId, UserView> = room.live().links_of().map(|user| (user.id, user.clone())).collect();
        for (id, user) in users {
            // While the database is away nobody can have changed anything.
            if let Ok(Some(_)) = self.why_unwelcome(&user, channel).await {
                room.live().send_outsiders_away(id);
            }
        }
    }

    /// How many hear the mix of which channels here without being in them; the most first.
    #[must_use]
    pub fn overheard(&self) -> Vec<(ChannelId, usize)> {
        let mut heard: Vec<(ChannelId, usize)> =
            self.all_rooms().iter().map(|room| (room.id, room.live().outsiders())).collect();
        heard.retain(|(_, outsiders)| *outsiders > 0);
        heard.sort_unstable_by_key(|(channel, outsiders)| (std::cmp::Reverse(*outsiders), *channel));
        heard
    }

    /// Whether people may listen without being in a channel. While they may not, those who do are sent away.
    pub fn set_open_to_outsiders(&self, open: bool) {
        self.inner.closed_to_outsiders.store(!open, Ordering::Release);
        if open {
            return;
        }
        for room in self.all_rooms() {
            if let Some(overheard) = &room.live().overheard {
                overheard.send_away(Parting::Draining, |_| true);
            }
        }
    }
}

impl Directory {
    /// A channel that `caller` may hear.
    ///
    /// # Errors
    /// `CHANNEL_NOT_FOUND`, also for a private one that `caller` does not belong to; `PERMISSION_DENIED` for the banned.
    pub async fn audible(&self, caller: &UserView, id: ChannelId) -> Result<Channel, AppError> {
        self.rooms().readable(caller, id).await
    }

    /// Lets somebody hear a channel without being in it.
    ///
    /// # Errors
    /// As [`Rooms::overhear`].
    pub async fn overhear(&self, caller: &UserView, id: ChannelId) -> Result<Overhearing, AppError> {
        self.rooms().overhear(caller, id).await
    }

    /// How many listen to which channels here without being in them.
    #[must_use]
    pub fn overheard(&self) -> Vec<(ChannelId, usize)> {
        self.rooms().overheard()
    }
}

/// What a listener is told where the mixer refuses: nothing of modes, which they do not choose.
fn no_time(refused: AppError) -> AppError {
    let message = "this node mixes for as many as it can: try again later, or through another node";
    AppError::retry(refused.code, message, RETRY_S)
}
