//! Members on real sockets, of a server that is a few lines here: what it does wrong is found.

use std::{
    net::{TcpListener, TcpStream},
    thread::JoinHandle,
    time::Instant as StdInstant,
};

use antiphon_core::{
    gateway::Encoding,
    ids::{ChannelId, SessionId, UserId},
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept};
use uuid::Uuid;

use super::{message::content, *};
use crate::ServerUrl;

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

const ROOM: ChannelId = ChannelId(Uuid::nil());

/// Whoever it is.
const NOBODY: UserId = UserId(Uuid::nil());

/// The session of whoever came in as that one.
fn session(index: usize) -> SessionId {
    SessionId(Uuid::from_u128(1 + index as u128))
}

fn user() -> Value {
    json!({"id": NOBODY, "username": "a", "display_name": "a", "role": "user", "is_active": true,
        "is_guest": true, "created_at": "2026-11-20T12:00:00Z", "updated_at": "2026-11-20T12:00:00Z"})
}

/// Takes a connection, and greets whoever that is.
fn greet(listener: &TcpListener, session: SessionId) -> Socket {
    let (stream, _) = listener.accept().expect("accepts");
    let mut socket = accept(stream).expect("a WebSocket");
    let hello = json!({"type": "Hello", "session_id": session, "resume_token": "first", "heartbeat_ms": 10_000,
        "node": "n", "server_time_us": 0});
    send(&mut socket, &hello);
    socket
}

/// Lets somebody in, as that one.
fn welcome(listener: &TcpListener, index: usize) -> Socket {
    let mut socket = greet(listener, session(index));
    send(&mut socket, &json!({"type": "Authenticated", "user": user()}));
    let join = next(&mut socket).expect("a join");
    assert_eq!((&join["type"], &join["room"]), (&"join".into(), &json!(ROOM)));
    let data = json!({"room": ROOM, "channel_id": ROOM, "status": "ok", "position": {"epoch": "e", "offset": 0}});
    send(&mut socket, &json!({"type": "join_ack", "request_id": join["request_id"], "data": data}));
    socket
}

