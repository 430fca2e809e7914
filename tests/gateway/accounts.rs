//! People who are here without a session of the gateway, by WHIP, WHEP or a listening link: how long their accounts last, and how
//! they are put out when those end.

use std::sync::Arc;

use antiphon::{
    rooms::{Link, Presence, Unheard},
    store::NewUser,
};
use antiphon_core::{
    gateway::{LeaveReason, MediaTransport, UserView},
    ids::{ChannelId, SessionId},
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    client::{join, of_type},
    outage::agree,
    server::{PATIENCE, Server},
};

/// A guest whose account lasts for an hour.
async fn guest(server: &Server, name: &str) -> UserView {
    let guest = server.store.create_guest(NewUser::named(name), 100).await.expect("a free name");
    let (now, half) = (OffsetDateTime::now_utc(), Uuid::new_v4().into_bytes());
    let mut token = [0; 32];
    token[..16].copy_from_slice(&half);
    server.store.start_refresh_family(guest.id, token, now, now + Duration::HOUR, 1).await.expect("stored");
    guest.view()
}

/// Somebody enters as WHIP and WHEP let them.
async fn enter(server: &Server, user: UserView, channel: ChannelId) -> Arc<Presence> {
    let link =
        Link { outlet: Arc::new(Unheard), reached_host: "localhost".into(), reached_address: None, address: None };
    let presence = Arc::new(Presence::standalone(SessionId(Uuid::now_v7()), user, link));
    server.rooms.join(&presence, &join(channel, MediaTransport::Webrtc), None).await.expect("a place");
    presence
}

#[tokio::test]
async fn guests_are_kept_who_publish_or_listen_without_a_session() {
    let server = Server::with_mixer().await;
    let owner = server.guest("owner").await.user;
    let channel = server.channel(owner.id, 10).await;
    let (publisher, listener, gone) =
        (guest(&server, "publisher").await, guest(&server, "listener").await, guest(&server, "gone").await);
    let presence = enter(&server, publisher.clone(), channel).await;
    let mut hearing = server.rooms.overhear(&listener, channel).await.expect("there is a mixer");
    assert_eq!(server.gateway.guests(), [publisher.id, listener.id]);

    server.auth.keep_guests(&server.gateway.guests()).await.expect("kept");
    server.store.sweep(OffsetDateTime::now_utc() + Duration::HOUR * 2).await.expect("swept");
    assert!(server.gateway.end_unusable().await, "everybody who is here has an account");
    for (user, stays) in [(&publisher, true), (&listener, true), (&gone, false)] {
        let found = server.store.user(user.id).await.expect("works");
        assert_eq!(found.is_some(), stays, "{}", user.username);
    }
    assert_eq!(server.rooms.people(), [publisher.id, listener.id].into());
    let heard = tokio::time::timeout(PATIENCE, hearing.next()).await.expect("in time");
    assert!(heard.is_ok(), "the mix goes on: {heard:?}");

    // Not for longer than they are here.
    drop(hearing);
    server.rooms.end(&presence, LeaveReason::Left).await;
    assert_eq!(server.gateway.guests(), []);
}

/// What all nodes share was lost, and this node has not written back who is here through it.
#[tokio::test]
async fn who_has_no_account_any_more_is_put_out_also_where_nothing_is_known_of_them() {
    let (one, two, cluster) = Server::two(|_, _| {}).await;
    let (mut anna, mut berta) = (one.client("anna").await, two.client("berta").await);
    let eve = guest(&one, "eve").await;
    let channel = one.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    let _presence = enter(&one, eve.clone(), channel).await;
    berta.join(channel, MediaTransport::Websocket).await;
    agree([&one, &two], channel, &[anna.id(), eve.id, berta.id()]).await;

    cluster.lose_everything();
    one.store.set_active(eve.id, false).await.expect("stored");
    assert!(one.gateway.end_unusable().await, "nobody is left who has no account");
    assert!(!one.rooms.people().contains(&eve.id));
    for client in [&mut anna, &mut berta] {
        assert_eq!(client.expect(of_type!(UserLeft)).await.user_id, eve.id);
    }
    agree([&one, &two], channel, &[anna.id(), berta.id()]).await;
}
