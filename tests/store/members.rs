//! Who belongs to a channel, as what, and who is kept out or muted.

use antiphon::store::{Ban, ChannelLimits, ChannelRole, Membership, StoreError, User};
use antiphon_core::ids::{ChannelId, UserId};
use time::Duration;
use uuid::Uuid;

use crate::{
    Context, MEMBER, MODERATOR, OWNER, channel, invite, new_channel, on_both, open, run, start,
    support::databases::{TestDatabase, at_once},
    user,
};

on_both!(
    members_come_change_and_go,
    a_channel_has_one_owner,
    of_many_hand_overs_at_once_one_lasts,
    bans_end_membership_and_end_themselves,
    a_moderators_mute_is_kept,
    what_belongs_to_nobody_is_missing,
);

async fn members_come_change_and_go(Context { store, .. }: Context) {
    let (anna, berta, clara) = (user(&store, "Anna").await, user(&store, "Berta").await, user(&store, "Clara").await);
    let general = channel(&store, "General", &anna).await;
    assert_eq!(store.membership(general.id, berta.id).await, Ok(None));
    store.set_membership(general.id, berta.id, MEMBER).await.expect("works");
    store.set_membership(general.id, clara.id, MODERATOR).await.expect("works");
    let priority = Membership { priority: true, ..MODERATOR };
    store.set_membership(general.id, berta.id, priority).await.expect("works");
    assert_eq!(store.membership(general.id, berta.id).await, Ok(Some(priority)));
    assert_eq!(store.priorities(general.id).await, Ok([berta.id].into()));
    let all = store.memberships(general.id, 100, 0).await.expect("works");
    let expected = [(anna, OWNER), (berta.clone(), priority), (clara, MODERATOR)];
    assert_eq!(all, expected, "in the order they came");
    for (limit, offset, part) in [(2, 0, 0..2), (2, 2, 2..3), (1, 1, 1..2), (2, 3, 3..3), (2, u32::MAX, 3..3)] {
        assert_eq!(store.memberships(general.id, limit, offset).await.expect("works"), all[part], "{limit} {offset}");
    }
    let ids = store.member_ids(general.id).await.expect("works");
    assert_eq!(ids, all.iter().map(|(user, _)| user.id).collect());
    assert_eq!(store.remove_membership(general.id, berta.id).await, Ok(true));
    assert_eq!(store.remove_membership(general.id, berta.id).await, Ok(false));
    assert_eq!(store.membership(general.id, berta.id).await, Ok(None));
}

async fn a_channel_has_one_owner(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let general = channel(&store, "General", &anna).await;
    for role in [MEMBER, MODERATOR] {
        assert_eq!(store.set_membership(general.id, anna.id, role).await, Err(StoreError::OwnerStays));
    }
    assert_eq!(store.remove_membership(general.id, anna.id).await, Err(StoreError::OwnerStays));
    let ban = Ban { channel: general.id, user: anna.id, by: berta.id, reason: None, until: None };
    assert_eq!(store.set_ban(ban).await, Err(StoreError::OwnerStays));
    assert_eq!(store.membership(general.id, anna.id).await, Ok(Some(OWNER)));
    let priority = Membership { priority: true, ..OWNER };
    store.set_membership(general.id, anna.id, priority).await.expect("still the owner");
    assert_eq!(store.membership(general.id, anna.id).await, Ok(Some(priority)));

    store.set_membership(general.id, berta.id, OWNER).await.expect("a new owner");
    assert_eq!(store.membership(general.id, berta.id).await, Ok(Some(OWNER)));
    assert_eq!(store.membership(general.id, anna.id).await, Ok(Some(Membership { priority: true, ..MODERATOR })));
    assert_eq!(store.channel(general.id).await.expect("works").expect("exists").owner, berta.id);
    assert_eq!(store.remove_membership(general.id, anna.id).await, Ok(true));
}

async fn of_many_hand_overs_at_once_one_lasts(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let general = channel(&store, "General", &anna).await;
    let mut others = Vec::new();
    for index in 0..10 {
        others.push(user(&store, &format!("user{index}")).await.id);
    }
    let results = at_once(10, |index| {
        let (store, user) = (store.clone(), others[index]);
        async move { store.set_membership(general.id, user, OWNER).await }
    });
    assert!(results.await.iter().all(Result::is_ok));
    let members = store.memberships(general.id, 100, 0).await.expect("works");
    let owners: Vec<_> = members.iter().filter(|(_, membership)| membership.role == ChannelRole::Owner).collect();
    assert_eq!(owners.len(), 1, "{owners:?}");
    assert_eq!(store.channel(general.id).await.expect("works").expect("exists").owner, owners[0].0.id);
}

