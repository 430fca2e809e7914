//! The list of one's notifications: what one may not see is not in it, and takes no place in its pages.

use std::collections::BTreeSet;

use antiphon::store::{
    Ban, Change, ChannelLimits, ChannelRole, ChatTerms, Inviter, Membership, NewChannel, NewMessage, NewUser, Outcome,
    Scope, Store, User,
};
use antiphon_core::{
    gateway::{NotificationKind, Role},
    ids::ChannelId,
    permission::{Action, Decision, HistoryFor, Standing, decide},
};
use time::{Duration, OffsetDateTime};

use crate::{
    claims::{run, user, write},
    on_both,
    support::databases::TestDatabase,
};

on_both!(
    the_list_shows_what_permissions_allow,
    a_page_is_full_whatever_is_not_shown,
    one_is_told_once_of_a_membership,
    whoever_makes_channels_to_tell_of_them_is_not_heard_for_long
);

/// A channel as its reader stands to it.
struct Place {
    id: ChannelId,
    is_private: bool,
    history: HistoryFor,
    role: Option<ChannelRole>,
    is_banned: bool,
}

const MEMBER: Membership = Membership { role: ChannelRole::Member, priority: false };

async fn make(store: &Store, owner: &User, name: String, is_private: bool) -> ChannelId {
    let new =
        NewChannel { name, description: String::new(), owner: owner.id, max_users: 9, max_speakers: 0, is_private };
    let most = ChannelLimits::total(10_000);
    store.create_channel(new, most).await.expect("made").id
}

async fn invite(store: &Store, owner: &User, reader: &User, channel: ChannelId) {
    let by = Inviter { user: owner.id, username: &owner.username };
    store.set_membership_by(channel, reader.id, MEMBER, Some(by)).await.expect("works");
}

/// Tells the reader of a membership and of a message, and lets them stand so to the channel from then on.
async fn tell(store: &Store, owner: &User, reader: &User, place: &Place, ban_ends: Option<OffsetDateTime>) {
    invite(store, owner, reader, place.id).await;
    store.remove_membership(place.id, reader.id).await.expect("works");
    if let Some(until) = ban_ends {
        let ban = Ban { channel: place.id, user: reader.id, by: owner.id, reason: None, until: Some(until) };
        store.set_ban(ban).await.expect("works");
    }
    if let Some(role) = place.role {
        store.set_membership(place.id, reader.id, Membership { role, priority: false }).await.expect("works");
    }
    store.set_chat_terms(place.id, ChatTerms { history: place.history, ..ChatTerms::default() }).await.expect("works");
    let new = NewMessage {
        from: owner.id,
        username: owner.username.clone(),
        content: "hello".to_owned(),
        mentions: vec![reader.id],
        nonce: None,
        reply_to: None,
        is_slowed: false,
        notify: vec![(reader.id, NotificationKind::Mention)],
    };
    let applied = store.apply(Scope::Room(place.id), &[Change::Post(new)]).await.expect("works");
    assert!(matches!(applied.outcomes[0], Outcome::Done(_)));
}

async fn the_list_shows_what_permissions_allow(store: Store) {
    let roles = [None, Some(ChannelRole::Member), Some(ChannelRole::Moderator), Some(ChannelRole::Owner)];
    let now = OffsetDateTime::now_utc();
    let bans = [None, Some(now - Duration::HOUR), Some(now + Duration::HOUR)];
    for server in [Role::User, Role::Admin] {
        let name = format!("reader-{}", server == Role::Admin);
        let reader = store.create_user(NewUser { role: server, ..NewUser::named(name) }).await.expect("made");
        let (mut wanted, mut names) = (BTreeSet::new(), 0..);
        for (is_private, history) in
            [true, false].into_iter().flat_map(|is| HistoryFor::ALL.map(|history| (is, history)))
        {
            for (role, ban_ends) in roles.into_iter().flat_map(|role| bans.map(|ban| (role, ban))) {
                let name = format!("{}-{}", reader.username, names.next().expect("endless"));
                // Nobody is told of all that one takes them in.
                let owner = user(&store, &format!("owner-{name}")).await;
                let id = make(&store, &owner, name, is_private).await;
                let place = Place { id, is_private, history, role, is_banned: ban_ends.is_some_and(|end| end > now) };
                tell(&store, &owner, &reader, &place, ban_ends).await;
                wanted.extend(seen_of(&reader, &place).into_iter().map(|kind| (id.to_string(), kind)));
            }
        }
        let found = store.notifications(reader.id, None, true, 1_000).await.expect("works");
        let found: BTreeSet<_> =
            found.iter().map(|found| (found.channel.expect("in one").to_string(), found.kind.as_str())).collect();
        assert_eq!(found, wanted);
        let unread = store.unread_notifications(reader.id).await.expect("works");
        assert_eq!(usize::try_from(unread).expect("few"), wanted.len());
    }
}

