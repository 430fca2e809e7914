//! Every way in which the server ends a connection.

use std::time::Duration;

use antiphon::gateway::{OutboxLimits, Rate};
use antiphon_core::{
    gateway::{Authenticate, ErrorCode, Heartbeat, MediaTransport, Position, Recover, ServerMessage, SetVoiceState},
    ids::SessionId,
};
use futures_util::SinkExt;
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::{
    client::{Client, join, of_type, resume},
    server::{PATIENCE, Server},
};

/// The reason names its code; whether to reconnect and to resume is as given.
fn assert_closed((code, reason): (u16, serde_json::Value), expected: u16, reconnect: bool, resume: bool) {
    assert_eq!(code, expected, "{reason}");
    assert_eq!(reason, serde_json::json!({ "code": expected, "reconnect": reconnect, "resume": resume }));
}

#[tokio::test]
async fn whoever_does_not_authenticate_in_time() {
    let server = Server::with(|gateway, _| gateway.authentication = Duration::from_millis(500)).await;
    let mut client = Client::connect(&server).await;
    client.send(Heartbeat {}).await;
    client.expect(of_type!(HeartbeatAck)).await;
    assert_closed(client.closed().await, 4001, true, false);
}

#[tokio::test]
async fn whoever_authenticates_with_a_bad_token() {
    let server = Server::start().await;
    let mut client = Client::connect(&server).await;
    let answer = client.authenticate("no.such.token").await;
    assert!(matches!(&answer, ServerMessage::Error(error) if error.error_code == ErrorCode::Unauthenticated));
    assert_closed(client.closed().await, 4003, false, false);
}

#[tokio::test]
async fn a_bad_token_on_connecting_is_refused_by_http() {
    let server = Server::start().await;
    let by_query = Client::open(&server, "/ws?token=bad", &[]).await.map(|_| ()).expect_err("refused");
    let by_header = Client::open(&server, "/ws", &[("authorization", "Bearer bad")]).await.map(|_| ());
    let no_bearer = Client::open(&server, "/ws", &[("authorization", "Basic bad")]).await.map(|_| ());
    for response in [by_query, by_header.expect_err("refused"), no_bearer.expect_err("refused")] {
        assert_eq!(response.status(), 401);
    }
}

#[tokio::test]
async fn a_name_that_is_taken_may_be_followed_by_another() {
    let server = Server::start().await;
    server.guest("anna").await;
    let mut client = Client::connect(&server).await;
    let named = |name: &str| Authenticate { token: None, username: Some(name.to_owned()) };
    assert_eq!(client.refused(named("anna")).await, ErrorCode::Conflict);
    assert_eq!(client.refused(Authenticate { token: None, username: None }).await, ErrorCode::InvalidInput);
    let ServerMessage::Authenticated(answer) = client.request(named("berta")).await else { panic!("not let in") };
    assert!(answer.user.is_guest && answer.user.username == "berta");
    let token = answer.access_token.expect("a guest gets tokens");
    assert_eq!(server.auth.authenticate(&token).await.expect("good").user, answer.user);
    assert!(answer.refresh_token.is_some());
    assert_eq!(client.refused(named("clara")).await, ErrorCode::InvalidInput, "somebody is authenticated already");
}

