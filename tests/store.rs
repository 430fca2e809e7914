//! The store, on both databases: every check below runs on SQLite and on PostgreSQL.

mod support;

use std::{collections::BTreeSet, future::Future, os::unix::fs::PermissionsExt};

use antiphon::store::{
    AUDIT_KEPT, Attempt, Ban, Bucket, Channel, ChannelChange, ChannelLimits, ChannelRole, ChannelTotals, Claim,
    Claimed, FileSeen, Increments, LOGIN_PLACE_REMEMBERED, LibraryQuery, Lifetimes, Listen, ListenTotals, Membership,
    MixState, NewAudit, NewChannel, NewInvite, NewRecording, NewUser, Recording, RecordingLimits, RecordingTrack,
    RoomTerms, Rotation, Store, StoreError, Swept, User, UserTotals,
};
use antiphon_core::{
    gateway::{RecordingEnd, Role},
    ids::{ChannelId, RecordingId, TrackId, UserId},
};
use support::databases::{TestDatabase, at_once};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

on_both!(
    accounts_are_found_by_id_and_by_name,
    a_username_is_taken_in_any_case,
    passwords_are_kept_apart_from_accounts,
    accounts_change,
    the_first_account_is_an_administrator,
    of_many_first_accounts_one_is_an_administrator,
    channels_are_made_changed_and_deleted,
    a_channel_name_is_taken_in_any_case,
    there_are_never_too_many_channels,
    there_are_never_too_many_guests,
    an_account_owns_no_more_channels_than_it_may,
    guests_leave_channels_to_accounts,
    listings_show_public_channels_and_ones_own,
    members_come_change_and_go,
    a_channel_has_one_owner,
    of_many_hand_overs_at_once_one_lasts,
    bans_end_membership_and_end_themselves,
    a_moderators_mute_is_kept,
    invites_make_members,
    a_one_use_invite_lets_exactly_one_in,
    one_user_at_once_uses_an_invite_once,
    invites_run_out,
    there_are_never_too_many_invites,
    refresh_tokens_rotate,
    a_used_refresh_token_ends_its_family,
    of_many_refreshes_at_once_one_wins,
    refresh_tokens_run_out_and_log_out,
    logins_of_an_account_are_bounded,
    failures_fill_and_are_forgiven,
    many_attempts_at_once_do_not_pass_together,
    a_refused_attempt_counts_nowhere,
    login_places_are_remembered_for_a_while,
    external_identities_belong_to_accounts,
    the_sweep_deletes_what_has_had_its_time,
    the_sweep_works_in_batches,
    rooms_end_when_nobody_keeps_them,
    listens_add_up_by_file_and_day_until_they_are_forgotten,
    a_list_of_files_is_believed_less_than_what_was_written_since,
    a_file_that_could_not_be_removed_is_its_owners_again,
    a_channel_has_one_recording_at_a_time,
    of_many_who_begin_to_record_one_does,
    recordings_have_tracks_and_end_with_their_channel,
    a_mix_is_made_by_one_node_at_a_time,
    files_of_recordings_are_listed_for_those_who_may_know,
    totals_add_up_and_begin_anew,
    what_was_done_is_written_down_for_a_while,
    what_belongs_to_nobody_is_missing,
    what_is_stored_is_there_after_opening_again,
    many_writers_wait_for_each_other,
    whatever_happens_at_once_waits_its_turn,
    a_closed_store_is_unavailable,
);

/// Whoever asks is told to come back, rather than that all went well in a file that nobody will find again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_taken_away_is_unavailable_until_it_is_back() {
    let database = TestDatabase::sqlite();
    let TestDatabase::Sqlite(dir) = &database else { panic!("a folder") };
    let store = open(&database.url()).await;
    let anna = user(&store, "Anna").await;
    let aside = dir.with_extension("aside");
    std::fs::rename(dir, &aside).expect("moved away");
    std::fs::create_dir(dir).expect("nothing in its place");
    for round in 0..3 {
        let name = format!("user{round}");
        let read = at_once(8, |_| {
            let store = store.clone();
            async move { store.user(anna.id).await }
        });
        for outcome in read.await {
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        }
        let written = store.create_user(NewUser::named(name)).await;
        assert!(matches!(written, Err(StoreError::Unavailable(_))), "{written:?}");
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    }
    std::fs::remove_dir(dir).expect("no new database was made");
    std::fs::rename(&aside, dir).expect("put back");
    assert_eq!(store.user(anna.id).await, Ok(Some(anna)));
    user(&store, "Berta").await;
    store.close().await;
}

