//! People who write: a client of the gateway's chat family that shows every message as JSON.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use antiphon::store::Store;
use antiphon_core::ids::UserId;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, protocol::CloseFrame, protocol::frame::coding::CloseCode},
};

/// Far above what anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who writes and reads.
pub struct Chatter {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Who.
    pub user: Value,
    /// The token of a guest.
    pub token: String,
    session: (Value, Value),
    /// Messages that were not what was waited for, in order.
    pub passed_over: VecDeque<Value>,
    /// The last place of each channel, by its id.
    pub positions: HashMap<String, Value>,
    next_request: i64,
}

impl Chatter {
    /// A new guest at the server at `url` (`http://…`).
    pub async fn guest(url: &str, name: &str) -> Self {
        let mut chatter = Self::connect(url, "").await;
        let answer = chatter.ask(json!({"type": "Authenticate", "username": name})).await;
        chatter.user = answer["user"].clone();
        chatter.token = answer["access_token"].as_str().expect("a guest's token").to_owned();
        chatter
    }

    /// Somebody with a token.
    pub async fn with_token(url: &str, token: &str) -> Self {
        let mut chatter = Self::connect(url, &format!("?token={token}")).await;
        let answer = chatter.received().await.expect("a session");
        chatter.user = answer["user"].clone();
        chatter.token = token.to_owned();
        chatter
    }

    async fn connect(url: &str, query: &str) -> Self {
        Self::try_connect(url, query).await.expect("connects")
    }

    async fn try_connect(url: &str, query: &str) -> Option<Self> {
        let (socket, _) = connect_async(format!("{}/ws{query}", url.replace("http:", "ws:"))).await.ok()?;
        let mut chatter = Self {
            socket,
            user: Value::Null,
            token: String::new(),
            session: (Value::Null, Value::Null),
            passed_over: VecDeque::new(),
            positions: HashMap::new(),
            next_request: 1,
        };
        let hello = chatter.received().await?;
        chatter.session = (hello["session_id"].clone(), hello["resume_token"].clone());
        Some(chatter)
    }

    /// Takes the session up again at `url`, after the connection was lost; what the server says of it. What was missed is
    /// among what is passed over, in its place.
    pub async fn resume(&mut self, url: &str) -> Value {
        self.try_resume(url).await.expect("the server answers")
    }

    /// Likewise; `None` when nobody answers there.
    pub async fn try_resume(&mut self, url: &str) -> Option<Value> {
        let positions = self.positions.clone();
        let mut new = Self::try_connect(url, "").await?;
        let (session, token) = self.session.clone();
        let mut resume =
            json!({"type": "Resume", "session_id": session, "resume_token": token, "positions": positions});
        let resumed = new.try_ask(&mut resume).await?;
        if resumed["type"] == "Resumed" {
            self.session = (resumed["session_id"].clone(), resumed["resume_token"].clone());
            self.socket = new.socket;
            for room in resumed["rooms"].as_array().into_iter().flatten() {
                for event in room["events"].as_array().into_iter().flatten() {
                    self.passed_over.push_back(event.clone());
                }
                let channel = room["channel_id"].as_str().expect("an id").to_owned();
                self.positions.insert(channel, room["position"].clone());
            }
            self.passed_over.extend(new.passed_over);
        }
        Some(resumed)
    }

    pub fn id(&self) -> &str {
        self.user["id"].as_str().expect("an id")
    }

    /// The next message; `None` at the end.
    pub async fn received(&mut self) -> Option<Value> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("something comes in time");
            match frame {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).expect("JSON");
                    self.note(&message);
                    return Some(message);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    fn note(&mut self, message: &Value) {
        let fields = if message["data"].is_object() { &message["data"] } else { message };
        if let (Some(channel), true) = (fields["channel_id"].as_str(), fields["position"].is_object()) {
            self.positions.insert(channel.to_owned(), fields["position"].clone());
        }
    }