/// Tells the others of the sixth message nobody, of the fourth twice, of the eighth after the ninth; refuses the tenth, and
/// garbles the twelfth.
fn serve(listener: &TcpListener) {
    let mut sockets: Vec<Socket> = (0..MEMBERS).map(|index| welcome(listener, index)).collect();
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

/// What a server does in its thread, and where it is reached.
fn fake_server(serve: impl FnOnce(TcpListener) + Send + 'static) -> (ServerUrl, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    (url.parse().expect("a URL"), std::thread::spawn(move || serve(listener)))
}

fn door(server: ServerUrl, others: Vec<ServerUrl>) -> Door {
    Door { server, others, encoding: Encoding::Json, token: "t".to_owned(), room: ROOM }
}

/// Twenty messages of 50 bytes by one writer, in a tenth of a second.
fn plan(linger: Duration) -> Plan {
    Plan {
        writers: 1,
        message_bytes: 50,
        from: StdInstant::now(),
        per_second: 200.0,
        messages: 20,
        first_counted: 0,
        linger,
        interval: Duration::from_millis(2),
    }
}

#[test]
fn whatever_a_server_does_wrong_is_found() {
    let (url, server) = fake_server(|listener| serve(&listener));
    let door = door(url, Vec::new());
    let members: Vec<Member> =
        (0..MEMBERS).map(|index| Member::join(door.clone(), index).expect("lets them in")).collect();
    let swept = Sweeper::new(plan(Duration::from_millis(500)), members).run(&|| true);
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

/// The event of the message with that number, and with its number as its place.
fn event(number: u64) -> Value {
    json!({"type": "message", "data": {"id": 100 + number, "content": content(number as u32, 50), "fromUser": NOBODY, "username": "a",
        "timestamp": "2026-11-20T12:00:00Z", "room": "r", "channel_id": ROOM,
        "position": {"epoch": "e", "offset": number + 1}}})
}

fn answer(number: u64) -> Value {
    let mut answer = event(number);
    answer["request_id"] = number.into();
    answer
}

/// Lets a writer and a reader in, tells both of the first message, stores the second, and is gone before it says so.
fn serve_and_die(listener: TcpListener) {
    let mut sockets: Vec<Socket> = (0..2).map(|index| welcome(&listener, index)).collect();
    assert_eq!(next(&mut sockets[0]).expect("a message")["request_id"], 0);
    send(&mut sockets[0], &answer(0));
    send(&mut sockets[1], &event(0));
    assert_eq!(next(&mut sockets[0]).expect("a message")["request_id"], 1);
}

/// Answers a question for what was written; with how many messages.
fn answer_history(socket: &mut Socket) -> usize {
    let ask = next(socket).expect("a question");
    assert_eq!(ask["type"], "room_history");
    let after = ask["after"].as_u64().expect("an id");
    let newer = (0..2).map(event).filter(|event| event["data"]["id"].as_u64() > Some(after));
    let page: Vec<Value> = newer.map(|mut event| event["data"].take()).collect();
    send(socket, &json!({"type": "room_history", "request_id": ask["request_id"], "data": page}));
    page.len()
}

/// Resumes the writer with what they missed of the two stored messages, and the reader without: those have to ask.
fn resume(listener: &TcpListener) -> (bool, Socket) {
    let mut socket = greet(listener, SessionId(Uuid::nil()));
    let resume = next(&mut socket).expect("a Resume");
    assert_eq!((&resume["type"], &resume["resume_token"]), (&"Resume".into(), &"first".into()));
    let is_writer = resume["session_id"] == json!(session(0));
    let seen = resume["positions"][ROOM.to_string()]["offset"].as_u64().expect("a position");
    let mut room = json!({"channel_id": ROOM, "position": {"epoch": "e", "offset": 2}, "recovered": is_writer});
    if is_writer {
        room["events"] = (seen..2).map(event).collect();
    }
    let resumed = json!({"type": "Resumed", "session_id": resume["session_id"], "resume_token": "second",
        "user": user(), "channels": [], "rooms": [room]});
    send(&mut socket, &resumed);
    if !is_writer {
        while answer_history(&mut socket) > 0 {}
    }
    (is_writer, socket)
}

/// Goes on with the sessions of another, and tells of whatever is written from then on.
fn serve_the_resumed(listener: &TcpListener) {
    let (first, second) = (resume(listener), resume(listener));
    let (mut writer, mut reader) = if first.0 { (first.1, second.1) } else { (second.1, first.1) };
    while let Some(message) = next(&mut writer) {
        let number = message["request_id"].as_u64().expect("a request");
        assert_eq!(message["nonce"], format!("{number:08x}"));
        send(&mut writer, &answer(number));
        send(&mut reader, &event(number));
    }
}

#[test]
fn who_loses_their_node_goes_on_elsewhere_and_nothing_is_missed_or_doubled() {
    let (first, dying) = fake_server(serve_and_die);
    let (second, going_on) = fake_server(|listener| serve_the_resumed(&listener));
    let members: Vec<Member> = (0..2)
        .map(|index| Member::join(door(first.clone(), vec![second.clone()]), index).expect("lets them in"))
        .collect();
    let swept = Sweeper::new(plan(Duration::from_secs(20)), members).run(&|| true);
    dying.join().expect("no panic");
    going_on.join().expect("no panic");
    let outcome = ChatOutcome::new(2, swept, Duration::from_secs(1));
    assert_eq!((outcome.sent, outcome.acknowledged, outcome.failures()), (20, 20, 0), "{outcome:?}");
    assert_eq!((outcome.expected, outcome.delivered, outcome.flaws()), (20, 20, 0), "{outcome:?}");
    assert_eq!((outcome.returned, outcome.from_history, outcome.sessions_ended), (2, 1, 0), "{outcome:?}");
    assert!(outcome.caught_up >= 2 && (1..=19).contains(&outcome.written_again), "{outcome:?}");
    assert!(outcome.away.max_ms >= 50.0, "the first pause alone is as long: {outcome:?}");
}

#[test]
fn a_session_that_no_node_resumes_has_ended() {
    let (url, dying) = fake_server(serve_and_die);
    let (other, refusing) = fake_server(|listener| {
        for _ in 0..2 {
            let mut socket = greet(&listener, SessionId(Uuid::nil()));
            let resume = next(&mut socket).expect("a Resume");
            assert_eq!(resume["type"], "Resume");
            let gone = json!({"type": "Error", "error": "gone", "error_code": "AUTHENTICATION_FAILED", "timestamp": 0});
            send(&mut socket, &gone);
        }
    });
    let members: Vec<Member> = (0..2)
        .map(|index| Member::join(door(url.clone(), vec![other.clone()]), index).expect("lets them in"))
        .collect();
    let swept = Sweeper::new(plan(Duration::from_secs(20)), members).run(&|| true);
    dying.join().expect("no panic");
    refusing.join().expect("no panic");
    let outcome = ChatOutcome::new(2, swept, Duration::from_secs(1));
    assert_eq!((outcome.returned, outcome.sessions_ended, outcome.sent), (0, 2, 20), "{outcome:?}");
    assert!(outcome.failures() >= 18 && outcome.first_end.is_some(), "{outcome:?}");
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