/// Several processes that start at once on a new database all find it up to date.
async fn check_first_starts(database: TestDatabase) {
    let stores = at_once(5, |_| {
        let url = database.url();
        async move { open(&url).await }
    });
    for (index, store) in stores.await.into_iter().enumerate() {
        user(&store, &format!("user{index}")).await;
        assert_eq!(store.users_count().await, Ok(index as u64 + 1));
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_start_at_once_on_a_new_sqlite_file() {
    check_first_starts(TestDatabase::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_start_at_once_on_a_new_postgres_database() {
    check_first_starts(TestDatabase::postgres().await).await;
}

#[tokio::test]
async fn only_its_owner_may_read_a_sqlite_file() {
    let database = TestDatabase::sqlite();
    let store = open(&database.url()).await;
    user(&store, "Anna").await;
    let TestDatabase::Sqlite(dir) = &database else { unreachable!("it is one") };
    let files: Vec<_> = std::fs::read_dir(dir).expect("readable").map(|file| file.expect("readable")).collect();
    assert!(files.len() > 1, "the file and its log");
    for file in files {
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    store.close().await;
    let nowhere = Store::open("sqlite:/nowhere/antiphon.db").await.expect_err("there is no such folder");
    assert!(matches!(&nowhere, StoreError::Corrupt(text) if text.contains("/nowhere/antiphon.db")), "{nowhere}");
}

#[tokio::test]
async fn a_database_in_memory_is_one_database() {
    let store = open("sqlite::memory:").await;
    let ids = at_once(10, |index| {
        let store = store.clone();
        async move { user(&store, &format!("user{index}")).await.id }
    });
    for id in ids.await {
        assert!(store.user(id).await.expect("works").is_some());
    }
    store.close().await;
}

/// What a check gets: an open store, and its database.
struct Context {
    store: Store,
    url: String,
}

async fn run<F: Future<Output = ()>>(database: TestDatabase, check: fn(Context) -> F) {
    let store = open(&database.url()).await;
    check(Context { store: store.clone(), url: database.url() }).await;
    store.close().await;
}

async fn open(url: &str) -> Store {
    Store::open(url).await.expect("the database opens")
}

/// Long after 1970, and the same in each run.
fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_900_000_000).expect("a moment")
}

async fn user(store: &Store, name: &str) -> User {
    store.create_user(NewUser::named(name)).await.expect("a free name")
}

async fn guest(store: &Store, name: &str) -> User {
    store.create_user(NewUser { is_guest: true, ..NewUser::named(name) }).await.expect("a free name")
}

fn new_channel(name: &str, owner: &User) -> NewChannel {
    NewChannel {
        name: name.to_owned(),
        description: String::new(),
        owner: owner.id,
        max_users: 10,
        max_speakers: 0,
        is_private: false,
    }
}

async fn channel(store: &Store, name: &str, owner: &User) -> Channel {
    store.create_channel(new_channel(name, owner), ChannelLimits::total(u32::MAX)).await.expect("a free name")
}

fn invite(channel: &Channel, by: &User) -> NewInvite {
    NewInvite { channel: channel.id, by: by.id, max_uses: None, expires_at: None }
}

const MEMBER: Membership = Membership { role: ChannelRole::Member, priority: false };
const MODERATOR: Membership = Membership { role: ChannelRole::Moderator, priority: false };
const OWNER: Membership = Membership { role: ChannelRole::Owner, priority: false };

async fn accounts_are_found_by_id_and_by_name(Context { store, .. }: Context) {
    let before = OffsetDateTime::now_utc() - Duration::SECOND;
    let made = user(&store, "Zoé").await;
    assert_eq!((made.username.as_str(), made.display_name.as_str()), ("Zoé", "Zoé"));
    assert_eq!((made.role, made.is_active, made.is_guest), (Role::User, true, false));
    assert!(made.created_at > before && made.created_at <= OffsetDateTime::now_utc());
    assert_eq!(store.user(made.id).await, Ok(Some(made.clone())));
    for name in ["Zoé", "zOÉ", "zoe\u{301}"] {
        assert_eq!(store.user_by_name(name).await, Ok(Some(made.clone())), "{name}");
    }
    assert_eq!(store.user_by_name("zoe").await, Ok(None));
    assert_eq!(store.user(UserId(Uuid::now_v7())).await, Ok(None));
}

async fn a_username_is_taken_in_any_case(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let taken = store.create_user(NewUser::named("aNNA")).await;
    assert_eq!(taken, Err(StoreError::Conflict("username")));
    let same_id = store.create_user(NewUser { id: Some(anna.id), ..NewUser::named("Berta") }).await;
    assert_eq!(same_id, Err(StoreError::Conflict("id")));
    assert_eq!(store.users_count().await, Ok(1));
}

async fn passwords_are_kept_apart_from_accounts(Context { store, .. }: Context) {
    let with = NewUser { password_hash: Some("$argon2id$…".to_owned()), ..NewUser::named("Anna") };
    let anna = store.create_user(with).await.expect("a free name");
    user(&store, "Berta").await;
    assert_eq!(store.credentials("ANNA").await, Ok(Some((anna, "$argon2id$…".to_owned()))));
    assert_eq!(store.credentials("Berta").await, Ok(None), "no password");
    assert_eq!(store.credentials("nobody").await, Ok(None));
}

async fn accounts_change(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    assert_eq!(store.set_role(anna.id, Role::Admin).await, Ok(true));
    // More than one query asks for.
    let nobody = (0..1_000).map(|_| UserId(Uuid::now_v7()));
    let gone: BTreeSet<UserId> = nobody.collect();
    let all: BTreeSet<UserId> = gone.iter().copied().chain([anna.id]).collect();
    assert_eq!(store.unusable(&all).await, Ok(gone));
    assert_eq!(store.set_active(anna.id, false).await, Ok(true));
    assert_eq!(store.unusable(&all).await, Ok(all));
    assert_eq!(store.unusable(&[].into()).await, Ok([].into()));
    let renamed = store.set_display_name(anna.id, "Anna B.").await.expect("works").expect("exists");
    let found = store.user(anna.id).await.expect("works").expect("exists");
    assert_eq!(renamed, found);
    assert_eq!((found.role, found.is_active, found.display_name.as_str()), (Role::Admin, false, "Anna B."));
    let nobody = UserId(Uuid::now_v7());
    assert_eq!(store.set_role(nobody, Role::Admin).await, Ok(false));
    assert_eq!(store.set_active(nobody, false).await, Ok(false));
    assert_eq!(store.set_display_name(nobody, "x").await, Ok(None));
}

async fn the_first_account_is_an_administrator(Context { store, .. }: Context) {
    let first = |name| NewUser { first_is_admin: true, ..NewUser::named(name) };
    guest(&store, "Guest").await;
    let anna = store.create_user(first("Anna")).await.expect("a free name");
    let berta = store.create_user(first("Berta")).await.expect("a free name");
    assert_eq!((anna.role, berta.role), (Role::Admin, Role::User), "a guest is not the first account");
    assert_eq!(store.users_count().await, Ok(2), "guests are none");
}

async fn of_many_first_accounts_one_is_an_administrator(Context { store, .. }: Context) {
    let roles = at_once(20, |index| {
        let store = store.clone();
        async move {
            let new = NewUser { first_is_admin: true, ..NewUser::named(format!("user{index}")) };
            store.create_user(new).await.expect("a free name").role
        }
    });
    assert_eq!(roles.await.iter().filter(|role| **role == Role::Admin).count(), 1);
}

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

async fn there_are_never_too_many_guests(Context { store, .. }: Context) {
    let made = at_once(20, |index| {
        let store = store.clone();
        async move { store.create_guest(NewUser::named(format!("guest{index}")), 5).await }
    });
    let (made, refused): (Vec<_>, Vec<_>) = made.await.into_iter().partition(Result::is_ok);
    assert!(made.len() == 5 && made.into_iter().all(|guest| guest.is_ok_and(|guest| guest.is_guest)));
    assert!(refused.into_iter().all(|refused| refused == Err(StoreError::LimitReached("guests"))));
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

async fn invites_make_members(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let general = channel(&store, "General", &anna).await;
    let made = store.create_invite(invite(&general, &anna), 10).await.expect("room");
    assert_eq!((made.channel, made.by, made.uses), (general.id, anna.id, 0));
    assert_eq!(store.invite(&made.code, start()).await, Ok(Some(made.clone())));
    assert_eq!(store.redeem_invite(&made.code, berta.id, start()).await, Ok(Some(general.id)));
    assert_eq!(store.redeem_invite(&made.code, berta.id, start()).await, Ok(Some(general.id)), "again is no error");
    assert_eq!(store.redeem_invite(&made.code, anna.id, start()).await, Ok(Some(general.id)));
    assert_eq!(store.membership(general.id, berta.id).await, Ok(Some(MEMBER)));
    assert_eq!(store.membership(general.id, anna.id).await, Ok(Some(OWNER)), "nobody is made less");
    assert_eq!(
        store.invite(&made.code, start()).await.expect("works").expect("open").uses,
        1,
        "members use up nothing"
    );
    assert_eq!(store.redeem_invite("unknown", berta.id, start()).await, Ok(None));
}

async fn a_one_use_invite_lets_exactly_one_in(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let general = channel(&store, "General", &anna).await;
    let code =
        store.create_invite(NewInvite { max_uses: Some(1), ..invite(&general, &anna) }, 10).await.expect("room").code;
    let mut users = Vec::new();
    for index in 0..40 {
        users.push(user(&store, &format!("user{index}")).await.id);
    }
    let results = at_once(40, |index| {
        let (store, code, user) = (store.clone(), code.clone(), users[index]);
        async move { store.redeem_invite(&code, user, start()).await.expect("the database works") }
    });
    assert_eq!(results.await.into_iter().flatten().collect::<Vec<_>>(), [general.id]);
    assert_eq!(store.memberships(general.id, 100, 0).await.expect("works").len(), 2, "the owner and one more");
    assert_eq!(store.invite(&code, start()).await, Ok(None));
}

async fn one_user_at_once_uses_an_invite_once(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let general = channel(&store, "General", &anna).await;
    let code =
        store.create_invite(NewInvite { max_uses: Some(5), ..invite(&general, &anna) }, 10).await.expect("room").code;
    let results = at_once(10, |_| {
        let (store, code) = (store.clone(), code.clone());
        async move { store.redeem_invite(&code, berta.id, start()).await.expect("the database works") }
    });
    assert!(results.await.iter().all(|result| *result == Some(general.id)));
    assert_eq!(store.invite(&code, start()).await.expect("works").expect("open").uses, 1);
}

async fn invites_run_out(Context { store, .. }: Context) {
    let (anna, berta, clara) = (user(&store, "Anna").await, user(&store, "Berta").await, user(&store, "Clara").await);
    let general = channel(&store, "General", &anna).await;
    let until = start() + Duration::HOUR;
    let timed = NewInvite { expires_at: Some(until), ..invite(&general, &anna) };
    let code = store.create_invite(timed, 10).await.expect("room").code;
    assert_eq!(store.redeem_invite(&code, berta.id, until).await, Ok(None));
    assert_eq!(store.invite(&code, until).await, Ok(None));
    assert_eq!(store.redeem_invite(&code, berta.id, until - Duration::MICROSECOND).await, Ok(Some(general.id)));

    let ban = Ban { channel: general.id, user: clara.id, by: anna.id, reason: None, until: None };
    store.set_ban(ban).await.expect("works");
    assert_eq!(store.redeem_invite(&code, clara.id, start()).await, Ok(None), "no invite gets round a ban");
    assert_eq!(store.membership(general.id, clara.id).await, Ok(None));
}

async fn there_are_never_too_many_invites(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let (general, lobby) = (channel(&store, "General", &anna).await, channel(&store, "Lobby", &anna).await);
    let results = at_once(20, |_| {
        let (store, new) = (store.clone(), NewInvite { max_uses: Some(1), ..invite(&general, &anna) });
        async move { store.create_invite(new, 3).await }
    });
    let results = results.await;
    let made: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(made.len(), 3);
    store.create_invite(invite(&lobby, &anna), 3).await.expect("another channel has its own");
    let berta = user(&store, "Berta").await;
    store.redeem_invite(&made[0].code, berta.id, start()).await.expect("works").expect("open");
    store.create_invite(invite(&general, &anna), 3).await.expect("one is used up");
    let refused = store.create_invite(invite(&general, &anna), 3).await;
    assert!(matches!(refused, Err(StoreError::LimitReached(_))), "{refused:?}");
    let nowhere = NewInvite { channel: ChannelId(Uuid::now_v7()), ..invite(&general, &anna) };
    assert_eq!(store.create_invite(nowhere, 3).await, Err(StoreError::Missing));
}

const LIFETIMES: Lifetimes = Lifetimes { account: Duration::DAY, guest: Duration::HOUR };

async fn login(store: &Store, user: &User, token: u8) {
    let expires_at = start() + LIFETIMES.of(user.is_guest);
    store.start_refresh_family(user.id, [token; 32], start(), expires_at, 10).await.expect("works");
}

async fn refresh(store: &Store, token: u8, next: u8, now: OffsetDateTime) -> Rotation {
    store.rotate_refresh([token; 32], [next; 32], now, LIFETIMES).await.expect("the database works")
}

async fn refresh_tokens_rotate(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    login(&store, &anna, 1).await;
    for token in 1..20 {
        // Each is used shortly before it runs out: the family lasts as long as it is used.
        let now = start() + (Duration::DAY - Duration::SECOND) * i32::from(token);
        assert_eq!(refresh(&store, token, token + 1, now).await, Rotation::Rotated(anna.clone()), "{token}");
    }
    assert_eq!(refresh(&store, 99, 100, start()).await, Rotation::Unknown);
}

async fn a_used_refresh_token_ends_its_family(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    login(&store, &anna, 1).await;
    login(&store, &anna, 101).await;
    refresh(&store, 1, 2, start()).await;
    refresh(&store, 2, 3, start()).await;
    assert_eq!(refresh(&store, 1, 4, start()).await, Rotation::Reused);
    assert_eq!(
        refresh(&store, 3, 5, start()).await,
        Rotation::Unknown,
        "the newest of the family is worth nothing now"
    );
    assert_eq!(refresh(&store, 1, 6, start()).await, Rotation::Unknown);
    assert_eq!(refresh(&store, 101, 102, start()).await, Rotation::Rotated(anna), "another login goes on");
}

async fn of_many_refreshes_at_once_one_wins(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    login(&store, &anna, 1).await;
    let results = at_once(10, |index| {
        let store = store.clone();
        async move { refresh(&store, 1, 10 + u8::try_from(index).expect("small"), start()).await }
    });
    let results = results.await;
    let won = results.iter().filter(|rotation| matches!(rotation, Rotation::Rotated(_))).count();
    let reused = results.iter().filter(|rotation| **rotation == Rotation::Reused).count();
    assert_eq!((won, reused), (1, 1), "{results:?}");
    for token in 10..20 {
        assert_eq!(refresh(&store, token, 200, start()).await, Rotation::Unknown, "the family has ended");
    }
}

async fn refresh_tokens_run_out_and_log_out(Context { store, .. }: Context) {
    let (anna, visitor) = (user(&store, "Anna").await, guest(&store, "Visitor").await);
    login(&store, &anna, 1).await;
    login(&store, &visitor, 2).await;
    assert_eq!(refresh(&store, 1, 3, start() + Duration::DAY).await, Rotation::Unknown);
    let late = start() + Duration::minutes(59);
    assert_eq!(refresh(&store, 2, 4, late).await, Rotation::Rotated(visitor));
    assert_eq!(refresh(&store, 4, 5, late + Duration::HOUR).await, Rotation::Unknown, "a guest's last an hour");
    assert_eq!(store.end_refresh_family([3; 32]).await, Ok(false));
    assert_eq!(store.end_refresh_family([2; 32]).await, Ok(true), "a used token logs out, too");
    assert_eq!(refresh(&store, 4, 5, late).await, Rotation::Unknown);
    login(&store, &anna, 6).await;
    assert_eq!(store.end_refresh_families_of(anna.id).await, Ok(2));
    assert_eq!(refresh(&store, 6, 7, start()).await, Rotation::Unknown);
}

async fn logins_of_an_account_are_bounded(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    login(&store, &berta, 100).await;
    for token in 1..=4 {
        let now = start() + Duration::seconds(token.into());
        store.start_refresh_family(anna.id, [token; 32], now, now + Duration::DAY, 3).await.expect("works");
        if token == 3 {
            refresh(&store, 1, 11, now).await;
        }
    }
    let now = start() + Duration::MINUTE;
    assert_eq!(refresh(&store, 2, 12, now).await, Rotation::Unknown, "the one unused for longest had to go");
    for token in [11, 3, 4, 100] {
        assert!(matches!(refresh(&store, token, token + 20, now).await, Rotation::Rotated(_)), "{token}");
    }
}

fn bucket(key: u8, failures: u32) -> Bucket {
    Bucket { key: [key; 32], failures, forgiven: Duration::MINUTE }
}

async fn attempt(store: &Store, buckets: &[Bucket], now: OffsetDateTime) -> Attempt {
    store.begin_login_attempt(buckets, now).await.expect("the database works")
}

async fn failures_fill_and_are_forgiven(Context { store, .. }: Context) {
    let three = [bucket(1, 3)];
    for _ in 0..3 {
        assert_eq!(attempt(&store, &three, start()).await, Attempt::Counted);
    }
    assert_eq!(attempt(&store, &three, start()).await, Attempt::Refused { retry_after: Duration::MINUTE });
    let later = start() + Duration::seconds(59);
    assert_eq!(attempt(&store, &three, later).await, Attempt::Refused { retry_after: Duration::SECOND });
    let later = start() + Duration::MINUTE;
    assert_eq!(attempt(&store, &three, later).await, Attempt::Counted, "one is forgiven");
    assert!(matches!(attempt(&store, &three, later).await, Attempt::Refused { .. }), "only one");
    store.take_back_login_attempt(&three).await.expect("works");
    assert_eq!(attempt(&store, &three, later).await, Attempt::Counted, "one was taken back");
    let much_later = start() + Duration::DAY;
    for _ in 0..3 {
        assert_eq!(attempt(&store, &three, much_later).await, Attempt::Counted, "all are forgiven, none is saved up");
    }
    assert!(matches!(attempt(&store, &three, much_later).await, Attempt::Refused { .. }));
    store.remember_login_place(&three[0], [9; 32], much_later).await.expect("works");
    assert_eq!(attempt(&store, &three, much_later).await, Attempt::Counted, "a right password forgives all");
}

async fn many_attempts_at_once_do_not_pass_together(Context { store, .. }: Context) {
    let results = at_once(30, |_| {
        let store = store.clone();
        async move { attempt(&store, &[bucket(2, 5), bucket(1, 100)], start()).await }
    });
    assert_eq!(results.await.iter().filter(|attempt| **attempt == Attempt::Counted).count(), 5);
}

async fn a_refused_attempt_counts_nowhere(Context { store, .. }: Context) {
    let (full, other) = (bucket(2, 1), bucket(1, 2));
    assert_eq!(attempt(&store, &[full], start()).await, Attempt::Counted);
    for _ in 0..10 {
        assert!(matches!(attempt(&store, &[other, full], start()).await, Attempt::Refused { .. }));
    }
    for _ in 0..2 {
        assert_eq!(attempt(&store, &[other], start()).await, Attempt::Counted);
    }
}

async fn login_places_are_remembered_for_a_while(Context { store, .. }: Context) {
    assert_eq!(store.is_login_place([1; 32], start()).await, Ok(false));
    store.remember_login_place(&bucket(1, 1), [1; 32], start()).await.expect("works");
    assert_eq!(store.is_login_place([1; 32], start()).await, Ok(true));
    assert_eq!(store.is_login_place([2; 32], start()).await, Ok(false));
    assert_eq!(store.is_login_place([1; 32], start() + Duration::SECOND).await, Ok(false));
    store.remember_login_place(&bucket(1, 1), [1; 32], start() + Duration::DAY).await.expect("works");
    assert_eq!(store.is_login_place([1; 32], start() + Duration::SECOND).await, Ok(true));
}

async fn external_identities_belong_to_accounts(Context { store, .. }: Context) {
    assert_eq!(store.external_user("issuer", "1").await, Ok(None));
    let made = store.create_external_user("issuer", "1", NewUser::named("Anna")).await.expect("free");
    assert_eq!(store.external_user("issuer", "1").await, Ok(Some(made.clone())));
    assert_eq!(store.external_user("other", "1").await, Ok(None));
    let again = store.create_external_user("issuer", "1", NewUser::named("Berta")).await;
    assert_eq!(again, Err(StoreError::Conflict("id")));
    assert_eq!(store.user_by_name("Berta").await, Ok(None), "nothing is left of it");
    let taken = store.create_external_user("issuer", "2", NewUser::named("anna")).await;
    assert_eq!(taken, Err(StoreError::Conflict("username")));
    let both = [("issuer".to_owned(), "1".to_owned())];
    assert_eq!(store.external_identities(made.id).await.expect("works"), both);
}

async fn the_sweep_deletes_what_has_had_its_time(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let (gone, owning, staying) =
        (guest(&store, "Gone").await, guest(&store, "Owning").await, guest(&store, "Staying").await);
    let general = channel(&store, "General", &anna).await;
    channel(&store, "Guests'", &owning).await;
    let now = OffsetDateTime::now_utc() + Duration::DAY;
    let (past, future) = (now - Duration::SECOND, now + Duration::SECOND);
    for (token, user, expires_at) in [(1, &anna, past), (2, &anna, future), (3, &gone, past), (4, &staying, future)] {
        store.start_refresh_family(user.id, [token; 32], start(), expires_at, 10).await.expect("works");
    }
    attempt(&store, &[Bucket { forgiven: Duration::SECOND, ..bucket(1, 1) }], past - Duration::SECOND).await;
    attempt(&store, &[bucket(2, 1)], now).await;
    store.remember_login_place(&bucket(9, 1), [1; 32], past - LOGIN_PLACE_REMEMBERED).await.expect("works");
    store.remember_login_place(&bucket(9, 1), [2; 32], now).await.expect("works");
    let mut codes = Vec::new();
    for (max_uses, expires_at) in [(Some(1), None), (None, Some(past)), (Some(2), Some(future))] {
        let new = NewInvite { max_uses, expires_at, ..invite(&general, &anna) };
        codes.push(store.create_invite(new, 10).await.expect("room").code);
    }
    store.redeem_invite(&codes[0], staying.id, past).await.expect("works").expect("open");
    for (user, until) in [(&gone, past), (&berta, future)] {
        let ban = Ban { channel: general.id, user: user.id, by: anna.id, reason: None, until: Some(until) };
        store.set_ban(ban).await.expect("works");
    }

    let swept = store.sweep(now).await.expect("works");
    assert_eq!(
        swept,
        Swept {
            refresh: 4,
            logins: 2,
            invites: 2,
            bans: 1,
            guests: 1,
            rooms: 0,
            audit: 0,
            notifications: 0,
            codes: 0,
            sends: 0,
            more: false
        }
    );
    assert_eq!(store.sweep(now).await, Ok(Swept::default()), "nothing is left to sweep");
    for (user, stays) in [(&anna, true), (&berta, true), (&gone, false), (&owning, true), (&staying, true)] {
        assert_eq!(store.user(user.id).await.expect("works").is_some(), stays, "{}", user.username);
    }
    assert!(matches!(refresh(&store, 2, 20, now).await, Rotation::Rotated(_)));
    assert!(matches!(attempt(&store, &[bucket(2, 1)], now).await, Attempt::Refused { .. }));
    assert_eq!(store.is_login_place([2; 32], past).await, Ok(true));
    assert!(store.invite(&codes[2], now).await.expect("works").is_some());
    assert!(store.active_ban(general.id, berta.id, now).await.expect("works").is_some());
}

async fn totals_add_up_and_begin_anew(Context { store, .. }: Context) {
    let (anna, berta) = (user(&store, "Anna").await, user(&store, "Berta").await);
    let general = channel(&store, "General", &anna).await;
    assert_eq!((store.channel_totals(general.id).await, store.user_totals(anna.id).await), (Ok(None), Ok(None)));
    let carried =
        ChannelTotals { joins: 1, frames_in: 50, frames_out: 100, bytes_in: 4_000, bytes_out: 9_000, frames_lost: 2 };
    let spoke = UserTotals { joins: 1, voice_ms: 3_000, frames: 50, bytes: 4_000 };
    let nowhere = ChannelId(Uuid::from_u128(7));
    let increments = Increments {
        channels: vec![(general.id, carried), (nowhere, carried)],
        users: vec![(anna.id, spoke), (UserId(Uuid::from_u128(7)), spoke)],
    };
    let later = start() + Duration::MINUTE;
    store.add_statistics(&increments, start()).await.expect("works");
    store.add_statistics(&increments, later).await.expect("works");
    let counted = store.channel_totals(general.id).await.expect("works").expect("counted");
    let twice =
        ChannelTotals { joins: 2, frames_in: 100, frames_out: 200, bytes_in: 8_000, bytes_out: 18_000, frames_lost: 4 };
    assert_eq!((counted.totals, counted.since), (twice, start()));
    let counted = store.user_totals(anna.id).await.expect("works").expect("counted");
    assert_eq!(counted.totals, UserTotals { joins: 2, voice_ms: 6_000, frames: 100, bytes: 8_000 });
    assert_eq!((counted.since, counted.last_at), (start(), later));
    assert_eq!(store.user_totals(berta.id).await, Ok(None));
    assert_eq!(store.channel_totals(nowhere).await, Ok(None), "there is no such channel");
    // The server's are of all, and stay when a channel goes.
    assert!(store.delete_channel(general.id).await.expect("works"));
    let server = store.server_totals().await.expect("works").expect("counted");
    assert_eq!((server.totals.frames_in, server.totals.frames_lost), (200, 8));
    assert_eq!(store.channels_counts(anna.id).await, Ok((0, 0)));
    assert_eq!(store.reset_statistics().await, Ok(2), "the account's and the server's");
    assert_eq!((store.server_totals().await, store.user_totals(anna.id).await), (Ok(None), Ok(None)));
}

/// Nodes that add to the same rows at once neither lose anything nor wait for each other for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_may_add_to_totals_at_once() {
    let database = TestDatabase::postgres().await;
    let store = open(&database.url()).await;
    let anna = user(&store, "Anna").await;
    let mut channels = Vec::new();
    for index in 0..10 {
        channels.push(channel(&store, &format!("Channel {index}"), &anna).await.id);
    }
    let one = ChannelTotals { frames_in: 1, ..ChannelTotals::default() };
    let added = at_once(8, |index| {
        let (store, mut channels) = (store.clone(), channels.clone());
        channels.rotate_left(index);
        async move {
            for _ in 0..5 {
                let channels = channels.iter().map(|channel| (*channel, one)).collect();
                store.add_statistics(&Increments { channels, users: Vec::new() }, start()).await.expect("works");
            }
        }
    });
    added.await;
    for channel in channels {
        assert_eq!(store.channel_totals(channel).await.expect("works").expect("counted").totals.frames_in, 40);
    }
    store.close().await;
}

async fn what_was_done_is_written_down_for_a_while(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let done = |action, count: u32| NewAudit {
        actor: anna.id,
        actor_name: anna.username.clone(),
        action,
        target: (count > 0).then(|| count.to_string()),
        detail: serde_json::json!({"count": count}),
    };
    for count in 0..3 {
        store.record_audit(done("test.one", count)).await.expect("works");
        store.record_audit(done("test.other", count)).await.expect("works");
    }
    let (entries, total) = store.audit(Some("test.one"), 2, 0).await.expect("works");
    let targets: Vec<_> = entries.iter().map(|entry| entry.target.as_deref()).collect();
    assert_eq!((targets, total), (vec![Some("2"), Some("1")], 3), "newest first");
    assert_eq!(entries[0].detail, serde_json::json!({"count": 2}));
    assert_eq!(store.audit(None, 100, 4).await.expect("works").0.len(), 2);
    let kept = OffsetDateTime::now_utc() + AUDIT_KEPT;
    assert_eq!(store.sweep(kept - Duration::MINUTE).await.expect("works").audit, 0);
    assert_eq!(store.sweep(kept + Duration::MINUTE).await.expect("works").audit, 6);
}

async fn the_sweep_works_in_batches(Context { store, .. }: Context) {
    let now = OffsetDateTime::now_utc() + Duration::DAY;
    for index in 0..501 {
        guest(&store, &format!("guest{index}")).await;
    }
    let first = store.sweep(now).await.expect("works");
    assert!(first.more && first.guests > 0 && first.guests < 501, "{first:?}");
    let second = store.sweep(now).await.expect("works");
    assert_eq!((first.guests + second.guests, second.more), (501, false));
    let guest = guest(&store, "New").await;
    store.sweep(OffsetDateTime::now_utc()).await.expect("works");
    assert!(store.user(guest.id).await.expect("works").is_some(), "a new guest gets its first token in a moment");
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

async fn what_is_stored_is_there_after_opening_again(Context { store, url }: Context) {
    let anna = user(&store, "Anna").await;
    let again = at_once(3, |_| {
        let url = url.clone();
        async move { open(&url).await }
    });
    for other in again.await {
        assert_eq!(other.user(anna.id).await, Ok(Some(anna.clone())));
        other.ping().await.expect("alive");
        other.close().await;
    }
}

async fn many_writers_wait_for_each_other(Context { store, url }: Context) {
    let other = open(&url).await;
    let results = at_once(100, |index| {
        let store = if index % 2 == 0 { store.clone() } else { other.clone() };
        async move { store.create_user(NewUser::named(format!("user{index}"))).await }
    });
    assert!(results.await.iter().all(Result::is_ok), "none is told that the database is busy");
    assert_eq!(store.users_count().await, Ok(100));
    other.close().await;
}

/// Changes to the same few rows from all sides: they may find that others were faster, but none fails for having met
/// another.
async fn whatever_happens_at_once_waits_its_turn(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let mut others = Vec::new();
    for index in 0..4 {
        others.push(user(&store, &format!("user{index}")).await);
    }
    for round in 0..4_u8 {
        let general = channel(&store, "General", &anna).await;
        let code = store.create_invite(invite(&general, &anna), 10).await.expect("room").code;
        for (index, user) in others.iter().enumerate() {
            login(&store, user, 16 * round + u8::try_from(index).expect("few")).await;
        }
        let results = at_once(48, |index| {
            let (store, code, user) = (store.clone(), code.clone(), others[index % 4].clone());
            let (ours, other) = (bucket(1, 1_000), bucket(2, 1_000));
            async move {
                let token = [16 * round + u8::try_from(index % 4).expect("few"); 32];
                match index / 4 {
                    0 | 1 => store.redeem_invite(&code, user.id, start()).await.map(drop),
                    2 => store.set_membership(general.id, user.id, OWNER).await,
                    3 => store.set_membership(general.id, user.id, MEMBER).await,
                    4 => {
                        let ban = Ban { channel: general.id, user: user.id, by: user.id, reason: None, until: None };
                        store.set_ban(ban).await
                    }
                    5 => store.remove_membership(general.id, user.id).await.map(drop),
                    6 => store.end_refresh_families_of(user.id).await.map(drop),
                    7 => store.rotate_refresh(token, [255; 32], start(), LIFETIMES).await.map(drop),
                    8 => store.begin_login_attempt(&[ours, other], start()).await.map(drop),
                    9 => store.take_back_login_attempt(&[other, ours]).await,
                    10 => store.sweep(start() + Duration::DAY * 400).await.map(drop),
                    _ if index % 4 == 0 => store.delete_channel(general.id).await.map(drop),
                    _ => store.update_channel(general.id, ChannelChange::default()).await.map(drop),
                }
            }
        });
        for result in results.await {
            assert!(
                matches!(
                    result,
                    Ok(()) | Err(StoreError::Missing | StoreError::OwnerStays | StoreError::Conflict("id"))
                ),
                "{result:?}"
            );
        }
        store.delete_channel(general.id).await.expect("works");
    }
}

async fn a_closed_store_is_unavailable(Context { store, .. }: Context) {
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    let refused = store.create_user(NewUser::named("Anna")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}

async fn listens_add_up_by_file_and_day_until_they_are_forgotten(Context { store, .. }: Context) {
    let listen = |path: &str, ended: OffsetDateTime, seconds: i64, heard_permille: u32, origin: &str| Listen {
        id: Uuid::now_v7(),
        path: path.to_owned(),
        quality: "low".to_owned(),
        began: ended - Duration::seconds(seconds),
        ended,
        bytes: 1_000,
        heard_permille,
        ranges: "0-1000".to_owned(),
        origin: origin.to_owned(),
    };
    let (first, second) = (start(), start() + Duration::days(1));
    let listens = [
        listen("a.mp3", first, 100, 900, "one"),
        listen("a.mp3", second, 20, 899, "two"),
        listen("b.mp3", second, 3, 1_000, "two"),
    ];
    store.keep_listens(&listens).await.expect("stored");
    store.keep_listens(&listens[..1]).await.expect("what is there already stays as it is");
    let totals = |listens, complete, origins, sent_bytes, seconds: i64| ListenTotals {
        listens,
        complete,
        origins,
        sent_bytes,
        listened_us: seconds * 1_000_000,
    };
    let long_ago = first - Duration::days(1);
    assert_eq!(store.listen_totals(long_ago).await.expect("read"), totals(3, 2, 2, 3_000, 123));
    assert_eq!(store.listen_totals(second).await.expect("read"), totals(2, 1, 1, 2_000, 23), "since then");
    let by_path = store.listens_by_path(long_ago, 10).await.expect("read");
    let wanted = [("a.mp3".to_owned(), totals(2, 1, 2, 2_000, 120)), ("b.mp3".to_owned(), totals(1, 1, 1, 1_000, 3))];
    assert_eq!(by_path, wanted);
    let by_day = store.listens_by_day(long_ago, 10).await.expect("read");
    let day = |moment: OffsetDateTime| moment.replace_time(time::Time::MIDNIGHT);
    assert_eq!(by_day, [(day(second), totals(2, 1, 1, 2_000, 23)), (day(first), totals(1, 1, 1, 1_000, 100))]);
    assert_eq!(store.listens_of("a.mp3", 1).await.expect("read"), listens[1..2], "the last first");
    assert!(!store.sweep_listens(second).await.expect("deleted"));
    assert_eq!(store.listen_totals(long_ago).await.expect("read"), totals(2, 1, 1, 2_000, 23));
}

async fn a_list_of_files_is_believed_less_than_what_was_written_since(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let seen = |size_bytes| FileSeen { path: "a.mp3".to_owned(), size_bytes, modified: start() };
    let claim = |size_bytes| Claim {
        file: seen(size_bytes),
        by: anna.id,
        is_admin: false,
        account_bytes_max: 100_000,
        total_bytes_max: 1_000_000,
    };
    let size = async || store.library_file("a.mp3").await.expect("works").map(|file| file.seen.size_bytes);
    assert_eq!(store.claim_file(&claim(90), true).await, Ok(Claimed::Room(100_000)));
    assert_eq!(size().await, None, "it was only asked");
    let Ok(Claimed::Granted(first)) = store.claim_file(&claim(90), false).await else { panic!("there is room") };
    assert_eq!(store.claim_file(&claim(100_001), true).await, Ok(Claimed::AccountFull(0)));
    // A list from before the upload, one in which it is not yet, and one of much later.
    let now = OffsetDateTime::now_utc();
    assert_eq!(store.sync_library(&[seen(10)], true, now).await, Ok(false));
    assert_eq!(store.sync_library(&[], true, now).await, Ok(false));
    assert_eq!(size().await, Some(90));
    assert_eq!(store.sync_library(&[seen(90)], true, now).await, Ok(true));
    assert_eq!(store.sync_library(&[seen(10)], true, now + Duration::HOUR).await, Ok(true));
    assert_eq!(size().await, Some(10));
    let Ok(Claimed::Granted(second)) = store.claim_file(&claim(80), false).await else { panic!("there is room") };
    assert_eq!(store.forget_file("a.mp3", first).await, Ok(false), "it is another upload's by now");
    assert_eq!(store.forget_file("a.mp3", second).await, Ok(true));
    assert_eq!(size().await, None);
}

async fn a_file_that_could_not_be_removed_is_its_owners_again(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let claim = |size_bytes| Claim {
        file: FileSeen { path: "a.mp3".to_owned(), size_bytes, modified: start() },
        by: anna.id,
        is_admin: false,
        account_bytes_max: 100_000,
        total_bytes_max: 150_000,
    };
    let Ok(Claimed::Granted(_)) = store.claim_file(&claim(90), false).await else { panic!("there is room") };
    store.set_tags("a.mp3", &["jazz".to_owned(), "live".to_owned()]).await.expect("it is there");
    let known = store.library_file("a.mp3").await.expect("works").expect("there");
    assert_eq!(store.forget_file("a.mp3", known.touched).await, Ok(true));
    store.remember_file(&known).await.expect("works");
    assert_eq!(store.library_file("a.mp3").await.expect("works").as_ref(), Some(&known));
    let other = Claim { file: FileSeen { path: "b.mp3".to_owned(), ..claim(10).file }, ..claim(10) };
    assert_eq!(store.claim_file(&other, true).await, Ok(Claimed::AccountFull(65_536)), "it counts again");
    // What came in its place meanwhile stays as it is.
    assert_eq!(store.forget_file("a.mp3", known.touched).await, Ok(true));
    let Ok(Claimed::Granted(_)) = store.claim_file(&claim(80), false).await else { panic!("there is room") };
    store.remember_file(&known).await.expect("works");
    let now = store.library_file("a.mp3").await.expect("works").expect("there");
    assert_eq!((now.seen.size_bytes, now.tags.len()), (80, 0));
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

fn of_channel(channel: &Channel, by: &User) -> NewRecording {
    NewRecording { channel: channel.id, name: "a talk".to_owned(), by: by.id, by_name: by.username.clone() }
}

async fn record(store: &Store, channel: &Channel, by: &User) -> Result<Recording, StoreError> {
    store.begin_recording(of_channel(channel, by), RecordingLimits { at_once: 3, bytes: 1_000 }).await
}

fn track_of(recording: &Recording, bytes: u64) -> RecordingTrack {
    RecordingTrack {
        id: TrackId(Uuid::now_v7()),
        recording: recording.id,
        user: recording.by,
        username: "anna".to_owned(),
        node: "one".to_owned(),
        started_at: start(),
        samples: 48_000,
        bytes,
        channels: 1,
    }
}

async fn a_channel_has_one_recording_at_a_time(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let lobby = channel(&store, "lobby", &anna).await;
    let first = record(&store, &lobby, &anna).await.expect("begins");
    assert_eq!((first.ended_at, &first.mix, first.tracks), (None, &MixState::None, 0));
    assert_eq!(record(&store, &lobby, &anna).await, Err(StoreError::Conflict("recording of this channel")));
    assert_eq!(store.open_recording(lobby.id).await, Ok(Some(first.clone())));
    assert_eq!(store.finish_recording(first.id).await, Ok(false), "it goes on");
    let ended = store.end_recording(first.id, RecordingEnd::MaxSize, None).await.expect("works").expect("it went on");
    assert_eq!((ended.ended_why, ended.ended_by), (Some(RecordingEnd::MaxSize), None));
    let again = store.end_recording(first.id, RecordingEnd::Stopped, Some(anna.id)).await;
    assert_eq!(again, Ok(None), "it has ended");
    let second = record(&store, &lobby, &anna).await.expect("begins");
    let unfinished: Vec<RecordingId> =
        store.unfinished_recordings().await.expect("works").iter().map(|recording| recording.id).collect();
    assert_eq!(unfinished, [first.id, second.id]);
    assert_eq!(store.finish_recording(first.id).await, Ok(true));
    assert_eq!(store.finish_recording(first.id).await, Ok(false), "once");
    let listed = store.recordings(lobby.id, None).await.expect("works");
    assert_eq!(listed.iter().map(|recording| recording.id).collect::<Vec<_>>(), [second.id, first.id]);
    assert_eq!(store.recordings(lobby.id, Some(second.id)).await.expect("works")[0].id, first.id);
    store.set_recording_empty(second.id, Some(start())).await.expect("works");
    assert_eq!(store.recording(second.id).await.expect("works").expect("there").empty_since, Some(start()));
    let nobody = NewRecording { channel: ChannelId(Uuid::nil()), ..of_channel(&lobby, &anna) };
    let refused = store.begin_recording(nobody, RecordingLimits { at_once: 9, bytes: 9 }).await;
    assert_eq!(refused, Err(StoreError::Missing));
}

async fn of_many_who_begin_to_record_one_does(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let mut channels = Vec::new();
    for name in ["one", "two", "three", "four", "five"] {
        channels.push(channel(&store, name, &anna).await);
    }
    let tried = at_once(20, |index| {
        let (store, channel, anna) = (store.clone(), channels[index % 5].clone(), anna.clone());
        async move { record(&store, &channel, &anna).await.is_ok() }
    });
    let begun = tried.await.into_iter().filter(|begun| *begun).count();
    assert_eq!(begun, 3, "as many as may be at once");
}

async fn recordings_have_tracks_and_end_with_their_channel(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let lobby = channel(&store, "lobby", &anna).await;
    let recording = record(&store, &lobby, &anna).await.expect("begins");
    let (one, other) = (track_of(&recording, 400), track_of(&recording, 600));
    for track in [&one, &other, &one] {
        assert_eq!(store.add_recording_track(track, false).await, Ok(true));
    }
    assert_eq!(store.recording_tracks(recording.id).await, Ok(vec![one.clone(), other]));
    let known = store.recording(recording.id).await.expect("works").expect("there");
    assert_eq!((known.tracks, known.bytes, store.recorded_bytes().await), (2, 1_000, Ok(1_000)));
    let other = channel(&store, "other", &anna).await;
    let refused = record(&store, &other, &anna).await;
    assert!(matches!(refused, Err(StoreError::LimitReached(_))), "their room is used up: {refused:?}");
    let nobody = RecordingId(Uuid::now_v7());
    assert_eq!(store.known_recordings(&[recording.id, nobody]).await, Ok(vec![recording.id]));
    store.end_recording(recording.id, RecordingEnd::Stopped, Some(anna.id)).await.expect("works");
    // One that waits to be sent is not there, and there is no end without it.
    let waits = track_of(&recording, 50);
    assert_eq!(store.add_recording_track(&waits, true).await, Ok(true));
    let there = store.recording(recording.id).await.expect("works").expect("there");
    assert_eq!((there.bytes, store.recorded_bytes().await), (1_000, Ok(1_050)), "it takes of the quota");
    assert_eq!(store.finish_recording(recording.id).await, Ok(false));
    store.track_was_sent(waits.id).await.expect("works");
    assert_eq!((store.recorded_bytes().await, store.finish_recording(recording.id).await), (Ok(1_050), Ok(true)));
    let long_ago = OffsetDateTime::now_utc() - Duration::hours(1);
    let long_ago = store.recordings_ended_before(long_ago).await.expect("works");
    assert_eq!(long_ago, [], "it ended just now");
    let later = OffsetDateTime::now_utc() + Duration::days(1);
    assert_eq!(store.recordings_ended_before(later).await.expect("works").len(), 1);
    store.delete_channel(lobby.id).await.expect("works");
    assert_eq!(store.recording(recording.id).await, Ok(None));
    let late = RecordingTrack { id: TrackId(Uuid::now_v7()), ..one };
    assert_eq!(store.add_recording_track(&late, false).await, Ok(false), "its recording is no more");
    assert_eq!((store.recorded_bytes().await, store.delete_recording(recording.id).await), (Ok(0), Ok(false)));
}

async fn a_mix_is_made_by_one_node_at_a_time(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let lobby = channel(&store, "lobby", &anna).await;
    let id = record(&store, &lobby, &anna).await.expect("begins").id;
    let (now, until) = (start(), start() + Duration::MINUTE);
    assert_eq!(store.claim_mix(now, until).await, Ok(None), "nobody wants one");
    store.want_mix(id).await.expect("works");
    assert_eq!(store.claim_mix(now, until).await, Ok(Some(id)));
    assert_eq!(store.claim_mix(now, until).await, Ok(None), "a node makes it");
    assert_eq!(store.claim_mix(until, until + Duration::MINUTE).await, Ok(Some(id)), "that one has had its time");
    assert_eq!(store.mix_made(id, until, None).await, Ok(false), "another node has it");
    assert_eq!(store.mix_made(id, until + Duration::MINUTE, Some("no disk")).await, Ok(true));
    let mix = async || store.recording(id).await.expect("works").expect("there").mix;
    assert_eq!(mix().await, MixState::Failed("no disk".to_owned()));
    store.want_mix(id).await.expect("works");
    assert_eq!((mix().await, store.claim_mix(now, until).await), (MixState::Wanted, Ok(Some(id))));
    assert_eq!(store.mix_made(id, until, None).await, Ok(true));
    store.want_mix(id).await.expect("works");
    assert_eq!(mix().await, MixState::Ready, "once is enough");
}

async fn files_of_recordings_are_listed_for_those_who_may_know(Context { store, .. }: Context) {
    let anna = user(&store, "Anna").await;
    let seen = |path: &str| FileSeen { path: path.to_owned(), size_bytes: 9, modified: start() };
    let hidden = format!("recordings/{}/mix.opus", Uuid::now_v7());
    for path in [hidden.as_str(), "recordings/concert.opus", "song.mp3"] {
        store.add_library_file(&seen(path), anna.id).await.expect("works");
    }
    let paths = async |with_recordings| {
        let query = LibraryQuery { with_recordings, ..LibraryQuery::default() };
        let (files, count) = store.library_page(&query, 9, 0).await.expect("works");
        assert_eq!(files.len() as u64, count);
        files.into_iter().map(|file| file.seen.path).collect::<Vec<_>>()
    };
    assert_eq!(paths(true).await, [hidden.as_str(), "recordings/concert.opus", "song.mp3"]);
    assert_eq!(paths(false).await, ["recordings/concert.opus", "song.mp3"]);
    let file = store.library_file(&hidden).await.expect("works").expect("there");
    assert_eq!(file.owner, Some(anna.id));
}
