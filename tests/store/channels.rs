//! Channels, and rooms that end by themselves.

use antiphon::store::{Channel, ChannelChange, ChannelLimits, NewChannel, NewUser, RoomTerms, StoreError, User};
use time::{Duration, OffsetDateTime};

use crate::{
    Context, MEMBER, OWNER, channel, guest, invite, new_channel, on_both, run, start,
    support::databases::{TestDatabase, at_once},
    user,
};

on_both!(
    channels_are_made_changed_and_deleted,
    a_channel_name_is_taken_in_any_case,
    there_are_never_too_many_channels,
    an_account_owns_no_more_channels_than_it_may,
    guests_leave_channels_to_accounts,
    listings_show_public_channels_and_ones_own,
    rooms_end_when_nobody_keeps_them,
);

async fn an_account_owns_no_more_channels_than_it_may(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let most = ChannelLimits { per_owner: 2, ..ChannelLimits::total(100) };
    for name in ["One", "Two"] {
        store.create_channel(new_channel(name, &anna), most).await.expect("her first two");
    }
    let third = store.create_channel(new_channel("Three", &anna), most).await;
    assert_eq!(third, Err(StoreError::LimitReached("channels of one account (limits.channels_per_account)")));
    store.create_channel(new_channel("Three", &berta), most).await.expect("another's");
}

async fn guests_leave_channels_to_accounts(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let of_guests = ChannelLimits { of_guests: 2, ..ChannelLimits::total(4) };
    let made = async |name: &str, owner: &User, most| store.create_channel(new_channel(name, owner), most).await;
    made("Hers", &anna, ChannelLimits::total(4)).await.expect("an account's");
    for (name, owner) in [("One", "guest1"), ("Two", "guest2")] {
        made(name, &guest(&store, owner).await, of_guests).await.expect("a guest's");
    }
    let third = made("Three", &guest(&store, "guest3").await, of_guests).await;
    assert_eq!(third, Err(StoreError::LimitReached("channels of guests (half of limits.max_channels)")));
    made("Three", &anna, ChannelLimits::total(4)).await.expect("there is room for accounts");
    let fifth = made("Four", &anna, ChannelLimits::total(4)).await;
    assert_eq!(fifth, Err(StoreError::LimitReached("channels")));
}

async fn channels_are_made_changed_and_deleted(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let new = NewChannel {
        description: "Everything".to_owned(),
        max_users: 12,
        max_speakers: 3,
        is_private: true,
        ..new_channel("General", &anna)
    };
    let made = store.create_channel(new, ChannelLimits::total(100)).await.expect("a free name");
    assert_eq!((made.name.as_str(), made.description.as_str(), made.owner), ("General", "Everything", anna.id));
    assert_eq!((made.max_users, made.max_speakers, made.is_private), (12, 3, true));
    assert_eq!(store.channel(made.id).await, Ok(Some(made.clone())));
    assert_eq!(store.channel_by_name("gENERAL").await, Ok(Some(made.clone())));
    assert_eq!(store.membership(made.id, anna.id).await, Ok(Some(OWNER)), "the owner is a member");

    let nothing = store.update_channel(made.id, ChannelChange::default()).await;
    assert_eq!(nothing, Ok(Some(made.clone())));
    let change = ChannelChange { name: Some("Lobby".to_owned()), is_private: Some(false), ..ChannelChange::default() };
    let changed = store.update_channel(made.id, change).await.expect("works").expect("exists");
    assert_eq!(changed, Channel { name: "Lobby".to_owned(), is_private: false, ..made.clone() });
    assert_eq!(store.channel_by_name("general").await, Ok(None), "the old name is free");
    let change = ChannelChange {
        description: Some(String::new()),
        max_users: Some(1),
        max_speakers: Some(0),
        ..ChannelChange::default()
    };
    let changed = store.update_channel(made.id, change).await.expect("works").expect("exists");
    assert_eq!((changed.description.as_str(), changed.max_users, changed.max_speakers), ("", 1, 0));

    let code = store.create_invite(invite(&made, &anna), 10).await.expect("room").code;
    assert_eq!(store.delete_channel(made.id).await, Ok(true));
    assert_eq!(store.delete_channel(made.id).await, Ok(false));
    assert_eq!(store.channel(made.id).await, Ok(None));
    assert_eq!(store.membership(made.id, anna.id).await, Ok(None));
    assert_eq!(store.invite(&code, start()).await, Ok(None));
    assert_eq!(store.update_channel(made.id, ChannelChange::default()).await, Ok(None));
}

