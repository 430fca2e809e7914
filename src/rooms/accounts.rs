//! Whose account it is that somebody is here by, and what becomes of their places when it is switched off or gone.
//!
//! The gateway ends its own sessions. Whoever is here without one, by WHIP or WHEP or as a listener by a link, is known to the rooms
//! alone.

use std::collections::BTreeSet;

use antiphon_core::{
    gateway::{LeaveReason, UserView},
    ids::UserId,
};

use super::{Rooms, player::player_of};
use crate::cluster::Leave;

impl Rooms {
    /// Puts somebody out of every channel that they are heard or hear in through this node. False where that failed somewhere: they
    /// are among [`Rooms::people`] still, so that whoever looks at those does it again.
    pub async fn put_out(&self, user: UserId) -> bool {
        // A join that looked at the account before is decided anew.
        self.note_change();
        let mut is_out = true;
        for room in self.all_rooms() {
            let is_member = {
                let live = room.live();
                live.send_outsiders_away(user);
                live.members.values().any(|member| member.presence.user.id == user)
            };
            let leave = Leave::forced(user, LeaveReason::Banned, None, None);
            if is_member && (self.remove(room.id, leave).await.is_err() || room.live().has_here(user)) {
                tracing::warn!(channel = %room.id, "somebody whose account is switched off could not be put out yet");
                is_out = false;
            }
        }
        is_out
    }

    /// Everybody with an account who is heard or hears in a channel through this node, with or without a session of the gateway.
    #[must_use]
    pub fn people(&self) -> BTreeSet<UserId> {
        self.people_who(|_| true)
    }

    /// Those of them who are guests.
    #[must_use]
    pub fn guests(&self) -> BTreeSet<UserId> {
        self.people_who(|user| user.is_guest)
    }

    fn people_who(&self, are_meant: impl Fn(&UserView) -> bool) -> BTreeSet<UserId> {
        let mut people = BTreeSet::new();
        for room in self.all_rooms() {
            let live = room.live();
            let members = live.members.values().map(|member| &member.presence.user);
            people.extend(members.chain(live.links_of()).filter(|user| are_meant(user)).map(|user| user.id));
            // What plays files has no account.
            people.remove(&player_of(room.id));
        }
        people
    }
}
