//! A channel that is recorded, by its owner's requests.

use std::time::Duration;

use antiphon_core::{gateway::ServerMessage, ids::ChannelId};
use antiphon_loadtest::{
    ServerUrl,
    client::ClientEvent,
    rest::{NewChannel, Rest},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    nodes::http,
    people::{PATIENCE, Person},
};

/// Somebody's requests.
#[derive(Clone)]
pub(crate) struct Account {
    server: ServerUrl,
    token: String,
    pub(crate) id: String,
}

/// Whoever registers first is an administrator: somebody whom nobody here means.
pub(crate) async fn administrator(server: ServerUrl) -> Account {
    Account::register(server, "administrator").await
}

impl Account {
    pub(crate) async fn register(server: ServerUrl, name: &str) -> Self {
        let rest = Rest::new(server.clone()).expect("a client");
        let account = rest.register(name, "a long enough password").await.expect("registered");
        Self { server, token: account.access_token, id: account.user.id.to_string() }
    }

    pub(crate) fn at(&self, server: ServerUrl) -> Self {
        Self { server, ..self.clone() }
    }

    pub(crate) async fn make_channel(&self, name: &str) -> ChannelId {
        let rest = Rest::new(self.server.clone()).expect("a client");
        let channel = NewChannel { name: name.to_owned(), max_users: Some(50), max_speakers: None };
        rest.create_channel(&self.token, &channel).await.expect("created").id
    }

    /// A path may have a query.
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.to_string().trim_end_matches('/'))
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = http().request(method, self.url(path)).bearer_auth(&self.token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.expect("answered");
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub(crate) async fn start(&self, channel: ChannelId) -> Value {
        let path = format!("/api/channels/{channel}/recordings");
        let (status, answer) = self.ask(Method::POST, &path, Some(json!({"name": "a talk"}))).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["data"].clone()
    }

    pub(crate) async fn stop(&self, channel: ChannelId) -> Value {
        let path = format!("/api/channels/{channel}/recordings/current");
        let (status, answer) = self.ask(Method::DELETE, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["data"].clone()
    }

    pub(crate) async fn recording(&self, channel: ChannelId, id: &str) -> Value {
        let (status, answer) = self.ask(Method::GET, &format!("/api/channels/{channel}/recordings/{id}"), None).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["data"].clone()
    }

    pub(crate) async fn timeline(&self, channel: ChannelId, id: &str) -> Value {
        let path = format!("/api/channels/{channel}/recordings/{id}/timeline");
        let (status, answer) = self.ask(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["data"].clone()
    }

    /// Waits until a recording is as `is_so` would have it.
    pub(crate) async fn until(&self, channel: ChannelId, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let recording = self.recording(channel, id).await;
                if is_so(&recording) {
                    return recording;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE * 2, wait).await.expect("it becomes so")
    }

    pub(crate) async fn until_finished(&self, channel: ChannelId, id: &str) -> Value {
        self.until(channel, id, |recording| recording["state"] == "finished").await
    }

    /// A file of the library, by a signed link.
    pub(crate) async fn fetch(&self, path: &str) -> Vec<u8> {
        let (status, answer) =
            self.ask(Method::POST, "/api/streams/sign", Some(json!({"path": path, "ttl_s": 60}))).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let url = self.url(answer["data"]["url"].as_str().expect("a link"));
        let file = http().get(url).send().await.expect("answered");
        assert!(file.status().is_success(), "{file:?}");
        file.bytes().await.expect("a body").to_vec()
    }
}

/// The next message of a kind that somebody is told.
pub(crate) async fn told<T>(person: &mut Person, mut wanted: impl FnMut(ServerMessage) -> Option<T>) -> T {
    let wait = async {
        loop {
            if let ClientEvent::Message(message) = person.events.recv().await.expect("the session lives")
                && let Some(found) = wanted(*message)
            {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("they are told")
}
