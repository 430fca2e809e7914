//! The messages of rooms: who is told what, and what is refused. How they sound and look is tested in a browser.

use std::time::{Duration, Instant};

use antiphon::store::RoomTerms;
use antiphon_core::{
    gateway::{
        ErrorCode, IceCandidateInit, JoinRoom, JoinRoomPayload, JoinText, Leave, MediaTransport, NoPayload, PeerRole,
        PublishKind, PublishOffer, PublishOfferPayload, ServerMessage, Subscribe, SubscribeAnswer,
        SubscribeAnswerPayload, SubscribePayload, TrickleIce, TrickleIcePayload,
    },
    ids::ChannelId,
};
use str0m::{
    Candidate, RtcConfig,
    media::{Direction, MediaKind},
};
use time::OffsetDateTime;

use crate::{
    client::{Client, of_type},
    server::Server,
};

pub(crate) fn enter(room: Option<ChannelId>, display: Option<&str>) -> JoinRoom {
    JoinRoomPayload { room_id: room, display: display.map(str::to_owned), invite: None }.into()
}

pub(crate) fn publish(sdp: String) -> PublishOffer {
    PublishOfferPayload { sdp, kind: PublishKind::Audio }.into()
}

/// What a client offers that has so many media sections.
pub(crate) fn offer(sections: usize) -> String {
    let mut rtc = RtcConfig::new().build(Instant::now());
    rtc.add_local_candidate(Candidate::host(([127, 0, 0, 1], 9).into(), "udp").expect("a candidate"));
    let mut changes = rtc.sdp_api();
    for _ in 0..sections {
        changes.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
    }
    changes.apply().expect("something is offered").0.to_sdp_string()
}

/// What a message of this family is refused with.
async fn refused(
    client: &mut Client,
    message: impl Into<antiphon_core::gateway::ClientMessage>,
) -> (ErrorCode, String) {
    match client.request(message).await {
        ServerMessage::RoomError(refused) => (refused.payload.error_code, refused.payload.error),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_room_is_a_channel_and_both_families_see_its_members() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Udp).await;
    let ServerMessage::JoinedRoom(joined) = berta.request(enter(Some(channel), Some("Berta B."))).await else {
        panic!("not joined")
    };
    let joined = joined.payload;
    assert_eq!((joined.room.room_id, joined.participant_id, joined.room.expires_at), (channel, berta.id(), None));
    let publisher = &joined.publishers[0];
    assert_eq!(
        (publisher.id, &publisher.kinds[..], publisher.media),
        (anna.id(), &[PublishKind::Audio][..], MediaTransport::Udp)
    );
    let came = anna.expect(of_type!(UserJoined)).await;
    assert_eq!((came.media, came.user.display_name.as_str()), (MediaTransport::Webrtc, "Berta B."));

    let mut carla = server.client("carla").await;
    carla.request(enter(Some(channel), None)).await;
    let told = berta.expect(of_type!(PublisherJoined)).await.payload.publisher;
    assert_eq!((told.id, told.kinds.len()), (carla.id(), 0));
    let answer = carla.request(publish(offer(1))).await;
    let ServerMessage::PublishAnswer(answer) = answer else { panic!("not answered: {answer:?}") };
    for needed in ["a=ice-lite", "a=recvonly", "usedtx=1", "a=candidate:"] {
        assert!(answer.payload.sdp.contains(needed), "{needed}");
    }
    let told = berta.expect(of_type!(PublisherJoined)).await.payload.publisher;
    assert_eq!((told.id, &told.kinds[..]), (carla.id(), &[PublishKind::Audio][..]));

    berta.done(Subscribe::from(SubscribePayload::default())).await;
    let offered = berta.expect(of_type!(SubscribeOffer)).await.payload;
    let mut whose: Vec<_> = offered.tracks.iter().map(|track| track.publisher_id).collect();
    whose.sort_unstable();
    assert_eq!(whose, [anna.id(), carla.id()]);

    let ServerMessage::LeftRoom(left) = carla.request(Leave { payload: NoPayload {} }).await else {
        panic!("not left")
    };
    assert_eq!(left.payload.room_id, channel);
    assert_eq!(berta.expect(of_type!(PublisherLeft)).await.payload.publisher_id, carla.id());
}

#[tokio::test]
async fn a_connection_for_a_room_enters_no_other() {
    let server = Server::start().await;
    let tokens = server.guest("anna").await;
    let (room, other) = (server.channel(tokens.user.id, 10).await, server.channel(tokens.user.id, 10).await);
    let path = format!("/ws?room_id={room}&token={}", tokens.access_token);
    let mut anna = Client::open(&server, &path, &[]).await.expect("connects");
    assert_eq!(refused(&mut anna, enter(Some(other), None)).await.0, ErrorCode::PermissionDenied);
    assert!(matches!(anna.request(enter(None, None)).await, ServerMessage::JoinedRoom(_)));
    let wrong = Client::open(&server, "/ws?room_id=lobby", &[]).await.err().expect("refused");
    assert_eq!(wrong.status(), 400);
    let expired = Client::open(&server, &format!("/ws?room_id={room}&token=x"), &[]).await.err().expect("refused");
    assert_eq!(expired.status(), 401);
}

