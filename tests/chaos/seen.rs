//! What one person's client has seen: where they are, what they heard, and what must not be.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use antiphon_core::{
    gateway::{ChannelJoined, ServerMessage},
    ids::{ChannelId, StreamId, UserId},
};
use antiphon_loadtest::{client::ClientEvent, gateway::Closed};

use crate::{
    journal::{View, is_old, place},
    support::people::number_of,
};

/// More than a step's frames.
const HEARD_MAX: usize = 100_000;

/// Who joined within this before their node died may find that the place is not theirs any more: it was not written
/// into the session's record yet.
const RECORD_GRACE: Duration = Duration::from_secs(3);

/// A frame that was heard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) stream: StreamId,
    pub(crate) number: u32,
    pub(crate) at: Instant,
}

/// A channel that they are in.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) view: View,
    pub(crate) stream: StreamId,
    since: Instant,
}

/// Everything about one person.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) me: UserId,
    pub(crate) places: HashMap<ChannelId, Place>,
    /// Events of a channel whose `ChannelJoined` is on its way to us.
    early: Vec<ServerMessage>,
    /// A join or leave without an answer.
    pub(crate) in_doubt: Option<ChannelId>,
    /// The media address of the node that they are at, as far as they are in a channel.
    pub(crate) node: Option<SocketAddr>,
    pub(crate) heard: Vec<Heard>,
    /// Who left the channels that they were in, of this step.
    pub(crate) leavers: Vec<UserId>,
    /// Since when there is no connection.
    lost_at: Option<Instant>,
    pub(crate) closed: Option<Closed>,
    pub(crate) resumed_after: Vec<Duration>,
    /// Sessions that were closed for good, and requests that were refused, by why.
    pub(crate) counts: BTreeMap<String, u32>,
    /// A fault of this step may end sessions, so that one that is over is no violation.
    pub(crate) may_end: bool,
    pub(crate) violations: Vec<String>,
}

impl Seen {
    pub(crate) fn new(me: UserId) -> Self {
        Self {
            me,
            places: HashMap::new(),
            early: Vec::new(),
            in_doubt: None,
            node: None,
            heard: Vec::new(),
            leavers: Vec::new(),
            lost_at: None,
            closed: None,
            resumed_after: Vec::new(),
            counts: BTreeMap::new(),
            may_end: false,
            violations: Vec::new(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.lost_at.is_none() && self.closed.is_none()
    }

    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// A new session takes the place of one that is over.
    pub(crate) fn begin_anew(&mut self) {
        self.places.clear();
        self.early.clear();
        (self.in_doubt, self.node, self.closed, self.lost_at) = (None, None, None, None);
    }

    pub(crate) fn take(&mut self, event: ClientEvent) {
        match event {
            // A client that loses UDP says so with a frame of nothing.
            ClientEvent::Frame(frame) if self.heard.len() < HEARD_MAX && !frame.bytes.is_empty() => {
                let heard = Heard { stream: frame.header.stream, number: number_of(&frame), at: Instant::now() };
                self.heard.push(heard);
            }
            ClientEvent::Frame(_) | ClientEvent::UdpWorks(_) => {}
            ClientEvent::Message(message) => self.message(*message),
            ClientEvent::Disconnected => {
                self.lost_at.get_or_insert_with(Instant::now);
                self.count("connection lost");
            }
            ClientEvent::Resumed(channels) => self.resumed(channels),
            ClientEvent::Closed(closed) => self.ended(closed),
        }
    }

    /// The answer to a join, after everything that was in the queue of events then was taken.
    pub(crate) fn joined(&mut self, joined: ChannelJoined) {
        self.in_doubt = None;
        self.node = address_of(&joined);
        let early = std::mem::take(&mut self.early);
        let (me, channel, position) = (self.me, joined.channel_id, joined.position);
        if self.places.contains_key(&channel) {
            return;
        }
        let view = View::new(me, position.clone(), &joined.members);
        self.places.insert(channel, Place { view, stream: joined.voice.stream_id, since: Instant::now() });
        for message in early.into_iter().filter(|message| !is_old(&position, message)) {
            self.message(message);
        }
    }

    pub(crate) fn left(&mut self, channel: ChannelId) {
        self.places.remove(&channel);
        self.early.clear();
        self.in_doubt = self.in_doubt.filter(|doubtful| *doubtful != channel);
    }

    fn message(&mut self, message: ServerMessage) {
        match &message {
            // Answers that came too late for whoever asked.
            ServerMessage::ChannelJoined(joined) => return self.joined(joined.clone()),
            ServerMessage::ChannelLeft(left) => return self.left(left.channel_id),
            ServerMessage::Removed(removed) => {
                self.violation(format!("removed from a channel: {removed:?}"));
                return self.left(removed.channel_id);
            }
            ServerMessage::Recovered(recovered) => {
                let place = self.places.get_mut(&recovered.channel_id);
                if let (Some(place), Some(position), Some(members)) = (place, &recovered.position, &recovered.members) {
                    place.view.recovered(position.clone(), members);
                    self.count("full state instead of events");
                }
                return;
            }
            _ => {}
        }
        if let ServerMessage::UserLeft(left) = &message {
            self.leavers.push(left.user_id);
        }
        let Some((channel, _)) = place(&message) else { return };
        match self.places.get_mut(&channel) {
            Some(place) => {
                if let Err(error) = place.view.event(&message) {
                    self.violation(error);
                }
            }
            None => self.early.push(message),
        }
    }

    fn resumed(&mut self, channels: Vec<ChannelJoined>) {
        if let Some(lost_at) = self.lost_at.take() {
            self.resumed_after.push(lost_at.elapsed());
        }
        self.count("resumed");
        let gone: Vec<ChannelId> = self.places.keys().copied().collect();
        for channel in gone.into_iter().filter(|gone| channels.iter().all(|joined| joined.channel_id != *gone)) {
            let is_new = self.places.remove(&channel).is_some_and(|place| place.since.elapsed() < RECORD_GRACE);
            if is_new || self.in_doubt == Some(channel) || self.may_end {
                self.count("place lost by a resumption");
            } else {
                self.violation("resumed without a channel that they were in");
            }
        }
        for joined in channels {
            self.node = address_of(&joined);
            let Some(place) = self.places.get_mut(&joined.channel_id) else {
                self.joined(joined);
                continue;
            };
            if place.stream != joined.voice.stream_id {
                let now = joined.voice.stream_id;
                let before = std::mem::replace(&mut place.stream, now);
                self.violations.push(format!("resumed with stream {now} instead of {before}"));
            }
            if let Err(error) = place.view.resumed(joined.position, &joined.members) {
                self.violations.push(error);
            }
        }
    }

    fn ended(&mut self, closed: Closed) {
        self.count(format!("session over: {closed}"));
        if !self.may_end {
            self.violation(format!("the session is over: {closed}"));
        }
        self.closed = Some(closed);
    }
}

fn address_of(joined: &ChannelJoined) -> Option<SocketAddr> {
    joined.voice.udp.as_ref()?.udp.first()?.parse().ok()
}
