//! Invites into channels.

use antiphon::store::{Ban, NewInvite, StoreError};
use antiphon_core::ids::ChannelId;
use time::Duration;
use uuid::Uuid;

use crate::{
    Context, MEMBER, OWNER, channel, invite, on_both, run, start,
    support::databases::{TestDatabase, at_once},
    user,
};

on_both!(
    invites_make_members,
    a_one_use_invite_lets_exactly_one_in,
    one_user_at_once_uses_an_invite_once,
    invites_run_out,
    there_are_never_too_many_invites,
);

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