async fn bans_end_membership_and_end_themselves(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let general = channel(&store, "General", &anna).await;
    store.set_membership(general.id, berta.id, MEMBER).await.expect("works");
    let until = start() + Duration::HOUR;
    let ban =
        Ban { channel: general.id, user: berta.id, by: anna.id, reason: Some("noise".to_owned()), until: Some(until) };
    store.set_ban(ban.clone()).await.expect("works");
    assert_eq!(store.membership(general.id, berta.id).await, Ok(None));
    assert_eq!(store.active_ban(general.id, berta.id, start()).await, Ok(Some(ban.clone())));
    assert_eq!(store.active_ban(general.id, berta.id, until - Duration::MICROSECOND).await, Ok(Some(ban.clone())));
    assert_eq!(store.active_ban(general.id, berta.id, until).await, Ok(None));
    assert_eq!(store.active_ban(general.id, anna.id, start()).await, Ok(None));

    let for_good = Ban { until: None, reason: None, ..ban };
    store.set_ban(for_good.clone()).await.expect("in place of the first");
    assert_eq!(store.active_ban(general.id, berta.id, until + Duration::WEEK * 5_000).await, Ok(Some(for_good)));
    assert_eq!(store.remove_ban(general.id, berta.id).await, Ok(true));
    assert_eq!(store.remove_ban(general.id, berta.id).await, Ok(false));
    assert_eq!(store.active_ban(general.id, berta.id, start()).await, Ok(None));
}

async fn a_moderators_mute_is_kept(Context { store, url }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let (general, lobby) = (channel(&store, "General", &anna).await, channel(&store, "Lobby", &anna).await);
    assert_eq!(store.server_muted_by(general.id, berta.id).await, Ok(None));
    store.set_server_mute(general.id, berta.id, anna.id).await.expect("works");
    store.set_server_mute(general.id, berta.id, berta.id).await.expect("muted already");
    store.set_server_mute(lobby.id, berta.id, anna.id).await.expect("works");
    let again = open(&url).await;
    assert_eq!(again.server_muted_by(general.id, berta.id).await, Ok(Some(anna.id)));
    assert_eq!(again.server_muted_by(general.id, anna.id).await, Ok(None));
    again.close().await;
    assert_eq!(store.remove_server_mute(general.id, berta.id).await, Ok(true));
    assert_eq!(store.remove_server_mute(general.id, berta.id).await, Ok(false));
    assert_eq!(store.server_muted_by(general.id, berta.id).await, Ok(None));
    assert_eq!(store.server_muted_by(lobby.id, berta.id).await, Ok(Some(anna.id)), "elsewhere it stays");
    assert_eq!(store.delete_channel(lobby.id).await, Ok(true));
    assert_eq!(store.server_muted_by(lobby.id, berta.id).await, Ok(None), "it went with its channel");
    let nobody = UserId(Uuid::now_v7());
    assert_eq!(store.set_server_mute(general.id, nobody, anna.id).await, Err(StoreError::Missing));
    assert_eq!(store.set_server_mute(lobby.id, berta.id, anna.id).await, Err(StoreError::Missing));
}

async fn what_belongs_to_nobody_is_missing(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let general = channel(&store, "General", &anna).await;
    let (nobody, nowhere) = (UserId(Uuid::now_v7()), ChannelId(Uuid::now_v7()));
    let stray = User { id: nobody, ..anna.clone() };
    assert_eq!(
        store.create_channel(new_channel("x", &stray), ChannelLimits::total(100)).await,
        Err(StoreError::Missing)
    );
    for role in [MEMBER, OWNER] {
        assert_eq!(store.set_membership(general.id, nobody, role).await, Err(StoreError::Missing));
        assert_eq!(store.set_membership(nowhere, anna.id, role).await, Err(StoreError::Missing));
    }
    let ban = Ban { channel: nowhere, user: anna.id, by: anna.id, reason: None, until: None };
    assert_eq!(store.set_ban(ban).await, Err(StoreError::Missing));
    let started = store.start_refresh_family(nobody, [1; 32], start(), start(), 1).await;
    assert_eq!(started, Err(StoreError::Missing));
    let code = store.create_invite(invite(&general, &anna), 10).await.expect("room").code;
    assert_eq!(store.redeem_invite(&code, nobody, start()).await, Err(StoreError::Missing));
    assert_eq!(store.membership(general.id, anna.id).await, Ok(Some(OWNER)), "nothing changed");
}
