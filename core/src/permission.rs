//! Who may do what in a channel.
//!
//! Everything that decides it is an argument: the server role, the channel role, whether the channel is private, a
//! ban, whether the account is a guest's. The answer says whether the channel may be admitted to exist at all.

use serde::{Deserialize, Serialize};

use crate::{gateway::Role, ids::UserId};

/// What an account is in one channel. Whoever has none is a stranger to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChannelRole {
    /// Belongs to the channel; only in a private one does that make a difference.
    Member,
    /// Keeps order: invites, mutes, removes and bans whoever ranks lower.
    Moderator,
    /// Changes and deletes the channel and gives roles.
    Owner,
}

impl ChannelRole {
    /// Each role, lowest first.
    pub const ALL: [Self; 3] = [Self::Member, Self::Moderator, Self::Owner];

    /// The role's text on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Moderator => "moderator",
            Self::Owner => "owner",
        }
    }

    /// The role of that text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Who may read what was written in a channel before they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HistoryFor {
    /// Whoever may enter it.
    #[default]
    Everyone,
    /// Whoever belongs to it.
    Members,
    /// Its owner and moderators.
    Moderators,
}

impl HistoryFor {
    /// Each, the widest first.
    pub const ALL: [Self; 3] = [Self::Everyone, Self::Members, Self::Moderators];

    /// Its text on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::Members => "members",
            Self::Moderators => "moderators",
        }
    }

    /// The one of that text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|history| history.as_str() == text)
    }
}

/// An account as it stands to one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub user: UserId,
    /// On the server as a whole.
    pub server: Role,
    /// In the channel; `None` is a stranger.
    pub channel: Option<ChannelRole>,
    /// Has no password, so nobody can get the account back.
    pub guest: bool,
    /// Has an unexpired ban in the channel.
    pub banned: bool,
}

impl Standing {
    /// Who may act on whom: a higher rank on a lower one. Moderators cannot remove each other or the owner.
    const fn rank(&self) -> u8 {
        match (self.server, self.channel) {
            (Role::Admin, _) => 3,
            (Role::User, Some(ChannelRole::Owner)) => 2,
            (Role::User, Some(ChannelRole::Moderator)) => 1,
            (Role::User, Some(ChannelRole::Member) | None) => 0,
        }
    }

    const fn is_admin(&self) -> bool {
        matches!(self.server, Role::Admin)
    }

    /// Whether the channel exists as far as this account is concerned.
    const fn sees(&self, private: bool) -> bool {
        !private || self.is_admin() || self.channel.is_some()
    }
}

