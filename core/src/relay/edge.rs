//! A channel as a node with members knows it: who owns it, who else has listeners, and whom it left for another owner.

use crate::{clock::Micros, ids::StreamId, slab::SlabKey};

/// Interest is repeated this often (DESIGN.md, Media path).
pub const REFRESH: Micros = Micros::from_secs(1);
/// As long as the owner has not answered, interest is repeated this often for [`EAGER`], and less often then.
const RETRY: Micros = Micros::from_millis(50);
const RETRY_LATER: Micros = Micros::from_millis(250);
const EAGER: Micros = Micros::from_secs(1);
/// An owner that has not answered for this long has forgotten the channel, though it may live: three refreshes.
const ANSWER_LIFETIME: Micros = Micros::from_secs(3);
/// A former owner's frames are on their way for a moment after everyone has come to the new one.
const LINGER: Micros = Micros::from_millis(200);
/// An owner that has not answered interest for this long may not hear this node: its frames are sent past the owner, too.
const UNHEARD: Micros = Micros::from_millis(150);
/// For this long, and it is left, though it is heard.
const DEAF: Micros = Micros::from_millis(400);
/// Those who have not followed to another owner this long after it was chosen still hear the lost one. Whoever lost it
/// with this node has followed by then: heartbeats are as far apart as 50 ms.
const FOLLOWED_AFTER: Micros = Micros::from_millis(120);
/// A handover ends after this long even if somebody did not come along: by then whoever has died is forgotten, and the
/// registry's view has reached everyone that it can reach.
const HANDOVER_MAX: Micros = Micros::from_secs(5);

/// Who owns a channel in this node's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// No node that is left may.
    Nobody,
    /// This node.
    Me,
    /// Another.
    Peer(SlabKey),
}

impl Owner {
    pub(super) fn peer(self) -> Option<SlabKey> {
        match self {
            Self::Peer(link) => Some(link),
            Self::Nobody | Self::Me => None,
        }
    }
}

/// Who is forwarded, as the owner told last.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    pub(super) streams: Vec<StreamId>,
    pub(super) room: bool,
    told_at: Option<Micros>,
}

impl Speakers {
    /// Whether it is recent enough to go by.
    pub(super) fn is_known(&self, now: Micros) -> bool {
        self.told_at.is_some_and(|told| now.since(told) < ANSWER_LIFETIME)
    }

    pub(super) fn set(&mut self, now: Micros, room: bool, streams: impl Iterator<Item = StreamId>) {
        self.room = room;
        self.told_at = Some(now);
        self.streams.clear();
        self.streams.extend(streams);
    }
}

/// The owner before this one, and the nodes that came to it. They are fed until all of them have come to the new owner.
#[derive(Debug)]
pub(super) struct Previous {
    /// `None` when it is lost or gone.
    pub(super) owner: Option<SlabKey>,
    pub(super) set: Vec<SlabKey>,
    /// The set is fed without the owner.
    pub(super) direct: bool,
    pub(super) since: Micros,
    pub(super) covered_at: Option<Micros>,
}

impl Previous {
    pub(super) fn ends_at(&self) -> Micros {
        let latest = self.since + HANDOVER_MAX;
        self.covered_at.map_or(latest, |covered| latest.min(covered + LINGER))
    }

    /// Takes in what was left even before: too much changes at once to rely on any owner.
    pub(super) fn absorb(&mut self, former: Self) {
        self.direct = true;
        for link in former.set {
            if !self.set.contains(&link) {
                self.set.push(link);
            }
        }
    }
}

/// The edge's side of a channel.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) max_speakers: u32,
    pub(super) owner: Owner,
    chosen_at: Micros,
    /// When interest was last told; `None`: it must be told now.
    asked_at: Option<Micros>,
    answered_at: Option<Micros>,
    /// Since when the owner has been asked without an answer.
    asked_since: Option<Micros>,
    /// An owner that is heard and does not answer.
    pub(super) deaf: Option<SlabKey>,
    /// When the owner by the ring, lost, was last asked whether it is back.
    pub(super) probed_at: Micros,
    /// The other nodes with listeners.
    pub(super) set: Vec<SlabKey>,
    pub(super) speakers: Speakers,
    pub(super) previous: Option<Previous>,
    /// A node that still hears the lost owner, followed in its place: it leads to the others.
    pub(super) guide: Option<SlabKey>,
    /// Frames are sent without the owner.
    pub(super) direct: bool,
    /// Somebody here may see pictures.
    pub(super) pictures: bool,
}

impl Edge {
    pub(super) fn new(now: Micros, max_speakers: u32) -> Self {
        Self {
            max_speakers,
            owner: Owner::Nobody,
            chosen_at: now,
            asked_at: None,
            answered_at: None,
            asked_since: None,
            deaf: None,
            probed_at: Micros::ZERO,
            set: Vec::new(),
            speakers: Speakers::default(),
            previous: None,
            guide: None,
            direct: false,
            pictures: false,
        }
    }

    /// The owner is another from now on. Who it was, and the nodes that came to it.
    pub(super) fn follow(&mut self, now: Micros, owner: Owner) -> (Owner, Vec<SlabKey>) {
        self.chosen_at = now;
        self.asked_at = None;
        self.answered_at = None;
        self.asked_since = None;
        (std::mem::replace(&mut self.owner, owner), std::mem::take(&mut self.set))
    }

    /// Whether the owner has told which nodes have listeners.
    pub(super) fn is_answered(&self, now: Micros) -> bool {
        self.owner == Owner::Me || self.answered_at.is_some_and(|answered| now.since(answered) < ANSWER_LIFETIME)
    }

    pub(super) fn answered(&mut self, now: Micros) {
        self.answered_at = Some(now);
        self.asked_since = None;
    }

    fn unanswered_for(&self, now: Micros, time: Micros) -> bool {
        self.asked_since.is_some_and(|since| now.since(since) >= time)
    }

    /// Whether the owner, as far as this node can tell, does not hear it.
    pub(super) fn is_unheard(&self, now: Micros) -> bool {
        self.unanswered_for(now, UNHEARD)
    }

    /// Notes it when the owner has not answered for too long. True when that is new.
    pub(super) fn note_deaf(&mut self, now: Micros) -> bool {
        let deaf = self.owner.peer().filter(|_| self.unanswered_for(now, DEAF));
        if deaf.is_none() || deaf == self.deaf {
            return false;
        }
        self.deaf = deaf;
        true
    }

    /// Interest must be told at once.
    pub(super) fn ask_now(&mut self) {
        self.asked_at = None;
    }

    /// When interest is to be told: to the owner, and to the one before, who learns by it whom to follow.
    pub(super) fn asks_at(&self, now: Micros) -> Option<Micros> {
        let previous = || self.previous.as_ref().and_then(|previous| previous.owner);
        self.owner.peer().or_else(previous)?;
        let Some(asked) = self.asked_at else { return Some(now) };
        let after = match self.asked_since {
            None => REFRESH,
            Some(since) if now.since(since) < EAGER => RETRY,
            Some(_) => RETRY_LATER,
        };
        Some(asked + after)
    }

    pub(super) fn asked(&mut self, now: Micros) {
        self.asked_at = Some(now);
        if self.owner.peer().is_some() {
            self.asked_since.get_or_insert(now);
        }
    }

    /// When a guide is to be looked for.
    pub(super) fn guide_at(&self) -> Micros {
        self.chosen_at + FOLLOWED_AFTER
    }

    /// When the lost owner is to be asked again.
    pub(super) fn probes_at(&self) -> Micros {
        self.probed_at + RETRY_LATER
    }
}
