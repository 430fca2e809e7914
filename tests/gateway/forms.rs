//! The three forms of a message, and how answers are told apart.

use antiphon_core::gateway::{
    AudioBytes, AudioData, Encoding, Heartbeat, MediaTransport, Recover, RequestId, ServerMessage, SetVoiceState, Shape,
};

use crate::{
    client::{Client, Received, of_type},
    server::Server,
};

#[tokio::test]
async fn what_a_request_carries_its_answer_carries() {
    let server = Server::start().await;
    let mut anna = server.client("anna").await;
    let channel = server.channel(anna.id(), 10).await;
    for id in [RequestId::Number(-3), RequestId::Text("heartbeat".to_owned())] {
        anna.send_as(Heartbeat {}, Some(id.clone())).await;
        let Received::Message(message, answered, _) = anna.received().await else { panic!("closed") };
        assert!(matches!(*message, ServerMessage::HeartbeatAck(_)));
        assert_eq!(answered, Some(id));
    }
    anna.join(channel, MediaTransport::Websocket).await;
    // No answer of its own: an Ack, but only where one is asked for.
    let deafen = |deafened| SetVoiceState { channel_id: channel, muted: None, deafened: Some(deafened) };
    anna.done(deafen(true)).await;
    anna.send(deafen(false)).await;
    let undone = anna.expect(|message| match message {
        ServerMessage::VoiceStateChanged(changed) if !changed.deafened => Some(changed.clone()),
        _ => None,
    });
    undone.await;
    anna.send_as(Heartbeat {}, None).await;
    anna.expect(of_type!(HeartbeatAck)).await;
    assert!(!anna.passed_over.iter().any(|message| matches!(message, ServerMessage::Ack(_))));
    anna.send_text(r#"{"type":"Dance","request_id":"d"}"#).await;
    let Received::Message(message, id, _) = anna.received().await else { panic!("closed") };
    assert!(matches!(*message, ServerMessage::Error(_)));
    assert_eq!(id, Some(RequestId::Text("d".to_owned())));
}

#[tokio::test]
async fn the_external_form_is_answered_in_kind_from_then_on() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.shape = Shape::External;
    let joined = anna.join(channel, MediaTransport::Websocket).await;
    anna.shape = Shape::Tagged;
    anna.send(Heartbeat {}).await;
    loop {
        let Received::Message(message, _, shape) = anna.received().await else { panic!("closed") };
        assert_eq!(shape, Shape::External, "{message:?}");
        if matches!(*message, ServerMessage::HeartbeatAck(_)) {
            break;
        }
    }
    berta.join(channel, MediaTransport::Websocket).await;
    let Received::Message(message, _, shape) = anna.received().await else { panic!("closed") };
    assert!(matches!(&*message, ServerMessage::UserJoined(event) if event.user_id == berta.id()));
    assert_eq!(shape, Shape::External);
    // Events inside an answer, too.
    let recover = Recover { channel_id: channel, position: joined.position };
    let ServerMessage::Recovered(recovered) = anna.request(recover).await else { panic!("not recovered") };
    let events = recovered.events.expect("all of them");
    assert_eq!(events[0]["UserJoined"]["user_id"], berta.id().to_string());
    // What cannot be right has asked for it, too.
    let mut clara = Client::connect(&server).await;
    clara.send_text(r#"{"Authenticate":{"username":5,"request_id":1}}"#).await;
    let Received::Message(message, id, shape) = clara.received().await else { panic!("closed") };
    assert!(matches!(*message, ServerMessage::Error(_)));
    assert_eq!((id, shape), (Some(RequestId::Number(1)), Shape::External));
    // Berta never used it.
    berta.send(Heartbeat {}).await;
    let Received::Message(_, _, shape) = berta.received().await else { panic!("closed") };
    assert_eq!(shape, Shape::Tagged);
}

#[tokio::test]
async fn messagepack_and_json_share_a_channel() {
    let server = Server::start().await;
    let token = server.guest("anna").await.access_token;
    let mut anna = Client::packed(&server, &token).await;
    let mut berta = server.client("berta").await;
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    assert_eq!(anna.expect(of_type!(UserJoined)).await.user_id, berta.id());
    assert_eq!((anna.encoding, berta.encoding), (Encoding::MessagePack, Encoding::Json));
    for (from, to) in [(true, 0_u16), (false, 1)] {
        let bytes: Vec<u8> = (0..=255).collect();
        let audio = AudioData {
            channel_id: channel,
            data: AudioBytes(bytes.clone()),
            sequence: Some(to),
            timestamp: Some(960),
            kind: Some(0x10),
            level: Some(12),
        };
        let (speaker, listener) = if from { (&mut anna, &mut berta) } else { (&mut berta, &mut anna) };
        speaker.send(audio).await;
        let heard = listener.expect(of_type!(AudioFrame)).await;
        assert_eq!((heard.data.0, heard.sequence, heard.kind, heard.level), (bytes, to, 0x10, 12));
    }
}

#[tokio::test]
async fn a_frame_of_the_other_encoding_is_malformed() {
    let server = Server::start().await;
    let token = server.guest("anna").await.access_token;
    let mut packed = Client::packed(&server, &token).await;
    packed.send_text(r#"{"type":"Heartbeat"}"#).await;
    let error = packed.expect(of_type!(Error)).await;
    assert!(error.error.contains("binary frames"), "{}", error.error);
    let mut json = server.client("berta").await;
    json.encoding = Encoding::MessagePack;
    json.send(Heartbeat {}).await;
    json.encoding = Encoding::Json;
    let error = json.expect(of_type!(Error)).await;
    assert!(error.error.contains("text frames"), "{}", error.error);
}

#[tokio::test]
async fn the_websocket_port_serves_any_path_and_a_header_authorizes() {
    let server = Server::start().await;
    let token = server.guest("anna").await.access_token;
    for path in ["/", "/ws", "/any/path?room=1"] {
        let stream = tokio::net::TcpStream::connect(server.any_path).await.expect("listens");
        let bearer = format!("Bearer {token}");
        let mut client = Client::over(stream, path, &[("authorization", &bearer)]).await.expect("connects");
        assert_eq!(client.hello.node, "test-node");
        assert!(matches!(client.message().await, ServerMessage::Authenticated(_)));
        client.close(1000).await;
    }
    let elsewhere = Client::open(&server, "/elsewhere", &[]).await.map(|_| ()).expect_err("not on the HTTP port");
    assert_eq!(elsewhere.status(), 404);
}