#[tokio::test]
async fn a_flood_gets_errors_first() {
    let server = Server::with(|gateway, _| {
        gateway.rates.messages = Rate { per_second: 1, burst: 20 };
        gateway.rates.refused_messages = 5;
    })
    .await;
    let mut client = server.client("anna").await;
    for _ in 0..100 {
        if client.socket.send(Message::text(r#"{"type":"Heartbeat"}"#)).await.is_err() {
            break;
        }
    }
    assert_closed(client.closed().await, 4008, true, true);
    let errors = client
        .passed_over
        .iter()
        .filter(|message| matches!(message, ServerMessage::Error(error) if error.error_code == ErrorCode::RateLimited));
    assert_eq!(errors.count(), 5);
    let acks = client.passed_over.iter().filter(|message| matches!(message, ServerMessage::HeartbeatAck(_))).count();
    assert!((20..40).contains(&acks), "{acks}");
}

#[tokio::test]
async fn what_comes_too_fast_is_refused_in_the_words_of_its_family() {
    let server = Server::with(|gateway, _| gateway.rates.messages = Rate { per_second: 1, burst: 1 }).await;
    let mut client = server.client("anna").await;
    let flood = [
        r#"{"type":"Heartbeat"}"#,
        r#"{"type":"typing","request_id":1,"room":"x"}"#,
        r#"{"type":"leave","request_id":2,"payload":{}}"#,
        r#"{"type":"Heartbeat","request_id":3}"#,
    ];
    for text in flood {
        client.send_text(text).await;
    }
    assert_eq!(client.expect(of_type!(ChatError)).await.data.error_code, ErrorCode::RateLimited);
    assert_eq!(client.expect(of_type!(RoomError)).await.payload.error_code, ErrorCode::RateLimited);
    assert_eq!(client.expect(of_type!(Error)).await.error_code, ErrorCode::RateLimited);
}

#[tokio::test]
async fn whoever_pings_faster_than_they_may_speak() {
    let server = Server::with(|gateway, _| {
        gateway.rates.messages = Rate { per_second: 1, burst: 20 };
        gateway.rates.refused_messages = 5;
    })
    .await;
    let mut client = server.client("anna").await;
    for _ in 0..100 {
        if client.socket.send(Message::Ping(vec![7; 125].into())).await.is_err() {
            break;
        }
    }
    assert_closed(client.closed().await, 4008, true, true);
}

#[tokio::test]
async fn ten_messages_that_are_none() {
    let server = Server::start().await;
    let mut client = server.client("anna").await;
    let none = [r#"{"type":"Dance","request_id":7}"#, "{", "[]", "17", "{}", r#"{"type":7}"#, "null", "", "{}", "{}"];
    for text in none {
        client.send_text(text).await;
    }
    assert_closed(client.closed().await, 4008, true, true);
    let codes: Vec<ErrorCode> = client
        .passed_over
        .iter()
        .map(|message| match message {
            ServerMessage::Error(error) => error.error_code,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes[0], ErrorCode::UnknownMessage);
    assert_eq!(codes[1..], [ErrorCode::InvalidInput; 9]);
}

#[tokio::test]
async fn wrong_fields_of_a_known_message_are_no_reason_to_close() {
    let server = Server::start().await;
    let mut client = server.client("anna").await;
    for _ in 0..15 {
        client.send_text(r#"{"type":"JoinChannel","channel_id":"lobby"}"#).await;
        let error = client.expect(of_type!(Error)).await;
        assert_eq!(error.error_code, ErrorCode::InvalidInput);
        assert!(error.error.contains("UUID"), "{}", error.error);
    }
}

#[tokio::test]
async fn whoever_sends_no_heartbeats() {
    let server = Server::with(|gateway, _| gateway.heartbeat = Duration::from_millis(20)).await;
    let mut client = server.client("anna").await;
    assert_eq!(client.hello.heartbeat_ms, 20);
    assert_closed(client.closed().await, 4009, true, true);
    // The session outlives it.
    Client::resume(&server, resume(&client.hello)).await;
}

#[tokio::test]
async fn a_session_that_never_was_and_a_wrong_token() {
    let server = Server::start().await;
    let anna = server.client("anna").await;
    let mut unknown = resume(&anna.hello);
    unknown.session_id = SessionId(uuid::Uuid::now_v7());
    let mut client = Client::connect(&server).await;
    assert_eq!(client.refused(unknown).await, ErrorCode::Unauthenticated);
    assert_closed(client.closed().await, 4009, true, false);

    let mut wrong = resume(&anna.hello);
    wrong.resume_token = "wrong".to_owned();
    let mut client = Client::connect(&server).await;
    assert_eq!(client.refused(wrong).await, ErrorCode::Unauthenticated);
    assert_closed(client.closed().await, 4003, false, false);
}

#[tokio::test]
async fn a_reader_that_is_too_slow() {
    let server = Server::with(|gateway, _| {
        gateway.outbox = OutboxLimits { messages: 100, bytes: 256 * 1024, frames: 10 };
        gateway.rates.messages = Rate { per_second: 10_000, burst: 10_000 };
    })
    .await;
    let mut slow = flooded(&server).await;
    assert_closed(slow.closed().await, 4011, true, true);
}

#[tokio::test]
async fn whoever_has_most_unread_where_all_together_have_too_much() {
    let server = Server::with(|gateway, _| {
        gateway.outbox = OutboxLimits { messages: usize::MAX, bytes: usize::MAX, frames: 10 };
        gateway.unread_bytes = 4 << 20;
        gateway.rates.messages = Rate { per_second: 10_000, burst: 10_000 };
    })
    .await;
    let mut reader = server.client("reader").await;
    let mut slow = flooded(&server).await;
    assert_closed(slow.closed().await, 4011, true, true);
    reader.send(Heartbeat {}).await;
    reader.expect(of_type!(HeartbeatAck)).await;
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_its_share() {
    let server = Server::with(|gateway, _| gateway.connections_per_address = 2).await;
    let stranger = Client::connect(&server).await;
    let mut known = server.client("known").await;
    let refused = Client::open(&server, "/ws", &[]).await.map(|_| ()).expect_err("refused");
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    known.send(Heartbeat {}).await;
    known.expect(of_type!(HeartbeatAck)).await;
    drop(stranger);
    // The server hears of that in its own time.
    let again = async { while Client::open(&server, "/ws", &[]).await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.expect("who has gone takes no place");
}

/// Somebody who asks for far more than they read, until the server has had enough.
async fn flooded(server: &Server) -> Client {
    let token = server.guest("slow").await.access_token;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4 * 1024).expect("a small buffer");
    let stream = socket.connect(server.address).await.expect("connects");
    let mut slow = Client::over(stream, &format!("/ws?token={token}"), &[]).await.expect("connects");
    let ServerMessage::Authenticated(answer) = slow.message().await else { panic!("not let in") };
    let channel = server.channel(answer.user.id, 10).await;
    let joined = slow.join(channel, MediaTransport::Websocket).await;
    for muted in [true, false].into_iter().cycle().take(400) {
        slow.done(SetVoiceState { channel_id: channel, muted: Some(muted), deafened: None }).await;
    }
    // Each answer has all 400 events, and none is read. Once the server has had enough it takes nothing more.
    for _ in 0..1_000 {
        let position = Position { epoch: joined.position.epoch.clone(), offset: joined.position.offset };
        let recover = slow.send(Recover { channel_id: channel, position });
        if tokio::time::timeout(Duration::from_millis(500), recover).await.is_err() {
            break;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    slow
}

#[tokio::test]
async fn a_node_that_drains() {
    let server = Server::start().await;
    let (mut anna, berta) = (server.client("anna").await, server.client("berta").await);
    let drained = tokio::spawn({
        let gateway = server.gateway.clone();
        async move {
            gateway.begin_drain();
            gateway.ask_to_go("restart", Duration::from_secs(3), vec!["http://other".to_owned()]);
            let _ = tokio::time::timeout(Duration::from_secs(3), gateway.until_empty()).await;
            gateway.close_all().await;
        }
    });
    let reconnect = anna.expect(of_type!(Reconnect)).await;
    assert_eq!((reconnect.reason.as_str(), reconnect.grace_ms), ("restart", 3_000));
    assert_eq!(reconnect.nodes, ["http://other"]);
    let refused = Client::open(&server, "/ws", &[]).await.map(|_| ()).expect_err("no new connections");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    berta.close(1000).await;
    // The old connection works until the end.
    anna.send(Heartbeat {}).await;
    anna.expect(of_type!(HeartbeatAck)).await;
    assert_closed(anna.closed().await, 4012, true, false);
    drop(anna);
    drained.await.expect("drained");
    assert_eq!(server.gateway.connections(), 0);
}

#[tokio::test]
async fn a_node_that_has_enough_connections() {
    let server = Server::with(|gateway, _| gateway.connections = 2).await;
    let first = Client::connect(&server).await;
    let _second = Client::connect(&server).await;
    let refused = Client::open(&server, "/ws", &[]).await.map(|_| ()).expect_err("one too many");
    assert_eq!(refused.status(), 503);
    first.close(1000).await;
    while server.gateway.connections() > 1 {
        tokio::task::yield_now().await;
    }
    Client::connect(&server).await;
}

#[tokio::test]
async fn an_account_that_has_enough_sessions() {
    let server = Server::with(|gateway, _| gateway.sessions_per_account = 2).await;
    let token = server.guest("anna").await.access_token;
    let first = Client::with_token(&server, &token).await;
    let _second = Client::with_token(&server, &token).await;
    let mut third = Client::connect(&server).await;
    let answer = third.authenticate(&token).await;
    assert!(matches!(&answer, ServerMessage::Error(error) if error.error_code == ErrorCode::LimitReached));
    assert_closed(third.closed().await, 4008, true, false);
    first.close(1000).await;
    while server.gateway.sessions_count() > 1 {
        tokio::task::yield_now().await;
    }
    Client::with_token(&server, &token).await;
}

#[tokio::test]
async fn an_account_that_was_switched_off() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    server.gateway.disconnect_user(anna.id()).await;
    assert_closed(anna.closed().await, 4014, false, false);
    assert_eq!(berta.expect(of_type!(UserLeft)).await.user_id, anna.id());
    let mut again = Client::connect(&server).await;
    assert_eq!(again.refused(resume(&anna.hello)).await, ErrorCode::Unauthenticated);
}

#[tokio::test]
async fn an_older_connection_of_a_session() {
    let server = Server::start().await;
    let mut older = server.client("anna").await;
    let (mut newer, _) = Client::resume(&server, resume(&older.hello)).await;
    assert_closed(older.closed().await, 4015, false, false);
    newer.send(Heartbeat {}).await;
    newer.expect(of_type!(HeartbeatAck)).await;
}

#[tokio::test]
async fn a_message_that_is_too_long() {
    let server = Server::start().await;
    // In one frame, whole and only begun, and in fragments that are too long together.
    for length in [64 * 1024 + 1, 1024 * 1024] {
        let mut client = server.client(&format!("long{length}")).await;
        let text = "x".repeat(length);
        // The server may close before it has read all of it.
        let _ = client.socket.send(Message::text(text)).await;
        assert_closed(client.closed().await, 1009, true, true);
    }
    let mut client = server.client("fragments").await;
    for part in 0..3 {
        let opcode = if part == 0 { Data::Text } else { Data::Continue };
        let frame = Frame::message(vec![b' '; 30_000], OpCode::Data(opcode), part == 2);
        client.socket.send(Message::Frame(frame)).await.expect("sends");
    }
    assert_closed(client.closed().await, 1009, true, true);

    let mut client = server.client("longest").await;
    let padding = " ".repeat(64 * 1024 - r#"{"type":"Heartbeat"}"#.len());
    client.send_text(&format!(r#"{{"type":"Heartbeat"{padding}}}"#)).await;
    client.expect(of_type!(HeartbeatAck)).await;
}

#[tokio::test]
async fn nobody_does_anything_before_they_are_known() {
    let server = Server::start().await;
    let anna = server.client("anna").await;
    let channel = server.channel(anna.id(), 10).await;
    let mut stranger = Client::connect(&server).await;
    assert_eq!(stranger.refused(join(channel, MediaTransport::Udp)).await, ErrorCode::Unauthenticated);
    let mute = SetVoiceState { channel_id: channel, muted: Some(true), deafened: None };
    assert_eq!(stranger.refused(mute).await, ErrorCode::Unauthenticated);
    assert_eq!(server.rooms.occupancy(channel).await, 0);
}

#[tokio::test]
async fn those_whose_account_went_without_this_nodes_hearing_of_it() {
    let server = Server::start().await;
    let (mut gone, mut off) = (server.client("gone").await, server.client("off").await);
    let mut stays = server.client("stays").await;
    let channel = server.channel(stays.id(), 10).await;
    for client in [&mut gone, &mut off, &mut stays] {
        client.join(channel, MediaTransport::Websocket).await;
    }
    // What plays files is in the channel, too, and has no account.
    let user = server.store.user(stays.id()).await.expect("works").expect("a guest").view();
    server
        .rooms
        .enter_player(&antiphon::rooms::player::player(channel, &user, "a.mp3"), channel)
        .await
        .expect("a place");
    server.store.delete_user(gone.id()).await.expect("works");
    server.store.set_active(off.id(), false).await.expect("works");
    server.gateway.end_unusable().await;
    for client in [&mut gone, &mut off] {
        assert_closed(client.closed().await, 4014, false, false);
    }
    assert_eq!(server.rooms.members(channel).await.expect("known").len(), 2, "the player and the one who stays");
    stays.send(Heartbeat {}).await;
    stays.expect(of_type!(HeartbeatAck)).await;
}
