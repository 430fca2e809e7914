//! What is to be true: who wants to be in which channel, and who has gone without a word.

use std::{collections::BTreeMap, time::Instant};

use antiphon_core::ids::UserId;

/// What somebody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The channel to be in, by its index.
    pub(crate) channel: Option<usize>,
    /// To be muted there.
    pub(crate) muted: bool,
}

/// What somebody does of their own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Goes to a channel, leaving the one before.
    Go(usize),
    /// Leaves.
    Leave,
    /// Mutes, or unmutes.
    Mute(bool),
    /// Leaves, and comes back by another node, or the same.
    Move(usize),
}

/// Somebody whose client ended without a word while their node was dead: a member until the grace is over, at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ghost {
    pub(crate) user: UserId,
    pub(crate) channel: usize,
    pub(crate) since: Instant,
}

/// Everyone's wishes, by their index.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) wishes: Vec<Wish>,
    pub(crate) ghosts: Vec<Ghost>,
}

impl Model {
    /// Takes down what somebody does; what they want from now on.
    pub(crate) fn does(&mut self, person: usize, deed: Deed) -> Wish {
        let wish = &mut self.wishes[person];
        match deed {
            Deed::Go(channel) => wish.channel = Some(channel),
            Deed::Leave => wish.channel = None,
            Deed::Mute(muted) => wish.muted = muted,
            Deed::Move(_) => {}
        }
        *wish
    }

    /// Who is to be in a channel, and whether muted.
    pub(crate) fn members(&self, channel: usize) -> BTreeMap<usize, bool> {
        let there = self.wishes.iter().enumerate().filter(|(_, wish)| wish.channel == Some(channel));
        there.map(|(person, wish)| (person, wish.muted)).collect()
    }
}