/// What somebody wants to do in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Read its settings, members and statistics.
    See,
    /// Enter its voice or text.
    Join,
    /// Change its name, description or limits.
    Edit,
    /// Delete it with all that is in it.
    Delete,
    /// Make an invite code.
    Invite,
    /// Play a file into its voice, and end that.
    Play,
    /// Read what was written before, which is for those named.
    ReadHistory(HistoryFor),
    /// Take away what somebody wrote.
    RemoveMessage(&'a Standing),
    /// Read what others reported.
    ReadReports,
    /// Mark a report as handled, or as open again.
    HandleReport {
        /// Whether one wrote the message oneself.
        is_own: bool,
    },
    /// Begin and end recordings of it.
    Record,
    /// Read and hear its recordings.
    HearRecordings,
    /// Delete one of its recordings, which somebody began: oneself or another.
    DeleteRecording {
        /// Whether it was oneself.
        is_own: bool,
    },
    /// Remove from its voice and text; they may come back.
    Kick(&'a Standing),
    /// Remove and keep out, or let in again.
    Ban(&'a Standing),
    /// Mute or unmute for everyone.
    Mute(&'a Standing),
    /// End a membership; one's own is leaving the channel for good.
    RemoveMember(&'a Standing),
    /// Give a role, or the right to be heard first where speakers are limited.
    SetRole {
        /// Whom.
        target: &'a Standing,
        /// Which role they are to have.
        role: ChannelRole,
    },
}

/// Whether an action may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Yes.
    Allowed,
    /// No, and the answer must be the one for a channel that does not exist.
    Hidden,
    /// No, for this reason.
    Denied(&'static str),
}

/// Decides whether `actor` may do `action` in a channel that is `private` or not.
pub fn decide(actor: &Standing, private: bool, action: Action<'_>) -> Decision {
    if !actor.sees(private) {
        return Decision::Hidden;
    }
    match action {
        Action::See => Decision::Allowed,
        Action::Join => allow(
            !actor.banned || actor.is_admin(),
            "you are banned from this channel; its owner or a moderator can lift the ban",
        ),
        Action::Edit | Action::Delete => allow(actor.rank() >= 2, "only the channel's owner may change or delete it"),
        Action::ReadHistory(history) => match decide(actor, private, Action::Join) {
            Decision::Allowed => read_history(actor, history),
            decision => decision,
        },
        Action::RemoveMessage(author) if author.user == actor.user => Decision::Allowed,
        Action::RemoveMessage(author) => outranks(actor, author),
        Action::ReadReports => allow(actor.rank() >= 1, "only the channel's owner and moderators read reports"),
        Action::HandleReport { is_own } => allow(
            actor.rank() >= 2 || (!is_own && actor.rank() >= 1),
            "a report is handled by the channel's owner, or by a moderator who did not write the message",
        ),
        Action::Record => allow(actor.rank() >= 1, "only the channel's owner and moderators may record it"),
        Action::HearRecordings => {
            allow(actor.rank() >= 1, "only the channel's owner and moderators hear its recordings")
        }
        Action::DeleteRecording { is_own } => allow(
            actor.rank() >= 2 || (is_own && actor.rank() >= 1),
            "a recording is deleted by the channel's owner, or by the moderator who began it",
        ),
        Action::Play => match decide(actor, private, Action::Join) {
            Decision::Allowed => allow(actor.rank() >= 1, "only the channel's owner and moderators may play into it"),
            decision => decision,
        },
        Action::Invite => allow(actor.rank() >= 1, "only the channel's owner and moderators may invite"),
        Action::Kick(target) | Action::Ban(target) | Action::Mute(target) => outranks(actor, target),
        Action::RemoveMember(target) => remove_member(actor, target),
        Action::SetRole { target, role } => set_role(actor, target, role),
    }
}

fn read_history(actor: &Standing, history: HistoryFor) -> Decision {
    let may = match history {
        HistoryFor::Everyone => true,
        HistoryFor::Members => actor.channel.is_some() || actor.is_admin(),
        HistoryFor::Moderators => actor.rank() >= 1,
    };
    allow(may, "what was written in this channel before is not for everyone to read")
}

const fn allow(allowed: bool, reason: &'static str) -> Decision {
    if allowed { Decision::Allowed } else { Decision::Denied(reason) }
}

fn outranks(actor: &Standing, target: &Standing) -> Decision {
    if actor.user == target.user {
        return Decision::Denied("this is done to others; to go yourself, leave the channel");
    }
    if actor.rank() == 0 {
        return Decision::Denied("only the channel's owner and moderators may do this");
    }
    allow(
        actor.rank() > target.rank() || actor.is_admin(),
        "this can only be done to members of a lower role than your own",
    )
}

fn remove_member(actor: &Standing, target: &Standing) -> Decision {
    if target.channel == Some(ChannelRole::Owner) {
        return Decision::Denied("the owner's membership ends with the channel: give it to somebody else or delete it");
    }
    if actor.user == target.user { Decision::Allowed } else { outranks(actor, target) }
}

fn set_role(actor: &Standing, target: &Standing, role: ChannelRole) -> Decision {
    if actor.rank() < 2 {
        return Decision::Denied("only the channel's owner may give roles");
    }
    if target.guest && role != ChannelRole::Member && target.channel != Some(role) {
        return Decision::Denied("a guest cannot be given this role: without a password the account can be lost");
    }
    if target.channel == Some(ChannelRole::Owner) && role != ChannelRole::Owner {
        return Decision::Denied("a channel has an owner: make somebody else the owner instead");
    }
    Decision::Allowed
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn standing(user: u128, channel: Option<ChannelRole>) -> Standing {
        Standing { user: UserId(Uuid::from_u128(user)), server: Role::User, channel, guest: false, banned: false }
    }

    fn owner() -> Standing {
        standing(1, Some(ChannelRole::Owner))
    }

    fn moderator() -> Standing {
        standing(2, Some(ChannelRole::Moderator))
    }

    fn member() -> Standing {
        standing(3, Some(ChannelRole::Member))
    }

    fn stranger() -> Standing {
        standing(4, None)
    }

    fn admin() -> Standing {
        Standing { server: Role::Admin, ..standing(5, None) }
    }

    fn allowed(actor: &Standing, private: bool, action: Action<'_>) -> bool {
        decide(actor, private, action) == Decision::Allowed
    }

    #[test]
    fn a_private_channel_does_not_exist_for_strangers() {
        let target = member();
        for action in [
            Action::See,
            Action::Join,
            Action::Edit,
            Action::Delete,
            Action::Invite,
            Action::Play,
            Action::Kick(&target),
            Action::RemoveMember(&target),
            Action::SetRole { target: &target, role: ChannelRole::Moderator },
        ] {
            assert_eq!(decide(&stranger(), true, action), Decision::Hidden, "{action:?}");
            let banned = Standing { banned: true, ..stranger() };
            assert_eq!(decide(&banned, true, action), Decision::Hidden, "{action:?}");
        }
        for insider in [owner(), moderator(), member(), admin()] {
            assert!(allowed(&insider, true, Action::See));
            assert!(allowed(&insider, true, Action::Join));
        }
    }

    #[test]
    fn a_ban_keeps_out_but_not_administrators() {
        for banned in [stranger(), member()].map(|who| Standing { banned: true, ..who }) {
            assert!(matches!(decide(&banned, false, Action::Join), Decision::Denied(_)));
            assert!(allowed(&banned, false, Action::See));
        }
        assert!(allowed(&Standing { banned: true, ..admin() }, false, Action::Join));
    }

    #[test]
    fn moderation_needs_a_higher_rank() {
        let cases = [
            (owner(), moderator(), true),
            (owner(), admin(), false),
            (moderator(), member(), true),
            (moderator(), stranger(), true),
            (moderator(), Standing { user: UserId(Uuid::from_u128(9)), ..moderator() }, false),
            (moderator(), owner(), false),
            (member(), stranger(), false),
            (admin(), owner(), true),
            (admin(), Standing { user: UserId(Uuid::from_u128(9)), ..admin() }, true),
            (admin(), admin(), false),
        ];
        for (actor, target, expected) in cases {
            for action in [Action::Kick(&target), Action::Ban(&target), Action::Mute(&target)] {
                assert_eq!(allowed(&actor, false, action), expected, "{actor:?} {action:?}");
            }
        }
    }

    #[test]
    fn only_owners_change_a_channel_and_moderators_invite_and_play() {
        for (actor, edits, invites_and_plays) in
            [(owner(), true, true), (moderator(), false, true), (member(), false, false), (admin(), true, true)]
        {
            assert_eq!(allowed(&actor, false, Action::Edit), edits, "{actor:?}");
            assert_eq!(allowed(&actor, false, Action::Delete), edits, "{actor:?}");
            assert_eq!(allowed(&actor, false, Action::Invite), invites_and_plays, "{actor:?}");
            assert_eq!(allowed(&actor, false, Action::Play), invites_and_plays, "{actor:?}");
            let banned = Standing { banned: true, ..actor };
            let is_admin = actor.server == Role::Admin;
            assert_eq!(allowed(&banned, false, Action::Play), is_admin, "{banned:?}");
        }
    }

    #[test]
    fn owners_and_moderators_record_and_delete_what_is_theirs_to_delete() {
        let mine = Action::DeleteRecording { is_own: true };
        let others = Action::DeleteRecording { is_own: false };
        for (actor, records, deletes_own, deletes_others) in [
            (owner(), true, true, true),
            (moderator(), true, true, false),
            (member(), false, false, false),
            (stranger(), false, false, false),
            (admin(), true, true, true),
        ] {
            assert_eq!(allowed(&actor, false, Action::Record), records, "{actor:?}");
            assert_eq!(allowed(&actor, false, Action::HearRecordings), records, "{actor:?}");
            assert_eq!(allowed(&actor, false, mine), deletes_own, "{actor:?}");
            assert_eq!(allowed(&actor, false, others), deletes_others, "{actor:?}");
        }
        for action in [Action::Record, Action::HearRecordings, others] {
            assert_eq!(decide(&stranger(), true, action), Decision::Hidden, "{action:?}");
        }
    }

    #[test]
    fn owners_and_moderators_handle_reports_but_no_moderator_those_of_their_own_messages() {
        let mine = Action::HandleReport { is_own: true };
        let others = Action::HandleReport { is_own: false };
        for (actor, reads, handles_others, handles_own) in [
            (owner(), true, true, true),
            (moderator(), true, true, false),
            (member(), false, false, false),
            (stranger(), false, false, false),
            (admin(), true, true, true),
        ] {
            assert_eq!(allowed(&actor, false, Action::ReadReports), reads, "{actor:?}");
            assert_eq!(allowed(&actor, false, others), handles_others, "{actor:?}");
            assert_eq!(allowed(&actor, false, mine), handles_own, "{actor:?}");
        }
        for action in [Action::ReadReports, mine, others] {
            assert_eq!(decide(&stranger(), true, action), Decision::Hidden, "{action:?}");
        }
    }

    #[test]
    fn everyone_may_end_their_own_membership_but_the_owner() {
        assert!(allowed(&member(), true, Action::RemoveMember(&member())));
        assert!(allowed(&moderator(), true, Action::RemoveMember(&member())));
        assert!(!allowed(&member(), true, Action::RemoveMember(&moderator())));
        assert!(!allowed(&owner(), true, Action::RemoveMember(&owner())));
        assert!(!allowed(&admin(), true, Action::RemoveMember(&owner())));
    }

    #[test]
    fn roles_are_the_owners_to_give_and_not_to_guests() {
        let guest = Standing { guest: true, ..member() };
        let may_give =
            |actor: &Standing, target: &Standing, role| allowed(actor, false, Action::SetRole { target, role });
        assert!(may_give(&owner(), &member(), ChannelRole::Moderator));
        assert!(may_give(&admin(), &stranger(), ChannelRole::Moderator));
        assert!(!may_give(&moderator(), &member(), ChannelRole::Moderator));
        assert!(!may_give(&owner(), &guest, ChannelRole::Moderator));
        assert!(may_give(&owner(), &guest, ChannelRole::Member));
        assert!(!may_give(&admin(), &owner(), ChannelRole::Member));
    }

    #[test]
    fn what_was_written_before_is_for_whom_the_channel_says() {
        let banned = Standing { banned: true, ..member() };
        for (history, readers) in [
            (HistoryFor::Everyone, [true, true, true, true, true]),
            (HistoryFor::Members, [true, true, true, false, true]),
            (HistoryFor::Moderators, [true, true, false, false, true]),
        ] {
            let actors = [owner(), moderator(), member(), stranger(), admin()];
            let read = actors.map(|actor| allowed(&actor, false, Action::ReadHistory(history)));
            assert_eq!(read, readers, "{history:?}");
            assert!(!allowed(&banned, false, Action::ReadHistory(history)), "{history:?}");
            assert_eq!(decide(&stranger(), true, Action::ReadHistory(history)), Decision::Hidden);
            assert_eq!(HistoryFor::from_text(history.as_str()), Some(history));
        }
    }

    #[test]
    fn messages_are_removed_by_their_authors_and_by_who_outranks_them() {
        for (actor, author, expected) in [
            (member(), member(), true),
            (moderator(), member(), true),
            (moderator(), owner(), false),
            (member(), stranger(), false),
            (admin(), owner(), true),
        ] {
            assert_eq!(allowed(&actor, false, Action::RemoveMessage(&author)), expected, "{actor:?} {author:?}");
        }
    }

    #[test]
    fn a_role_has_one_text() {
        for role in ChannelRole::ALL {
            assert_eq!(ChannelRole::from_text(role.as_str()), Some(role));
            assert_eq!(serde_json::to_string(&role).expect("serialises"), format!("\"{}\"", role.as_str()));
        }
        assert_eq!(ChannelRole::from_text("king"), None);
    }
}
