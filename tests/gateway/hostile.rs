//! What no honest client sends. Each is answered by a clear error or a close code, and two who talk do not notice.

use antiphon::origins::Origins;
use antiphon_core::{
    gateway::{AudioBytes, AudioData, Heartbeat, MediaTransport},
    prng::Prng,
};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Client, of_type},
    server::{PATIENCE, Server},
};

/// Valid messages to cut, splice and bend.
const SAMPLES: [&str; 6] = [
    r#"{"type":"JoinChannel","channel_id":"0197a6b0-2222-7000-8000-0000000000c1","media":"udp"}"#,
    r#"{"JoinChannel":{"channel_id":"0197a6b0-2222-7000-8000-0000000000c1","request_id":"a"}}"#,
    r#"{"type":"AudioData","channel_id":"0197a6b0-2222-7000-8000-0000000000c1","data":"SAfJ","sequence":65535}"#,
    r#"{"type":"Resume","session_id":"0197a6b0-2222-7000-8000-0000000000c1","resume_token":"x","positions":{}}"#,
    r#"{"type":"Authenticate","username":"x","request_id":9223372036854775807}"#,
    r#"{"type":"SetVoiceState","channel_id":"0197a6b0-2222-7000-8000-0000000000c1","muted":true}"#,
];

fn bent(prng: &mut Prng) -> String {
    let mut bytes = SAMPLES[prng.next_u64() as usize % SAMPLES.len()].as_bytes().to_vec();
    for _ in 0..=prng.next_u64() % 4 {
        let at = prng.next_u64() as usize % bytes.len().max(1);
        match prng.next_u64() % 5 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, b"\"{}[]:,\\0"[prng.next_u64() as usize % 9]),
            2 if at < bytes.len() => bytes[at] = (prng.next_u64() % 128) as u8,
            3 => bytes.splice(at..at, std::iter::repeat_n(b'[', 200)).for_each(drop),
            _ => bytes.rotate_left(at),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_malformed_messages() {
    let server = Server::start().await;
    let (mut anna, mut berta) = (server.client("anna").await, server.client("berta").await);
    let channel = server.channel(anna.id(), 10).await;
    anna.join(channel, MediaTransport::Websocket).await;
    berta.join(channel, MediaTransport::Websocket).await;
    let mut prng = Prng::new(1);
    let (mut sent, mut answered, mut closes, mut spoken) = (0, 0, 0, 0_u16);
    while sent < 10_000 {
        let mut hostile = Client::connect(&server).await;
        for _ in 0..50 {
            sent += 1;
            let frame = match prng.next_u64() % 8 {
                0 => Message::binary((0..prng.next_u64() % 300).map(|_| prng.next_u64() as u8).collect::<Vec<_>>()),
                _ => Message::text(bent(&mut prng)),
            };
            if hostile.socket.send(frame).await.is_err() {
                break;
            }
        }
        // Everything has an answer, or the connection is closed with a code.
        while let Some(Ok(frame)) = tokio::time::timeout(PATIENCE, hostile.socket.next()).await.expect("in time") {
            match frame {
                Message::Text(_) => answered += 1,
                Message::Close(Some(frame)) => {
                    assert!([4001, 4003, 4008, 4009].contains(&u16::from(frame.code)), "{frame:?}");
                    closes += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        // Meanwhile two people talk.
        spoken += 1;
        let data = AudioBytes(vec![0xfc; 60]);
        let audio =
            AudioData { channel_id: channel, data, sequence: Some(spoken), timestamp: None, kind: None, level: None };
        anna.send(audio).await;
        assert_eq!(berta.expect(of_type!(AudioFrame)).await.sequence, spoken);
    }
    assert!(closes >= 200 && answered >= 10 * 100, "{closes} closes, {answered} answers");
    anna.send(Heartbeat {}).await;
    anna.expect(of_type!(HeartbeatAck)).await;
}

#[tokio::test]
async fn frames_that_break_the_websocket_protocol() {
    let server = Server::start().await;
    let frames: [(&[u8], u16); 4] = [
        // Not masked; a reserved opcode; a reserved bit; a text that is not UTF-8.
        (&[0x81, 0x02, b'{', b'}'], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0xc1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], 1007),
    ];
    for (number, (bytes, code)) in frames.into_iter().enumerate() {
        let mut client = server.client(&format!("client{number}")).await;
        client.socket.get_mut().write_all(bytes).await.expect("sends");
        let (closed, reason) = client.closed().await;
        assert_eq!((closed, &reason["resume"]), (code, &serde_json::json!(true)), "{bytes:x?}");
    }
}

#[tokio::test]
async fn a_message_in_pieces_that_hold_nothing_and_never_end() {
    let server = Server::start().await;
    // A text that goes on; then pieces of it, each of a masked header alone. In between nothing, or a ping now and then.
    let (text, piece, ping) = ([0x01, 0x80, 0, 0, 0, 0], [0x00, 0x80, 0, 0, 0, 0], [0x89, 0x80, 0, 0, 0, 0]);
    for (name, between) in [("endless", &[][..]), ("pinging", &ping[..])] {
        let mut client = server.client(name).await;
        let socket = client.socket.get_mut();
        socket.write_all(&text).await.expect("sends");
        let pieces = [&piece.repeat(10_000)[..], between].concat();
        for _ in 0..100 {
            if socket.write_all(&pieces).await.is_err() {
                break;
            }
        }
        let (closed, reason) = client.closed().await;
        assert_eq!((closed, &reason["resume"]), (1009, &serde_json::json!(true)), "{name}");
    }
}

#[tokio::test]
async fn requests_that_are_no_websocket() {
    let server = Server::start().await;
    for (request, status) in [
        ("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
        ("POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "400"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("listens");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = vec![0; 256];
        let length = stream.read(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn pages_of_strange_origins_do_not_connect() {
    let named = "https://app.example.org";
    let server = Server::with(|gateway, _| gateway.allowed_origins = Origins::new(&[named.to_owned()])).await;
    let own = format!("http://{}", server.address);
    for origin in [named, &own, "http://127.0.0.1", "http://localhost:5173", "http://[::1]:8080"] {
        Client::open(&server, "/ws", &[("origin", origin)]).await.expect("connects");
    }
    Client::open(&server, "/ws", &[("host", "voice.example.org"), ("origin", "http://voice.example.org:3000")])
        .await
        .expect("the page came from this server");
    for origin in ["https://evil.example.org", "http://app.example.org", "http://localhost.evil.org", "null", ""] {
        let refused = Client::open(&server, "/ws", &[("origin", origin)]).await.err().expect("refused");
        assert_eq!(refused.status(), 403, "{origin}");
    }
    let any = Server::with(|gateway, _| gateway.allowed_origins = Origins::new(&["*".to_owned()])).await;
    Client::open(&any, "/ws", &[("origin", "null")]).await.expect("connects");
}