/// Of what kinds the reader may see notifications of a place, as single requests are decided.
fn seen_of(reader: &User, place: &Place) -> Vec<&'static str> {
    let (user, server, channel) = (reader.id, reader.role, place.role);
    let standing = Standing { user, server, channel, guest: reader.is_guest, banned: place.is_banned };
    let may = |action| decide(&standing, place.is_private, action) == Decision::Allowed;
    let mention = may(Action::ReadHistory(place.history)).then_some(NotificationKind::Mention.as_str());
    let invitation = may(Action::Join).then_some(NotificationKind::Invitation.as_str());
    mention.into_iter().chain(invitation).collect()
}

async fn a_page_is_full_whatever_is_not_shown(store: Store) {
    let (ada, bob, eve) = (user(&store, "ada").await, user(&store, "bob").await, user(&store, "eve").await);
    for number in 0..4 {
        write(&store, &bob, &ada, &format!("bob {number}")).await;
        write(&store, &eve, &ada, &format!("eve {number}")).await;
    }
    store.set_blocked(ada.id, eve.id, true).await.expect("works");
    let texts = async |before| {
        let found = store.notifications(ada.id, before, false, 3).await.expect("works");
        (found.last().map(|found| found.id), found.into_iter().map(|found| found.content).collect::<Vec<_>>())
    };
    let (last, first_page) = texts(None).await;
    assert_eq!(first_page, ["bob 3", "bob 2", "bob 1"]);
    assert_eq!(texts(last).await.1, ["bob 0"]);
    assert_eq!(store.unread_notifications(ada.id).await.expect("works"), 4);
    store.set_blocked(ada.id, eve.id, false).await.expect("works");
    assert_eq!(texts(None).await.1, ["eve 3", "bob 3", "eve 2"]);
    assert_eq!(store.unread_notifications(ada.id).await.expect("works"), 8);
}

async fn one_is_told_once_of_a_membership(store: Store) {
    let (owner, ada) = (user(&store, "owner").await, user(&store, "ada").await);
    let places =
        [make(&store, &owner, "one".to_owned(), false).await, make(&store, &owner, "two".to_owned(), false).await];
    for again in 0..3 {
        for place in places {
            invite(&store, &owner, &ada, place).await;
            store.remove_membership(place, ada.id).await.expect("works");
        }
        let found = store.notifications(ada.id, None, false, 10).await.expect("works");
        assert_eq!(found.len(), 2, "once in each, the {again}. time");
        // Not again on the same day either, once it was read.
        store.read_notifications(ada.id, found[0].id).await.expect("works");
    }
}

async fn whoever_makes_channels_to_tell_of_them_is_not_heard_for_long(store: Store) {
    let (eve, ada, reader) = (user(&store, "eve").await, user(&store, "ada").await, user(&store, "reader").await);
    let mut told = 0;
    for number in 0..12 {
        let id = make(&store, &eve, format!("channel-{number}"), false).await;
        invite(&store, &eve, &reader, id).await;
        told += store.unread_notifications(reader.id).await.expect("works");
        store.delete_channel(id).await.expect("works");
        assert_eq!(store.unread_notifications(reader.id).await.expect("works"), 0, "it went with the channel");
    }
    assert_eq!(told, 10, "and counts all the same");
    let id = make(&store, &ada, "another".to_owned(), false).await;
    invite(&store, &ada, &reader, id).await;
    assert_eq!(store.unread_notifications(reader.id).await.expect("works"), 1, "others are heard");
    // A day later it is forgotten.
    let swept = store.sweep(OffsetDateTime::now_utc() + Duration::hours(25)).await.expect("works");
    assert_eq!(swept.sends, 11);
    let id = make(&store, &eve, "channel-12".to_owned(), false).await;
    invite(&store, &eve, &reader, id).await;
    assert_eq!(store.unread_notifications(reader.id).await.expect("works"), 2);
}
