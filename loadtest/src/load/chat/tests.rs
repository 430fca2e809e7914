//! Members on real sockets, of a server that is a few lines here: what it does wrong is found.

use std::{
    net::{TcpListener, TcpStream},
    thread::JoinHandle,
    time::Instant as StdInstant,
};

use antiphon_core::gateway::Encoding;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept};

use super::*;

const MEMBERS: usize = 3;

type Socket = WebSocket<TcpStream>;

fn send(socket: &mut Socket, message: &Value) {
    socket.send(Message::text(message.to_string())).expect("sent");
}

fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.read().ok()? {
            Message::Text(text) => return Some(serde_json::from_str(&text).expect("JSON")),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

/// Lets somebody in.
fn welcome(listener: &TcpListener) -> Socket {
    let (stream, _) = listener.accept().expect("accepts");
    let mut socket = accept(stream).expect("a WebSocket");
    let nobody = "00000000-0000-0000-0000-000000000000";
    let hello = json!({"type": "Hello", "session_id": nobody, "resume_token": "", "heartbeat_ms": 10_000, "node": "n",
        "server_time_us": 0});
    let user = json!({"id": nobody, "username": "a", "display_name": "a", "role": "user", "is_active": true,
        "is_guest": true, "created_at": "2026-11-20T12:00:00Z", "updated_at": "2026-11-20T12:00:00Z"});
    send(&mut socket, &hello);
    send(&mut socket, &json!({"type": "Authenticated", "user": user}));
    let join = next(&mut socket).expect("a join");
    assert_eq!((&join["type"], &join["room"]), (&"join".into(), &nobody.into()));
    let data = json!({"room": nobody, "channel_id": nobody, "status": "ok", "position": {"epoch": "e", "offset": 0}});
    send(&mut socket, &json!({"type": "join_ack", "request_id": join["request_id"], "data": data}));
    socket
}

/// Tells the others of the sixth message nobody, of the fourth twice, of the eighth after the ninth; refuses the tenth, and
/// garbles the twelfth.
fn serve(listener: &TcpListener) {
    let mut sockets: Vec<Socket> = (0..MEMBERS).map(|_| welcome(listener)).collect();
    let mut late = None;
    while let Some(message) = next(&mut sockets[0]) {
        let request = message["request_id"].as_u64().expect("a request");
        let mut event = json!({"type": "message", "data": {"id": 100 + request, "content": message["content"]}});
        let mut answer = event.clone();
        if request == 9 {
            answer = json!({"type": "error", "data": {"message": "slowly", "error_code": "RATE_LIMITED"}});
        }
        answer["request_id"] = request.into();
        send(&mut sockets[0], &answer);
        let mut events = match request {
            5 | 9 => vec![],
            3 => vec![event.clone(), event],
            7 => {
                late = Some(event);
                vec![]
            }
            11 => {
                event["data"]["content"] = "hello".into();
                vec![event]
            }
            _ => vec![event],
        };
        if request == 8 {
            events.extend(late.take());
        }
        for socket in &mut sockets[1..] {
            events.iter().for_each(|event| send(socket, event));
        }
    }
}

fn fake_server() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    (url, std::thread::spawn(move || serve(&listener)))
}

#[test]
fn whatever_a_server_does_wrong_is_found() {
    let (url, server) = fake_server();
    let room = uuid::Uuid::nil().to_string();
    let server_url = url.parse().expect("a URL");
    let door = Door { server: server_url, encoding: Encoding::Json, token: "t".to_owned(), room: room.clone() };
    let members: Vec<Member> = (0..MEMBERS).map(|_| Member::join(&door).expect("lets them in")).collect();
    let plan = Plan {
        room,
        writers: 1,
        message_bytes: 50,
        from: StdInstant::now(),
        per_second: 200.0,
        messages: 20,
        first_counted: 0,
        linger: Duration::from_millis(500),
        interval: Duration::from_millis(2),
    };
    let swept = Sweeper::new(plan, members).run(&|| true);
    let cpu = CpuUsed { seconds: 0.000_34, user_share: 0.5 };
    let mut outcome = ChatOutcome::new(MEMBERS, swept, Duration::from_secs(1)).that_cost(Some(cpu));
    server.join().expect("no panic");
    assert_eq!((outcome.sent, outcome.acknowledged, outcome.unanswered), (20, 19, 0));
    assert_eq!(outcome.refused, BTreeMap::from([("RATE_LIMITED".to_owned(), 1)]));
    assert_eq!((outcome.expected, outcome.delivered, outcome.lost), (38, 34, 4));
    assert_eq!((outcome.doubled, outcome.out_of_order, outcome.corrupt), (2, 2, 2));
    assert_eq!((outcome.failures(), outcome.flaws(), outcome.sessions_ended), (1, 10, 0));
    assert_eq!((outcome.latency.count, outcome.acknowledgement.count), (34, 19));
    assert!(outcome.cpu_us_per_delivery.is_some_and(|cost| (cost - 10.0).abs() < 1e-6));
    assert_eq!(outcome.bottleneck(Duration::from_secs(60)), None);
    outcome.lateness.p99_ms = 9.0;
    assert!(outcome.bottleneck(Duration::from_millis(5)).expect("late").contains("9.0 ms"));
    outcome.too_slow = 1;
    assert!(outcome.bottleneck(Duration::from_secs(60)).is_some());
}

#[test]
fn what_cannot_be_written_says_why() {
    let chat = Chat { members: 10, writers: 2, per_second: 20.0, message_bytes: 100 };
    assert_eq!(chat.check(Duration::from_secs(60)), Ok(()));
    assert_eq!((chat.due_in(Duration::from_millis(500)), interval(10)), (10, Duration::from_millis(3)));
    for (wrong, hint) in [
        (Chat { members: 1, ..chat.clone() }, "members would do"),
        (Chat { writers: 0, ..chat.clone() }, "0 of 10 write"),
        (Chat { writers: 11, ..chat.clone() }, "11 of 10 write"),
        (Chat { per_second: 0.0, ..chat.clone() }, "more than 0"),
        (Chat { message_bytes: 7, ..chat.clone() }, "8 to 4000"),
        (Chat { per_second: 1e9, ..chat.clone() }, "shorter phases"),
    ] {
        let error = wrong.check(Duration::from_secs(60)).expect_err(hint);
        assert!(error.contains(hint), "{error}");
    }
}