#[tokio::test]
async fn a_browser_that_names_any_host_is_told_the_address_that_it_reached() {
    let server = Server::with(|_, rooms| rooms.named_hosts = vec!["nowhere.invalid".to_owned()]).await;
    let tokens = server.guest("anna").await;
    let room = server.channel(tokens.user.id, 10).await;
    let path = format!("/ws?room_id={room}&token={}", tokens.access_token);
    // The first is nobody's, the last one that the settings name and that is nowhere.
    for (host, ways) in [("stranger.invalid", 1), ("127.0.0.2", 1), ("localhost:3000", 1), ("nowhere.invalid", 0)] {
        let mut anna = Client::open(&server, &path, &[("host", host)]).await.expect("connects");
        anna.request(enter(None, None)).await;
        let answer = anna.request(publish(offer(1))).await;
        let ServerMessage::PublishAnswer(answer) = answer else { panic!("not answered: {answer:?}") };
        let sdp = answer.payload.sdp;
        let candidates: Vec<_> = sdp.lines().filter(|line| line.starts_with("a=candidate:")).collect();
        assert_eq!(candidates.len(), ways, "{host}: {candidates:?}");
        let address = if host == "127.0.0.2" { host } else { "127.0.0.1" };
        assert!(candidates.iter().all(|line| line.contains(address)), "{host}: {candidates:?}");
        anna.request(Leave { payload: NoPayload {} }).await;
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_why_and_others_lose_nothing() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    let trickle = |candidate: &str| {
        let candidate = IceCandidateInit { candidate: candidate.to_owned(), ..IceCandidateInit::default() };
        TrickleIce::from(TrickleIcePayload { target: PeerRole::Publisher, candidate })
    };
    let way = |port: u32| format!("candidate:1 1 udp 2130706431 192.0.2.1 {port} typ host");
    let thousand: String = (1..=1_000).map(|port| format!("a={}\r\n", way(port))).collect();
    assert!(refused(&mut anna, publish(offer(1))).await.1.contains("join_room"));
    anna.request(enter(Some(channel), None)).await;
    berta.request(enter(Some(channel), None)).await;
    for (sdp, why) in [
        (String::new(), "media sections"),
        ("v=0".to_owned(), "media sections"),
        ("m=audio".to_owned(), "SDP"),
        (offer(17), "17 media sections"),
        (offer(1) + &"a=x\r\n".repeat(2_000), "at most 2000 are taken"),
        (
            offer(1) + &(0..65).map(|ssrc| format!("a=ssrc:{ssrc} cname:a\r\n")).collect::<String>(),
            "at most 64 are taken",
        ),
        (offer(1).replace("a=fingerprint", "a=x"), "fingerprint"),
        (offer(1).replace("a=ice-ufrag", "a=x"), "ice-ufrag"),
    ] {
        let (code, error) = refused(&mut anna, publish(sdp)).await;
        assert_eq!(code, ErrorCode::InvalidInput, "{error}");
        assert!(error.contains(why), "{error}");
    }
    let (code, error) = refused(&mut anna, publish(offer(1) + &thousand)).await;
    assert!(code == ErrorCode::LimitReached && error.contains("at most 64 candidates"), "{error}");
    let answer = SubscribeAnswer::from(SubscribeAnswerPayload { sdp: offer(1) });
    assert!(refused(&mut anna, answer).await.1.contains("no offer"));
    assert_eq!(refused(&mut anna, trickle(&way(9))).await.0, ErrorCode::InvalidInput, "no connection yet");
    assert!(matches!(anna.request(publish(offer(1))).await, ServerMessage::PublishAnswer(_)));
    assert!(refused(&mut anna, trickle("candidate:rubbish")).await.1.contains("no ICE candidate"));
    anna.done(trickle("")).await;
    anna.done(trickle("candidate:1 1 udp 2130706431 abc.local 9000 typ host")).await;
    let (mut taken, mut too_many) = (0, 0);
    // The offer named this one, and one that is named again takes no room.
    anna.done(trickle("candidate:1 1 udp 2130706431 127.0.0.1 9 typ host")).await;
    for port in 1..=1_000 {
        match anna.request(trickle(&way(port))).await {
            ServerMessage::Ack(_) => taken += 1,
            ServerMessage::RoomError(error) if error.payload.error_code == ErrorCode::LimitReached => too_many += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((taken, too_many), (63, 937));
    assert!(matches!(berta.request(publish(offer(1))).await, ServerMessage::PublishAnswer(_)));
}

#[tokio::test]
async fn the_answers_of_an_account_have_so_many_lines_a_minute_and_no_more() {
    let server = Server::with(|_, rooms| rooms.offers_per_minute = 2).await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let mut speaker = server.client("speaker").await;
    let channel = server.channel(anna.id(), 10).await;
    speaker.join(channel, MediaTransport::Udp).await;
    let answer = |lines: usize| {
        SubscribeAnswer::from(SubscribeAnswerPayload { sdp: "m=audio\n".to_owned() + &"a=x\n".repeat(lines - 1) })
    };
    for client in [&mut anna, &mut berta] {
        client.request(enter(Some(channel), None)).await;
        assert!(refused(client, answer(3_000)).await.1.contains("no offer"), "which counts for nothing");
        client.done(Subscribe::from(SubscribePayload::default())).await;
        client.expect(of_type!(SubscribeOffer)).await;
    }
    // Two offers have 4,000 lines at most. What cannot be read is tried again, as long as there are some left.
    for lines in [3_000, 900, 50] {
        assert_eq!(refused(&mut anna, answer(lines)).await.0, ErrorCode::InvalidInput);
    }
    let (code, error) = refused(&mut anna, answer(900)).await;
    assert!(code == ErrorCode::RateLimited && error.contains("too many lines of answers"), "{error}");
    assert_eq!(refused(&mut berta, answer(3_000)).await.0, ErrorCode::InvalidInput);
}

#[tokio::test]
async fn an_account_makes_so_many_offers_a_minute_and_no_more() {
    let server = Server::with(|_, rooms| rooms.offers_per_minute = 2).await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.request(enter(Some(channel), None)).await;
    berta.request(enter(Some(channel), None)).await;
    assert_eq!(refused(&mut anna, publish("v=0".to_owned())).await.0, ErrorCode::InvalidInput);
    assert!(matches!(anna.request(publish(offer(1))).await, ServerMessage::PublishAnswer(_)));
    let (code, error) = refused(&mut anna, publish(offer(1))).await;
    assert!(code == ErrorCode::RateLimited && error.contains("WebRTC offers of this account"), "{error}");
    assert!(matches!(berta.request(publish(offer(1))).await, ServerMessage::PublishAnswer(_)));
}

#[tokio::test]
async fn no_more_publish_than_the_room_lets() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    let terms = RoomTerms { max_publishers: 1, expires_at: OffsetDateTime::now_utc() + Duration::from_secs(60) };
    server.store.set_room_terms(channel, terms).await.expect("stored");
    anna.request(enter(Some(channel), None)).await;
    berta.request(enter(Some(channel), None)).await;
    anna.request(publish(offer(1))).await;
    berta.expect(of_type!(PublisherJoined)).await;
    assert_eq!(refused(&mut berta, publish(offer(1))).await.0, ErrorCode::LimitReached);
    anna.request(Leave { payload: NoPayload {} }).await;
    berta.expect(of_type!(PublisherLeft)).await;
    assert!(matches!(berta.request(publish(offer(1))).await, ServerMessage::PublishAnswer(_)));
}

#[tokio::test]
async fn who_finds_no_place_to_hear_by_is_told_so_and_may_try_again() {
    let server = Server::with_webrtc_peers(1).await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.request(enter(Some(channel), None)).await;
    berta.request(enter(Some(channel), None)).await;
    assert!(matches!(anna.request(publish(offer(1))).await, ServerMessage::PublishAnswer(_)));
    let (code, error) = refused(&mut berta, Subscribe::from(SubscribePayload::default())).await;
    assert_eq!(code, ErrorCode::LimitReached, "{error}");
    anna.request(Leave { payload: NoPayload {} }).await;
    berta.done(Subscribe::from(SubscribePayload::default())).await;
    // Her place is there: who publishes next finds none.
    let (code, error) = refused(&mut berta, publish(offer(1))).await;
    assert_eq!(code, ErrorCode::LimitReached, "{error}");
}

#[tokio::test]
async fn a_room_does_not_end_under_those_who_read_and_write_in_it() {
    let server = Server::start().await;
    let mut anna = server.client("anna").await;
    let (read, empty) = (server.channel(anna.id(), 10).await, server.channel(anna.id(), 10).await);
    let now = OffsetDateTime::now_utc();
    for room in [read, empty] {
        server.store.set_room_terms(room, RoomTerms { max_publishers: 0, expires_at: now }).await.expect("stored");
    }
    let joined = anna.request(JoinText { room: read.to_string() }).await;
    assert!(matches!(joined, ServerMessage::JoinAck(_)), "{joined:?}");
    server.rooms.keep().await;
    server.store.sweep(now + time::Duration::MINUTE).await.expect("swept");
    for (room, stays) in [(read, true), (empty, false)] {
        assert_eq!(server.store.channel(room).await.expect("works").is_some(), stays);
    }
}