async fn a_channel_name_is_taken_in_any_case(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    channel(&store, "General", &anna).await;
    let lobby = channel(&store, "Lobby", &anna).await;
    let taken = store.create_channel(new_channel("gENERAL", &anna), ChannelLimits::total(100)).await;
    assert_eq!(taken, Err(StoreError::Conflict("channel name")));
    let change = ChannelChange { name: Some("GENERAL".to_owned()), ..ChannelChange::default() };
    assert_eq!(store.update_channel(lobby.id, change).await, Err(StoreError::Conflict("channel name")));
    let same = ChannelChange { name: Some("LOBBY".to_owned()), ..ChannelChange::default() };
    assert_eq!(store.update_channel(lobby.id, same).await.expect("its own name").expect("exists").name, "LOBBY");
}

async fn there_are_never_too_many_channels(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let results = at_once(30, |index| {
        let (store, new) = (store.clone(), new_channel(&format!("channel{index}"), &anna));
        async move { store.create_channel(new, ChannelLimits::total(7)).await }
    });
    let results = results.await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 7);
    let refused = results.iter().filter_map(|result| result.as_ref().err());
    assert!(
        refused.clone().all(|error| *error == StoreError::LimitReached("channels")),
        "{:?}",
        refused.collect::<Vec<_>>()
    );
    assert_eq!(store.channels_count().await, Ok(7));
}

async fn listings_show_public_channels_and_ones_own(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    channel(&store, "zebra", &anna).await;
    channel(&store, "Ape", &anna).await;
    let secret = NewChannel { is_private: true, ..new_channel("secret", &anna) };
    let secret = store.create_channel(secret, ChannelLimits::total(100)).await.expect("a free name");
    let names = |channels: Vec<Channel>| channels.into_iter().map(|channel| channel.name).collect::<Vec<_>>();
    assert_eq!(names(store.public_channels().await.expect("works")), ["Ape", "zebra"]);
    assert_eq!(names(store.channels_of(anna.id).await.expect("works")), ["Ape", "secret", "zebra"]);
    assert!(store.channels_of(berta.id).await.expect("works").is_empty());
    store.set_membership(secret.id, berta.id, MEMBER).await.expect("works");
    assert_eq!(names(store.channels_of(berta.id).await.expect("works")), ["secret"]);
}

async fn rooms_end_when_nobody_keeps_them(Context { store, .. }: Context) {
    let anna = store.create_user(NewUser::named("anna")).await.expect("made");
    let make =
        async |name| store.create_channel(new_channel(name, &anna), ChannelLimits::total(9)).await.expect("made").id;
    let (kept, left, plain) = (make("kept").await, make("left").await, make("plain").await);
    let now = OffsetDateTime::now_utc();
    let terms = RoomTerms { max_publishers: 4, expires_at: now };
    for room in [kept, left] {
        store.set_room_terms(room, terms).await.expect("stored");
    }
    let later = now + Duration::hours(1);
    store.keep_rooms(&[kept, plain], later).await.expect("kept");
    store.keep_rooms(&[kept], now).await.expect("never sooner");
    assert_eq!(store.sweep(now).await.expect("swept").rooms, 1);
    assert!(store.channel(left).await.expect("read").is_none());
    assert_eq!(store.room_terms(kept).await.expect("read").map(|terms| terms.max_publishers), Some(4));
    assert_eq!(store.room_terms(plain).await.expect("read"), None);
    assert!(store.channel(plain).await.expect("read").is_some());
}