    pub async fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.expect("the connection is open");
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the connection is open");
    }

    /// The answer to a message.
    pub async fn ask(&mut self, mut message: Value) -> Value {
        self.try_ask(&mut message).await.expect("the connection lives")
    }

    /// Likewise; `None` when the connection ends first.
    pub async fn try_ask(&mut self, message: &mut Value) -> Option<Value> {
        let id = self.next_request;
        self.next_request += 1;
        message["request_id"] = id.into();
        if self.socket.send(Message::text(message.to_string())).await.is_err() {
            return None;
        }
        loop {
            let answer = self.received().await?;
            if answer["request_id"] == id {
                return Some(answer);
            }
            self.passed_over.push_back(answer);
        }
    }

    /// The next message of that type; others are kept aside.
    pub async fn next(&mut self, kind: &str) -> Value {
        if let Some(at) = self.passed_over.iter().position(|message| message["type"] == kind) {
            return self.passed_over.remove(at).expect("it is there");
        }
        loop {
            let message = self.received().await.expect("the connection lives");
            if message["type"] == kind {
                return message;
            }
            self.passed_over.push_back(message);
        }
    }

    /// The code of the error that answers a message of the chat family.
    pub async fn refused(&mut self, message: Value) -> String {
        let answer = self.ask(message).await;
        assert_eq!(answer["type"], "error", "{answer}");
        assert!(answer["data"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        answer["data"]["error_code"].as_str().expect("a code").to_owned()
    }

    pub async fn join(&mut self, room: &str) -> Value {
        let answer = self.ask(json!({"type": "join", "room": room})).await;
        assert_eq!((&answer["type"], &answer["data"]["status"]), (&json!("join_ack"), &json!("ok")), "{answer}");
        answer["data"].clone()
    }

    /// Writes, and waits until it is stored: the message as it was told.
    pub async fn say(&mut self, room: &str, content: &str) -> Value {
        let answer = self.ask(json!({"type": "message", "room": room, "content": content})).await;
        assert_eq!((&answer["type"], &answer["data"]["content"]), (&json!("message"), &json!(content)), "{answer}");
        answer["data"].clone()
    }

    /// Writes to somebody, and waits until it is stored.
    pub async fn dm(&mut self, to: &str, content: &str) -> Value {
        let answer = self.ask(json!({"type": "dm", "to": to, "content": content})).await;
        assert_eq!(answer["type"], "dm", "{answer}");
        answer["data"].clone()
    }

    /// Nothing of the chat family comes before the answer to this: whatever was to come for what was done before has come.
    pub async fn heard_meanwhile(&mut self) -> Vec<Value> {
        let answer = self.ask(json!({"type": "Heartbeat"})).await;
        assert_eq!(answer["type"], "HeartbeatAck");
        self.passed_over.drain(..).collect()
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
        while let Ok(Some(Ok(_))) = tokio::time::timeout(PATIENCE, self.socket.next()).await {}
    }

    /// Breaks the connection off, as a lost network does.
    pub async fn lose(&mut self) {
        let frame = CloseFrame { code: CloseCode::Library(4_999), reason: "".into() };
        let _ = self.socket.close(Some(frame)).await;
        while let Ok(Some(Ok(_))) = tokio::time::timeout(PATIENCE, self.socket.next()).await {}
    }
}

/// Calls the HTTP API: status and body.
pub async fn call(method: reqwest::Method, url: &str, token: &str, body: Value) -> (u16, Value) {
    let request = super::nodes::http().request(method, url).bearer_auth(token).json(&body);
    let answer = request.send().await.expect("answered");
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

/// Makes an account; its token.
pub async fn register(url: &str, name: &str) -> String {
    let body = json!({"username": name, "password": "a long enough password"});
    let (status, answer) = call(reqwest::Method::POST, &format!("{url}/api/auth/register"), "", body).await;
    assert_eq!(status, 201, "{answer}");
    answer["access_token"].as_str().expect("a token").to_owned()
}

/// Makes a channel; its id.
pub async fn channel(url: &str, token: &str, name: &str, further: Value) -> String {
    let mut body = json!({"name": name});
    for (key, value) in further.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    let (status, answer) = call(reqwest::Method::POST, &format!("{url}/api/channels"), token, body).await;
    assert_eq!(status, 201, "{answer}");
    let id = [&answer["data"]["id"], &answer["channel"]["id"], &answer["id"]].into_iter().find_map(|id| id.as_str());
    id.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Waits until the database has somebody seen later than when they came: their node has said that it lives. When that was.
pub async fn seen_after_coming(store: &Store, chatter: &Chatter) -> OffsetDateTime {
    let user: UserId = chatter.id().parse().expect("an id");
    let later = async {
        let mut came = None;
        loop {
            let seen = store.last_seen(user).await.expect("the database answers");
            match (came, seen) {
                (Some(came), Some(seen)) if seen > came => return seen,
                (None, seen) => came = seen,
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, later).await.expect("a node says that it lives")
}

/// Whether a `last_seen` of `presence` is not before `from` nor behind `to`, to the second that it is told to.
pub fn is_seen_between(presence: &Value, from: OffsetDateTime, to: OffsetDateTime) -> bool {
    let seen = presence["last_seen"].as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    seen.is_some_and(|seen| (from.unix_timestamp()..=to.unix_timestamp()).contains(&seen.unix_timestamp()))
}
