//! Accounts and guests.

use std::collections::BTreeSet;

use antiphon::store::{NewUser, StoreError};
use antiphon_core::{gateway::Role, ids::UserId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    Context, guest, on_both, run,
    support::databases::{TestDatabase, at_once},
    user,
};

on_both!(
    accounts_are_found_by_id_and_by_name,
    a_username_is_taken_in_any_case,
    passwords_are_kept_apart_from_accounts,
    accounts_change,
    the_first_account_is_an_administrator,
    of_many_first_accounts_one_is_an_administrator,
    there_are_never_too_many_guests,
    external_identities_belong_to_accounts,
);

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

async fn there_are_never_too_many_guests(Context { store, .. }: Context) {
    let made = at_once(20, |index| {
        let store = store.clone();
        async move { store.create_guest(NewUser::named(format!("guest{index}")), 5).await }
    });
    let (made, refused): (Vec<_>, Vec<_>) = made.await.into_iter().partition(Result::is_ok);
    assert!(made.len() == 5 && made.into_iter().all(|guest| guest.is_ok_and(|guest| guest.is_guest)));
    assert!(refused.into_iter().all(|refused| refused == Err(StoreError::LimitReached("guests"))));
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
