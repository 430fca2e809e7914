//! A small HTTP client whose answers can be asked what a test wants to know.

use std::{sync::Once, time::Duration};

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

/// A client of one server, as one account or as nobody.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    /// The account, as it was answered when it was made.
    pub(crate) user: Value,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// A password that is good enough.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

impl Client {
    pub(crate) fn new(base: String) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Another test of this process may have been faster, which is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        });
        Self { http: reqwest::Client::new(), base, token: None, user: Value::Null }
    }

    /// The same server with another token, or none.
    pub(crate) fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Registers an account and acts as it.
    pub(crate) async fn register(&self, username: &str) -> Self {
        let answer = self.post("/api/auth/register", json!({"username": username, "password": PASSWORD})).await;
        self.signed_up(&answer)
    }

    /// Makes an account without a password and acts as it.
    pub(crate) async fn guest(&self, username: &str) -> Self {
        self.signed_up(&self.post("/api/users", json!({"username": username})).await)
    }

    fn signed_up(&self, answer: &Answer) -> Self {
        let body = answer.expect(201);
        let token = body["access_token"].as_str().expect("a token").to_owned();
        Self { token: Some(token), user: body["user"].clone(), ..self.clone() }
    }

    /// `http://address:port`.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The account's access token.
    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().expect("a token")
    }

    /// The account's id.
    pub(crate) fn id(&self) -> &str {
        self.user["id"].as_str().expect("an account")
    }

    /// Makes a channel and gives its id.
    pub(crate) async fn channel(&self, name: &str, is_private: bool) -> String {
        let answer = self.post("/api/channels", json!({"name": name, "is_private": is_private})).await;
        answer.expect(201)["data"]["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// A request to be completed, with the account's token.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.expect("the answer is complete") }
    }
}

impl Answer {
    /// The body of an answer that must have `status`.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let body = self.json();
        assert_eq!(body["success"], status < 400, "{body}");
        body
    }

    /// Must be an error of this status and code, in the one shape. Gives its sentence.
    #[track_caller]
    pub(crate) fn expect_error(&self, status: u16, code: &str) -> String {
        let body = self.expect(status);
        assert_eq!(body["error_code"], code, "{body}");
        assert!(body["timestamp"].as_u64().expect("Unix seconds") > 1_700_000_000, "{body}");
        assert_eq!(body.as_object().expect("a map").len(), 4, "{body}");
        let sentence = body["error"].as_str().expect("a sentence");
        assert!(!sentence.is_empty());
        sentence.to_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The longest that anything awaited may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer's data is as wanted.
pub(crate) async fn eventually(client: &Client, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    eventually_json(client, path, |answer| is_wanted(&answer["data"])).await["data"].clone()
}

/// Asks until the answer is as wanted.
pub(crate) async fn eventually_json(client: &Client, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let asked = tokio::time::timeout(PATIENCE, async {
        loop {
            let answer = client.get(path).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            last = answer.json();
            if is_wanted(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let answered = asked.await.is_ok();
    assert!(answered, "{path} never answered what was wanted, but {last}");
    last
}

/// The keys of a JSON map, sorted.
#[track_caller]
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let map = value.as_object().unwrap_or_else(|| panic!("a map, not {value}"));
    let mut keys: Vec<&str> = map.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
